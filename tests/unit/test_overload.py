"""More calls than a backend can take: every queue has a bound, and what is beyond it is refused in time.

The backend hangs, and tens of thousands of calls arrive in one moment of virtual time: how fast the machine
is plays no part in when they end.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from random import Random
from threading import Event as Gate
from typing import Any

import pytest

from octopus_async import DaoManager, Hedge, OctopusError, WriteUnavailable
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.errors import ConfigurationError, JournalFull
from octopus_async.events import Events
from octopus_async.guard import Guard, GuardStatistics
from octopus_async.journal import FileJournal
from octopus_async.journal.disk import OsDisk
from octopus_async.record import Key, Miss, Record
from octopus_async.testing.faulty import Fault, FaultyAdapter
from octopus_async.testing.operations import Author
from octopus_async.testing.simulation import VirtualLoop
from tests.unit.stage import POLICY, Book, Stage, stage

MANY = 50_000
SOME = 10_000
DEADLINE = 1.0
QUEUE = 20_000
A_LARGE_ONE = "x" * 1_000_000


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run in a loop whose clock stands still while anything can be done."""
    loop = VirtualLoop(Random(0), shuffle=False, most_steps=10_000_000)
    gc.disable()  # it would spend most of the test going through what all these calls hold
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
        gc.enable()


