"""Simulated servers: they take virtual time, fail as real ones were seen to, and outlive their clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    ConstraintViolated,
    OctopusError,
    SchemaMismatch,
)
from octopus_async.record import (
    APPLIED,
    WITHHELD,
    Key,
    Mode,
    Operation,
    Outcome,
    Record,
    Stored,
    born_after,
    decide,
    decide_unit,
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
        self._on_the_way = 0

    @property
    def awaits_writes(self) -> bool:
        """Whether writes that were sent may still land."""
        return self._on_the_way > 0 or any(request.writes for request in self._lying)

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
        self._send(request, self._latency() + switches.slow)
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
                self._send(request, self._random.uniform(0.0, 0.3))
            else:
                self._answer(request, self._error("lost the connection", sent=True))

    def break_connections(self) -> None:
        """It died: what lay there is lost."""
        lying, self._lying = self._lying, []
        for request in lying:
            self._answer(request, self._error("lost the connection", sent=True))

    def _send(self, request: _Request, delay: float) -> None:
        self._on_the_way += request.writes
        self._loop.outside(self._arrive, request, delay=delay)

    def _arrive(self, request: _Request) -> None:
        self._on_the_way -= request.writes
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

    async def apply_unit(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        """Apply all operations in one transaction, or none."""
        return await self.call(lambda: self._commit_unit(operations, mode), writes=True)

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

    def _commit_unit(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        self._check_schema()
        self._check_writable(needs_room=any(operation.fields is not None for operation in operations))
        verdicts = decide_unit(operations, [self._stored(it.key) for it in operations], mode)
        if None in verdicts and any(self._forbids(operation) for operation in operations):
            return [self._refusal(it) if self._forbids(it) else WITHHELD for it in operations]
        return [
            self._apply_one(operation, Mode.MIRROR) if verdict is None else verdict
            for operation, verdict in zip(operations, verdicts, strict=True)
        ]

    def _stored(self, key: Key) -> Stored | None:
        row = self.rows.get(key)
        return None if row is None else Stored(row.version, row.born, row.fields is not None)

    def _forbids(self, operation: Operation) -> bool:
        return self._constrained and str((operation.fields or {}).get("value", "")).startswith(FORBIDDEN)

    def _refusal(self, operation: Operation) -> Outcome:
        return rejected(ConstraintViolated(f"{operation.key} holds a forbidden value"))

    def _apply_one(self, operation: Operation, mode: Mode) -> Outcome:
        stored = self._stored(operation.key)
        outcome = decide(operation, stored, mode)
        if outcome is not None:
            return outcome
        if self._forbids(operation):
            return self._refusal(operation)
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
