"""Where the journal's disk work is done: one thread of its own, one job after the other."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
Done: TypeAlias = "Callable[[T | None, BaseException | None], object]"
"""Is called in the event loop with the result, or with what was raised."""


class Runner(Protocol):
    """Does jobs one after the other, in the order in which they were given."""

    def start(self) -> None:
        """Make ready. Called in the running event loop."""
        ...

    def submit(self, job: Callable[[], T], done: Done[T]) -> None:
        """Do a job, and then call ``done``."""
        ...

    async def stop(self, seconds: float) -> bool:
        """Finish the jobs that were given; False if that takes longer."""
        ...


class ThreadRunner:
    """Does its jobs on one thread that it owns.

    Parameters:
        name: of the thread.
    """

    def __init__(self, name: str = "octopus-journal") -> None:
        self._name = name
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Done[Any]] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, args=(self._loop,), name=self._name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T], done: Done[T]) -> None:
        """Put a job at the end of the queue."""
        self._jobs.put((job, done))

    async def stop(self, seconds: float) -> bool:
        """Let the thread finish and join it; False, and the thread left alone, after ``seconds``."""
        if self._thread is None or self._loop is None:
            return True
        idle = asyncio.Event()
        self.submit(lambda: None, lambda _result, _error: idle.set())
        self._jobs.put(None)
        try:
            async with asyncio.timeout(seconds):
                await idle.wait()
        except TimeoutError:
            return False
        self._thread.join()
        self._thread = None
        return True

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (item := self._jobs.get()) is not None:
            _do(loop, *item)
            del item  # what a job holds must not live until the next one comes


def _do(loop: asyncio.AbstractEventLoop, job: Callable[[], Any], done: Done[Any]) -> None:
    result: Any = None
    error: BaseException | None = None
    try:
        result = job()
    except BaseException as raised:  # noqa: BLE001 - the event loop's side decides what it means
        error = raised
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
        loop.call_soon_threadsafe(done, result, error)


def run(runner: Runner, job: Callable[[], T]) -> asyncio.Future[T]:
    """Do a job; the future gives its result. Cancelling it stops waiting, not the job."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def done(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    runner.submit(job, done)
    return future
