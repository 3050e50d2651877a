"""Work that outlives the call that started it, and has one owner who ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
_log = logging.getLogger("octopus_async")


class Errand(Generic[T]):
    """Work that begins in its caller's own step, and goes on without it where it has to wait.

    A task would cost a round of the event loop before the first line and another behind the last,
    which is most of what a write costs. In return the work may wait for futures alone, and has no
    current task: `asyncio.timeout` does not work in it, `asyncio.wait` does.

    Parameters:
        work: what is to be done; not begun yet.
        ended: is called when it has ended.
    """

    __slots__ = ("_awaited", "_ended", "_error", "_value", "_waiters", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], ended: Callable[[Errand[T]], None]) -> None:
        self._work: Coroutine[Any, Any, T] | None = work
        self._ended = ended
        self._awaited: asyncio.Future[Any] | None = None
        self._value: T | None = None
        self._error: BaseException | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._step()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._work is None

    async def result(self) -> T:
        """What it gave or raised. Who is cancelled here stops waiting, and nothing else."""
        if self._work is not None:
            await self.join()
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def join(self) -> asyncio.Future[None]:
        """A future of its end, for one who waits."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def cancel(self) -> None:
        """End it where it waits."""
        if self._awaited is not None:
            self._awaited.cancel()

    def _step(self, _: object = None) -> None:
        assert self._work is not None  # noqa: S101 - nothing calls it any more once it has ended
        try:
            awaited = self._work.send(None)
        except StopIteration as end:
            self._value = end.value
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - given to whoever waits
            self._error = error
        else:
            # What a task does with a future that its coroutine gives it.
            awaited._asyncio_future_blocking = False  # noqa: SLF001 - the protocol between futures and tasks
            awaited.add_done_callback(self._step)
            self._awaited = awaited
            return
        self._work = self._awaited = None
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._ended(self)


class Tasks:
    """The tasks of one owner: work that has to be finished, and work that goes on for good."""

    def __init__(self) -> None:
        self._owned: set[asyncio.Task[Any]] = set()
        self._errands: set[Errand[Any]] = set()
        self._background: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How much work has to be finished."""
        return len(self._owned) + len(self._errands)

    def begin(self, work: Coroutine[Any, Any, T], ended: Callable[[], None]) -> Errand[T]:
        """Begin work that has to be finished, at once. ``ended`` is called when it is."""

        def forget(errand: Errand[T]) -> None:
            self._errands.discard(errand)
            ended()

        errand = Errand(work, forget)
        if not errand.done:
            self._errands.add(errand)
        return errand

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
        while len(self) and (left := until - loop.time()) > 0:
            await asyncio.wait([*self._owned, *(errand.join() for errand in self._errands)], timeout=left)
        await self._cancel_errands()
        await _cancel(self._owned)

    async def _cancel_errands(self) -> None:
        ended = [errand.join() for errand in self._errands]
        for errand in list(self._errands):
            errand.cancel()
        if ended:
            await asyncio.wait(ended)

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