async def ended(call: Awaitable[object], ends: Counter[str], late: list[float]) -> None:
    """Note how a call ends, and when."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        await call
    except OctopusError as error:
        ends[type(error).__name__] += 1
    else:
        ends["done"] += 1
    late.append(loop.time() - began - DEADLINE)


async def all_ended(calls: Sequence[Coroutine[Any, Any, Any]]) -> Counter[str]:
    """How calls end that are made in one moment; none of them after its deadline."""
    ends: Counter[str] = Counter()
    late: list[float] = []
    await asyncio.gather(*(ended(call, ends, late) for call in calls))
    assert max(late) <= 0.011  # what ends within a lane's tick of each other is settled together
    return ends


def primary_of(it: Stage) -> GuardStatistics:
    return it.manager.statistics().backends["primary"]


async def takes_writes_again(it: Stage) -> None:
    """A healed stage takes a write before long, and nothing of what was is left in it."""
    primary = it.manager.backends["primary"]
    it.primary.heal()
    await it.until(lambda: primary.writes.passes and primary.reads.passes)
    await it.until(lambda: not it.manager.statistics().writing)
    book = Book(title="afterwards")
    assert (await it.books.create(book)).outcomes
    assert await it.books.read(book.id) == book
    assert primary_of(it).queued_writes == primary_of(it).queued_reads == 0
    assert not it.manager._locks._held
    assert not it.manager._locks._unsettled
    assert not it.manager._locks._ending
    assert it.manager._admission._bytes == 0


class TestWrites:
    def test_to_a_hung_backend_are_refused_in_time_and_no_more_than_a_queue_of_them_wait(self) -> None:
        async def main() -> None:
            async with stage(None, cache=False, timeout=DEADLINE) as it:
                it.primary.break_down(Fault.HANG)
                calls = asyncio.create_task(
                    all_ended([it.books.create(Book(title=str(number))) for number in range(MANY)])
                )
                await asyncio.sleep(0.001)
                assert QUEUE / 2 < primary_of(it).queued_writes <= QUEUE
                assert await calls == {"WriteUnavailable": MANY}
                await takes_writes_again(it)

        in_virtual_time(main)

    def test_beyond_max_writes_are_refused_at_once_and_told_why(self) -> None:
        async def main() -> None:
            async with stage(None, cache=False, timeout=DEADLINE, max_writes=1000) as it:
                it.primary.break_down(Fault.HANG)
                calls = [
                    asyncio.create_task(it.books.create(Book(title=str(number)))) for number in range(SOME)
                ]
                await asyncio.sleep(0.001)
                assert it.manager.statistics().writing == 1000
                refused = [call.exception() for call in calls if call.done()]
                assert len(refused) == SOME - 1000
                assert {type(error) for error in refused} == {WriteUnavailable}
                assert "1,000 writes are under way, and max_writes is 1,000" in str(refused[0])
                assert "Nothing was written" in str(refused[0])
                await asyncio.wait(calls)
                await takes_writes_again(it)

        in_virtual_time(main)

    def test_whose_callers_have_gone_are_bounded_all_the_same(self) -> None:
        async def main() -> None:
            async with stage(None, cache=False, timeout=DEADLINE, max_writes=2000) as it:
                it.primary.break_down(Fault.HANG)
                for number in range(SOME):
                    call = asyncio.create_task(it.books.create(Book(title=str(number))))
                    if number % 1000 == 0:
                        await asyncio.sleep(0)
                    call.cancel()
                await asyncio.sleep(0.001)
                assert 0 < it.manager.statistics().writing <= 2000
                await takes_writes_again(it)

        in_virtual_time(main)

    def test_of_one_key_wait_in_line_and_leave_nothing_behind(self) -> None:
        async def main() -> None:
            async with stage(None, cache=False, timeout=DEADLINE) as it:
                book = Book(title="hot")
                await it.books.create(book)
                it.primary.break_down(Fault.HANG)
                copies = [book.model_copy(update={"title": str(number)}) for number in range(2000)]
                ends = await all_ended([it.books.update(copy) for copy in copies])
                assert ends == {"WriteUnavailable": 2000}
                await takes_writes_again(it)

        in_virtual_time(main)

    @pytest.mark.parametrize("hot", [True, False], ids=["of one key", "of many keys"])
    def test_of_large_records_are_bounded_by_their_bytes(self, *, hot: bool) -> None:
        async def main() -> None:
            async with stage(None, cache=False, timeout=DEADLINE) as it:
                it.primary.break_down(Fault.HANG)
                one = Book(title=A_LARGE_ONE)
                books = [one if hot else Book(title=A_LARGE_ONE) for _ in range(400)]
                calls = [asyncio.create_task(it.books.create(book)) for book in books]
                await asyncio.sleep(0.001)
                assert primary_of(it).queued_writes < 70  # of a megabyte each
                assert it.manager.statistics().writing < 280
                refused = [str(call.exception()) for call in calls if call.done()]
                reason = "bytes are being written already" if hot else "too many calls wait for backend"
                assert len(refused) > 100
                assert all(reason in message for message in refused)
                await asyncio.wait(calls)
                await takes_writes_again(it)

        in_virtual_time(main)


class TestReads:
    def test_of_a_hung_backend_are_refused_in_time_and_no_more_than_a_queue_of_them_wait(self) -> None:
        async def main() -> None:
            async with stage(None, cache=False, timeout=DEADLINE) as it:
                it.primary.break_down(Fault.HANG)
                ids = [Book(title="").id for _ in range(MANY)]
                calls = asyncio.create_task(all_ended([it.books.read(id_) for id_ in ids]))
                await asyncio.sleep(0.001)
                assert QUEUE / 2 < primary_of(it).queued_reads <= QUEUE
                assert await calls == {"ReadUnavailable": MANY}
                assert not it.manager._reader._fetches
                await takes_writes_again(it)

        in_virtual_time(main)

    def test_of_one_key_share_one_place_in_the_queue(self) -> None:
        async def main() -> None:
            async with stage(None, cache=False, timeout=DEADLINE) as it:
                it.primary.break_down(Fault.HANG)
                id_ = Book(title="").id
                reads = [it.books.read(id_) for _ in range(SOME)]
                calls = asyncio.create_task(all_ended(reads))
                await asyncio.sleep(0.001)
                assert primary_of(it).queued_reads <= 1
                assert await calls == {"ReadUnavailable": SOME}
                await takes_writes_again(it)

        in_virtual_time(main)

    def test_that_lost_a_race_do_not_gather_before_the_backend_that_hangs(self) -> None:
        async def main() -> None:
            read = Hedge("cache", "primary", delay=0.01)
            async with stage(None, timeout=DEADLINE, read=read) as it:
                book = Book(title="found")
                await it.books.create(book)
                it.cache.break_down(Fault.HANG)
                for _ in range(50):
                    results = await asyncio.gather(*(it.books.read(book.id) for _ in range(100)))
                    assert results == [book] * 100
                cache = it.manager.statistics().backends["cache"]
                assert cache.queued_reads <= 50
                it.cache.heal()
                await it.until(lambda: not it.manager.statistics().backends["cache"].queued_reads)

        in_virtual_time(main)


class TestFills:
    def test_beyond_the_queue_of_a_hung_cache_are_dropped(self) -> None:
        async def main() -> None:
            adapter = FaultyAdapter(MemoryAdapter(name="cache"))
            guard = Guard(adapter, Events(), POLICY)
            await guard.open()
            adapter.writes = Fault.HANG
            author = Author("Book")
            for _ in range(SOME):
                created = author.create(author.key(), {"title": ""})
                guard.fill(Record(created.key, created.version, created.born, created.fields), Miss(""))
            assert guard._fill_lane.queued <= 1000
            adapter.heal()
            await guard.close()

        in_virtual_time(main)


class GatedDisk(OsDisk):
    """A disk that stands still within a sync until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.gate.set()

    def sync(self, file: int) -> None:
        self.gate.wait(60)
        super().sync(file)


