"""A simulated cache that several processes share: it forgets, and comes back empty or with old contents."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from octopus_async.cachevalue import EMPTY, Cell, cell_of, record_of, settle
from octopus_async.record import Key, Kind, Miss, Operation, Outcome, Record, Status, failed
from octopus_async.testing.simulation.census import Census
from octopus_async.testing.simulation.loop import VirtualLoop
from octopus_async.testing.simulation.server import Server


class Entry(NamedTuple):
    """What a cache holds for a key; its identity is what a lease and a compare-and-swap look at."""

    cell: Cell
    expires: float


class CacheServer(Server):
    """A cache that several processes share, with memcached's steps: add, or gets and then cas.

    Parameters:
        ttl: seconds after which it forgets.
    """

    LEASE_LIFE = 1.0

    def __init__(self, name: str, loop: VirtualLoop, random: Random, census: Census, *, ttl: float) -> None:
        super().__init__(name, loop, random, census)
        self.ttl = ttl
        self.entries: dict[Key, Entry] = {}
        self._image: dict[Key, Entry] = {}

    # -- what happens to it ----------------------------------------------------------------------

    def evict(self, share: float) -> None:
        """Forget some keys."""
        for key in list(self.entries):
            if self._random.random() < share:
                self.census["eviction"] += not self.entries[key].cell.marker
                del self.entries[key]

    def restart_empty(self) -> None:
        """Forget everything."""
        self.census["cache restarted empty"] += any(not entry.cell.marker for entry in self.entries.values())
        self.entries.clear()
        self.break_connections()

    def take_image(self) -> None:
        """Remember what it holds, for `restart_old`."""
        self._image = dict(self.entries)

    def restart_old(self) -> None:
        """Come back with what the last image held."""
        older = any(self.entries.get(key) is not entry for key, entry in self._image.items())
        self.census["cache restarted with old contents"] += older
        self.entries = dict(self._image)
        self.break_connections()

    def serves(self, key: Key) -> Record | None:
        """What a reader would be given now: a record, a tombstone, or None for a miss."""
        entry = self.entries.get(key)
        if entry is None or entry.expires <= self._loop.time() or entry.cell.marker:
            return None
        return record_of(key, entry.cell)

    # -- what clients ask ------------------------------------------------------------------------

    async def read(self, keys: Sequence[Key]) -> list[Record | Miss]:
        """Look up keys; a miss leaves a lease."""
        return await self.call(lambda: [self._look_up(key) for key in keys])

    async def apply(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Apply operations, each on its own; some may be answered, others not."""
        seen = await self.call(lambda: self._first_step(operations), writes=True)
        results = [outcome for outcome, _ in seen]
        again = [index for index, outcome in enumerate(results) if outcome is None]
        while again:
            tokens = [seen[index][1] for index in again]
            chosen = [operations[index] for index in again]
            seconds = await self.call(
                lambda chosen=chosen, tokens=tokens: self._swap(chosen, tokens),  # type: ignore[misc]
                writes=True,
            )
            for index, (outcome, entry) in zip(again, seconds, strict=True):
                results[index], seen[index] = outcome, (outcome, entry)
            again = [index for index in again if results[index] is None]
        return [self._lossy(outcome) for outcome in results if outcome is not None]

    async def fill(self, items: Sequence[tuple[Record, Miss]]) -> None:
        """Store records whose leases hold."""
        await self.call(lambda: self._fill_all(items), writes=True)

    async def write_nothing(self) -> None:
        """Write to the reserved key."""
        await self.call(self._check_writable)

    def _look_up(self, key: Key) -> Record | Miss:
        entry = self._entry(key)
        if entry is None:
            life = min(self.ttl, self.LEASE_LIFE)
            entry = self.entries[key] = Entry(EMPTY, self._loop.time() + life)
        return Miss(entry) if entry.cell.marker else record_of(key, entry.cell)

    def _first_step(self, operations: Sequence[Operation]) -> list[tuple[Outcome | None, Entry | None]]:
        """`add` for creates, `gets` for the rest; only an `add` does anything by itself."""
        self._check_writable()
        results: list[tuple[Outcome | None, Entry | None]] = []
        for operation in operations:
            entry = self._entry(operation.key)
            if entry is None and operation.kind is Kind.CREATE:
                results.append((self._put(operation, None), None))
            else:
                results.append((None, entry))
        return results

    def _swap(
        self, operations: Sequence[Operation], tokens: Sequence[Entry | None]
    ) -> list[tuple[Outcome | None, Entry | None]]:
        """`cas` where the token still holds; the others have to look again."""
        self._check_writable()
        results: list[tuple[Outcome | None, Entry | None]] = []
        for operation, token in zip(operations, tokens, strict=True):
            entry = self._entry(operation.key)
            results.append((self._put(operation, entry), None) if entry is token else (None, entry))
        return results

    def _put(self, operation: Operation, entry: Entry | None) -> Outcome:
        before = None if entry is None else entry.cell
        outcome, cell = settle(operation, before)
        if self.switches.full and operation.payload is not None:
            # As memcached does: no room for the new value, and the old one is gone.
            self.struck("full")
            self.entries.pop(operation.key, None)
            return failed(self._error("is full", sent=False))
        if cell is not None and cell is not before:
            self.entries[operation.key] = Entry(cell, self._loop.time() + self.ttl)
        return outcome

    def _fill_all(self, items: Sequence[tuple[Record, Miss]]) -> None:
        for record, miss in items:
            self._fill(record, miss)

    def _fill(self, record: Record, miss: Miss) -> None:
        entry = self._entry(record.key)
        if entry is None or entry is not miss.lease or record.version < entry.cell.version:
            return
        cell = cell_of(record)
        if cell is not None:
            self.entries[record.key] = Entry(cell, self._loop.time() + self.ttl)

    def _lossy(self, outcome: Outcome) -> Outcome:
        lost = outcome.status is not Status.UNAVAILABLE and self._random.random() < self.switches.partial
        if not lost:
            return outcome
        self.struck("half a batch")
        return failed(self._error("lost the connection", sent=True))

    def _entry(self, key: Key) -> Entry | None:
        entry = self.entries.get(key)
        if entry is not None and entry.expires <= self._loop.time():
            del self.entries[key]
            return None
        return entry

    def _check_writable(self) -> None:
        if self.switches.read_only:
            raise self._error("is read-only", sent=False)
