"""The backend that fails to order, and the helper that cancels at a chosen await."""

from __future__ import annotations

import asyncio

import pytest

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.errors import BackendFailed, BackendRefused
from octopus_async.record import APPLIED, Mode, Operation, Record
from octopus_async.testing.cancellation import Moment, cancel_at
from octopus_async.testing.faulty import Fault, FaultyAdapter
from octopus_async.testing.operations import Author


@pytest.fixture
async def faulty() -> FaultyAdapter:
    adapter = FaultyAdapter(MemoryAdapter(durable=True), delay=0.02)
    await adapter.open()
    return adapter


@pytest.fixture
def created() -> Operation:
    author = Author()
    return author.create(author.key(), {"n": 1})


async def stored(faulty: FaultyAdapter, operation: Operation) -> bool:
    (answer,) = await faulty.adapter.read([operation.key])
    return isinstance(answer, Record)


async def test_without_faults_it_is_what_it_wraps(faulty: FaultyAdapter, created: Operation) -> None:
    assert await faulty.apply([created], Mode.LIVE) == [APPLIED]
    assert await faulty.read([created.key]) == await faulty.adapter.read([created.key])
    assert [record.key async for record in faulty.scan(created.key.model)] == [created.key]
    assert (faulty.name, faulty.capabilities) == ("memory", faulty.adapter.capabilities)
    assert faulty.calls == {"open": 1, "apply": 1, "read": 1, "scan": 1}


@pytest.mark.parametrize(("fault", "error"), [(Fault.REFUSE, BackendRefused), (Fault.FAIL, BackendFailed)])
async def test_a_refused_or_failed_write_was_not_made(
    faulty: FaultyAdapter, created: Operation, fault: Fault, error: type[BackendFailed]
) -> None:
    faulty.writes = fault
    with pytest.raises(error) as caught:
        await faulty.apply([created], Mode.LIVE)
    assert not caught.value.sent
    assert not await stored(faulty, created)


async def test_reads_and_writes_fail_apart(faulty: FaultyAdapter, created: Operation) -> None:
    faulty.writes = Fault.FAIL
    assert await faulty.read([created.key]) == [None]
    await faulty.ping()
    with pytest.raises(BackendFailed):
        await faulty.probe()


async def test_a_lost_acknowledgement_is_of_a_write_that_was_made(
    faulty: FaultyAdapter, created: Operation
) -> None:
    faulty.writes = Fault.LOSE
    with pytest.raises(BackendFailed) as caught:
        await faulty.apply([created], Mode.LIVE)
    assert caught.value.sent
    assert await stored(faulty, created)


async def test_a_slow_write_that_is_given_up_is_not_made(faulty: FaultyAdapter, created: Operation) -> None:
    faulty.writes = Fault.SLOW
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(faulty.apply([created], Mode.LIVE), 0.001)
    assert not await stored(faulty, created)
    assert await faulty.apply([created], Mode.LIVE) == [APPLIED]


async def test_a_late_write_lands_after_it_was_given_up(faulty: FaultyAdapter, created: Operation) -> None:
    faulty.writes = Fault.LATE
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(faulty.apply([created], Mode.LIVE), 0.001)
    assert not await stored(faulty, created)
    await faulty.landed()
    assert await stored(faulty, created)


async def test_closing_drops_what_has_not_landed(faulty: FaultyAdapter, created: Operation) -> None:
    faulty.writes = Fault.LATE
    call = asyncio.ensure_future(faulty.apply([created], Mode.LIVE))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await faulty.close()
    with pytest.raises(BackendFailed) as caught:
        await call
    assert caught.value.sent
    await faulty.adapter.open()
    assert not await stored(faulty, created)


async def test_what_hangs_goes_on_when_it_is_healed(faulty: FaultyAdapter, created: Operation) -> None:
    faulty.break_down(Fault.HANG)
    call = asyncio.ensure_future(faulty.apply([created], Mode.LIVE))
    done, _ = await asyncio.wait([call], timeout=0.01)
    assert not done
    faulty.heal()
    assert await call == [APPLIED]
    await faulty.ping()


async def test_a_fault_may_be_chosen_at_each_call(faulty: FaultyAdapter, created: Operation) -> None:
    faults = iter([Fault.REFUSE, None])
    faulty.reads = lambda: next(faults)
    with pytest.raises(BackendRefused):
        await faulty.read([created.key])
    assert await faulty.read([created.key]) == [None]


@pytest.mark.parametrize("moment", Moment)
async def test_a_call_is_cancelled_at_each_of_its_awaits_in_turn(moment: Moment) -> None:
    passed: list[int] = []

    async def call() -> None:
        for number in range(3):
            await asyncio.sleep(0 if number == 1 else 0.001)
            passed.append(number)

    reached = [await cancel_at(call(), step, moment) for step in range(1, 5)]
    assert reached == [True, True, True, False]
    assert passed == [0, 0, 1, 0, 1, 2]


async def test_as_it_resumes_what_it_waited_for_has_happened() -> None:
    loop = asyncio.get_running_loop()
    for moment, happened in ((Moment.SUSPENDING, False), (Moment.RESUMING, True)):
        future = loop.create_future()
        loop.call_later(0.005, _resolve, future)
        assert await cancel_at(_wait_for(future), 1, moment)
        assert (future.done() and not future.cancelled()) is happened


async def _wait_for(future: asyncio.Future[None]) -> None:
    await future
    pytest.fail("it was to be cancelled")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.set_result(None)
