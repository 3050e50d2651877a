"""Tasks that outlive the call that started them, and have one owner who ends them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

_log = logging.getLogger("octopus_async")


class Tasks:
    """The tasks of one owner: work that has to be finished, and work that goes on for good."""

    def __init__(self) -> None:
        self._owned: set[asyncio.Task[Any]] = set()
        self._background: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How much work has to be finished."""
        return len(self._owned)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start work that has to be finished. Whoever waits for it shields it from their own end."""
        task = asyncio.get_running_loop().create_task(work)
        self._owned.add(task)
        task.add_done_callback(self._disown)
        return task

    def keep_going(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start work that goes on until `stop`, whatever happens to it."""
        self._background.add(asyncio.get_running_loop().create_task(_forever(work)))

    async def finish(self, seconds: float) -> None:
        """Wait for the work that has to be finished, but no longer than that; then cancel it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._owned and (left := until - loop.time()) > 0:
            await asyncio.wait(self._owned, timeout=left)
        await _cancel(self._owned)

    async def stop(self) -> None:
        """End the work that goes on."""
        await _cancel(self._background)
        self._background.clear()

    def _disown(self, task: asyncio.Task[Any]) -> None:
        self._owned.discard(task)
        if not task.cancelled():
            task.exception()  # seen: who still waits for it is given it, and nobody else has to be


async def to_the_end(work: asyncio.Future[None]) -> None:
    """Wait for ``work`` even if this task is cancelled meanwhile; the cancellation comes after it."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    work.result()


async def _forever(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - an error that nobody thought of must not end it
            _log.exception("work in the background failed, and goes on in a second")
            await asyncio.sleep(1)


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
