"""What became of a call to a database server, in the errors of our tree.

Only what is listed is the record's fault. Everything else is unavailability: a server that is
read-only or full, a permission, a deadlock, whatever the driver makes up.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from octopus_async.adapters._sql.pool import ConnectFailed
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    ConstraintViolated,
    OctopusError,
    SchemaMismatch,
)

_LOOK_AT_SERVER = ": see that the server runs, and that host and port in its URL are right"
_LOOK_AT_LOGIN = ": see that user and password in its URL are right"


class Collision(BackendFailed):
    """Another transaction was in the way; a further try may pass."""


@dataclass(frozen=True)
class Codes:
    """What a kind of server means by its codes.

    Attributes:
        record: the record is at fault.
        schema: a table or column is.
        collisions: another transaction was in the way.
        undecided: killed, interrupted or shut down, perhaps after the commit.
        starting: it takes no connections yet, or no longer.
        login: it does not know the user, or the password.
    """

    record: set[int | str]
    schema: set[int | str]
    collisions: set[int | str]
    undecided: set[int | str]
    starting: set[int | str] = field(default_factory=set)
    login: set[int | str] = field(default_factory=set)


@dataclass(frozen=True)
class Faults:
    """How the errors of one driver are translated.

    Attributes:
        codes: what the server means.
        code_of: the code with which the server itself answered; None for what the driver made up.
        reason_of: what an error says, without a secret and without the record's values.
    """

    codes: Codes
    code_of: Callable[[BaseException], int | str | None]
    reason_of: Callable[[BaseException | None], str]

    def translate(self, error: Exception, backend: str, *, sent: bool) -> OctopusError:
        """The error of our tree for whatever the driver raised.

        Parameters:
            error: what was raised.
            backend: the backend's name.
            sent: whether a statement had been sent that may take effect.
        """
        if isinstance(error, ConnectFailed):
            return self._connecting(error.__cause__, backend)
        code, text = self.code_of(error), f"{backend}: {self.reason_of(error)}"
        if code is None:
            return BackendFailed(text, backend=backend, sent=sent)
        if code in self.codes.record:
            return ConstraintViolated(f"{backend} refused the record: {self.reason_of(error)}")
        if code in self.codes.schema:
            return SchemaMismatch(text, backend=backend)
        kind = Collision if code in self.codes.collisions else BackendFailed
        return kind(text, backend=backend, sent=sent and code in self.codes.undecided)

    def _connecting(self, error: BaseException | None, backend: str) -> OctopusError:
        if isinstance(error, TimeoutError):
            return BackendTimeout(f"{backend}: connecting took too long", backend=backend, sent=False)
        cause = next((part for part in _chain(error) if isinstance(part, OSError)), None)
        # All addresses of a name may have refused, each in its own words.
        if isinstance(cause, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(cause):
            return BackendRefused(f"{backend}: the connection was refused{_LOOK_AT_SERVER}", backend=backend)
        reason = self.reason_of(error) + (f" ({cause})" if cause else "")
        code = None if error is None else self.code_of(error)
        if code in self.codes.starting:
            return BackendRefused(f"{backend}: {reason}", backend=backend)
        if code in self.codes.login:
            text = f"{backend}: could not log in: {reason}{_LOOK_AT_LOGIN}"
            return BackendFailed(text, backend=backend, sent=False)
        return BackendFailed(f"{backend}: could not connect: {reason}", backend=backend, sent=False)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
