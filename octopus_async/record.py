"""The small frozen values that travel through the layers, and the rule that says who wins.

`decide` is the contract's table of operations over stored states. Every store applies it in one
atomic step of its own: in a transaction, under a lock, or guarded by a compare-and-swap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from octopus_async.errors import DuplicateRecord, OctopusError, RecordNotFound, RecordRejected, StaleRecord

Value: TypeAlias = "bool | int | float | str | Sequence[Any] | Mapping[str, Any] | None"
"""A stored value: what JSON can carry, integers of 64 bits, finite floats."""

Fields: TypeAlias = Mapping[str, Value]
"""Field name to stored value, without the id."""

NO_VERSION = ""
"""Sorts before every version: a record that no operation of this library has written yet."""


class Key(NamedTuple):
    """What identifies a record everywhere: the model's name and the id as text."""

    model: str
    id: str

    def __str__(self) -> str:
        return f"{self.model} {self.id!r}"


class Kind(Enum):
    """What an operation does to its record. The last two are for caches alone."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    INVALIDATE = "invalidate"
    """Forget whatever is as old as this version, and take nothing older again."""
    RETRACT = "retract"
    """Forget exactly this version: its write was rejected by the primary."""


class Mode(Enum):
    """By which column of the contract's table an operation is judged."""

    LIVE = "live"
    """By the primary, with the caller waiting for the answer."""
    REPLAY = "replay"
    """By the primary, out of the journal."""
    MIRROR = "mirror"
    """By a replica or a cache, which look at the version alone."""
    MEND = "mend"
    """By a replica that is repaired: as MIRROR, or else over exactly the version ``if_version``."""


class Operation(NamedTuple):
    """A create, update or delete of one record, carrying the record's full state.

    Attributes:
        kind: what it does.
        key: the record.
        version: the operation's version; compares as bytes in the order of time.
        born: the version of the record's create; `NO_VERSION` where the caller did not know it.
        fields: the full state; None for deletes and the kinds for caches.
        payload: ``fields`` as JSON, encoded once; None where ``fields`` is None.
        if_version: the version that must be stored, for an optimistic update or delete.
    """

    kind: Kind
    key: Key
    version: str
    born: str
    fields: Fields | None = None
    payload: bytes | None = None
    if_version: str | None = None


class Record(NamedTuple):
    """What a backend holds of a record. A tombstone has ``fields`` None."""

    key: Key
    version: str
    born: str
    fields: Fields | None


class Miss(NamedTuple):
    """A cache does not have the key; ``lease`` lets exactly this reader fill it."""

    lease: object


class Stored(NamedTuple):
    """As much of a stored record as `decide` needs."""

    version: str
    born: str
    alive: bool


class Status(Enum):
    """What became of an operation at one backend."""

    APPLIED = "applied"
    SUPERSEDED = "superseded"
    """Something newer is stored already: nothing to do, and nothing lost."""
    REJECTED = "rejected"
    """The record is at fault, and the error says why."""
    UNAVAILABLE = "unavailable"
    """It was certainly not applied."""
    UNKNOWN = "unknown"
    """It was sent, and no answer came in time: it may land later."""


class Outcome(NamedTuple):
    """What became of an operation at one backend.

    Attributes:
        status: which of the five it was.
        error: why, for the last three.
        stored: the version found stored, for SUPERSEDED and where a rejection knows it.
    """

    status: Status
    error: OctopusError | None = None
    stored: str | None = None


APPLIED = Outcome(Status.APPLIED)

NOT_TAKEN = (Status.UNAVAILABLE, Status.UNKNOWN)
"""The backend is still owed the operation."""


def failed(error: OctopusError) -> Outcome:
    """The outcome of an operation whose backend failed with ``error`` (an `Unavailable`)."""
    return Outcome(Status.UNKNOWN if getattr(error, "sent", True) else Status.UNAVAILABLE, error)


def rejected(error: OctopusError, stored: str | None = None) -> Outcome:
    """The outcome of an operation whose record is at fault."""
    return Outcome(Status.REJECTED, error, stored)


WITHHELD = Outcome(Status.REJECTED)
"""Of an operation that was not applied because another of its unit of work was not."""


def decide_unit(
    operations: Sequence[Operation], stored: Sequence[Stored | None], mode: Mode
) -> list[Outcome | None]:
    """Say what a store must do with operations that belong together: apply all of them, or none.

    As `decide`, one answer each; if one of them is not to be applied live, or is refused at replay, no
    other answer is None. At replay, when nobody can ask the caller again, ``if_version`` is a condition
    still, and what is there already was applied with all others: only then is something newer no conflict.

    Parameters:
        operations: a unit of work, with no key twice.
        stored: what the store holds for each.
        mode: LIVE or REPLAY.
    """
    found = list(zip(operations, stored, strict=True))
    late = _decide_late
    if all(it is not None and it.version >= operation.version for operation, it in found):
        late = _decide_by_version
    verdicts = [
        late(operation, it)
        if mode is Mode.REPLAY and operation.if_version is not None
        else decide(operation, it, mode)
        for operation, it in found
    ]
    stops = (Status.REJECTED, Status.SUPERSEDED) if mode is Mode.LIVE else (Status.REJECTED,)
    if None in verdicts and any(it is not None and it.status in stops for it in verdicts):
        return [WITHHELD if verdict is None or verdict is APPLIED else verdict for verdict in verdicts]
    return verdicts


