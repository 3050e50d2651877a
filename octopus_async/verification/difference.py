"""In what a replica or a cache can differ from its primary, and what likely brought it about. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import NamedTuple

from octopus_async.backend import DeadLetter
from octopus_async.record import NO_VERSION, Fields, Record, Value
from octopus_async.schema import Schema, Type


class Difference(Enum):
    """In what a replica or a cache differs from the primary."""

    MISSING = "missing"
    """A replica has nothing where the primary has a record, or a tombstone."""
    BEHIND = "behind"
    """Something older is there."""
    UNDELETED = "undeleted"
    """What the primary has deleted is alive there."""
    AHEAD = "ahead"
    """Something newer is there."""
    SURPLUS = "surplus"
    """A record is there of which the primary knows nothing."""
    CONTENTS = "contents"
    """The version is the same, the contents are not."""
    BORN = "born"
    """Only the version of the create is another."""

    @property
    def beyond_the_primary(self) -> bool:
        """Whether mending it forgets what the primary does not have."""
        return self in (Difference.AHEAD, Difference.SURPLUS)


class Pair(NamedTuple):
    """What the primary and another backend hold for a key."""

    primary: Record | None
    other: Record | None


def difference(pair: Pair, schema: Schema, *, cache: bool) -> Difference | None:
    """In what ``pair.other`` differs; None for equal. A cache may have nothing, and need not know births."""
    primary, other = pair
    if other is None:
        return None if cache or primary is None else Difference.MISSING
    if primary is None:
        return None if other.fields is None else Difference.SURPLUS
    if cache and primary.fields is None and other.fields is None:
        return None
    if primary.version != other.version:
        return _by_version(primary, other)
    if not _same_contents(primary.fields, other.fields, schema):
        return Difference.CONTENTS
    known = not cache or NO_VERSION not in (primary.born, other.born)
    return Difference.BORN if known and primary.fields is not None and primary.born != other.born else None


def _by_version(primary: Record, other: Record) -> Difference:
    if other.version > primary.version:
        return Difference.AHEAD
    undeleted = primary.fields is None and other.fields is not None
    return Difference.UNDELETED if undeleted else Difference.BEHIND


def _same_contents(first: Fields | None, second: Fields | None, schema: Schema) -> bool:
    if first == second:
        return True
    if first is None or second is None:
        return False
    return all(
        _same(first.get(column.field), second.get(column.field), column.type) for column in schema.columns
    )


def _same(first: Value, second: Value, type_: Type) -> bool:
    if first == second:
        return True
    if type_ is not Type.DECIMAL or first is None or second is None:
        return False
    try:
        return Decimal(str(first)) == Decimal(str(second))  # 1.5 and 1.50
    except InvalidOperation:
        return False


def likely_cause(
    found: Difference, pair: Pair, *, ttl: float | None, letters: Sequence[DeadLetter] = ()
) -> str:
    """What likely brought a difference about, and what becomes of it, in a sentence.

    Parameters:
        found: the difference.
        pair: who holds what.
        ttl: of a cache, the seconds after which it forgets; None for a replica.
        letters: the dead letters of the key.
    """
    if letters:
        letter = letters[-1]
        return (
            f"{letter.target} refused a write of it, which is dead letter {letter.sequence} "
            f"({letter.error}): retry or drop that"
        )
    if pair.primary is not None and pair.primary.fields is not None and not pair.primary.version:
        return (
            "the primary's row has no version: somebody wrote it outside the library, of which nobody hears"
        )
    if ttl is not None:
        return _OF_CACHES[found].format(f"it goes away by the cache's time to live of {ttl:g} s")
    return _OF_REPLICAS[found]


_OUTSIDE = "somebody wrote outside the library"
_LOST = "what the replica was owed was lost, with the journal or when a process died"
_FORGOTTEN = "the primary was restored from a backup or failed over, and has forgotten writes"

_OF_REPLICAS = {
    Difference.MISSING: f"{_LOST}; or the replica is new, and was not filled",
    Difference.BEHIND: f"{_LOST}; or the replica was restored from a backup",
    Difference.UNDELETED: f"{_LOST}: a delete",
    Difference.AHEAD: f"{_FORGOTTEN}; or {_OUTSIDE}, on either of them",
    Difference.SURPLUS: f"{_OUTSIDE}: it was put here, or deleted on the primary; or {_FORGOTTEN}",
    Difference.CONTENTS: f"{_OUTSIDE}, on either of them; or a column keeps less than it was given",
    Difference.BORN: f"it was deleted and created again, and {_LOST}",
}
_OF_CACHES = {
    Difference.MISSING: "",  # which is no difference, of a cache
    Difference.BEHIND: (
        "an invalidation still waits in the memory of a service's process, or was lost when one died; {}"
    ),
    Difference.UNDELETED: (
        "the invalidation by a delete still waits in the memory of a service's process, or was lost "
        "when one died; {}"
    ),
    Difference.AHEAD: f"a write that the primary rejected or lost was not taken back, or {_FORGOTTEN}; {{}}",
    Difference.SURPLUS: f"{_OUTSIDE}, and deleted it on the primary; or {_FORGOTTEN}; {{}}",
    Difference.CONTENTS: f"{_OUTSIDE}, of which the cache did not hear; {{}}",
    Difference.BORN: "it was deleted and created again, and the cache heard of a part of it; {}",
}