class TestTheJournal:
    async def test_of_a_disk_that_hangs_takes_a_bounded_queue_and_loses_none_of_it(
        self, tmp_path: Path
    ) -> None:
        disk = GatedDisk()
        journal = FileJournal(tmp_path / "journal", disk=disk)
        await journal.open(Events())
        try:
            disk.gate.clear()
            author = Author("Book")
            operations = [author.create(author.key(), {"title": "x" * 8000}) for _ in range(15_000)]
            appends = [journal.append(operation, ["primary"]) for operation in operations]
            refused = [append for append in appends if append.done()]
            assert len(refused) > 4000  # of some 120 MB
            assert {type(append.exception()) for append in refused} == {JournalFull}
            assert "its disk is too slow, or hangs" in str(refused[0].exception())
            disk.gate.set()
            results = await asyncio.gather(*appends, return_exceptions=True)
            taken = [result for result in results if isinstance(result, int)]
            assert len(taken) == len(operations) - len(refused)
            assert journal.owes("primary") == len(taken)
            assert await journal.append(author.create(author.key(), {}), ["primary"]) > max(taken)
        finally:
            disk.gate.set()
            await journal.close()

    async def test_of_a_disk_that_hangs_keeps_no_write_beyond_its_deadline(self, tmp_path: Path) -> None:
        disk = GatedDisk()
        journal = FileJournal(tmp_path / "journal", disk=disk)
        async with stage(None, cache=False) as healthy:
            primary = healthy.primary.adapter
            async with DaoManager([it := FaultyAdapter(primary)], journal=journal, guard=POLICY) as manager:
                books = manager.dao(Book)
                await books.create(Book(title="first"))
                it.break_down(Fault.REFUSE)
                disk.gate.clear()
                try:
                    with pytest.raises(WriteUnavailable, match="not durable before the deadline"):
                        await books.create(Book(title="second"), timeout=0.3)
                finally:
                    disk.gate.set()
                it.heal()

    async def test_at_its_cap_refuses_clearly_drops_nothing_and_takes_writes_when_it_is_drained(
        self, tmp_path: Path
    ) -> None:
        journal = FileJournal(tmp_path / "journal", max_bytes=100_000)
        primary = FaultyAdapter(MemoryAdapter(durable=True, name="primary"))
        async with DaoManager([primary], journal=journal, guard=POLICY) as manager:
            books = manager.dao(Book)
            primary.break_down(Fault.REFUSE)
            kept: list[Book] = []
            while (refusal := await refused(books.create(book := Book(title="x" * 300)))) is None:
                kept.append(book)
            assert "max_bytes is 100000: nothing was dropped" in str(refusal)
            assert "Nothing was written" in str(refusal)
            assert isinstance(refusal.causes["journal"], JournalFull)
            assert 100 < len(kept) < 400
            assert [await books.read(book.id) for book in kept] == kept
            primary.heal()
            async with asyncio.timeout(20):
                await manager.drained()
            held = await primary.adapter.read([Key("Book", str(book.id)) for book in kept])
            assert all(isinstance(answer, Record) for answer in held)
            primary.break_down(Fault.REFUSE)
            async with asyncio.timeout(20):
                while await refused(books.create(Book(title="again"))):  # noqa: ASYNC110 - its files go soon
                    await asyncio.sleep(0.05)
            primary.heal()

    async def test_forgets_who_asked_in_vain_whether_a_write_is_settled(self, tmp_path: Path) -> None:
        async with stage(tmp_path, cache=False) as it:
            it.primary.break_down(Fault.REFUSE)
            receipt = await it.books.create(Book(title="waiting"))
            for _ in range(100):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await receipt.settled()
            await asyncio.sleep(0)
            assert isinstance(it.manager.journal, FileJournal)
            assert not it.manager.journal._settlements._waiting
            it.primary.heal()
            await receipt.settled()


async def refused(write: Awaitable[object]) -> WriteUnavailable | None:
    """Why a write was not taken; None if it was."""
    try:
        await write
    except WriteUnavailable as error:
        return error
    return None


def test_max_writes_is_a_whole_number_above_0() -> None:
    with pytest.raises(ConfigurationError, match="max_writes is a whole number of at least 1, not 0"):
        DaoManager(["memory://"], max_writes=0)
