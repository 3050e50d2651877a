"""How late things are in an event loop, less what the machine itself is to blame for.

While a thread of ours could run and the machine gave it no processor, nobody could have been in time.
Linux counts that time for each thread (Documentation/scheduler/sched-stats.rst), and what a hypervisor took
from the machine as a whole (proc_stat(5), steal); where it does not tell, nothing is forgiven.
"""

from __future__ import annotations

import asyncio
import gc
import os
from bisect import bisect_right
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_TICK = 0.01
_TICKS = os.sysconf("SC_CLK_TCK")
_STEAL = 8  # its column in the first line


class Pulse:
    """Ticks in the running loop, and notes by how much it is late. Times are seconds.

    Attributes:
        blocked: the longest time for which the loop stood still, less what is forgiven.
        slowest: the longest operation.
        late: the furthest that an operation went beyond its deadline, less what is forgiven.
    """

    def __init__(self) -> None:
        # The collector's walk through the tests' own modules is nothing that the library does.
        gc.collect()
        gc.freeze()
        self.blocked = 0.0
        self.slowest = 0.0
        self.late = 0.0
        self._queue = _Queue()
        self._waits: list[float] = [self._queue.seconds()]
        self._moments: list[float] = [asyncio.get_running_loop().time()]
        self._task = asyncio.create_task(self._beat())

    def stop(self) -> None:
        """End the ticking."""
        self._task.cancel()
        gc.unfreeze()

    def forgiven(self, since: float) -> float:
        """For how long, since a moment of the loop's clock, threads of ours waited for a processor."""
        known = max(0, bisect_right(self._moments, since) - 1)
        return self._queue.seconds() - self._waits[known]

    async def timed(self, call: Awaitable[T], seconds: float) -> T:
        """Await an operation whose deadline is so many seconds away."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            return await call
        finally:
            took = clock() - began
            self.slowest = max(self.slowest, took)
            if took > seconds:
                self.late = max(self.late, took - seconds - self.forgiven(began + seconds))

    async def _beat(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_TICK)
            # Who waits for a processor between two readings has waited on either side of the moment.
            before, now, after = self._queue.seconds(), clock(), self._queue.seconds()
            stood_still = now - self._moments[-1] - _TICK - (after - self._waits[-1])
            self.blocked = max(self.blocked, stood_still)
            self._moments.append(now)
            self._waits.append(before)


class _Queue:
    """How long threads of this process have waited for a processor, those included that have ended."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._total = 0

    def seconds(self) -> float:
        """The sum over all threads since this began."""
        for thread in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # it has just ended
                waited = int((thread / "schedstat").read_text().split()[1])
                self._total += waited - self._known.get(thread.name, waited)
                self._known[thread.name] = waited
        return self._total / 1e9 + _stolen()


def _stolen() -> float:
    """For how many seconds a hypervisor ran somebody else on our processors, since the machine started."""
    with suppress(OSError, IndexError), Path("/proc/stat").open() as lines:
        return int(lines.readline().split()[_STEAL]) / _TICKS
    return 0.0
