"""Work that outlives its caller: it begins at once, goes on when nobody waits, and its owner ends it."""

from __future__ import annotations

import asyncio

import pytest

from octopus_async.tasks import Tasks


async def until(future: asyncio.Future[str], said: list[str]) -> str:
    said.append("begun")
    try:
        return await future
    finally:
        said.append("ended")


async def test_work_begins_in_its_callers_step_and_one_that_does_not_wait_ends_in_it() -> None:
    async def at_once() -> int:
        return 7

    tasks, ends = Tasks(), list[str]()
    errand = tasks.begin(at_once(), lambda: ends.append("ended"))
    assert errand.done
    assert ends == ["ended"]
    assert len(tasks) == 0
    assert await errand.result() == 7


async def test_who_is_cancelled_stops_waiting_and_the_work_goes_on() -> None:
    tasks, said = Tasks(), list[str]()
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    errand = tasks.begin(until(future, said), lambda: None)
    assert said == ["begun"]
    caller = asyncio.create_task(errand.result())
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()
    assert len(tasks) == 1
    future.set_result("done")
    assert await errand.result() == "done"
    assert len(tasks) == 0


async def test_an_error_reaches_whoever_waits_for_it() -> None:
    tasks = Tasks()
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    errand = tasks.begin(until(future, []), lambda: None)
    future.set_exception(ValueError("refused"))
    with pytest.raises(ValueError, match="refused"):
        await errand.result()


async def test_its_owner_waits_for_it_and_ends_it_when_there_is_no_more_time() -> None:
    tasks, said = Tasks(), list[str]()
    loop = asyncio.get_running_loop()
    soon: asyncio.Future[str] = loop.create_future()
    loop.call_later(0.05, soon.set_result, "in time")
    in_time = tasks.begin(until(soon, said), lambda: None)
    never: asyncio.Future[str] = loop.create_future()
    too_late = tasks.begin(until(never, said), lambda: None)
    await tasks.finish(0.5)
    assert await in_time.result() == "in time"
    assert too_late.done
    assert never.cancelled()
    assert said == ["begun", "begun", "ended", "ended"]
    assert len(tasks) == 0
