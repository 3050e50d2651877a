"""J7: files are rotated and let go only behind a durable checkpoint, and nothing comes back with them."""

from __future__ import annotations

import asyncio
import errno
import random
from pathlib import Path

import pytest

from octopus_async.backend import Run
from octopus_async.journal import FileJournal
from octopus_async.journal.format import SUM_LENGTH, decode_header
from tests.crash.journals import (
    PRIMARY,
    REPLICA,
    Failure,
    FaultyDisk,
    crash,
    create,
    lines,
    opened,
    pending,
    segments,
    update,
)

SMALL = 2_000


async def fill(journal: FileJournal, count: int, *targets: str, prefix: str = "") -> None:
    for number in range(count):
        await journal.append(create(f"{prefix}{number:03d}"), targets or (PRIMARY,))


async def settled(journal: FileJournal, runs: list[Run], target: str = PRIMARY) -> None:
    journal.settle(target, runs)
    await asyncio.sleep(0.4)


def ids(runs: list[Run]) -> list[str]:
    return [run.operation.key.id for run in runs]


async def test_j7_a_full_file_is_followed_by_the_next(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", segment_bytes=SMALL) as journal:
        await fill(journal, 40)
        files = segments(tmp_path / "j")
        assert [path.name for path in files] == [f"{number:06d}.jsonl" for number in range(1, len(files) + 1)]
        assert len(files) == journal.statistics().segments > 3
        assert all(SMALL <= path.stat().st_size < SMALL + 600 for path in files[:-1])
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert ids(pending(journal)) == [f"{number:03d}" for number in range(40)]


async def test_j7_a_file_has_its_name_only_once_its_header_is_durable(tmp_path: Path) -> None:
    order: list[str] = []

    class Watching(FaultyDisk):
        def _enter(self, method: str) -> None:
            order.append(method)
            super()._enter(method)

    async with opened(tmp_path / "j", disk=Watching()) as journal:
        order.clear()
        await journal.append(create(), [PRIMARY])
        assert order == ["create", "write", "sync", "rename", "sync_folder", "write", "sync"]


async def test_j7_files_of_which_nothing_is_needed_go(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", segment_bytes=SMALL) as journal:
        await fill(journal, 40)
        before = segments(tmp_path / "j")
        await settled(journal, pending(journal)[:35])
        after = segments(tmp_path / "j")
        assert before[0] not in after
        assert len(after) <= 3
        assert journal.statistics().bytes == sum(path.stat().st_size for path in after)
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert ids(pending(journal)) == [f"{number:03d}" for number in range(35, 40)]


async def test_j7_files_between_those_that_are_needed_go_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", segment_bytes=SMALL) as journal:
        await fill(journal, 1, REPLICA, prefix="old")
        await fill(journal, 60)
        before = segments(tmp_path / "j")
        await settled(journal, pending(journal)[:50])
        after = segments(tmp_path / "j")
        assert after[0] == before[0]
        assert len(after) <= 5
        await crash(journal)
    for _ in range(3):
        async with opened(tmp_path / "j") as journal:
            assert ids(pending(journal)) == [f"{number:03d}" for number in range(50, 60)]
            assert ids(pending(journal, REPLICA)) == ["old000"]


async def test_j7_a_file_goes_after_its_checkpoint_is_durable(tmp_path: Path) -> None:
    order: list[str] = []

    class Watching(FaultyDisk):
        def _enter(self, method: str) -> None:
            order.append(method)
            super()._enter(method)

    async with opened(tmp_path / "j", disk=Watching(), segment_bytes=SMALL) as journal:
        await fill(journal, 20)
        order.clear()
        await settled(journal, pending(journal)[:15])
        first_unlink = order.index("unlink")
        checkpoint = order.index("rename")
        assert order[checkpoint - 1] == "sync"
        assert order[checkpoint + 1] == "sync_folder"
        assert checkpoint + 1 < first_unlink


@pytest.mark.parametrize("method", ["create", "write", "sync", "rename", "sync_folder", "unlink"])
async def test_j7_a_checkpoint_that_fails_lets_nothing_go_that_is_needed(tmp_path: Path, method: str) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path / "j", disk=disk, segment_bytes=SMALL) as journal:
        await fill(journal, 1, REPLICA, prefix="old")
        await fill(journal, 30)
        runs = pending(journal)
        disk.failures.append(Failure(method, 1, errno.EIO, times=3))
        await settled(journal, runs[:20])
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert set(ids(runs[20:])) <= set(ids(pending(journal)))
        assert ids(pending(journal, REPLICA)) == ["old000"]


async def test_j7_what_is_owed_of_a_file_survives_the_files_that_noted_what_was_done(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", segment_bytes=SMALL) as journal:
        await fill(journal, 6, PRIMARY, REPLICA)
        journal.settle(PRIMARY, [run for run in pending(journal) if run.sequences[0] % 2])
        journal.settle(REPLICA, pending(journal, REPLICA)[:2])
        left = ids(pending(journal)), ids(pending(journal, REPLICA))
        for _ in range(6):
            await fill(journal, 20, prefix="x")
            await settled(journal, [run for run in pending(journal) if run.operation.key.id.startswith("x")])
        assert "000002.jsonl" not in [path.name for path in segments(tmp_path / "j")]
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert (ids(pending(journal)), ids(pending(journal, REPLICA))) == left


async def test_j7_the_header_says_what_is_kept_and_what_of_it_is_owed(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", segment_bytes=SMALL) as journal:
        await fill(journal, 40)
        await settled(journal, [run for run in pending(journal) if run.sequences[0] not in (2, 3, 30)])
        header = decode_header(lines(segments(tmp_path / "j")[-1])[0][: -SUM_LENGTH - 1])
        assert header is not None
        assert 1 in header.keeps
        assert header.keeps[1].owed == {PRIMARY: [(2, 3)]}


async def test_when_all_is_done_the_files_go_and_the_next_append_begins_a_new_one(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", segment_bytes=SMALL) as journal:
        await fill(journal, 30)
        await settled(journal, pending(journal))
        assert journal.statistics().bytes == 0
        assert segments(tmp_path / "j") == []
        await journal.append(create("again"), [PRIMARY])
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert ids(pending(journal)) == ["again"]


async def test_a_clean_close_with_nothing_pending_leaves_no_folder(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await fill(journal, 3)
        journal.settle(PRIMARY, pending(journal))
    assert sorted(path.name for path in (tmp_path / "j").iterdir()) == ["ceiling", "lock"]


async def test_dead_letters_outlive_the_file_in_which_they_were(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", segment_bytes=SMALL) as journal:
        await journal.append(create("bad", "kept"), [PRIMARY])
        await journal.bury(PRIMARY, pending(journal)[0], "no", "DuplicateRecord")
        (letter,) = journal.dead_letters()
        for _ in range(4):
            await fill(journal, 20)
            await settled(journal, pending(journal))
        assert "000001.jsonl" not in [path.name for path in segments(tmp_path / "j")]
        await crash(journal)
    for _ in range(2):
        async with opened(tmp_path / "j") as journal:
            assert journal.dead_letters() == [letter]


async def test_a_dropped_dead_letter_does_not_come_back_with_an_old_file(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", segment_bytes=SMALL) as journal:
        await journal.append(create("keeps the file"), [REPLICA])
        await journal.append(create("bad"), [PRIMARY])
        await journal.append(create("worse"), [PRIMARY])
        for run in pending(journal):
            await journal.bury(PRIMARY, run, "no", "DuplicateRecord")
        await fill(journal, 30)
        dropped, retried = (letter.sequence for letter in journal.dead_letters())
        await journal.drop(dropped)
        await journal.retry(retried)
        for turn in range(3):
            await fill(journal, 20, prefix=str(turn))
            await settled(journal, pending(journal))
        assert segments(tmp_path / "j")[0].name == "000001.jsonl"
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert journal.dead_letters() == []
        assert (ids(pending(journal)), len(pending(journal, REPLICA))) == ([], 1)


async def test_numbers_go_on_in_another_block_when_one_is_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("root", "folder", "holdings"):
        monkeypatch.setattr(f"octopus_async.journal.{module}.BLOCK", 16)
    async with opened(tmp_path / "other") as other, opened(tmp_path / "j") as journal:
        await fill(other, 2)
        async with opened(tmp_path / "j") as second:
            numbers = [
                await each.append(create(f"{each is journal}{count}"), [PRIMARY])
                for count in range(40)
                for each in (journal, second)
            ]
            assert len(set(numbers)) == 80
            assert len(pending(journal)) == len(pending(second)) == 40
            journal.settle(PRIMARY, pending(journal)[::2])
            await asyncio.sleep(0.2)
            expected = ids(pending(journal))
            await crash(second)
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert len(pending(journal)) == 60
        assert set(expected) <= set(ids(pending(journal)))


async def test_a_random_life_of_crashes_forgets_nothing_and_brings_nothing_back(tmp_path: Path) -> None:
    chance = random.Random(11)
    expected: dict[str, set[str]] = {PRIMARY: set(), REPLICA: set()}
    for life in range(12):
        async with opened(tmp_path / "j", segment_bytes=SMALL) as journal:
            for target, names in expected.items():
                assert set(ids(pending(journal, target))) == names, life
            for step in range(30):
                if chance.random() < 0.6:
                    targets = chance.choice([(PRIMARY,), (PRIMARY, REPLICA)])
                    name = f"{life}-{step}" if chance.random() < 0.7 else "shared"
                    await journal.append(update(name), targets)
                    for target in targets:
                        expected[target].add(name)
                else:
                    target = chance.choice([PRIMARY, REPLICA])
                    runs = list(journal.runs(target, chance.randrange(1, 12)))
                    journal.settle(target, runs)
                    expected[target] -= set(ids(runs))
            await asyncio.sleep(0.25)
            if chance.random() < 0.8:
                await crash(journal)
