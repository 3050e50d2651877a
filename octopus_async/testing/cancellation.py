"""Cancels a call at one chosen await, so that a test can go through all of them in turn.

And says what a process holds, so that the test can see that nothing was left behind.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Self


class Moment(Enum):
    """When the cancellation reaches an await."""

    SUSPENDING = "as it suspends"
    """What it waits for has not happened, and will not have for this caller."""
    RESUMING = "as it resumes"
    """What it waits for has happened, and the caller never learns: a lost permit, a lost reply."""


class _Driven:
    """Awaits a call, and cancels the task that it runs in at the call's n-th suspension."""

    def __init__(self, call: Coroutine[Any, Any, object], step: int, moment: Moment) -> None:
        self._call = call
        self._step = step
        self._moment = moment
        self.taken = 0

    def __await__(self) -> Generator[Any, Any, object]:
        resume: Callable[[], Any] = partial(self._call.send, None)
        while True:
            try:
                future = resume()
            except StopIteration as stop:
                return stop.value
            self.taken += 1
            if self.taken == self._step:
                self._cancel(future)
            try:
                yield future
            except BaseException as error:  # noqa: BLE001 - whatever is thrown in is the call's to see
                resume = partial(self._call.throw, error)
            else:
                resume = partial(self._call.send, None)

    def _cancel(self, future: asyncio.Future[object] | None) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("it has to be awaited in a task")
        if future is None or self._moment is Moment.SUSPENDING:
            task.cancel()
        else:
            future.add_done_callback(lambda _: task.cancel())


async def cancel_at(call: Coroutine[Any, Any, object], step: int, moment: Moment) -> bool:
    """Run a call in a task of its own, and cancel it there.

    Parameters:
        call: a coroutine that has not begun.
        step: at which of its suspensions, from 1.
        moment: whether as it suspends there or as it resumes.

    Returns:
        Whether the call came that far: False once there are no more steps to cancel at.

    Raises:
        Exception: whatever the call raised in place of being cancelled.
    """
    driven = _Driven(call, step, moment)

    async def run() -> None:
        await driven

    task = asyncio.ensure_future(run())
    await asyncio.wait([task])
    error = None if task.cancelled() else task.exception()
    if error is not None:
        raise error
    return driven.taken >= step


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process holds at one moment: the loop's tasks, threads, and open descriptors."""

    tasks: int
    threads: int
    descriptors: int

    @classmethod
    def now(cls) -> Self:
        """What it holds now."""
        descriptors = len(os.listdir("/dev/fd"))  # noqa: PTH208 - it is no folder of files
        return cls(len(asyncio.all_tasks()), threading.active_count(), descriptors)

    def covers(self, other: Holdings) -> bool:
        """Whether ``other`` is no more than this, in nothing."""
        return (
            other.tasks <= self.tasks
            and other.threads <= self.threads
            and other.descriptors <= self.descriptors
        )

    async def are_back(self, *, seconds: float = 5.0) -> Holdings:
        """Wait until no more is held than this, as what was let go of may need a moment.

        Returns:
            What is held then, or after that time: compare it with `covers`.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self.covers(now := Holdings.now()) and loop.time() < until:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        return now
