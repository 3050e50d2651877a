"""What nothing costs in the same run: no library on an event loop can be below it."""

from __future__ import annotations

import asyncio

from benchmarks.rig import Rig, in_turns
from benchmarks.rows import Row


async def run(rig: Rig) -> None:
    """Measure an awaited call that does nothing, and a future that is resolved."""
    loop = asyncio.get_running_loop()

    async def nothing() -> None:
        pass

    async def done() -> None:
        future = loop.create_future()
        future.set_result(None)
        await future

    async def resolved() -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    floors = {
        "floor: an awaited call that does nothing": nothing,
        "floor: a future that is done": done,
        "floor: a future resolved in the loop's next step": resolved,
    }
    for tasks in (1, 100):
        for (name, _), measured in zip(
            floors.items(), await in_turns(list(floors.values()), tasks, rig.sizes), strict=True
        ):
            rig.add(Row(rig.named(name), tasks, measured.rate, measured.p50, measured.p99))
