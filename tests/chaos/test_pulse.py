"""The measure itself: it sees what blocks the loop and what is late, and forgives what the machine did."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator

import pytest

from tests.chaos.pulse import Pulse

pytestmark = pytest.mark.alone


@pytest.fixture
async def pulse() -> AsyncGenerator[Pulse]:
    pulse = Pulse()
    await asyncio.sleep(0.05)
    yield pulse
    pulse.stop()


async def test_who_blocks_the_loop_is_seen(pulse: Pulse) -> None:
    time.sleep(0.3)  # noqa: ASYNC251 - that is what is to be seen
    await asyncio.sleep(0.05)
    assert 0.1 < pulse.blocked < 0.5


async def test_an_operation_beyond_its_deadline_is_seen(pulse: Pulse) -> None:
    await pulse.timed(asyncio.sleep(0.5), 0.1)
    assert pulse.slowest >= 0.5
    assert 0.2 < pulse.late <= pulse.slowest - 0.1


async def test_an_operation_within_its_deadline_is_not_late(pulse: Pulse) -> None:
    await pulse.timed(asyncio.sleep(0.05), 5.0)
    assert pulse.late == 0.0


class _Waiting:
    """Counts what it waits itself, as it is asked how long threads have waited."""

    def __init__(self) -> None:
        self._calls = 0
        self._total = 0.0

    def seconds(self) -> float:
        self._calls += 1
        if self._calls % 3 == 0:  # of the two calls of a beat now the one, now the other
            began = time.perf_counter()
            time.sleep(0.2)
            self._total += time.perf_counter() - began
        return self._total


async def test_a_wait_in_the_middle_of_a_reading_is_forgiven(pulse: Pulse) -> None:
    pulse._queue = _Waiting()  # type: ignore[assignment]  # what threads really waited is not to be steered
    pulse._waits[-1] = 0.0
    pulse.blocked = 0.0
    await asyncio.sleep(1.5)
    assert pulse.blocked < 0.1


async def test_what_other_processes_take_of_the_processor_is_forgiven(pulse: Pulse) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # a process inherits it
    spinning = (sys.executable, "-c", "while True: pass")
    others = [await asyncio.create_subprocess_exec(*spinning) for _ in range(3)]
    began = time.monotonic()
    try:
        while time.monotonic() - began < 1.0:
            sum(range(20_000))
            await asyncio.sleep(0)
    finally:
        os.sched_setaffinity(0, before)
        for other in others:
            other.kill()
            await other.wait()
    assert pulse.forgiven(asyncio.get_running_loop().time() - 1.0) > 0.2
    assert pulse.blocked < 0.1
