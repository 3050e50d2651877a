"""Who is writing which key in this process: one at a time, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Any

from octopus_async.errors import BackendTimeout
from octopus_async.record import Key


class KeyLocks:
    """A lock for each key that is being written, and a count of answers still outstanding.

    A key is *held* while a write decides what became of it, and *unsettled* as long as any
    backend may still answer. Neither is read from a cache.
    """

    def __init__(self) -> None:
        self._held: dict[Key, deque[asyncio.Future[None]] | None] = {}
        self._unsettled: dict[Key, int] = {}
        self._ending: dict[Key, set[asyncio.Future[None]]] = {}

    def busy(self, key: Key) -> bool:
        """Whether a write of ``key`` is held or unsettled."""
        return key in self._held or key in self._unsettled

    @property
    def unsettled(self) -> bool:
        """Whether any backend may still answer for a write of any key."""
        return bool(self._unsettled)

    def try_acquire(self, key: Key) -> bool:
        """Take the lock if nobody has it."""
        if key in self._held:
            return False
        self._held[key] = None
        return True

    def try_acquire_all(self, keys: Collection[Key]) -> bool:
        """Take all these locks if nobody has any of them."""
        if any(key in self._held for key in keys):
            return False
        self._held.update(dict.fromkeys(keys))
        return True

    async def acquire(self, key: Key, deadline: float | None = None) -> None:
        """Wait for the lock in line. Raises `BackendTimeout` at ``deadline`` (the loop's clock)."""
        if self.try_acquire(key):
            return
        line = self._held[key]
        if line is None:
            line = self._held[key] = deque()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(waiter)
        try:
            in_time = await until(waiter, deadline)
        except asyncio.CancelledError:
            self._give_up(key, waiter)
            raise
        if not in_time:
            self._give_up(key, waiter)
            msg = f"an earlier write of {key} was still under way at the deadline; nothing was sent"
            raise BackendTimeout(msg, sent=False)

    def release(self, key: Key) -> None:
        """Hand the lock to the next in line."""
        line = self._held[key]
        while line:
            waiter = line.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break
        else:
            del self._held[key]
        self._tell_ended(key)

    async def ended(self, key: Key, deadline: float) -> None:
        """Wait while ``key`` is busy, but no longer than until a write lets go of it.

        A hot key is handed from write to write, and never idle: who waits has to look in between.
        Raises TimeoutError at ``deadline`` (the loop's clock).
        """
        if not self.busy(key):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._ending.setdefault(key, set())
        waiters.add(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                await waiter
        finally:
            # A key of which no write ends must not gather who gave up.
            waiters.discard(waiter)
            if not waiters and self._ending.get(key) is waiters:
                del self._ending[key]

    def unsettle(self, key: Key) -> None:
        """An answer about ``key`` is outstanding."""
        self._unsettled[key] = self._unsettled.get(key, 0) + 1

    def settle(self, key: Key) -> None:
        """That answer came, or never will."""
        left = self._unsettled[key] - 1
        if left:
            self._unsettled[key] = left
        else:
            del self._unsettled[key]
            self._tell_ended(key)

    def _tell_ended(self, key: Key) -> None:
        for waiter in self._ending.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _give_up(self, key: Key, waiter: asyncio.Future[None]) -> None:
        # The lock may have been handed over in the very moment of giving up.
        if not waiter.cancel() and not waiter.cancelled():
            self.release(key)


async def until(future: asyncio.Future[Any], deadline: float | None) -> bool:
    """Wait for a future, but no longer than to ``deadline`` (the loop's clock); whether it is done.

    Works where there is no current task, which `asyncio.timeout` needs.
    """
    left = None if deadline is None else deadline - asyncio.get_running_loop().time()
    await asyncio.wait([future], timeout=left)
    return future.done()
