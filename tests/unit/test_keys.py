"""Locks by key: first come, first served; nobody keeps a lock that he gave up waiting for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from octopus_async.errors import BackendTimeout
from octopus_async.record import Key
from octopus_async.strategies.keys import KeyLocks
from octopus_async.testing.cancellation import Moment, cancel_at

KEY = Key("Book", "1")
OTHER = Key("Book", "2")
SOON = 0.02  # seconds


@pytest.fixture
async def locks() -> AsyncGenerator[KeyLocks]:
    locks = KeyLocks()
    yield locks
    assert not locks.busy(KEY)
    assert (locks._held, locks._unsettled, locks._ending) == ({}, {}, {}), "something was kept"


def at(seconds: float) -> float:
    """The loop's clock, so many seconds from now."""
    return asyncio.get_running_loop().time() + seconds


async def turns(number: int = 5) -> None:
    """Let the loop go on."""
    for _ in range(number):
        await asyncio.sleep(0)


# -- the line --------------------------------------------------------------------------------------


async def test_a_free_key_is_had_at_once_and_by_one_alone(locks: KeyLocks) -> None:
    assert locks.try_acquire(KEY)
    assert not locks.try_acquire(KEY)
    assert locks.try_acquire(OTHER)
    locks.release(OTHER)
    locks.release(KEY)
    await locks.acquire(KEY, at(-1.0))  # nobody has it, so nobody has to wait
    locks.release(KEY)


async def test_those_who_wait_get_it_in_the_order_in_which_they_came(locks: KeyLocks) -> None:
    order: list[int] = []
    inside = 0

    async def write(number: int) -> None:
        nonlocal inside
        await locks.acquire(KEY)
        inside += 1
        assert inside == 1
        order.append(number)
        await asyncio.sleep(0)
        inside -= 1
        locks.release(KEY)

    await asyncio.gather(*(write(number) for number in range(20)))
    assert order == list(range(20))


async def test_it_is_handed_over_so_that_nobody_steps_in_between(locks: KeyLocks) -> None:
    await locks.acquire(KEY)
    waiter = asyncio.create_task(locks.acquire(KEY))
    await turns()
    locks.release(KEY)
    assert not locks.try_acquire(KEY)  # the waiter has not run yet, and has it all the same
    await waiter
    locks.release(KEY)