def _decide_late(operation: Operation, stored: Stored | None) -> Outcome | None:
    """A condition at replay, of a unit that was not applied: whatever else is there came in between."""
    if stored is None or not stored.alive:
        return rejected(not_found(operation.key), stored and stored.version)
    if stored.version == operation.version:
        return APPLIED
    return None if stored.version == operation.if_version else _rejected_as_stale(operation, stored)


def _rejected_as_stale(operation: Operation, stored: Stored) -> Outcome:
    return rejected(stale(operation.key, stored.version), stored.version)


def refusal(errors: Mapping[Key, OctopusError]) -> OctopusError:
    """The error for a unit of work of which these records were refused, each for its reason.

    What was changed or deleted since it was read is stale, all of it together.
    """
    kinds = {StaleRecord if isinstance(it, RecordNotFound) else type(it) for it in errors.values()}
    names = ", ".join(str(key) for key in errors)
    refused: RecordRejected
    if kinds == {StaleRecord}:
        changed = f"{names} {'was' if len(errors) == 1 else 'were'} changed meanwhile"
        versions = [getattr(it, "stored_version", None) for it in errors.values()]
        refused = StaleRecord(
            f"{changed}; nothing was written: begin a new session, read again, and apply the change",
            stored_version=versions[0] if len(versions) == 1 else None,
        )
    else:
        reasons = "; ".join(str(it) for it in errors.values())
        kind = kinds.pop() if len(kinds) == 1 else RecordRejected
        refused = kind(f"{reasons}. Nothing was written")  # type: ignore[assignment]  # they are rejections
    refused.causes = {key: error for key, error in errors.items()}  # noqa: C416 - of keys that are any pair
    return refused


def decide(operation: Operation, stored: Stored | None, mode: Mode) -> Outcome | None:
    """Say what a store that holds ``stored`` must do with ``operation``.

    Parameters:
        operation: the operation at hand; not one of the kinds that are for caches alone.
        stored: what the store holds for its key, tombstones included; None for nothing at all.
        mode: which column of the table applies.

    Returns:
        None if it is to be applied; otherwise the outcome to report, with nothing changed.
    """
    if mode in (Mode.MIRROR, Mode.MEND):
        return None if _is_mended(operation, stored, mode) else _decide_by_version(operation, stored)
    if operation.if_version is not None and mode is Mode.LIVE:
        return _decide_conditional(operation, stored, operation.if_version)
    if operation.kind is Kind.CREATE:
        return _decide_create(operation, stored)
    if operation.kind is Kind.UPDATE:
        return _decide_update(operation, stored, mode)
    return _decide_by_version(operation, stored)


def _is_mended(operation: Operation, stored: Stored | None, mode: Mode) -> bool:
    """Whether a repair meets what it was meant for: it may set a version back, or write one anew."""
    return mode is Mode.MEND and stored is not None and stored.version == operation.if_version


def _decide_by_version(operation: Operation, stored: Stored | None) -> Outcome | None:
    if stored is None or stored.version < operation.version:
        return None
    if stored.version == operation.version:
        return APPLIED
    return Outcome(Status.SUPERSEDED, stored=stored.version)


def _decide_conditional(operation: Operation, stored: Stored | None, wanted: str) -> Outcome | None:
    if stored is not None and stored.version == operation.version:
        return APPLIED
    if stored is None or not stored.alive:
        return rejected(not_found(operation.key), stored and stored.version)
    if stored.version != wanted:
        return _rejected_as_stale(operation, stored)
    return _decide_by_version(operation, stored)


def _decide_create(operation: Operation, stored: Stored | None) -> Outcome | None:
    if stored is not None and stored.alive and stored.born != operation.born:
        return rejected(duplicate(operation.key), stored.version)
    if stored is not None and not stored.alive and operation.born < stored.version < operation.version:
        # It stands for a create and later updates, and between these somebody deleted the record.
        return rejected(not_found(operation.key), stored.version)
    return _decide_by_version(operation, stored)


def _decide_update(operation: Operation, stored: Stored | None, mode: Mode) -> Outcome | None:
    if mode is Mode.LIVE:
        if stored is None or not stored.alive:
            return rejected(not_found(operation.key), stored and stored.version)
        return _decide_by_version(operation, stored)
    if stored is not None and not stored.alive and stored.version < operation.version:
        return rejected(not_found(operation.key), stored.version)
    known = operation.born != NO_VERSION
    if known and stored is not None and stored.alive and stored.born != operation.born:
        return rejected(duplicate(operation.key), stored.version)
    return _decide_by_version(operation, stored)


def born_after(operation: Operation, stored: Stored | None) -> str:
    """The ``born`` to store when ``operation`` is applied over ``stored``: the later of the two.

    An update by a caller that never read the record, or read one that was deleted and created
    again meanwhile, does not know it: it must neither erase it nor set it back.
    """
    if stored is None or not stored.alive:
        return operation.born
    return max(operation.born, stored.born)


def duplicate(key: Key) -> DuplicateRecord:
    """The error for a create that met another record of its key."""
    return DuplicateRecord(f"{key} exists already")


def not_found(key: Key) -> RecordNotFound:
    """The error for a key that has no record."""
    return RecordNotFound(f"{key} does not exist")


def stale(key: Key, stored_version: str) -> StaleRecord:
    """The error for an optimistic operation that came too late."""
    return StaleRecord(
        f"{key} was changed meanwhile: read it again, apply the change, and retry",
        stored_version=stored_version,
    )
