"""Which pending entries belong together, as units of work. Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple


class _Unit(NamedTuple):
    """The number of its first entry, and the key of each, in their order."""

    first: int
    keys: tuple[bytes, ...]


class Units:
    """The units of work of an overlay.

    A unit is *broken* when one of its entries was refused: the others must not be applied, also if
    the process died before it had refused them too.
    """

    def __init__(self) -> None:
        self._by_entry: dict[int, _Unit] = {}
        self._broken: set[int] = set()
        self._arriving: set[bytes] = set()

    def bind(self, first: int, keys: Sequence[bytes]) -> None:
        """The entries of these keys, numbered from ``first`` on, are a unit."""
        unit = _Unit(first, tuple(keys))
        for place in range(len(keys)):
            self._by_entry[first + place] = unit

    def of(self, entry: int) -> int:
        """The number of the unit of which an entry is a part; 0 for none."""
        unit = self._by_entry.get(entry)
        return 0 if unit is None else unit.first

    def members(self, entry: int) -> Iterator[tuple[int, bytes]]:
        """The numbers and keys of all entries of an entry's unit."""
        unit = self._by_entry.get(entry)
        return iter(()) if unit is None else enumerate(unit.keys, unit.first)

    def shatter(self, entry: int) -> None:
        """An entry was refused; so is the rest of its unit, if it is part of one."""
        unit = self._by_entry.get(entry)
        if unit is not None:
            self._broken.add(unit.first)

    def is_broken(self, entry: int) -> bool:
        """Whether an entry's unit is broken."""
        return self.of(entry) in self._broken

    def forget(self, entry: int) -> None:
        """Nobody owes the entry any more."""
        self._by_entry.pop(entry, None)

    def holds_back(self, key: bytes) -> bool:
        """Whether a unit that touches the key has not arrived as a whole yet."""
        return key in self._arriving

    @contextmanager
    def taken_over(self, other: Units) -> Generator[None]:
        """While their entries arrive one by one, nothing of the other's units is given out."""
        self._arriving.update(key for unit in other._by_entry.values() for key in unit.keys)
        try:
            yield
        finally:
            self._by_entry.update(other._by_entry)
            self._broken.update(other._broken)
            self._arriving.clear()
