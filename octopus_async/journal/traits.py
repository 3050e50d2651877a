"""What pending operations have in common, kept once for all that share it. Pure."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import NamedTuple

from octopus_async.record import Kind


class Traits(NamedTuple):
    """What many entries have in common.

    Attributes:
        kind: what the operations do.
        targets: who still has to apply them.
        provisional: whether the primary may still refuse them.
        unit: whether they are part of a unit, which is not coalesced.
        own: whether ``born`` is the version itself.
        born: whether another ``born`` is known.
        conditional: whether there is an ``if_version``.
        empty: whether there are no fields.
    """

    kind: Kind
    targets: tuple[str, ...]
    provisional: bool
    unit: bool
    own: bool
    born: bool
    conditional: bool
    empty: bool


_NOTHING = Traits(
    Kind.RETRACT, (), provisional=False, unit=False, own=False, born=False, conditional=False, empty=True
)

TRAITS: list[Traits] = [_NOTHING]
"""All combinations there have been, by index. Index 0 is an entry that nobody has to apply."""

_INDEX: dict[Traits | tuple[object, ...], int] = {}
_lock = Lock()


def index_of(traits: Traits | tuple[object, ...]) -> int:
    """The index of a combination; 0 where there are no targets."""
    return _INDEX.get(traits) or _intern(Traits._make(traits))


@cache
def index_without(index: int, target: str) -> int:
    """The index of the same combination with one target fewer."""
    traits = TRAITS[index]
    return index_of(traits._replace(targets=tuple(other for other in traits.targets if other != target)))


def _intern(traits: Traits) -> int:
    if not traits.targets:
        return 0
    with _lock:  # the journal's thread reads old entries while the event loop adds new ones
        if traits not in _INDEX:
            TRAITS.append(traits)
            _INDEX[traits] = len(TRAITS) - 1
        return _INDEX[traits]
