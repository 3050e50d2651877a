"""J1, J5, J6, J9 and J11: what is acknowledged is durable, and nothing else is acknowledged."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Awaitable
from pathlib import Path

import pytest

from octopus_async.backend import Journal
from octopus_async.clock import version_at
from octopus_async.errors import ConfigurationError, JournalError, JournalFull, ManagerClosed
from octopus_async.events import Events, JournalFailed
from octopus_async.journal import FileJournal
from tests.crash.journals import (
    PRIMARY,
    REPLICA,
    Failure,
    FaultyDisk,
    GatedDisk,
    Heard,
    crash,
    create,
    delete,
    key,
    lines,
    opened,
    pending,
    segments,
    update,
    versions,
)


async def outcomes(*waiting: Awaitable[object]) -> list[object]:
    return await asyncio.gather(*waiting, return_exceptions=True)


def test_a_file_journal_is_a_journal(tmp_path: Path) -> None:
    journal: Journal = FileJournal(tmp_path)
    assert journal is not None


async def test_j1_an_append_is_acknowledged_after_a_sync_that_covers_it(tmp_path: Path) -> None:
    disk = GatedDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        await journal.append(create("first"), [PRIMARY])
        async with disk.holding():
            future = journal.append(create("a"), [PRIMARY])
            await disk.sync_begun()
            await asyncio.sleep(0.02)
            assert not future.done()
            assert journal.newest(key("a"), PRIMARY) is None
        await future
        assert journal.newest(key("a"), PRIMARY) is not None


async def test_j1_concurrent_writers_share_one_sync(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        await journal.append(create("first"), [PRIMARY])
        before = disk.counts["sync"], disk.counts["write"]
        await asyncio.gather(*[journal.append(create(str(number)), [PRIMARY]) for number in range(200)])
        assert (disk.counts["sync"] - before[0], disk.counts["write"] - before[1]) == (1, 1)


async def test_j1_what_arrives_during_a_sync_leaves_as_the_next_group(tmp_path: Path) -> None:
    disk = GatedDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        await journal.append(create("first"), [PRIMARY])
        async with disk.holding():
            futures = [journal.append(create("a"), [PRIMARY])]
            await disk.sync_begun()
            groups = journal.statistics().synced
            futures += [journal.append(create(str(number)), [PRIMARY]) for number in range(50)]
            await asyncio.sleep(0.01)
        numbers = await asyncio.gather(*futures)
        assert journal.statistics().synced == groups + 2
        assert numbers == sorted(numbers)


async def test_numbers_rise_in_the_order_of_the_calls(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        numbers = await asyncio.gather(*[journal.append(create(str(n)), [PRIMARY]) for n in range(300)])
    assert numbers == list(range(numbers[0], numbers[0] + 300))


async def test_the_payload_on_the_disk_is_the_operations_own_bytes(tmp_path: Path) -> None:
    payload = b'{"title" : 1.50}'
    async with opened(tmp_path / "j") as journal:
        await journal.append(create()._replace(payload=payload), [PRIMARY])
        (segment,) = segments(tmp_path / "j")
        assert b'"fields":' + payload + b"," in lines(segment)[1]


async def test_an_operation_whose_fields_were_not_encoded_is_encoded(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.append(create()._replace(payload=None), [PRIMARY])
        newest = journal.newest(key(), PRIMARY)
        assert newest is not None
        assert newest.payload == b'{"title":"one"}'


async def test_what_cannot_be_written_down_is_refused_and_disturbs_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        good = journal.append(create("good"), [PRIMARY])
        for bad in (
            journal.append(create("\ud800"), [PRIMARY]),
            journal.append(create(version="no version"), [PRIMARY]),
            journal.append(create()._replace(payload=b"{\n}"), [PRIMARY]),
            journal.append(create()._replace(payload=None, fields={"a": object()}), [PRIMARY]),  # type: ignore[dict-item]
            journal.append(create(), []),
            journal.append_unit([], [PRIMARY]),
            journal.append_unit([create(), create("\ud800")], [PRIMARY]),
        ):
            with pytest.raises(JournalError):
                await bad
        await good
        assert [run.operation.key for run in pending(journal)] == [key("good")]


async def test_j9_a_cancelled_waiter_neither_aborts_nor_reorders_its_group(tmp_path: Path) -> None:
    disk = GatedDisk()
    operations = [update("a", str(number)) for number in range(4)]
    async with opened(tmp_path / "j", disk=disk) as journal:
        await journal.append(create("first"), [PRIMARY])
        async with disk.holding():
            in_flight = [journal.append(operation, [PRIMARY]) for operation in operations[:2]]
            await disk.sync_begun()
            queued = [journal.append(operation, [PRIMARY]) for operation in operations[2:]]
            in_flight[0].cancel()
            queued[0].cancel()
        await asyncio.gather(in_flight[1], queued[1])
        run = pending(journal)[-1]
        assert len(run.sequences) == 4
        assert run.operation.version == operations[-1].version
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert pending(journal)[-1].sequences == run.sequences


async def test_j5_a_failed_sync_poisons_the_file_and_its_records_are_written_anew(tmp_path: Path) -> None:
    disk = FaultyDisk()
    heard = Heard()
    async with opened(tmp_path / "j", heard, disk=disk) as journal:
        await journal.append(create("before"), [PRIMARY])
        (first,) = segments(tmp_path / "j")
        (descriptor,) = disk.synced[-1:]
        disk.failures.append(Failure("sync", 1))
        operations = [create(str(number)) for number in range(3)]
        await asyncio.gather(*[journal.append(operation, [PRIMARY]) for operation in operations])
        poisoned = first.read_bytes()
        disk.synced.clear()
        await journal.append(create("after"), [PRIMARY])
        assert first.read_bytes() == poisoned
        assert len(segments(tmp_path / "j")) == 2
        assert (
            descriptor not in disk._open or descriptor in disk.synced
        )  # closed, or another file's number now
        assert not heard.of(JournalFailed)
        expected = versions(journal)
        await crash(journal)
    async with opened(tmp_path / "j", heard) as journal:
        assert versions(journal) == expected
        assert journal.statistics().pending == 5


async def test_j5_if_the_next_file_fails_too_the_waiters_are_told_and_the_event_is_emitted(
    tmp_path: Path,
) -> None:
    disk = FaultyDisk()
    heard = Heard()
    async with opened(tmp_path / "j", heard, disk=disk) as journal:
        await journal.append(create("before"), [PRIMARY])
        disk.failures.append(Failure("sync", 1, times=2))
        results = await outcomes(*[journal.append(create(str(number)), [PRIMARY]) for number in range(3)])
        assert all(isinstance(result, JournalError) for result in results)
        assert len({id(result) for result in results}) == 3
        (failed,) = heard.of(JournalFailed)
        assert "Input/output error" in failed.reason
        assert journal.statistics().pending == 1
        await journal.append(create("after"), [PRIMARY])
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert {run.operation.key.id for run in pending(journal)} == {"before", "after"}


async def test_j5_records_whose_waiters_were_told_of_a_failure_are_void(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        await journal.append(create("before"), [PRIMARY])
        disk.failures += [Failure("sync", 1), Failure("create", 1)]
        with pytest.raises(JournalError):
            await journal.append(create("a", "refused"), [PRIMARY])
        assert b"refused" in segments(tmp_path / "j")[0].read_bytes()
        await journal.append(create("after"), [PRIMARY])
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert {run.operation.key.id for run in pending(journal)} == {"before", "after"}


@pytest.mark.parametrize("room", [0, 1, 40, 250, 700])
async def test_j6_a_group_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, room: int) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        await journal.append(create("before"), [PRIMARY])
        (segment,) = segments(tmp_path / "j")
        size = segment.stat().st_size
        disk.room = room
        results = await outcomes(*[journal.append(create(str(number)), [PRIMARY]) for number in range(5)])
        assert all(isinstance(result, JournalFull) for result in results)
        assert segment.stat().st_size == size
        disk.room = None
        await journal.append(create("after"), [PRIMARY])
        assert len(segments(tmp_path / "j")) == 1
        await crash(journal)
    heard = Heard()
    async with opened(tmp_path / "j", heard) as journal:
        assert {run.operation.key.id for run in pending(journal)} == {"before", "after"}
        assert not [event for event in heard if "Damaged" in type(event).__name__]


async def test_j6_the_same_with_a_quota(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        await journal.append(create("before"), [PRIMARY])
        disk.failures.append(Failure("write", 1, errno.EDQUOT))
        with pytest.raises(JournalFull, match="Make room"):
            await journal.append(create("a"), [PRIMARY])
        await journal.append(create("after"), [PRIMARY])


async def test_j6_garbage_that_cannot_be_cut_off_makes_the_file_be_left(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        await journal.append(create("before"), [PRIMARY])
        disk.room = 100
        disk.failures.append(Failure("truncate", 1))
        with pytest.raises(JournalFull):
            await journal.append(create("a"), [PRIMARY])
        disk.room = None
        await journal.append(create("after"), [PRIMARY])
        assert len(segments(tmp_path / "j")) == 2
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert {run.operation.key.id for run in pending(journal)} == {"before", "after"}


async def test_j6_a_write_that_takes_a_part_at_a_time_is_finished(tmp_path: Path) -> None:
    class Nibbling(FaultyDisk):
        def write(self, file: int, data: bytes | memoryview) -> int:
            return super().write(file, bytes(data[:7]))

    async with opened(tmp_path / "j", disk=Nibbling()) as journal:
        await asyncio.gather(*[journal.append(create(str(number)), [PRIMARY]) for number in range(20)])
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert journal.statistics().pending == 20


async def test_j6_on_a_full_disk_what_is_done_can_still_be_noted(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        await journal.append(create("a"), [PRIMARY])
        await journal.append(create("b"), [PRIMARY])
        disk.room = 150  # what is left of the last block
        journal.settle(PRIMARY, journal.runs(PRIMARY, 1))
        with pytest.raises(JournalFull):
            await journal.append(create("c", "x" * 500), [PRIMARY])
        await asyncio.sleep(0.3)
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert [run.operation.key.id for run in pending(journal)] == ["b"]


async def test_j11_past_the_cap_on_bytes_writes_are_refused_and_none_is_dropped(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", max_bytes=20_000) as journal:
        accepted = 0
        while journal.statistics().bytes < 20_000:
            await journal.append(create(str(accepted)), [PRIMARY])
            accepted += 1
        with pytest.raises(JournalFull, match="max_bytes is 20000"):
            await journal.append(create("one more"), [PRIMARY])
        assert journal.statistics().pending == accepted > 50
        while runs := journal.runs(PRIMARY, 10):
            journal.settle(PRIMARY, runs)
        await asyncio.sleep(0.5)
        await journal.append(create("again"), [PRIMARY])


async def test_j11_what_is_queued_counts_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", max_bytes=20_000) as journal:
        results = await outcomes(*[journal.append(create(str(number)), [PRIMARY]) for number in range(200)])
        refused = [result for result in results if isinstance(result, JournalFull)]
        assert 50 < len(results) - len(refused) < 150
        assert journal.statistics().bytes < 21_000


async def test_j11_while_an_entry_is_too_old_writes_are_refused(tmp_path: Path) -> None:
    now = [1_000_000.0]
    async with opened(tmp_path / "j", max_age=60.0, wall=lambda: now[0]) as journal:
        await journal.append(create("old"), [PRIMARY])
        now[0] += 59
        await journal.append(create("b"), [PRIMARY])
        now[0] += 2
        with pytest.raises(JournalFull, match=f"has waited 61 seconds for {PRIMARY}, and max_age is 60"):
            await journal.append(create("c"), [PRIMARY])
        assert journal.statistics().oldest_age == pytest.approx(61)
        journal.settle(PRIMARY, journal.runs(PRIMARY, 1))
        now[0] += 2
        await journal.append(create("c"), [PRIMARY])


def test_limits_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        FileJournal(tmp_path, max_bytes=0)
    with pytest.raises(ConfigurationError):
        FileJournal(tmp_path, max_age=0.0)
    with pytest.raises(ConfigurationError):
        FileJournal(tmp_path, segment_bytes=-1)


async def test_a_unit_is_found_again_as_a_whole(tmp_path: Path) -> None:
    operations = [create("a"), update("b"), delete("c")]
    async with opened(tmp_path / "j") as journal:
        numbers = await journal.append_unit(operations, [PRIMARY, REPLICA])
        assert list(numbers) == list(range(numbers[0], numbers[0] + 3))
        assert [run.operation for run in pending(journal)] == operations
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert [run.operation for run in pending(journal, REPLICA)] == operations
        assert [run.sequences for run in pending(journal)] == [(number,) for number in numbers]


async def test_the_ceiling_is_durable_and_never_lowered(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "j")
    assert await journal.open(Events()) == 0
    await journal.reserve(5_000)
    await journal.reserve(4_000)
    await crash(journal)
    journal = FileJournal(tmp_path / "j")
    assert await journal.open(Events()) == 5_000
    await journal.close()


async def test_the_clock_starts_above_the_newest_version_held(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "j")
    await journal.open(Events())
    await journal.append(create("a", version=version_at(9_000_000)), [PRIMARY])
    await journal.append(create("b", version=version_at(8_000_000)), [PRIMARY])
    await crash(journal)
    journal = FileJournal(tmp_path / "j")
    assert await journal.open(Events()) == 9_000_000
    await journal.close()


async def test_a_ceiling_that_cannot_be_raised_is_an_error_of_the_journal(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        disk.failures.append(Failure("rename", 1, errno.ENOSPC))
        with pytest.raises(JournalFull, match="raise the ceiling"):
            await journal.reserve(5_000)
        await journal.reserve(5_000)


async def test_before_it_is_open_and_after_it_is_closed_calls_raise(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "j")
    with pytest.raises(ManagerClosed):
        journal.append(create(), [PRIMARY])
    await journal.close()
    await journal.open(Events())
    await journal.close()
    for call in (
        lambda: journal.append(create(), [PRIMARY]),
        lambda: journal.newest(key(), PRIMARY),
        lambda: journal.reserve(1),
        journal.statistics,
    ):
        with pytest.raises(ManagerClosed):
            call()


async def test_a_journal_can_be_opened_again(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "j")
    for count in range(3):
        await journal.open(Events())
        assert journal.statistics().pending == count
        await journal.append(create(str(count)), [PRIMARY])
        await journal.close()


async def test_closing_makes_what_is_under_way_durable(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "j")
    await journal.open(Events())
    futures = [journal.append(create(str(number)), [PRIMARY]) for number in range(50)]
    await journal.append(create("settled"), [REPLICA])
    journal.settle(REPLICA, journal.runs(REPLICA, 1))
    await journal.close()
    assert all(future.done() and future.exception() is None for future in futures)
    async with opened(tmp_path / "j") as journal:
        assert (journal.statistics().pending, journal.owes(REPLICA)) == (50, 0)


async def test_closing_is_bounded_and_says_so_when_the_disk_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octopus_async.journal.file._CLOSE_SECONDS", 0.1)
    disk = GatedDisk()
    journal = FileJournal(tmp_path / "j", disk=disk)
    await journal.open(Events())
    await journal.append(create("a"), [PRIMARY])
    waiting = journal.settled(1, PRIMARY)
    async with disk.holding():
        stuck, queued = journal.append(create("b"), [PRIMARY]), asyncio.Event()
        await disk.sync_begun()
        late = journal.append(create("c"), [PRIMARY])
        with pytest.raises(JournalError, match="does not answer"):
            await journal.close()
        assert isinstance(late.exception(), ManagerClosed)
        assert isinstance(waiting.exception(), ManagerClosed)
        assert not queued.is_set()
    await asyncio.wait([stuck], timeout=5)
    assert stuck.done()


async def test_closing_goes_on_when_the_caller_is_cancelled(tmp_path: Path) -> None:
    disk = GatedDisk()
    journal = FileJournal(tmp_path / "j", disk=disk)
    await journal.open(Events())
    await journal.append(create("a"), [PRIMARY])
    async with disk.holding():
        late = journal.append(create("b"), [PRIMARY])
        await disk.sync_begun()
        closing = asyncio.create_task(journal.close())
        await asyncio.sleep(0.01)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
    await journal.close()
    assert await late
    assert not disk._open
    async with opened(tmp_path / "j") as again:
        assert again.statistics().pending == 2


async def test_a_journal_that_was_never_closed_warns_by_its_name(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "leaky")
    await journal.open(Events())
    with pytest.warns(ResourceWarning, match="leaky was never closed"):
        journal.__del__()
    await journal.close()


def count_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_no_thread_and_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    async with opened(tmp_path / "warm") as journal:
        await journal.append(create(), [PRIMARY])
    threads, descriptors = threading.active_count(), count_descriptors()
    for _ in range(3):
        async with opened(tmp_path / "j") as journal:
            await journal.append(create(), [PRIMARY])
    assert threading.active_count() == threads
    assert count_descriptors() == descriptors
