"""Natural batching: a call leaves at once when a worker is free; what arrives meanwhile leaves together.

A lane has no timer that delays anything. It keeps the order of calls that share a key, bounds
what is queued and what is under way, and settles every future it was given, by its deadline.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")
_TICK = 0.01  # seconds: deadlines this close are met together, as each look goes through all calls


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Bounds of a lane: batches by count and bytes, workers, and how many calls and bytes may queue."""

    batch: int
    batch_bytes: int
    workers: int
    queue: int = 20_000
    queue_bytes: int = 64 * 1024 * 1024


class Call(Generic[T, R]):
    """One item on its way, and the future that waits for its result."""

    __slots__ = ("deadline", "future", "group", "item", "key", "sent", "size")

    def __init__(  # noqa: PLR0913 - a plain record of six values, on the hot path
        self, item: T, key: Hashable, group: object, size: int, deadline: float, future: asyncio.Future[R]
    ) -> None:
        self.item = item
        self.key = key
        self.group = group
        self.size = size
        self.deadline = deadline
        self.future = future
        self.sent = False


class Lane(Generic[T, R]):
    """Batches calls of one direction to one backend.

    At most one call of a key is queued or under way; the others wait in the key's chain. So no
    batch holds a key twice, and no two calls of a key overtake each other.

    Parameters:
        run: makes one physical call for a batch of items of one group; gives a result each and
            raises nothing but cancellation.
        late: what a call gets whose deadline passed, or that was given up at close; it is told
            whether the call had been sent.
        full: what a call gets that finds the queue full.
        limits: the bounds.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T], object], Awaitable[Sequence[R]]],
        late: Callable[[T, bool], R],
        full: Callable[[T], R],
        limits: LaneLimits,
    ) -> None:
        self._run = run
        self._late = late
        self._full = full
        self.limits = limits
        self._queue: deque[Call[T, R]] = deque()
        self._chains: dict[Hashable, deque[Call[T, R]] | None] = {}
        self._sent: set[Call[T, R]] = set()
        self._workers: set[asyncio.Task[None]] = set()
        self._starting = False
        self._bulks = 0
        self._bulk_waiters: deque[asyncio.Future[None]] = deque()
        self._unsent = 0
        self._unsent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def queued(self) -> int:
        """Calls that wait to be sent."""
        return self._unsent

    @property
    def under_way(self) -> int:
        """Physical calls under way."""
        return len(self._workers) - self._starting + self._bulks

    def add(self, item: T, key: Hashable, group: object, size: int, deadline: float) -> asyncio.Future[R]:
        """Queue one item.

        Parameters:
            item: what `run` is to be given.
            key: calls of one key keep their order.
            group: only items of the identical group share a batch.
            size: the item's bytes.
            deadline: a moment of the loop's clock, by which the future is settled.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        if self._closed:
            future.set_result(self._late(item, False))  # noqa: FBT003 - not sent
            return future
        if self._unsent >= self.limits.queue or self._unsent_bytes >= self.limits.queue_bytes:
            future.set_result(self._full(item))
            return future
        call = Call(item, key, group, size, deadline, future)
        self._unsent += 1
        self._unsent_bytes += size
        if key in self._chains:
            chain = self._chains[key]
            if chain is None:
                chain = self._chains[key] = deque()
            chain.append(call)
        else:
            self._chains[key] = None
            self._queue.append(call)
        if self._timer is None or deadline < self._timer.when():
            self._arm(loop, deadline)
        self._start_worker(loop)
        return future

    async def bulk(self, make_call: Callable[[], Awaitable[S]]) -> S:
        """Make a physical call that was batched elsewhere, counted among the lane's workers.

        It is ordered against nothing: its caller holds its keys.
        """
        await self._enter_bulk()
        try:
            return await make_call()
        finally:
            self._leave_bulk()

    def flush(self, result: Callable[[T], R]) -> None:
        """Settle everything that was not sent with ``result``: nobody is going to take it."""
        for call in self._waiting():
            self._settle(call, result(call.item))

    def open(self) -> None:
        """Take calls again after `close`; a new lane takes them from the start."""
        self._closed = False

    async def close(self, seconds: float) -> None:
        """Give calls under way ``seconds`` to end, then give them up; settle all futures.

        Bulk calls do not wait for a slot any more: whoever makes them has to know of the closing.
        """
        self._closed = True
        self.flush(lambda item: self._late(item, False))  # noqa: FBT003 - not sent
        while self._admit_bulk():
            pass
        if self._workers:
            await asyncio.wait(self._workers, timeout=seconds)
        for call in self._sent:
            self._settle(call, self._late(call.item, True))  # noqa: FBT003 - sent
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers, timeout=seconds)
        # A worker that was cancelled before its first step could not sign off.
        self._workers -= {worker for worker in self._workers if worker.done()}
        self._starting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_worker(self, loop: asyncio.AbstractEventLoop) -> None:
        # A worker that has not started yet takes what is queued meanwhile: no second one for that.
        if self._queue and not self._starting and len(self._workers) + self._bulks < self.limits.workers:
            self._starting = True
            self._workers.add(loop.create_task(self._work()))

    async def _work(self) -> None:
        self._starting = False
        loop = asyncio.get_running_loop()
        try:
            while batch := self._take(loop.time()):
                self._start_worker(loop)
                await self._send(batch)
                if self._bulk_waiters:
                    break
        finally:
            self._workers.discard(asyncio.current_task())
            if not self._admit_bulk() and not self._closed:
                self._start_worker(loop)

    async def _send(self, batch: list[Call[T, R]]) -> None:
        self._sent.update(batch)
        results: Sequence[R] | None = None
        try:
            results = await self._run([call.item for call in batch], batch[0].group)
        finally:
            self._sent.difference_update(batch)
            if results is None or len(results) != len(batch):
                results = [self._late(call.item, True) for call in batch]  # noqa: FBT003 - sent
            for call, result in zip(batch, results, strict=True):
                self._settle(call, result)
                self._next_in_chain(call.key)

    def _take(self, now: float) -> list[Call[T, R]]:
        """The next batch: of one group, within the bounds; what is settled or late is dropped."""
        batch: list[Call[T, R]] = []
        room = self.limits.batch_bytes
        queue = self._queue
        while queue and len(batch) < self.limits.batch:
            call = queue[0]
            if call.deadline <= now:
                self._settle(call, self._late(call.item, False))  # noqa: FBT003 - not sent
            done = call.future.done()
            if batch and not done and (call.group is not batch[0].group or call.size > room):
                break
            queue.popleft()
            self._unsent -= 1
            self._unsent_bytes -= call.size
            if done:
                self._next_in_chain(call.key)
                continue
            call.sent = True
            room -= call.size
            batch.append(call)
        return batch

    def _next_in_chain(self, key: Hashable) -> None:
        chain = self._chains[key]
        if chain:
            self._queue.append(chain.popleft())
        else:
            del self._chains[key]

    async def _enter_bulk(self) -> None:
        if self._closed or len(self._workers) + self._bulks < self.limits.workers:
            self._bulks += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._bulk_waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._leave_bulk()
            raise

    def _leave_bulk(self) -> None:
        # Where both wait, live and bulk calls take turns: a worker hands its slot to a bulk call.
        self._bulks -= 1
        if not self._closed:
            self._start_worker(asyncio.get_running_loop())
        if len(self._workers) + self._bulks < self.limits.workers:
            self._admit_bulk()

    def _admit_bulk(self) -> bool:
        """Give a slot to the first that waits for one; says whether there was any."""
        while self._bulk_waiters:
            waiter = self._bulk_waiters.popleft()
            if not waiter.done():
                self._bulks += 1
                waiter.set_result(None)
                return True
        return False

    def _waiting(self) -> list[Call[T, R]]:
        return [*self._queue, *(call for chain in self._chains.values() if chain for call in chain)]

    def _arm(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        """Settle what is past its deadline, and look again when the next one is due."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        earliest: float | None = None
        for call in [*self._waiting(), *self._sent]:
            if call.deadline <= now:
                self._settle(call, self._late(call.item, call.sent))
            elif not call.future.done() and (earliest is None or call.deadline < earliest):
                earliest = call.deadline
        if earliest is not None:
            self._arm(loop, max(earliest, now + _TICK))

    def _settle(self, call: Call[T, R], result: R) -> None:
        if not call.future.done():
            call.future.set_result(result)
