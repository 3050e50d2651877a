"""Every error this library raises, in one tree.

OctopusError
├── RecordRejected          the record itself is at fault; trying again changes nothing
│   ├── DuplicateRecord       a create met a record of the same id
│   ├── ConstraintViolated    a unique, foreign key, length or check constraint refused it
│   ├── StaleRecord           ``if_version`` was not the stored version
│   └── InvalidRecord         it cannot be stored everywhere it has to be; nothing was sent
├── RecordNotFound          (also a LookupError) there is no such record
├── Unavailable             nobody could be asked, or nobody answered in time
│   ├── ReadUnavailable       no backend that could know was able to say
│   ├── WriteUnavailable      neither the primary nor the journal took the write
│   ├── CircuitOpen           the breaker of a backend is open; nothing was sent
│   ├── BackendTimeout        no answer within the deadline
│   ├── BackendRefused        the connection was refused; nothing was sent
│   ├── BackendFailed         the backend answered with an error that is not the record's
│   └── SchemaMismatch        a model's table is missing, or lacks columns
├── JournalError
│   ├── JournalCorrupt        bytes of the journal are damaged, or of an unknown version
│   ├── JournalLocked         another process holds the journal
│   └── JournalFull           the cap on bytes or age is reached, or the disk is full
├── OperationNotSupported   a backend cannot do that, and says so
├── ConfigurationError      the way the library was set up cannot work
├── ManagerClosed           the manager is not open: not yet, no longer, or in a forked child
└── SessionEnded            the session's block was left already
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "BackendFailed",
    "BackendRefused",
    "BackendTimeout",
    "CircuitOpen",
    "ConfigurationError",
    "ConstraintViolated",
    "DuplicateRecord",
    "InvalidRecord",
    "JournalCorrupt",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "ManagerClosed",
    "OctopusError",
    "OperationNotSupported",
    "ReadUnavailable",
    "RecordNotFound",
    "RecordRejected",
    "SchemaMismatch",
    "SessionEnded",
    "StaleRecord",
    "Unavailable",
    "WriteUnavailable",
]


class OctopusError(Exception):
    """The root of everything this library raises."""


class RecordRejected(OctopusError):
    """The record itself is at fault: trying it again unchanged gives the same answer.

    Attributes:
        causes: of a session, what was wrong with each record, by its key (model, id); else empty.
    """

    causes: Mapping[tuple[str, str], OctopusError] = MappingProxyType({})


class DuplicateRecord(RecordRejected):
    """A create met a record that has the same id."""


class ConstraintViolated(RecordRejected):
    """A constraint of the database (unique, foreign key, length, check) refused the record."""


class StaleRecord(RecordRejected):
    """The stored version is not the one that ``if_version`` asked for.

    Attributes:
        stored_version: the version that is stored, where the backend said so.
    """

    def __init__(self, message: str, *, stored_version: str | None = None) -> None:
        super().__init__(message)
        self.stored_version = stored_version


class InvalidRecord(RecordRejected):
    """The record cannot be stored in every backend that has to keep it. Nothing was sent."""


class RecordNotFound(OctopusError, LookupError):
    """There is no record of that id."""


class Unavailable(OctopusError):
    """Nobody could be asked, or nobody answered in time.

    Attributes:
        backend: name of the backend that failed, where it was one.
        retry_after: seconds after which another try makes sense, where that is known.
        sent: whether the request may have reached the backend and may take effect later.
        alive: whether the backend answered, so that its breaker need not open.
    """

    sent = True
    alive = False

    def __init__(
        self,
        message: str,
        *,
        backend: str | None = None,
        retry_after: float | None = None,
        sent: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.backend = backend
        self.retry_after = retry_after
        if sent is not None:
            self.sent = sent


class ReadUnavailable(Unavailable):
    """No backend that could know the record was able to answer.

    Attributes:
        causes: what each backend that was asked said, by its name.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        causes: Mapping[str, OctopusError] | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.causes = dict(causes or {})


class WriteUnavailable(Unavailable):
    """Neither the primary nor the journal took the write. Nothing is claimed about it.

    Attributes:
        causes: what each backend, and the journal, said, by its name.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        causes: Mapping[str, OctopusError] | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.causes = dict(causes or {})


class CircuitOpen(Unavailable):
    """The circuit breaker of a backend is open. Nothing was sent."""

    sent = False


class BackendTimeout(Unavailable):
    """A backend did not answer within the deadline. What was sent may still take effect."""


class BackendRefused(Unavailable):
    """A backend refused the connection. Nothing was sent."""

    sent = False


class BackendFailed(Unavailable):
    """A backend failed, or answered with an error that is not the record's fault."""


class SchemaMismatch(Unavailable):
    """A model's table is missing or lacks columns. The backend is alive; nothing was stored."""

    sent = False
    alive = True


class JournalError(OctopusError):
    """Something is wrong with the journal."""


class JournalCorrupt(JournalError):
    """Bytes of the journal are damaged, or are of a format version that is not known here."""


class JournalLocked(JournalError):
    """Another process holds the journal, or this one lost its lock (after a fork)."""


class JournalFull(JournalError):
    """The cap on the journal's bytes or age is reached, or its disk is full."""


class OperationNotSupported(OctopusError):
    """A backend cannot do what was asked of it."""


class ConfigurationError(OctopusError):
    """The way the library was set up cannot work."""


class ManagerClosed(OctopusError):
    """The manager is not open: not yet, no longer, or the process is a forked child."""


class SessionEnded(OctopusError):
    """The session's block was left already: what it had to write was written, or given up."""
