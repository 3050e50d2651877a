"""The lane: natural batching, order per key, bounds, deadlines, and a result for every future."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from octopus_async.guard import Lane, LaneLimits

SOON = 0.02  # seconds


class Subject(Lane[str, str]):
    """A lane whose physical calls wait until the test lets them go."""

    def __init__(self, limits: LaneLimits | None = None, *, held: bool = False) -> None:
        super().__init__(
            self._physical,
            lambda item, sent: f"{item} {'sent, and late' if sent else 'never sent'}",
            lambda item: f"{item} refused",
            limits or LaneLimits(batch=10, batch_bytes=1000, workers=1),
        )
        self.batches: list[str] = []
        self.groups: list[object] = []
        self.at_once = 0
        self.error: BaseException | None = None
        self.short = 0
        self.stubborn = 0.0
        self._gate = asyncio.Event()
        self._running = 0
        if not held:
            self._gate.set()

    def hold(self) -> None:
        """Let the next physical calls wait."""
        self._gate.clear()

    def let_go(self) -> None:
        """Let physical calls end."""
        self._gate.set()

    def call(
        self, item: str, *, group: object = None, size: int = 1, seconds: float = 5.0
    ) -> asyncio.Future[str]:
        """Queue an item; its key is its first letter."""
        deadline = asyncio.get_running_loop().time() + seconds
        return self.add(item, item[0], group, size, deadline)

    async def _physical(self, items: Sequence[str], group: object) -> Sequence[str]:
        self.batches.append(" ".join(items))
        self.groups.append(group)
        self._running += 1
        self.at_once = max(self.at_once, self._running)
        try:
            await self._gate.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(self.stubborn)
            raise
        finally:
            self._running -= 1
        if self.error is not None:
            raise self.error
        return [item.upper() for item in items][self.short :]


async def all_of(*futures: asyncio.Future[str]) -> list[str]:
    """What each of them gave."""
    return [await future for future in futures]


async def turns(number: int = 5) -> None:
    """Let the loop go on."""
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
async def _no_task_left() -> AsyncGenerator[None]:
    yield
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# -- natural batching ------------------------------------------------------------------------------


async def test_a_call_leaves_at_once_when_a_worker_is_free() -> None:
    lane = Subject()
    future = lane.call("a")
    await asyncio.sleep(0)
    assert lane.batches == ["a"]
    assert await future == "A"


async def test_what_is_asked_for_at_one_moment_leaves_together() -> None:
    lane = Subject()
    assert await all_of(lane.call("a"), lane.call("b"), lane.call("c")) == ["A", "B", "C"]
    assert lane.batches == ["a b c"]


async def test_what_arrives_while_a_call_is_under_way_leaves_together_after_it() -> None:
    lane = Subject(held=True)
    first = lane.call("a")
    await turns()
    rest = [lane.call(item) for item in "bcd"]
    await turns()
    assert lane.batches == ["a"]
    assert (lane.queued, lane.under_way) == (3, 1)
    lane.let_go()
    assert await all_of(first, *rest) == ["A", "B", "C", "D"]
    assert lane.batches == ["a", "b c d"]
    await turns()
    assert (lane.queued, lane.under_way) == (0, 0)


async def test_as_many_calls_are_under_way_as_there_are_workers() -> None:
    lane = Subject(LaneLimits(batch=1, batch_bytes=1000, workers=3), held=True)
    futures = [lane.call(item) for item in "abcdefgh"]
    await turns()
    assert lane.batches == ["a", "b", "c"]
    assert (lane.queued, lane.under_way) == (5, 3)
    lane.let_go()
    await all_of(*futures)
    assert lane.at_once == 3


# -- order per key ---------------------------------------------------------------------------------


async def test_no_batch_holds_a_key_twice_and_calls_of_a_key_keep_their_order() -> None:
    lane = Subject()
    results = await all_of(*(lane.call(item) for item in ("a1", "b1", "a2", "a3", "c1", "b2")))
    assert results == ["A1", "B1", "A2", "A3", "C1", "B2"]
    assert lane.batches == ["a1 b1 c1", "a2 b2", "a3"]


async def test_a_key_under_way_keeps_its_next_call_waiting_though_a_worker_is_free() -> None:
    lane = Subject(LaneLimits(batch=10, batch_bytes=1000, workers=2), held=True)
    first = lane.call("a1")
    await turns()
    second, other = lane.call("a2"), lane.call("b1")
    await turns()
    assert lane.batches == ["a1", "b1"]
    lane.let_go()
    assert await all_of(first, second, other) == ["A1", "A2", "B1"]


async def test_a_key_whose_waiter_left_still_keeps_its_order() -> None:
    lane = Subject(LaneLimits(batch=10, batch_bytes=1000, workers=2), held=True)
    first = lane.call("a1")
    await turns()
    first.cancel()
    second = lane.call("a2")
    await turns()
    assert lane.batches == ["a1"]
    lane.let_go()
    assert await second == "A2"


async def test_order_holds_for_keys_whose_batches_fail() -> None:
    lane = Subject()
    lane.error = RuntimeError("a physical call may not raise, but if it does")
    futures = [lane.call(item) for item in ("a1", "b1", "a2")]
    unseen: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    assert await all_of(*futures) == [f"{item} sent, and late" for item in ("a1", "b1", "a2")]
    assert lane.batches == ["a1 b1", "a2"]
    lane.error = None
    assert await lane.call("a3") == "A3"


# -- bounds ----------------------------------------------------------------------------------------


async def test_batches_are_bounded_by_count() -> None:
    lane = Subject(LaneLimits(batch=2, batch_bytes=1000, workers=1))
    await all_of(*(lane.call(item) for item in "abcde"))
    assert lane.batches == ["a b", "c d", "e"]


async def test_batches_are_bounded_by_bytes_and_what_is_too_large_goes_alone() -> None:
    lane = Subject(LaneLimits(batch=10, batch_bytes=100, workers=1))
    sizes = {"a": 60, "b": 40, "c": 1, "d": 500, "e": 1}
    await all_of(*(lane.call(item, size=size) for item, size in sizes.items()))
    assert lane.batches == ["a b", "c", "d", "e"]


async def test_groups_are_not_mixed() -> None:
    lane = Subject()
    one, two = object(), object()
    calls = [("a", one), ("b", one), ("c", two), ("d", one)]
    await all_of(*(lane.call(item, group=group) for item, group in calls))
    assert lane.batches == ["a b", "c", "d"]
    assert lane.groups == [one, two, one]


async def test_a_full_queue_refuses_at_once() -> None:
    lane = Subject(LaneLimits(batch=10, batch_bytes=1000, workers=1, queue=2), held=True)
    first = lane.call("a")
    await turns()
    waiting = [lane.call("b"), lane.call("b")]
    refused = lane.call("d")
    assert refused.result() == "d refused"
    lane.let_go()
    assert await all_of(first, *waiting) == ["A", "B", "B"]
    assert await lane.call("e") == "E"


# -- deadlines and cancellation --------------------------------------------------------------------


async def test_a_queued_call_is_answered_at_its_deadline_and_never_sent() -> None:
    lane = Subject(held=True)
    first = lane.call("a")
    await turns()
    start = asyncio.get_running_loop().time()
    queued, chained = lane.call("b1", seconds=SOON), lane.call("b2", seconds=SOON)
    assert await all_of(queued, chained) == ["b1 never sent", "b2 never sent"]
    assert SOON <= asyncio.get_running_loop().time() - start < SOON + 0.1
    lane.let_go()
    assert await first == "A"
    assert await lane.call("b3") == "B3"
    assert lane.batches == ["a", "b3"]


async def test_a_sent_call_is_answered_at_its_deadline_and_said_to_be_sent() -> None:
    lane = Subject(held=True)
    late, patient = lane.call("a", seconds=SOON), lane.call("b")
    assert await late == "a sent, and late"
    assert not patient.done()
    lane.let_go()
    assert await patient == "B"


async def test_each_call_has_its_own_deadline() -> None:
    lane = Subject(held=True)
    first = lane.call("a")
    await turns()
    order: list[str] = []
    calls = [lane.call(item, seconds=seconds) for item, seconds in (("b", 0.06), ("c", 0.02), ("d", 0.04))]
    for call in calls:
        call.add_done_callback(lambda done: order.append(done.result()[0]))
    await all_of(*calls)
    assert order == ["c", "d", "b"]
    lane.let_go()
    await first


async def test_what_came_too_late_is_not_sent_though_a_worker_is_free() -> None:
    lane = Subject()
    assert await lane.call("a", seconds=-1.0) == "a never sent"
    assert lane.batches == []
    assert await lane.call("a") == "A"


async def test_a_cancelled_waiter_is_dropped_before_sending() -> None:
    lane = Subject(held=True)
    first = lane.call("a")
    await turns()
    cancelled, chained, other = lane.call("b1"), lane.call("b2"), lane.call("c")
    cancelled.cancel()
    lane.let_go()
    assert await all_of(first, chained, other) == ["A", "B2", "C"]
    assert "b1" not in " ".join(lane.batches)
    await turns()
    assert lane.queued == 0


async def test_thousands_of_deadlines_of_a_hanging_backend_leave_the_loop_free() -> None:
    lane = Subject(held=True)
    first = lane.call("a")
    await turns()
    loop = asyncio.get_running_loop()
    start = loop.time()
    number = 10_000
    futures = [lane.add(f"b{n}", n, None, 1, start + 0.3 + n * 0.5 / number) for n in range(number)]
    scans = 0
    expire = lane._expire

    def counted() -> None:
        nonlocal scans
        scans += 1
        expire()

    lane._expire = counted  # type: ignore[method-assign]
    if lane._timer is not None:
        lane._arm(loop, lane._timer.when())
    await futures[-1]
    assert loop.time() - start < 0.9
    assert scans < 100
    lane.let_go()
    await first


# -- flush and close -------------------------------------------------------------------------------


async def test_flush_settles_what_was_not_sent_and_leaves_the_rest() -> None:
    lane = Subject(held=True)
    sent = lane.call("a1")
    await turns()
    waiting = [lane.call("a2"), lane.call("b1"), lane.call("b2")]
    lane.flush(lambda item: f"{item} flushed")
    assert [future.result() for future in waiting] == ["a2 flushed", "b1 flushed", "b2 flushed"]
    lane.let_go()
    assert await sent == "A1"
    assert await lane.call("b3") == "B3"
    assert lane.batches == ["a1", "b3"]


async def test_close_lets_calls_under_way_end_and_settles_the_rest() -> None:
    lane = Subject(held=True)
    sent = lane.call("a1")
    await turns()
    waiting = [lane.call("a2"), lane.call("b1"), lane.call("b2")]
    asyncio.get_running_loop().call_later(SOON, lane.let_go)
    await lane.close(1.0)
    assert sent.result() == "A1"
    assert [future.result() for future in waiting] == ["a2 never sent", "b1 never sent", "b2 never sent"]
    assert lane.batches == ["a1"]


async def test_close_gives_up_what_does_not_end_in_time() -> None:
    lane = Subject(held=True)
    sent = lane.call("a1")
    await turns()
    start = asyncio.get_running_loop().time()
    await lane.close(SOON)
    assert asyncio.get_running_loop().time() - start < SOON + 0.1
    assert sent.result() == "a1 sent, and late"


async def test_close_is_bounded_though_a_physical_call_resists_its_cancellation() -> None:
    lane = Subject(held=True)
    lane.stubborn = 0.2
    sent = lane.call("a1")
    await turns()
    start = asyncio.get_running_loop().time()
    await lane.close(SOON)
    assert asyncio.get_running_loop().time() - start < 2 * SOON + 0.1
    assert sent.result() == "a1 sent, and late"
    await asyncio.sleep(0.2)


async def test_a_closed_lane_answers_at_once_and_sends_nothing() -> None:
    lane = Subject()
    await lane.close(SOON)
    assert lane.call("a").result() == "a never sent"
    assert lane.batches == []


async def test_close_settles_a_call_that_was_queued_in_the_same_moment() -> None:
    lane = Subject()
    future = lane.call("a")
    await lane.close(SOON)
    assert future.result() == "a never sent"
    assert lane.batches == []


# -- a physical call that goes wrong ---------------------------------------------------------------


async def test_a_physical_call_that_raises_settles_its_batch_and_the_lane_goes_on() -> None:
    lane = Subject()
    lane.error = RuntimeError("boom")
    unseen: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    assert await all_of(lane.call("a"), lane.call("b")) == ["a sent, and late", "b sent, and late"]
    lane.error = None
    assert await lane.call("c") == "C"
    assert (lane.queued, lane.under_way) == (0, 0)


async def test_a_physical_call_with_too_few_results_settles_its_batch_and_the_lane_goes_on() -> None:
    lane = Subject()
    lane.short = 1
    async with asyncio.timeout(1.0):
        results = await all_of(lane.call("a1"), lane.call("b1"))
    assert results == ["a1 sent, and late", "b1 sent, and late"]
    lane.short = 0
    async with asyncio.timeout(1.0):
        assert await all_of(lane.call("a2"), lane.call("b2")) == ["A2", "B2"]


# -- bulk ------------------------------------------------------------------------------------------


class Bulk:
    """A physical call of somebody's own, through the lane, that ends when the test says so."""

    def __init__(self, lane: Subject) -> None:
        self._began = False
        self._end = asyncio.Event()
        self.task = asyncio.create_task(lane.bulk(self._make))

    def has_begun(self) -> bool:
        """Whether it is under way, or over."""
        return self._began

    async def _make(self) -> str:
        self._began = True
        await self._end.wait()
        return "done"

    async def end(self) -> None:
        """Let it end."""
        self._end.set()
        assert await self.task == "done"


