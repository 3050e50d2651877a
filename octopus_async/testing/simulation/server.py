"""Simulated servers: they take virtual time, fail as real ones were seen to, and outlive their clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, TypeVar

from octopus_async.cachevalue import EMPTY, Cell, cell_of, record_of, settle
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    ConstraintViolated,
    OctopusError,
    SchemaMismatch,
)
from octopus_async.record import (
    APPLIED,
    Key,
    Kind,
    Miss,
    Mode,
    Operation,
    Outcome,
    Record,
    Status,
    Stored,
    born_after,
    decide,
    failed,
    rejected,
)
from octopus_async.testing.simulation.census import Census
from octopus_async.testing.simulation.loop import Process, VirtualLoop, current_process

T = TypeVar("T")
FORBIDDEN = "bad"
"""The primary rejects values that begin so: a constraint that the library does not know of."""


@dataclass(slots=True)
class Switches:
    """How a server misbehaves at the moment.

    Attributes:
        down: connections are refused, and those that are open break.
        hung: it is stopped: requests lie until it goes on.
        slow: seconds that every request takes longer.
        errors: the share of requests that are answered with an error, and not carried out.
        lost: the share of requests that are carried out, and whose answer is lost.
        partial: the share of a batch's operations whose answers are lost, of a cache.
        read_only: writes are refused with an error.
        full: so are those that need room.
        wrong_schema: the model's table lacks columns.
    """

    down: bool = False
    hung: bool = False
    slow: float = 0.0
    errors: float = 0.0
    lost: float = 0.0
    partial: float = 0.0
    read_only: bool = False
    full: bool = False
    wrong_schema: bool = False


class _Request:
    """On its way to the server, in its hands, or on its way back."""

    __slots__ = ("action", "reply", "sender", "writes")

    def __init__(self, action: Callable[[], object], reply: asyncio.Future[Any], *, writes: bool) -> None:
        self.action = action
        self.reply = reply
        self.writes = writes
        self.sender: Process | None = current_process()


class Server:
    """What all simulated servers have in common: requests, latency, faults.

    What was sent lands, whether or not its sender still waits or lives. A request that lies in a
    hung server lands when it goes on, or is lost.

    Parameters:
        name: of the backend.
        loop: the virtual loop.
        random: decides latencies and which requests a partial fault hits.
        census: counts the harm done.
    """

    def __init__(self, name: str, loop: VirtualLoop, random: Random, census: Census) -> None:
        self.name = name
        self.switches = Switches()
        self.census = census
        self._loop = loop
        self._random = random
        self._lying: list[_Request] = []

    async def call(self, action: Callable[[], T], *, writes: bool = False) -> T:
        """Have the server carry out ``action``. Raises `Unavailable`."""
        switches = self.switches
        if switches.down:
            self.struck("down")
            await asyncio.sleep(self._latency())
            raise BackendRefused(f"{self.name} refused the connection", backend=self.name)
        reply: asyncio.Future[T] = self._loop.create_future()
        request = _Request(action, reply, writes=writes)
        if switches.slow:
            self.struck("slow")
        self._loop.outside(self._arrive, request, delay=self._latency() + switches.slow)
        return await reply

    def hang(self) -> None:
        """Stop it."""
        self.switches.hung = True

    def go_on(self) -> None:
        """Let it go on: what lay there lands now, in some order, unless it was lost."""
        self.switches.hung = False
        lying, self._lying = self._lying, []
        for request in lying:
            if self._random.random() < 0.8:
                self._loop.outside(self._arrive, request, delay=self._random.uniform(0.0, 0.3))
            else:
                self._answer(request, self._error("lost the connection", sent=True))

    def break_connections(self) -> None:
        """It died: what lay there is lost."""
        lying, self._lying = self._lying, []
        for request in lying:
            self._answer(request, self._error("lost the connection", sent=True))

    def _arrive(self, request: _Request) -> None:
        switches = self.switches
        if switches.down:
            self.struck("down")
            self._answer(request, self._error("lost the connection", sent=True))
        elif switches.hung:
            self.struck("hung")
            self._lying.append(request)
        elif self._random.random() < switches.errors:
            self.struck("error")
            self._answer(request, self._error("answered with an error", sent=self._random.random() < 0.5))
        else:
            self._carry_out(request)

    def struck(self, what: str) -> None:
        """Count a fault that did harm."""
        self.census[f"{self.name} {what}"] += 1

    def _carry_out(self, request: _Request) -> None:
        if request.writes and request.sender is not None and request.sender.dead:
            self.census["landing after death"] += 1
        elif request.writes and request.reply.done():
            self.census["late landing"] += 1
        try:
            result = request.action()
        except OctopusError as error:
            result = error
        if self._random.random() < self.switches.lost:
            self.struck("lost acknowledgement")
            result = self._error("lost the connection", sent=True)
        self._answer(request, result)

    def _answer(self, request: _Request, result: object) -> None:
        self._loop.outside(_give, request.reply, result, delay=self._latency())

    def _latency(self) -> float:
        # Mostly quick, now and then late, so that requests overtake each other.
        random = self._random.random()
        return 0.0002 + 0.004 * random + (random - 0.96 if random > 0.96 else 0.0)

    def _error(self, what: str, *, sent: bool) -> BackendFailed:
        return BackendFailed(f"{self.name} {what}", backend=self.name, sent=sent)


def _give(reply: asyncio.Future[Any], result: object) -> None:
    if reply.done():
        return
    if isinstance(result, OctopusError):
        reply.set_exception(result)
    else:
        reply.set_result(result)


class DatabaseServer(Server):
    """A durable store whose batches are transactions, and whose rule is `record.decide`.

    Attributes:
        rows: every record and tombstone.
        constrained: whether it rejects values that begin with `FORBIDDEN`.
        shows_tombstones: whether a read gives tombstones or nothing for them.
    """

    def __init__(  # noqa: PLR0913 - what a server is made of
        self,
        name: str,
        loop: VirtualLoop,
        random: Random,
        census: Census,
        *,
        constrained: bool,
        shows_tombstones: bool,
    ) -> None:
        super().__init__(name, loop, random, census)
        self.rows: dict[Key, Record] = {}
        self._constrained = constrained
        self._shows_tombstones = shows_tombstones

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        """Look up keys."""
        return await self.call(lambda: [self._find(key) for key in keys])

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        """Apply operations in one transaction."""
        return await self.call(lambda: self._commit(operations, mode), writes=True)

    async def write_nothing(self) -> None:
        """Write to the reserved row."""
        await self.call(lambda: self._check_writable(needs_room=True))

    async def check_schema(self) -> None:
        """Look at the model's table."""
        await self.call(self._check_schema)

    def _find(self, key: Key) -> Record | None:
        self._check_schema()
        row = self.rows.get(key)
        return None if row is not None and row.fields is None and not self._shows_tombstones else row

    def _commit(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        if mode is Mode.REPLAY and self.switches.wrong_schema:
            self.census["wrong schema at replay"] += 1
        self._check_schema()
        self._check_writable(needs_room=any(operation.fields is not None for operation in operations))
        return [self._apply_one(operation, mode) for operation in operations]

    def _apply_one(self, operation: Operation, mode: Mode) -> Outcome:
        row = self.rows.get(operation.key)
        stored = None if row is None else Stored(row.version, row.born, row.fields is not None)
        outcome = decide(operation, stored, mode)
        if outcome is not None:
            return outcome
        if self._constrained and str((operation.fields or {}).get("value", "")).startswith(FORBIDDEN):
            return rejected(ConstraintViolated(f"{operation.key} holds a forbidden value"))
        born = born_after(operation, stored)
        self.rows[operation.key] = Record(operation.key, operation.version, born, operation.fields)
        return APPLIED

    def _check_writable(self, *, needs_room: bool) -> None:
        if self.switches.read_only or (needs_room and self.switches.full):
            what = "read-only" if self.switches.read_only else "full"
            self.struck(what)
            raise self._error(f"is {what}", sent=False)

    def _check_schema(self) -> None:
        if self.switches.wrong_schema:
            self.struck("wrong schema")
            raise SchemaMismatch(f"{self.name}: the table lacks a column", backend=self.name)


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
