"""The virtual loop: time that jumps, an order that the seed draws, processes that die without a word."""

import asyncio
from random import Random

import pytest

from octopus_async.testing.simulation import Deadlock, Livelock, VirtualLoop
from octopus_async.testing.simulation.loop import Process


def order_of(seed: int) -> list[int]:
    loop = VirtualLoop(Random(seed))
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)

    async def main() -> None:
        await asyncio.gather(*(note(number) for number in range(8)))

    loop.run_until_complete(main())
    loop.close()
    return order


def test_what_is_ready_together_runs_in_an_order_that_the_seed_draws() -> None:
    assert order_of(1) == order_of(1)
    assert order_of(1) != order_of(2)


def test_an_hour_of_sleep_takes_no_time() -> None:
    loop = VirtualLoop(Random(0), most_seconds=4000.0)
    loop.run_until_complete(asyncio.sleep(3600.0))
    assert loop.time() == 3600.0
    loop.close()


def test_waiting_for_what_nobody_will_do_is_a_deadlock() -> None:
    loop = VirtualLoop(Random(0))
    forever = loop.create_future()
    with pytest.raises(Deadlock):
        loop.run_until_complete(forever)
    loop.abandon()


def test_spinning_is_a_livelock() -> None:
    loop = VirtualLoop(Random(0), most_steps=1000)

    async def spin() -> None:
        while True:  # noqa: ASYNC110 - that it spins is the point
            await asyncio.sleep(0)

    spinning = loop.run_in(loop.process("p"), spin())
    with pytest.raises(Livelock):
        loop.run_until_complete(spinning)
    loop.abandon()


def test_a_killed_process_runs_no_clause_at_its_end() -> None:
    loop = VirtualLoop(Random(0))
    process = loop.process("p")
    said: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1.0)
            said.append("went on")
        finally:
            said.append("cleaned up")

    async def main() -> None:
        loop.run_in(process, work())
        await asyncio.sleep(0.5)
        process.dead = True
        await asyncio.sleep(2.0)
        assert said == []

    loop.run_until_complete(main())
    loop.abandon()


def test_a_stopped_process_goes_on_where_it_was() -> None:
    loop = VirtualLoop(Random(0))
    process = loop.process("p")
    moments: list[float] = []

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(0.1)
            moments.append(loop.time())

    async def main() -> None:
        working = loop.run_in(process, work())
        await asyncio.sleep(0.15)
        loop.pause(process, 5.0)
        await working

    loop.run_until_complete(main())
    assert [round(moment, 2) for moment in moments] == [0.1, 5.15, 5.25]
    loop.abandon()


def test_a_process_can_be_killed_at_any_of_its_steps() -> None:
    ended: list[int] = []
    for doom in range(1, 6):
        loop = VirtualLoop(Random(0))
        process = loop.process("p")
        reached: list[int] = []

        async def work(reached: list[int] = reached) -> None:
            for number in range(4):
                reached.append(number)
                await asyncio.sleep(0.1)

        def die(process: Process = process) -> None:
            process.dead = True

        process.doom, process.on_doom = doom, die
        loop.run_in(process, work())
        loop.run_until_complete(asyncio.sleep(2.0))
        ended.append(len(reached))
        loop.abandon()
    assert sorted(ended) == ended
    assert len(set(ended)) > 2
    assert ended[0] == 0
