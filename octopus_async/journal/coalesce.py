"""Makes one operation of several pending ones of a key, where that has the same effect. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from octopus_async.backend import Run
from octopus_async.journal.item import Blob, at_of, born_of, operation_of, sequence_of
from octopus_async.journal.traits import Traits
from octopus_async.record import Kind


class Pending(NamedTuple):
    """One pending operation of a key."""

    blob: Blob
    traits: Traits


def coalesce(key: bytes, pending: Iterable[Pending]) -> Run:
    """The run at the beginning of a key's pending operations.

    It has the first one's kind and condition and the last one's state and version. It ends before
    whatever would change the answer of the store: a create, an update of what was deleted, an
    update that knows another ``born``, a delete that would hit what a doubtful create has met.

    Parameters:
        key: the key, see `format.key_bytes`.
        pending: its operations in the order of their versions; at least one.
    """
    iterator = iter(pending)
    first = last = next(iterator)
    kind, born = first.traits.kind, born_of(*first)
    merged = [first]
    for following in iterator:
        if not _continues(first, kind, born, following):
            break
        if following.traits.kind is not Kind.UPDATE:
            kind, born = following.traits.kind, born_of(*following) or born
        last = following
        merged.append(following)
    return alone(key, first) if last is first else _run(key, kind, born, last, merged)


def alone(key: bytes, pending: Pending) -> Run:
    """The run of a key that has one pending operation."""
    blob, traits = pending
    return Run(operation_of(key, blob, traits), (sequence_of(blob),), traits.provisional, at_of(blob))


def _continues(first: Pending, kind: Kind, born: bytes, following: Pending) -> bool:
    """Whether ``following`` may join a run that has become a ``kind``."""
    if first.traits.unit or following.traits.unit:
        return False
    after = following.traits.kind
    if after is Kind.UPDATE:
        return kind in {Kind.CREATE, Kind.UPDATE} and born_of(*following) in {b"", born}
    if after is Kind.DELETE:
        doubtful = kind is Kind.CREATE and first.traits.provisional
        return kind in {Kind.CREATE, Kind.UPDATE, Kind.DELETE} and not doubtful
    return after is Kind.INVALIDATE and kind is Kind.INVALIDATE


def _run(key: bytes, kind: Kind, born: bytes, last: Pending, merged: list[Pending]) -> Run:
    first = merged[0]
    operation = operation_of(key, *last)._replace(
        kind=kind,
        born=born.decode(),
        if_version=operation_of(key, *first).if_version if first.traits.conditional else None,
    )
    return Run(
        operation,
        tuple([sequence_of(pending.blob) for pending in merged]),
        any(pending.traits.provisional for pending in merged),
        min(at_of(pending.blob) for pending in merged),
    )
