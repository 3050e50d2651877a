"""A backend that fails to order: wraps any adapter, and misbehaves as real servers were seen to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from enum import Enum
from typing import TypeAlias, TypeVar, cast

from octopus_async.backend import (
    Adapter,
    Answer,
    CacheAdapter,
    Capabilities,
    PeekAdapter,
    ScanAdapter,
    UnitAdapter,
)
from octopus_async.errors import BackendFailed, BackendRefused, OperationNotSupported
from octopus_async.record import Key, Miss, Mode, Operation, Outcome, Record
from octopus_async.schema import Schema

T = TypeVar("T")


class Fault(Enum):
    """How a call goes wrong. ``delay`` is the wrapper's, in seconds."""

    REFUSE = "refuse"
    """The connection is refused; nothing is sent."""
    FAIL = "fail"
    """The backend answers with an error, and has done nothing."""
    SLOW = "slow"
    """The call is made after the delay, unless it was cancelled before."""
    HANG = "hang"
    """No answer until `FaultyAdapter.heal`; then the call is made."""
    LOSE = "lose"
    """The call is made, and its acknowledgement is lost with the connection."""
    LATE = "late"
    """The call is made after the delay, whether or not its caller still waits."""


Chooser: TypeAlias = "Fault | Callable[[], Fault | None] | None"
"""A fault for every call, none, or a function that is asked at each call."""


class FaultyAdapter:
    """An adapter with switches for its faults; without any it is what it wraps.

    Parameters:
        adapter: what it wraps.
        delay: seconds, for the faults that have one.

    Attributes:
        opens: the fault of `open`.
        reads: the fault of `read`, `peek`, `ping` and `scan`.
        writes: the fault of `apply`, `apply_unit`, `fill`, `probe` and `prepare`.
        calls: how often each method was called, by its name.
    """

    def __init__(self, adapter: Adapter, *, delay: float = 0.05) -> None:
        self.adapter = adapter
        self.delay = delay
        self.opens: Chooser = None
        self.reads: Chooser = None
        self.writes: Chooser = None
        self.calls: Counter[str] = Counter()
        self._healed = asyncio.Event()
        self._landing: set[asyncio.Task[object]] = set()

    @property
    def name(self) -> str:
        """The adapter's name."""
        return self.adapter.name

    @property
    def capabilities(self) -> Capabilities:
        """The adapter's capabilities."""
        return self.adapter.capabilities

    def break_down(self, fault: Fault) -> None:
        """Make everything fail in the same way from now on."""
        self.opens = self.reads = self.writes = fault

    def heal(self) -> None:
        """Take every fault away; what hangs goes on."""
        self.opens = self.reads = self.writes = None
        self._healed.set()
        self._healed = asyncio.Event()

    async def landed(self) -> None:
        """Wait until every late call has been made."""
        while self._landing:
            await asyncio.wait(self._landing)

    async def open(self) -> None:
        """Open the adapter."""
        await self._call("open", self.opens, self.adapter.open)

    async def close(self) -> None:
        """Close the adapter; late calls that have not been made will not be."""
        for task in self._landing:
            task.cancel()
        await self.landed()
        await self.adapter.close()

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        """Teach the adapter a model."""
        await self._call("prepare", self.writes, lambda: self.adapter.prepare(schema, create=create))

    async def ping(self) -> None:
        """Ping the adapter."""
        await self._call("ping", self.reads, self.adapter.ping)

    async def probe(self) -> None:
        """Probe the adapter."""
        await self._call("probe", self.writes, self.adapter.probe)

    async def read(self, keys: Sequence[Key]) -> Sequence[Answer]:
        """Look up keys."""
        return await self._call("read", self.reads, lambda: self.adapter.read(keys))

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply operations."""
        return await self._call("apply", self.writes, lambda: self.adapter.apply(operations, mode))

    async def apply_unit(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply operations together, if what it wraps can."""
        adapter = self.adapter
        if not isinstance(adapter, UnitAdapter):
            raise OperationNotSupported(f"{self.name} has no transactions")
        return await self._call("apply_unit", self.writes, lambda: adapter.apply_unit(operations, mode))

    async def fill(self, items: Sequence[tuple[Record, Miss]]) -> None:
        """Fill the cache that it wraps."""
        cache = cast("CacheAdapter", self.adapter)
        await self._call("fill", self.writes, lambda: cache.fill(items))

    async def peek(self, keys: Sequence[Key]) -> Sequence[Record | None]:
        """Look up keys without a trace."""
        if not isinstance(self.adapter, PeekAdapter):
            raise OperationNotSupported(f"{self.name} can't be looked into")
        adapter = self.adapter
        return await self._call("peek", self.reads, lambda: adapter.peek(keys))

    async def scan(
        self, model: str, *, after: str = "", batch: int = 500, beyond: Record | None = None
    ) -> AsyncIterator[Record]:
        """List records."""
        if not isinstance(self.adapter, ScanAdapter):
            raise OperationNotSupported(f"{self.name} can't list its records")
        await self._call("scan", self.reads, _nothing)
        async for record in self.adapter.scan(model, after=after, batch=batch, beyond=beyond):
            yield record

    async def _call(self, method: str, chooser: Chooser, call: Callable[[], Awaitable[T]]) -> T:
        self.calls[method] += 1
        fault = chooser() if callable(chooser) else chooser
        if fault is Fault.REFUSE:
            raise BackendRefused(f"{self.name} refused the connection", backend=self.name)
        if fault is Fault.FAIL:
            raise BackendFailed(f"{self.name} answered with an error", backend=self.name, sent=False)
        if fault is Fault.SLOW:
            await asyncio.sleep(self.delay)
        if fault is Fault.HANG:
            await self._healed.wait()
        if fault is Fault.LATE:
            return await asyncio.shield(self._land(call))
        result = await call()
        if fault is Fault.LOSE:
            raise self._lost()
        return result

    def _land(self, call: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        async def late() -> T:
            try:
                await asyncio.sleep(self.delay)
            except asyncio.CancelledError:
                raise self._lost() from None
            return await call()

        task = asyncio.get_running_loop().create_task(late())
        self._landing.add(task)
        task.add_done_callback(self._landing.discard)
        return task

    def _lost(self) -> BackendFailed:
        return BackendFailed(f"{self.name} lost the connection", backend=self.name, sent=True)


async def _nothing() -> None:
    pass
