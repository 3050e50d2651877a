"""Looking at a journal changes nothing, also while its writers are at work."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from octopus_async.errors import JournalCorrupt, JournalError
from octopus_async.journal.disk import OsDisk
from octopus_async.journal.format import seal
from octopus_async.journal.inspect import (
    drop_dead_letter,
    inspect,
    pending,
    retry_dead_letter,
    verify,
)
from tests.crash.journals import PRIMARY, REPLICA, crash, create, opened, segments, update


def content(path: Path) -> dict[Path, bytes]:
    return {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}


async def leave(path: Path) -> None:
    async with opened(path) as journal:
        for name in "abc":
            await journal.append(create(name), [PRIMARY, REPLICA])
        await journal.bury(PRIMARY, journal.runs(PRIMARY, 1)[0], "no", "DuplicateRecord")
        journal.settle(REPLICA, journal.runs(REPLICA, 2))
        await journal.reserve(5_000)
        await asyncio.sleep(0.2)
        await crash(journal)


async def test_a_summary_says_what_waits_and_what_was_refused(tmp_path: Path) -> None:
    await leave(tmp_path / "j")
    before = content(tmp_path / "j")
    summary = inspect(tmp_path / "j")
    (folder,) = summary.folders
    assert (summary.path, summary.ceiling, summary.pending) == (str(tmp_path / "j"), 5_000, 2)
    assert (folder.alive, folder.writer, folder.pending_by_target) == (
        False,
        folder.name,
        {PRIMARY: 2, REPLICA: 1},
    )
    assert [letter.operation.key.id for letter in summary.dead_letters] == ["a"]
    assert folder.oldest_at is not None
    (segment,) = folder.segments
    assert (segment.lines, segment.first, segment.last) == (5, 1, 5)
    assert segment.bytes == folder.bytes == len(before[Path(segment.path)])
    assert (summary.damage, summary.quarantine) == ((), ())
    assert content(tmp_path / "j") == before


async def test_entries_are_given_the_oldest_first_with_who_owes_them(tmp_path: Path) -> None:
    await leave(tmp_path / "j")
    entries = list(pending(tmp_path / "j"))
    assert [(entry.sequence, entry.operation.key.id, entry.targets) for entry in entries] == [
        (2, "b", (PRIMARY,)),
        (3, "c", (PRIMARY, REPLICA)),
    ]


async def test_a_journal_can_be_looked_at_while_it_is_written(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", segment_bytes=4_000) as journal:
        stop = False

        async def load() -> None:
            number = 0
            while not stop:
                await asyncio.gather(
                    *[journal.append(update(str(number + each)), [PRIMARY]) for each in range(20)]
                )
                journal.settle(PRIMARY, journal.runs(PRIMARY, 20))
                number += 20

        loading = asyncio.create_task(load())
        for _ in range(20):
            summary = await asyncio.to_thread(inspect, tmp_path / "j")
            (folder,) = summary.folders
            assert folder.alive
            assert summary.damage == ()
            await asyncio.sleep(0.01)
        stop = True
        await loading


async def test_damage_is_found_and_left_where_it_is(tmp_path: Path) -> None:
    await leave(tmp_path / "j")
    (path,) = segments(tmp_path / "j")
    path.write_bytes(path.read_bytes().replace(b'"id":"b"', b'"id":"x"') + b"torn")
    before = content(tmp_path / "j")
    (segment,) = verify(tmp_path / "j")
    middle, tail = segment.damage
    assert "lost: the lines numbered 2 to 2" in middle.problem
    assert tail.tail
    assert (tail.offset + tail.length, tail.length) == (len(before[path]), 4)
    assert inspect(tmp_path / "j").damage == segment.damage
    assert content(tmp_path / "j") == before


async def test_a_missing_file_is_found(tmp_path: Path) -> None:
    async with opened(tmp_path / "j", segment_bytes=500) as journal:
        for name in "abcdef":
            await journal.append(create(name), [PRIMARY])
        await crash(journal)
    segments(tmp_path / "j")[0].unlink()
    (damage,) = inspect(tmp_path / "j").damage
    assert "missing" in damage.problem


async def test_copies_of_damaged_bytes_are_listed(tmp_path: Path) -> None:
    await leave(tmp_path / "j")
    (path,) = segments(tmp_path / "j")
    path.write_bytes(path.read_bytes() + b"torn")
    async with opened(tmp_path / "j"):
        pass
    (name,) = inspect(tmp_path / "j").quarantine
    assert name.startswith(path.parent.name)


async def test_what_is_no_journal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file"):
        inspect(tmp_path / "nothing")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(JournalError, match="symbolic link"):
        list(pending(tmp_path / "link"))


async def test_another_format_is_refused_by_name(tmp_path: Path) -> None:
    await leave(tmp_path / "j")
    body = b'{"octopus":"octopus journal","format":3,"x":1'
    (tmp_path / "j" / "ceiling").write_bytes(body + seal(body, 0) + b"\n")
    with pytest.raises(JournalCorrupt, match="format version 3"):
        inspect(tmp_path / "j")


async def test_a_folder_that_goes_meanwhile_is_left_out(tmp_path: Path) -> None:
    await leave(tmp_path / "j")

    class Vanishing(OsDisk):
        def list_folder(self, path: Path) -> list[str]:
            if path.name.startswith("writer-"):
                for name in super().list_folder(path):
                    (path / name).unlink()
                path.rmdir()
                raise FileNotFoundError(path)
            return super().list_folder(path)

    assert inspect(tmp_path / "j", disk=Vanishing()).folders == ()


async def test_dead_letters_of_a_journal_that_nobody_holds_can_be_retried_and_dropped(tmp_path: Path) -> None:
    await leave(tmp_path / "j")
    number = await retry_dead_letter(tmp_path / "j", 1)
    summary = inspect(tmp_path / "j")
    assert summary.dead_letters == ()
    assert number in [entry.sequence for entry in pending(tmp_path / "j")]
    async with opened(tmp_path / "j") as journal:
        (run,) = (run for run in journal.runs(PRIMARY, 9) if run.sequences == (number,))
        await journal.bury(PRIMARY, run, "no", "DuplicateRecord")
    await drop_dead_letter(tmp_path / "j", number)
    assert inspect(tmp_path / "j").dead_letters == ()


async def test_a_dead_letter_that_a_living_process_holds_is_not_touched(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        number = await journal.append(create(), [PRIMARY])
        await journal.bury(PRIMARY, journal.runs(PRIMARY, 1)[0], "no", "DuplicateRecord")
        with pytest.raises(JournalError, match=f"no dead letter {number}"):
            await drop_dead_letter(tmp_path / "j", number)
        assert len(journal.dead_letters()) == 1
