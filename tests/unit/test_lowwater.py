"""The low-water mark: durable before a write is sent, never too high, and never lost with whoever kept it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from octopus_async.clock import Clock, decode_version
from octopus_async.errors import JournalError
from octopus_async.events import Events, JournalDamaged
from octopus_async.journal import FileJournal
from octopus_async.journal.mark import decode
from octopus_async.strategies.lowwater import LowWater
from tests.crash.journals import Heard, create, opened


def moment() -> float:
    """A deadline that is far away."""
    return asyncio.get_running_loop().time() + 10.0


async def die(journal: FileJournal) -> None:
    """As if the process had died: the lock is gone, and nothing else is done."""
    await journal._runner.stop(5.0)
    journal._is_open = False
    journal._disk.forget()


async def heirs_marks(path: Path, heard: Heard | None = None) -> Mapping[str, str]:
    """What the next opener finds; it dies at once."""
    journal = FileJournal(path)
    await journal.open(Events(*([heard] if heard is not None else [])))
    marks = journal.inherited()
    await die(journal)
    return marks


# -- in the journal --------------------------------------------------------------------------------


async def test_an_heir_finds_the_mark_of_whoever_died(tmp_path: Path) -> None:
    clock = Clock()
    journal = FileJournal(tmp_path / "j")
    await journal.open(Events())
    mark = {"Book": clock.next(), "Author": clock.next()}
    await journal.mark({"Book": clock.next()})
    await journal.mark(mark)
    await die(journal)
    assert await heirs_marks(tmp_path / "j") == mark


async def test_an_heir_that_dies_before_it_has_compared_leaves_the_mark_to_the_next(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "j")
    await journal.open(Events())
    mark = {"Book": Clock().next()}
    await journal.mark(mark)
    await die(journal)
    for _ in range(3):
        assert await heirs_marks(tmp_path / "j") == mark


async def test_the_lowest_of_several_marks_is_inherited(tmp_path: Path) -> None:
    clock = Clock()
    low, high = clock.next(), clock.next()
    journals = [FileJournal(tmp_path / "j") for _ in range(2)]
    for journal, mark in zip(journals, (high, low), strict=True):
        await journal.open(Events())
        await journal.mark({"Book": mark})
    for journal in journals:
        await die(journal)
    assert await heirs_marks(tmp_path / "j") == {"Book": low}


async def test_what_was_taken_over_while_open_is_carried_until_it_is_known(
    tmp_path: Path,
) -> None:
    clock = Clock()
    low, high = clock.next(), clock.next()
    dead = FileJournal(tmp_path / "j")
    await dead.open(Events())
    await dead.mark({"Book": low})
    heir = FileJournal(tmp_path / "j")
    await heir.open(Events())
    await heir.mark({"Book": high})
    await die(dead)
    await heir.adopt()
    # These marks were made by somebody who did not know yet.
    await heir.mark({"Book": high})
    assert heir.inherited() == {"Book": low}
    await die(heir)
    assert await heirs_marks(tmp_path / "j") == {"Book": low}


async def test_marks_that_were_taken_into_account_are_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    low, high = clock.next(), clock.next()
    dead = FileJournal(tmp_path / "j")
    await dead.open(Events())
    await dead.mark({"Book": low})
    await die(dead)
    async with opened(tmp_path / "j") as heir:
        assert heir.inherited() == {"Book": low}
        assert heir.inherited() == {}
        await heir.mark({"Book": high})
        await die(heir)
    assert await heirs_marks(tmp_path / "j") == {"Book": high}


async def test_a_folder_with_a_mark_outlives_a_close_and_one_without_does_not(tmp_path: Path) -> None:
    mark = Clock().next()
    async with opened(tmp_path / "j") as journal:
        await journal.mark({"Book": mark})
    async with opened(tmp_path / "j") as journal:
        assert journal.inherited() == {"Book": mark}
        await journal.mark({})
    assert not list((tmp_path / "j").glob("writer-*"))


async def test_a_mark_lasts_longer_than_the_entries_beside_it(tmp_path: Path) -> None:
    mark = Clock().next()
    async with opened(tmp_path / "j", segment_bytes=100) as journal:
        await journal.mark({"Book": mark})
        for name in "abc":
            await journal.append(create(name), ["mysql"])
            journal.settle("mysql", journal.runs("mysql", 10))
            await asyncio.sleep(0.15)
        await die(journal)
    assert await heirs_marks(tmp_path / "j") == {"Book": mark}


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"octopus"', bytes(200)])
async def test_a_damaged_mark_means_everything_from_the_beginning_and_is_reported(
    tmp_path: Path, damage: bytes
) -> None:
    journal = FileJournal(tmp_path / "j")
    await journal.open(Events())
    await journal.mark({"Book": Clock().next()})
    await die(journal)
    (file,) = (tmp_path / "j").glob("writer-*/mark")
    file.write_bytes(damage)
    heard = Heard()
    assert await heirs_marks(tmp_path / "j", heard) == {"": ""}
    assert [event.path for event in heard.of(JournalDamaged)] == [str(file)]


async def test_every_flipped_bit_of_a_mark_is_noticed(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "j")
    await journal.open(Events())
    await journal.mark({"Book": Clock().next()})
    await die(journal)
    (file,) = (tmp_path / "j").glob("writer-*/mark")
    line = file.read_bytes()
    assert decode(line, file.parent.name, file) is not None
    for place in range(8 * len(line)):
        flipped = bytearray(line)
        flipped[place // 8] ^= 1 << place % 8
        assert decode(bytes(flipped), file.parent.name, file) is None


# -- in memory -------------------------------------------------------------------------------------


class Marks(FileJournal):
    """A journal whose marks are made durable when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Mapping[str, str], asyncio.Future[None]]] = []

    def mark(self, marks: Mapping[str, str]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.append((marks, future))
        return future


async def test_the_first_write_of_a_model_waits_until_its_mark_is_durable() -> None:
    journal = Marks()
    water = LowWater(Clock(), journal)
    entering = asyncio.create_task(water.enter("Book", moment()))
    await asyncio.sleep(0.02)
    assert not entering.done()
    ((marks, future),) = journal.asked
    assert set(marks) == {"Book"}
    future.set_result(None)
    await entering
    await water.enter("Book", moment())
    assert len(journal.asked) == 1


async def test_writes_that_begin_together_wait_for_one_mark() -> None:
    journal = Marks()
    water = LowWater(Clock(), journal)
    entering = asyncio.gather(*(water.enter("Book", moment()) for _ in range(100)))
    await asyncio.sleep(0.01)
    ((_, future),) = journal.asked
    future.set_result(None)
    assert len(await entering) == 100


async def test_a_disk_that_cannot_be_written_does_not_stop_writes() -> None:
    journal = Marks()
    water = LowWater(Clock(), journal)
    entering = asyncio.create_task(water.enter("Book", moment()))
    await asyncio.sleep(0)
    journal.asked[0][1].set_exception(JournalError("the disk is gone"))
    await entering
    async with asyncio.timeout(1):
        await water.enter("Book", moment())


async def test_the_mark_is_below_the_oldest_write_under_way_and_rises_behind_it() -> None:
    clock = Clock()
    water = LowWater(clock, None)
    first = await water.enter("Book", moment())
    oldest = clock.next()
    second = await water.enter("Book", moment())
    newest = clock.next()
    water.want({"Book": newest})
    assert water._marks()["Book"] < oldest
    first.end()
    assert oldest < water._marks()["Book"] < newest
    second.end()
    assert oldest < water._marks()["Book"] <= newest


async def test_a_write_that_is_in_doubt_holds_the_mark_until_its_model_was_compared() -> None:
    clock = Clock()
    water = LowWater(clock, None)
    passage = await water.enter("Book", moment())
    lost = clock.next()
    passage.end(doubt=True)
    for _ in range(3):
        (await water.enter("Book", moment())).end()
        clock.next()
    assert water.wanted(["Book", "Author"]) == {"Book"}
    assert water.take("Book") < lost
    assert water._marks()["Book"] < lost
    assert not water.wanted(["Book"])
    water.done("Book")
    assert water.comparing(["Book"]) == frozenset()


async def test_a_comparison_that_failed_is_wanted_again() -> None:
    water = LowWater(Clock(), None)
    mark = Clock().next()
    water.want({"Book": mark})
    water.take("Book")
    water.give_back("Book")
    assert water.wanted(["Book"]) == {"Book"}
    assert water.take("Book") == mark


async def test_everything_is_wanted_of_each_model_once() -> None:
    water = LowWater(Clock(), None)
    water.want({"": ""})
    assert water.wanted(["Book"]) == {"Book"}
    assert water.take("Book") == ""
    water.done("Book")
    assert not water.wanted(["Book"])
    assert water.wanted(["Book", "Author"]) == {"Author"}


async def test_what_is_open_at_the_end_is_left_to_the_next_opener_and_nothing_else() -> None:
    clock, journal = Clock(), Marks()
    water = LowWater(clock, journal)
    for model in ("Book", "Author"):
        entering = asyncio.create_task(water.enter(model, moment()))
        await asyncio.sleep(0)
        journal.asked[-1][1].set_result(None)
        passage = await entering
        clock.next()
    passage.end()
    water.close(["Book", "Author"])
    assert set(journal.asked[-1][0]) == {"Book"}


async def test_the_mark_is_below_what_was_issued_in_the_same_millisecond() -> None:
    clock = Clock(lambda: 1_700_000_000.0)
    water = LowWater(clock, None)
    versions = [clock.next()]
    passage = await water.enter("Book", moment())
    versions.append(clock.next())
    assert decode_version(versions[0])[0] == decode_version(versions[1])[0]
    passage.end(doubt=True)
    assert versions[0] < water.take("Book") < versions[1]
