"""Frozen events: the one vocabulary for logs, metrics, recovery and the command line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from octopus_async.record import Key

_log = logging.getLogger("octopus_async")


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events. As text each is a sentence for a person."""

    level = logging.INFO


@dataclass(frozen=True, slots=True)
class BreakerChanged(Event):
    """A breaker moved. ``direction`` is ``reads`` or ``writes``; states are its enum's values."""

    level = logging.WARNING
    backend: str
    direction: str
    before: str
    after: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend} {self.direction}: {self.before} -> {self.after} ({self.reason})"


@dataclass(frozen=True, slots=True)
class WriteJournalled(Event):
    """A write is durable in the journal and still owed to ``targets``."""

    level = logging.DEBUG
    key: Key
    version: str
    targets: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key} {self.version} waits in the journal for {', '.join(self.targets)}"


@dataclass(frozen=True, slots=True)
class ReplayStarted(Event):
    """The journal is being replayed into a backend."""

    backend: str
    pending: int

    def __str__(self) -> str:
        return f"{self.backend}: replay of {self.pending:,} started"


@dataclass(frozen=True, slots=True)
class ReplayProgressed(Event):
    """A batch was replayed. ``applied`` counts operations since the replay started."""

    level = logging.DEBUG
    backend: str
    applied: int
    pending: int

    def __str__(self) -> str:
        return f"{self.backend}: {self.applied:,} replayed, {self.pending:,} to go"


@dataclass(frozen=True, slots=True)
class ReplayFinished(Event):
    """Nothing is owed to the backend any more."""

    backend: str
    applied: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.backend}: replay of {self.applied:,} done in {self.seconds:.2f} s"


@dataclass(frozen=True, slots=True)
class ReplayPaused(Event):
    """The replay waits for an operator: too many rejections in a row."""

    level = logging.ERROR
    backend: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend}: the replay is paused and waits for an operator: {self.reason}"


@dataclass(frozen=True, slots=True)
class DeadLettered(Event):
    """An acknowledged operation could not be applied, and was kept aside."""

    level = logging.ERROR
    backend: str
    key: Key
    version: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend} refused {self.key} {self.version}, now a dead letter: {self.reason}"


@dataclass(frozen=True, slots=True)
class NotShipped(Event):
    """A journalled write cannot be carried by the sink: the local journal alone holds it."""

    level = logging.WARNING
    backend: str
    key: Key
    version: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend} does not carry {self.key} {self.version}: {self.reason}"


@dataclass(frozen=True, slots=True)
class CatchUpStarted(Event):
    """A replica is compared with its primary: a process died, or lost track, between the two."""

    level = logging.WARNING
    backend: str
    model: str
    after: str

    def __str__(self) -> str:
        since = f"above version {self.after}" if self.after else "from the beginning"
        return f"{self.backend}: records of {self.model} {since} are compared with the primary's"


@dataclass(frozen=True, slots=True)
class CatchUpFinished(Event):
    """A replica has what its primary has. ``compared`` counts records."""

    backend: str
    model: str
    compared: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.backend}: {self.compared:,} records of {self.model} compared in {self.seconds:.2f} s"


@dataclass(frozen=True, slots=True)
class ClockAhead(Event):
    """A stored version is more than a minute ahead of this machine's clock."""

    level = logging.WARNING
    backend: str
    version: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.backend} holds version {self.version},"
            f" which is {self.seconds:.0f} s ahead of this machine's clock"
        )


@dataclass(frozen=True, slots=True)
class CacheBehind(Event):
    """A cache missed so many writes that it is not read for ``seconds``, its time to live."""

    level = logging.WARNING
    backend: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.backend} missed too many writes to list, and is not read for {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class SchemaDiffers(Event):
    """A model's table is missing or lacks columns."""

    level = logging.ERROR
    backend: str
    model: str
    problem: str

    def __str__(self) -> str:
        return f"{self.backend} cannot hold {self.model}: {self.problem}"


@dataclass(frozen=True, slots=True)
class JournalDamaged(Event):
    """Bytes of the journal could not be read, and were kept in quarantine."""

    level = logging.ERROR
    path: str
    offset: int
    length: int
    reason: str

    def __str__(self) -> str:
        return f"{self.length:,} bytes at {self.offset:,} of {self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class JournalAdopted(Event):
    """The journal of a process that died was taken over."""

    level = logging.WARNING
    path: str
    entries: int

    def __str__(self) -> str:
        return f"took over {self.entries:,} operations from {self.path}"


@dataclass(frozen=True, slots=True)
class JournalFailed(Event):
    """The journal could not make something durable; its writers were told."""

    level = logging.ERROR
    path: str
    reason: str

    def __str__(self) -> str:
        return f"the journal {self.path} failed: {self.reason}"


class Listener(Protocol):
    """Whatever wants to hear of events. It is called at once, and must not block."""

    def __call__(self, event: Event, /) -> None:
        """Take one event."""


def log_event(event: Event) -> None:
    """A listener that writes each event to the standard logger ``octopus_async``."""
    _log.log(event.level, "%s", event)


class Events:
    """Hands events to listeners, in the order in which they subscribed."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners: tuple[Listener, ...] = listeners

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; the returned function removes it."""
        self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            self._listeners = tuple(other for other in self._listeners if other is not listener)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Hand ``event`` to every listener. One that raises is logged, and stops nobody."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a listener's own fault must not touch a write
                _log.exception("listener %r failed on %r", listener, event)