async def test_a_bulk_call_counts_among_the_workers() -> None:
    lane = Subject()
    bulk = Bulk(lane)
    await turns()
    live = lane.call("a")
    await turns()
    assert bulk.has_begun()
    assert lane.batches == []
    assert lane.under_way == 1
    await bulk.end()
    assert await live == "A"


async def test_a_bulk_call_gets_its_turn_though_live_calls_keep_coming() -> None:
    lane = Subject(LaneLimits(batch=1, batch_bytes=1000, workers=1), held=True)
    futures = [lane.call(item) for item in "abc"]
    await turns()
    bulk = Bulk(lane)
    await turns()
    assert not bulk.has_begun()
    lane.let_go()
    await turns()
    assert bulk.has_begun()
    assert lane.batches == ["a"]
    await bulk.end()
    assert await all_of(*futures) == ["A", "B", "C"]


async def test_live_calls_get_their_turn_though_bulk_calls_keep_coming() -> None:
    lane = Subject(LaneLimits(batch=1, batch_bytes=1000, workers=1))
    bulks = [Bulk(lane) for _ in range(4)]
    await turns()
    live = [lane.call("a"), lane.call("b")]
    await bulks[0].end()
    await turns()
    assert lane.batches == ["a"]
    assert bulks[1].has_begun()
    assert not bulks[2].has_begun()
    await bulks[1].end()
    assert await all_of(*live) == ["A", "B"]
    await bulks[2].end()
    await bulks[3].end()


