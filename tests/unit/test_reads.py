"""The contract's "A read", sentence by sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from octopus_async import (
    Acknowledge,
    Cascade,
    CircuitOpen,
    GuardPolicy,
    Hedge,
    Key,
    Model,
    Order,
    Race,
    ReadUnavailable,
    State,
)
from octopus_async.backend import Answer
from octopus_async.clock import Clock
from octopus_async.events import ReplayFinished
from octopus_async.mapper import Mapper
from octopus_async.model import Stamp
from octopus_async.record import Kind, Mode, Operation, Status
from octopus_async.testing.contract.subject import eventually
from octopus_async.testing.faulty import Fault
from tests.unit.stage import POLICY, Book, Stage, stage

PATIENT = GuardPolicy(timeout=5)
STRATEGIES = [Cascade(), Race(), Hedge(delay=0.02)]
FAULTS = [Fault.REFUSE, Fault.FAIL, Fault.HANG]


class Box(Model):
    labels: list[str]
    content: Any


async def another_process_writes(it: Stage, book: Book, *, backend: str = "primary") -> None:
    """Put a book's state into one backend, past this process's manager."""
    version = Clock().next()
    mapper = Mapper(Book)
    fields, payload = mapper.encode(book, book.updated_at, create=True)
    operation = Operation(Kind.CREATE, mapper.key_of(book), version, version, fields, payload)
    (outcome,) = await it.backends[backend].adapter.apply([operation], Mode.MIRROR)
    assert outcome.status is Status.APPLIED
    mapper.restamped(book, fields, Stamp(version, version), book.updated_at)


async def settled(it: Stage) -> None:
    """Wait until every backend has answered to what was written."""
    await eventually(lambda: not it.manager._locks._unsettled)


def answer_late(it: Stage, backend: str, seconds: float) -> None:
    """Have a backend look at once, and answer later: what it says may be old by then."""
    adapter = it.backends[backend].adapter
    read = adapter.read

    async def read_then_wait(keys: Sequence[Key]) -> Sequence[Answer]:
        answers = await read(keys)
        await asyncio.sleep(seconds)
        return answers

    adapter.read = read_then_wait  # type: ignore[method-assign]


# -- strategies ------------------------------------------------------------------------------------


async def test_cascade_falls_through_a_miss_and_fills_the_cache_before_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="one")
        await another_process_writes(it, book)
        assert await it.books.read(book.id) == book
        await asyncio.sleep(0.01)
        assert await it.title("cache", book) == "one"
        assert await it.books.read(book.id) == book
        assert it.primary.calls["read"] == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_cascade_falls_through_a_failure(tmp_path: Path, fault: Fault) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="one")
        await another_process_writes(it, book)
        it.cache.reads = fault
        assert await it.books.read(book.id) == book
        assert it.cache.calls["read"] == it.primary.calls["read"] == 1


async def test_a_hit_is_never_filled_in_over_something_newer(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="old")
        await another_process_writes(it, book)
        answer_late(it, "primary", 0.05)
        reading = asyncio.create_task(it.books.read(book.id))
        await asyncio.sleep(0.02)
        await another_process_writes(it, book.model_copy(update={"title": "new"}), backend="cache")
        found = await reading
        assert found is not None
        assert found.title == "old"
        await asyncio.sleep(0.02)
        assert await it.title("cache", book) == "new"


async def test_in_a_race_the_first_hit_wins(tmp_path: Path) -> None:
    async with stage(tmp_path, read=Race("primary", "cache"), guard=PATIENT) as it:
        book = Book(title="one")
        await it.books.create(book)
        await settled(it)
        it.primary.reads = Fault.HANG
        assert await asyncio.wait_for(it.books.read(book.id), 0.2) == book
        assert it.primary.calls["read"] == 1


async def test_in_a_race_a_miss_does_not_win(tmp_path: Path) -> None:
    async with stage(tmp_path, read=Race("primary", "cache"), guard=PATIENT) as it:
        book = Book(title="one")
        await another_process_writes(it, book)
        it.primary.reads = Fault.SLOW
        assert await it.books.read(book.id) == book


async def test_a_loser_that_was_not_sent_is_dropped(tmp_path: Path) -> None:
    async with stage(tmp_path, read=Race("primary", "cache"), guard=PATIENT) as it:
        book = Book(title="one")
        await it.books.create(book)
        await settled(it)
        it.primary.reads = Fault.HANG
        guard = it.manager.backends["primary"]
        workers = guard.capabilities.read_concurrency
        hanging = []
        for _ in range(workers):
            hanging.append(asyncio.create_task(it.books.read(Book(title="none").id)))
            await asyncio.sleep(0.01)
        assert await it.books.read(book.id) == book
        it.primary.heal()
        assert await asyncio.gather(*hanging) == [None] * workers
        assert it.primary.calls["read"] == workers
        assert guard.statistics().queued_reads == 0


async def test_hedge_asks_the_next_only_when_the_first_is_late(tmp_path: Path) -> None:
    async with stage(tmp_path, read=Hedge("cache", "primary", delay=0.05), guard=PATIENT) as it:
        book = Book(title="one")
        await it.books.create(book)
        await settled(it)
        assert await it.books.read(book.id) == book
        assert it.primary.calls["read"] == 0
        it.cache.reads = Fault.HANG
        start = asyncio.get_running_loop().time()
        assert await it.books.read(book.id) == book
        assert 0.04 < asyncio.get_running_loop().time() - start < 0.2
        assert it.primary.calls["read"] == 1


@pytest.mark.parametrize("fault", [None, Fault.REFUSE])
async def test_hedge_does_not_wait_where_the_first_misses_or_fails(
    tmp_path: Path, fault: Fault | None
) -> None:
    async with stage(tmp_path, read=Hedge("cache", "primary", delay=5)) as it:
        book = Book(title="one")
        await another_process_writes(it, book)
        it.cache.reads = fault
        assert await asyncio.wait_for(it.books.read(book.id), 0.5) == book


# -- what None means -------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
async def test_a_tombstone_in_a_cache_is_none_at_once(tmp_path: Path, strategy: Cascade) -> None:
    async with stage(tmp_path, read=strategy) as it:
        book = Book(title="one")
        await it.books.create(book)
        await it.books.delete(book)
        await settled(it)
        it.primary.reads = Fault.HANG
        assert await asyncio.wait_for(it.books.read(book.id), 0.1) is None


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
async def test_none_is_said_only_if_the_primary_was_asked(tmp_path: Path, strategy: Cascade) -> None:
    async with stage(tmp_path, read=strategy) as it:
        book = Book(title="one")
        assert await it.books.read(book.id) is None
        it.primary.break_down(Fault.REFUSE)
        for call in (it.books.read, it.books.get_one, it.books.exists):
            with pytest.raises(ReadUnavailable, match="primary") as caught:
                await call(book.id)
            assert "primary" in caught.value.causes
        assert isinstance(caught.value.causes["primary"], CircuitOpen)
        assert caught.value.retry_after is not None
        assert 0 <= caught.value.retry_after < 0.1


async def test_a_cache_that_fails_does_not_make_a_missing_record_unavailable(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.cache.break_down(Fault.REFUSE)
        assert await it.books.read(Book(title="none").id) is None


async def test_a_replica_says_none_where_it_is_read_in_the_primarys_place(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True, read=Cascade("cache", "replica")) as it:
        book = Book(title="one")
        assert await it.books.read(book.id) is None
        it.backends["replica"].break_down(Fault.REFUSE)
        with pytest.raises(ReadUnavailable, match="replica"):
            await it.books.read(book.id)


async def test_a_replica_that_is_behind_is_not_asked_and_nobody_says_none_for_it(tmp_path: Path) -> None:
    async with stage(
        tmp_path, replica=True, cache=False, read=Cascade("replica"), acknowledge=Acknowledge.ALL
    ) as it:
        replica = it.backends["replica"]
        replica.writes = Fault.REFUSE
        book = Book(title="one")
        await it.books.create(book)
        with pytest.raises(ReadUnavailable, match="not caught up"):
            await it.books.read(book.id)
        assert replica.calls["read"] == 0
        replica.heal()
        await it.drained()
        assert await it.books.read(book.id) == book


# -- the overlay -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_overlay_answers_first_through_an_outage(tmp_path: Path, fault: Fault) -> None:
    async with stage(tmp_path) as it:
        kept, gone = Book(title="one"), Book(title="two")
        await it.books.create_many([kept, gone])
        it.primary.break_down(fault)
        it.cache.break_down(fault)
        kept.title = "changed"
        await it.books.update(kept)
        await it.books.delete(gone)
        asked = it.cache.calls["read"], it.primary.calls["read"]
        assert await it.books.read(kept.id) == kept
        assert await it.books.read(gone.id) is None
        assert (it.cache.calls["read"], it.primary.calls["read"]) == asked


async def test_the_overlay_answers_during_replay(tmp_path: Path) -> None:
    async with stage(tmp_path, guard=GuardPolicy(timeout=5, reads=POLICY.reads, writes=POLICY.writes)) as it:
        book = Book(title="one")
        it.primary.break_down(Fault.REFUSE)
        await it.books.create(book)
        applied = it.primary.calls["apply"]
        it.cache.delay = it.primary.delay = 0.1
        it.primary.opens = it.primary.reads = None
        it.primary.writes = it.cache.writes = Fault.SLOW
        asked = it.cache.calls["read"], it.primary.calls["read"]
        while not it.seen(ReplayFinished):
            assert await it.books.read(book.id) == book
            await asyncio.sleep(0.005)
        assert it.primary.calls["apply"] > applied
        assert await it.books.read(book.id) == book
        assert it.cache.calls["read"] + it.primary.calls["read"] > sum(asked)


async def test_the_overlay_answers_after_a_restart_on_the_same_journal(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book, gone = Book(title="one"), Book(title="two")
        await it.books.create(gone)
        it.primary.break_down(Fault.REFUSE)
        await it.books.create(book)
        await it.books.delete(gone)
        it.manager.backends["primary"].writes.force(State.FORCED_OPEN)
    async with stage(tmp_path) as it:
        it.manager.backends["primary"].writes.force(State.FORCED_OPEN)
        assert await it.books.read(book.id) == book
        assert await it.books.read(gone.id) is None
        assert it.primary.calls["read"] == it.cache.calls["read"] == 0


async def test_readers_of_a_hot_key_do_not_wait_for_it_to_be_idle(tmp_path: Path) -> None:
    async with stage(tmp_path, cache=False) as it:
        book = Book(title="one")
        await it.books.create(book)
        it.primary.break_down(Fault.REFUSE)

        async def write() -> None:
            while True:
                await it.books.update(book)

        writers = [asyncio.create_task(write()) for _ in range(3)]
        await asyncio.sleep(0)
        reading = [asyncio.create_task(it.books.read(book.id)) for _ in range(3)]
        try:
            await asyncio.wait_for(asyncio.gather(*reading), 0.5)
            assert [read.result() is not None for read in reading] == [True] * 3
        finally:
            for task in (*writers, *reading):
                task.cancel()
            await asyncio.wait([*writers, *reading])


# -- writes in flight ------------------------------------------------------------------------------


async def test_a_key_with_a_write_in_flight_is_not_read_from_a_cache(tmp_path: Path) -> None:
    async with stage(tmp_path, guard=PATIENT) as it:
        it.primary.delay = 0.5  # half of it is long on a busy machine too
        it.primary.writes = Fault.SLOW
        book = Book(title="one")
        writing = asyncio.create_task(it.books.create(book))
        await asyncio.sleep(it.primary.delay / 2)
        assert await it.title("cache", book) == "one"
        assert await it.books.read(book.id) is None
        await writing
        assert await it.books.read(book.id) == book


async def test_while_the_primary_cannot_be_read_the_read_waits_for_the_write(tmp_path: Path) -> None:
    async with stage(tmp_path, guard=PATIENT) as it:
        it.primary.reads = Fault.REFUSE
        it.primary.delay = 0.5  # half of it is long on a busy machine too
        it.primary.writes = Fault.SLOW
        book = Book(title="one")
        writing = asyncio.create_task(it.books.create(book))
        await asyncio.sleep(it.primary.delay / 2)
        found = await it.books.read(book.id)
        await asyncio.sleep(0)  # who wrote is told in the same round of the loop
        assert writing.done()
        assert found == book


async def test_a_read_that_waits_for_a_write_keeps_its_deadline(tmp_path: Path) -> None:
    async with stage(tmp_path, guard=PATIENT, timeout=5) as it:
        it.primary.break_down(Fault.HANG)
        writing = asyncio.create_task(it.books.create(book := Book(title="one")))
        await asyncio.sleep(0.01)
        it.manager.backends["primary"].reads.force(State.FORCED_OPEN)
        with pytest.raises(ReadUnavailable):
            await asyncio.wait_for(it.books.read(book.id, timeout=0.1), 0.3)
        it.primary.heal()
        await writing


async def test_a_value_that_is_going_to_be_rejected_is_not_seen(tmp_path: Path) -> None:
    async with stage(tmp_path, order=Order.CONCURRENT, guard=PATIENT) as it:
        await another_process_writes(it, mine := Book(title="first"))
        it.primary.writes = Fault.SLOW
        other = mine.model_copy(update={"title": "second"})
        writing = asyncio.create_task(it.books.create(other))
        seen = set()
        while not writing.done():
            found = await it.books.get_one(mine.id)
            seen.add(found.title)
            await asyncio.sleep(0.005)
        assert writing.exception() is not None
        assert (await it.books.get_one(mine.id)).title == "first"
        assert seen == {"first"}


# -- sharing ---------------------------------------------------------------------------------------


async def test_concurrent_reads_of_one_key_share_one_fetch(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="one")
        await another_process_writes(it, book)
        it.primary.reads = Fault.SLOW
        found = await asyncio.gather(*(it.books.read(book.id) for _ in range(50)))
        assert found == [book] * 50
        assert it.primary.calls["read"] == it.cache.calls["read"] == 1


async def test_nobody_joins_a_fetch_that_began_before_a_write(tmp_path: Path) -> None:
    async with stage(tmp_path, cache=False) as it:
        book = Book(title="old")
        await it.books.create(book)
        answer_late(it, "primary", 0.1)
        early = asyncio.create_task(it.books.get_one(book.id))
        await asyncio.sleep(0.01)
        book.title = "new"
        await it.books.update(book)
        assert not early.done()
        assert (await it.books.get_one(book.id)).title == "new"
        await early


async def test_a_cancelled_leader_does_not_fail_those_who_followed(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="one")
        await another_process_writes(it, book)
        it.primary.reads = Fault.SLOW
        leader = asyncio.create_task(it.books.read(book.id))
        await asyncio.sleep(0.01)
        followers = [asyncio.create_task(it.books.read(book.id)) for _ in range(3)]
        await asyncio.sleep(0.01)
        leader.cancel()
        assert await asyncio.gather(*followers) == [book] * 3
        assert leader.cancelled()


async def test_a_cancelled_follower_fails_nobody_else(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="one")
        await another_process_writes(it, book)
        it.primary.reads = Fault.SLOW
        leader = asyncio.create_task(it.books.read(book.id))
        await asyncio.sleep(0.01)
        follower, other = (asyncio.create_task(it.books.read(book.id)) for _ in range(2))
        await asyncio.sleep(0.01)
        follower.cancel()
        assert [await leader, await other] == [book] * 2
        assert follower.cancelled()


async def test_all_who_share_a_fetch_that_fails_are_told(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.primary.reads = Fault.REFUSE
        results = await it.books.read_many([Book(title="none").id] * 3)
        assert [type(error) for error in results.errors] == [ReadUnavailable] * 3


@pytest.mark.parametrize("outage", [False, True], ids=["shared", "overlay"])
async def test_results_are_fresh_objects(tmp_path: Path, *, outage: bool) -> None:
    async with stage(tmp_path) as it:
        boxes = it.manager.dao(Box)
        if outage:
            it.primary.break_down(Fault.REFUSE)
        box = Box(labels=["a"], content={"deep": [1]})
        await boxes.create(box)
        box.labels.append("mine")
        first, second = await asyncio.gather(boxes.get_one(box.id), boxes.get_one(box.id))
        assert first is not second
        first.labels.append("b")
        first.content["deep"].append(2)
        assert (second.labels, second.content) == (["a"], {"deep": [1]})
        third = await boxes.get_one(box.id)
        assert (third.labels, third.content) == (["a"], {"deep": [1]})


async def test_a_cache_that_missed_a_write_is_skipped(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book, other = Book(title="one"), Book(title="other")
        await it.books.create_many([book, other])
        it.cache.writes = Fault.FAIL
        book.title = "two"
        await it.books.update(book)
        await asyncio.sleep(0.01)
        assert it.manager.statistics().behind == {"cache": 1}
        asked = it.cache.calls["read"]
        assert await it.books.read(book.id) == book
        assert it.cache.calls["read"] == asked
        assert await it.books.read(other.id) == other
        assert it.cache.calls["read"] == asked + 1


# -- deadlines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
async def test_no_read_is_later_than_its_deadline(tmp_path: Path, strategy: Cascade) -> None:
    async with stage(tmp_path, read=strategy, guard=PATIENT) as it:
        it.primary.break_down(Fault.HANG)
        it.cache.break_down(Fault.HANG)
        with pytest.raises(ReadUnavailable):
            await asyncio.wait_for(it.books.read(Book(title="none").id, timeout=0.1), 0.2)


async def test_a_follower_keeps_a_deadline_that_is_before_its_leaders(tmp_path: Path) -> None:
    async with stage(tmp_path, guard=PATIENT) as it:
        book = Book(title="one")
        await another_process_writes(it, book)
        it.primary.delay = 0.4
        it.primary.reads = Fault.SLOW
        leader = asyncio.create_task(it.books.read(book.id, timeout=5))
        await asyncio.sleep(0.01)
        with pytest.raises(ReadUnavailable):
            await asyncio.wait_for(it.books.read(book.id, timeout=0.1), 0.2)
        assert await leader == book


async def test_a_follower_is_not_failed_by_its_leaders_deadline(tmp_path: Path) -> None:
    async with stage(tmp_path, guard=PATIENT) as it:
        book = Book(title="one")
        await another_process_writes(it, book)
        it.primary.delay = 0.2
        it.primary.reads = Fault.SLOW
        leader = asyncio.create_task(it.books.read(book.id, timeout=0.05))
        await asyncio.sleep(0.01)
        assert await it.books.read(book.id, timeout=5) == book
        with pytest.raises(ReadUnavailable):
            await leader


@pytest.mark.parametrize("timeout", [0.1, 0.3])
async def test_a_backend_that_hangs_leaves_time_for_those_behind_it(tmp_path: Path, timeout: float) -> None:
    async with stage(tmp_path, guard=PATIENT) as it:
        book = Book(title="one")
        await another_process_writes(it, book)
        it.cache.reads = Fault.HANG
        assert await it.books.read(book.id, timeout=timeout) == book


async def test_what_is_seen_moves_the_clock(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        ahead = Clock(lambda: it.manager.settings.wall() + 30)
        mapper = Mapper(Book)
        book = Book(title="one")
        version = ahead.next()
        fields, payload = mapper.encode(book, book.updated_at, create=True)
        await it.primary.adapter.apply(
            [Operation(Kind.CREATE, mapper.key_of(book), version, version, fields, payload)], Mode.MIRROR
        )
        found = await it.books.get_one(book.id)
        assert found.version == version
        assert (await it.books.create(Book(title="two"))).version > version