async def test_a_cancelled_waiter_is_passed_over(locks: KeyLocks) -> None:
    await locks.acquire(KEY)
    first, second = (asyncio.create_task(locks.acquire(KEY)) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    locks.release(KEY)
    await second
    assert first.cancelled()
    locks.release(KEY)


async def test_a_waiter_cancelled_as_it_is_handed_the_lock_hands_it_on(locks: KeyLocks) -> None:
    await locks.acquire(KEY)
    first, second = (asyncio.create_task(locks.acquire(KEY)) for _ in range(2))
    await turns()
    locks.release(KEY)
    first.cancel()
    await second
    assert first.cancelled()
    locks.release(KEY)


@pytest.mark.parametrize("moment", list(Moment))
async def test_a_waiter_cancelled_at_any_await_leaves_the_lock_to_others(
    locks: KeyLocks, moment: Moment
) -> None:
    for step in range(1, 20):
        await locks.acquire(KEY)
        asyncio.get_running_loop().call_later(0.002, locks.release, KEY)
        reached = await cancel_at(_acquire_and_release(locks), step, moment)
        async with asyncio.timeout(1.0):
            await _acquire_and_release(locks)
        assert not locks.busy(KEY)
        if not reached:
            return
    pytest.fail("more awaits than that")


async def _acquire_and_release(locks: KeyLocks) -> None:
    await locks.acquire(KEY, at(1.0))
    locks.release(KEY)


async def test_a_waiter_gives_up_at_its_deadline_and_nothing_was_sent(locks: KeyLocks) -> None:
    await locks.acquire(KEY)
    start = at(0.0)
    with pytest.raises(BackendTimeout, match="Book '1'") as caught:
        await locks.acquire(KEY, start + SOON)
    assert SOON <= at(0.0) - start < SOON + 0.1
    assert not caught.value.sent
    last = asyncio.create_task(locks.acquire(KEY))
    await turns()
    locks.release(KEY)
    await last
    locks.release(KEY)


async def test_a_waiter_whose_deadline_strikes_as_it_is_handed_the_lock_hands_it_on(locks: KeyLocks) -> None:
    loop = asyncio.get_running_loop()
    await locks.acquire(KEY)
    moment = at(SOON)
    loop.call_at(moment, locks.release, KEY)
    first = asyncio.create_task(locks.acquire(KEY, moment))
    await turns()
    second = asyncio.create_task(locks.acquire(KEY))
    (result,) = await asyncio.gather(first, return_exceptions=True)
    if result is None:
        locks.release(KEY)
    async with asyncio.timeout(1.0):
        await second
    locks.release(KEY)


async def test_a_line_of_those_who_gave_up_keeps_nothing(locks: KeyLocks) -> None:
    await locks.acquire(KEY)
    tries = [locks.acquire(KEY, at(SOON)) for _ in range(50)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(result) for result in results} == {BackendTimeout}
    locks.release(KEY)


# -- ended -----------------------------------------------------------------------------------------


async def test_a_key_is_busy_while_it_is_held_or_an_answer_is_outstanding(locks: KeyLocks) -> None:
    await locks.acquire(KEY)
    steps = [locks.busy(KEY)]
    locks.unsettle(KEY)
    locks.unsettle(KEY)
    locks.release(KEY)
    steps.append(locks.busy(KEY))
    locks.settle(KEY)
    steps.append(locks.busy(KEY))
    locks.settle(KEY)
    steps.append(locks.busy(KEY))
    assert steps == [True, True, True, False]
    assert not locks.busy(OTHER)


async def test_nobody_waits_for_the_end_of_a_write_of_a_key_that_is_not_busy(locks: KeyLocks) -> None:
    await locks.ended(KEY, at(-1.0))


async def test_all_wait_until_the_lock_is_let_go(locks: KeyLocks) -> None:
    await locks.acquire(KEY)
    waiters = [asyncio.create_task(locks.ended(KEY, at(1.0))) for _ in range(3)]
    await turns()
    assert not any(waiter.done() for waiter in waiters)
    locks.release(KEY)
    await asyncio.gather(*waiters)


async def test_where_nobody_holds_the_lock_all_wait_for_the_last_answer(locks: KeyLocks) -> None:
    locks.unsettle(KEY)
    locks.unsettle(KEY)
    waiters = [asyncio.create_task(locks.ended(KEY, at(1.0))) for _ in range(3)]
    await turns()
    locks.settle(KEY)
    await turns()
    assert not any(waiter.done() for waiter in waiters)
    locks.settle(KEY)
    await asyncio.gather(*waiters)


async def test_a_write_has_ended_though_the_next_one_has_the_key_at_once(locks: KeyLocks) -> None:
    await locks.acquire(KEY)
    second = asyncio.create_task(locks.acquire(KEY))
    await turns()
    waiter = asyncio.create_task(locks.ended(KEY, at(1.0)))
    await turns()
    locks.release(KEY)
    await asyncio.gather(second, waiter)
    assert locks.busy(KEY)
    locks.release(KEY)


async def test_waiting_for_the_end_of_a_write_is_given_up_at_the_deadline(locks: KeyLocks) -> None:
    await locks.acquire(KEY)
    start = at(0.0)
    with pytest.raises(TimeoutError):
        await locks.ended(KEY, start + SOON)
    assert at(0.0) - start < SOON + 0.1
    locks.release(KEY)


async def test_those_who_gave_up_are_forgotten_though_the_key_stays_busy(
    locks: KeyLocks,
) -> None:
    await locks.acquire(KEY)
    for _ in range(20):
        with pytest.raises(TimeoutError):
            await locks.ended(KEY, at(-1.0))
    cancelled = asyncio.create_task(locks.ended(KEY, at(1.0)))
    await turns()
    cancelled.cancel()
    await turns()
    assert locks._ending == {}
    locks.release(KEY)