async def test_bulk_calls_come_one_after_the_other_in_their_order() -> None:
    lane = Subject()
    bulks = [Bulk(lane) for _ in range(3)]
    await turns()
    for number, bulk in enumerate(bulks):
        assert [other.has_begun() for other in bulks] == [index <= number for index in range(3)]
        await bulk.end()
        await turns()
    assert lane.under_way == 0


@pytest.mark.parametrize("waited", [False, True], ids=["in line", "under way"])
async def test_a_cancelled_bulk_call_leaves_its_slot(*, waited: bool) -> None:
    lane = Subject()
    first, second = Bulk(lane), Bulk(lane)
    await turns()
    gone, other = (first, second) if waited else (second, first)
    gone.task.cancel()
    await turns()
    await other.end()
    await turns()
    assert gone.task.cancelled()
    assert lane.under_way == 0
    assert await lane.call("a") == "A"


async def test_a_bulk_call_cancelled_in_the_moment_of_its_turn_passes_the_slot_on() -> None:
    lane = Subject()
    first, second, third = Bulk(lane), Bulk(lane), Bulk(lane)
    await turns()
    first.task.cancel()
    await asyncio.sleep(0)  # the slot is the second's now, who does not know yet
    second.task.cancel()
    await turns()
    assert not second.has_begun()
    assert third.has_begun()
    await third.end()
    assert lane.under_way == 0


async def test_a_bulk_call_that_raises_leaves_its_slot() -> None:
    lane = Subject()

    async def fail() -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await lane.bulk(fail)
    assert lane.under_way == 0
    assert await lane.call("a") == "A"


async def test_close_does_not_cancel_those_who_wait_for_a_bulk_call() -> None:
    lane = Subject()
    first, second = Bulk(lane), Bulk(lane)
    await turns()
    await lane.close(SOON)
    await turns()
    assert second.has_begun()
    await first.end()
    await second.end()
