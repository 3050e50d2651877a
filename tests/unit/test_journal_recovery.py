"""J2, J3, J4, J10 and J12: no flipped bit passes, torn ends are cut, damage is kept and said."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from octopus_async.backend import Run
from octopus_async.errors import JournalCorrupt, JournalError
from octopus_async.events import Events, JournalDamaged
from octopus_async.journal import FileJournal
from octopus_async.journal.contents import Contents
from octopus_async.journal.disk import OsDisk
from octopus_async.journal.format import SUM_LENGTH, decode_header, encode_header, salt
from octopus_async.journal.overlay import Overlay
from octopus_async.record import Operation
from tests.crash.journals import (
    PRIMARY,
    REPLICA,
    Failure,
    FaultyDisk,
    Heard,
    InlineRunner,
    crash,
    create,
    delete,
    lines,
    opened,
    pending,
    segments,
    update,
)


async def write(path: Path, *operations: Operation, together: bool = True) -> None:
    """Leave behind the folder of a process that was killed."""
    journal = FileJournal(path)
    await journal.open(Events())
    if together:
        await asyncio.gather(*[journal.append(operation, [PRIMARY]) for operation in operations])
    else:
        for operation in operations:
            await journal.append(operation, [PRIMARY])
    await crash(journal)


async def reopen(path: Path) -> tuple[list[Run], list[JournalDamaged]]:
    heard = Heard()
    async with opened(path, heard, runner=InlineRunner()) as journal:
        return pending(journal), heard.of(JournalDamaged)


class ScratchedDisk(OsDisk):
    """Segments cannot be read."""

    def open(self, path: Path) -> int:
        file = super().open(path)
        self._scratched = file if path.suffix == ".jsonl" else -1
        return file

    def read(self, file: int, offset: int, length: int) -> bytes:
        if file == self._scratched:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(file, offset, length)


class MemoryDisk(OsDisk):
    """One segment, in memory: for tests that read thousands of versions of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def list_folder(self, path: Path) -> list[str]:
        del path
        return ["000001.jsonl"]

    def open(self, path: Path) -> int:
        del path
        return 0

    def size(self, file: int) -> int:
        del file
        return len(self._data)

    def read(self, file: int, offset: int, length: int) -> bytes:
        del file
        return self._data[offset : offset + length]

    def close(self, file: int) -> None:
        del file


def read(folder: Path, data: bytes | None = None) -> Contents:
    disk = OsDisk() if data is None else MemoryDisk(data)
    contents = Contents(disk, folder, Overlay())
    contents.read()
    contents.overlay.sweep()
    return contents


def found_in(contents: Contents) -> dict[int, Operation]:
    runs = contents.overlay.runs(PRIMARY, 1000)
    return {run.sequences[0]: run.operation for run in runs}


@pytest.fixture
async def written(tmp_path: Path) -> tuple[Path, list[Operation]]:
    """A segment of six records on keys of their own, in groups of one, and the operations."""
    operations = [create("a"), update("b"), create("c", "é\U0001f419"), delete("d"), update("e"), create("f")]
    await write(tmp_path / "j", *operations, together=False)
    (segment,) = segments(tmp_path / "j")
    return segment, operations


async def test_j3_cut_at_any_byte_exactly_the_whole_records_before_it_are_found(
    written: tuple[Path, list[Operation]],
) -> None:
    segment, operations = written
    whole = segment.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        contents = read(segment.parent, whole[:size])
        complete = sum(end <= size for end in ends[1:])
        assert list(found_in(contents).values()) == operations[:complete]
        torn = size not in (0, *ends)
        assert [(damage.tail, damage.offset + damage.length) for damage in contents.damage] == [
            (True, size)
        ] * torn


async def test_j3_a_torn_tail_is_cut_to_the_valid_prefix_and_kept_and_appending_goes_on(
    tmp_path: Path, written: tuple[Path, list[Operation]]
) -> None:
    segment, operations = written
    whole = segment.read_bytes()
    last = lines(segment)[-1]
    segment.write_bytes(whole[:-10])
    found, (damage,) = await reopen(tmp_path / "j")
    assert [run.operation for run in found] == operations[:-1]
    assert (damage.path, damage.offset, damage.length) == (
        str(segment),
        len(whole) - len(last),
        len(last) - 10,
    )
    assert "a write was cut short" in damage.reason
    assert segment.read_bytes() == whole[: -len(last)]
    (copy,) = (tmp_path / "j" / "quarantine").iterdir()
    assert copy.read_bytes() == last[:-10]
    assert str(copy) in damage.reason
    async with opened(tmp_path / "j") as journal:
        await journal.append(create("again"), [PRIMARY])
        assert len(pending(journal)) == len(operations)
    assert (await reopen(tmp_path / "j"))[1] == []


@pytest.mark.parametrize(
    "tail", [b"\0" * 5000, os.urandom(3000), b"\n", b"{}\n", b"\0" * 100 + b"\n" + b"\0" * 100]
)
async def test_j3_zeros_and_garbage_at_the_end_are_cut_off_and_kept(
    tmp_path: Path, written: tuple[Path, list[Operation]], tail: bytes
) -> None:
    segment, operations = written
    whole = segment.read_bytes()
    segment.write_bytes(whole + tail)
    found, (damage,) = await reopen(tmp_path / "j")
    assert [run.operation for run in found] == operations
    assert (damage.offset, damage.length) == (len(whole), len(tail))
    assert segment.read_bytes() == whole
    (copy,) = (tmp_path / "j" / "quarantine").iterdir()
    assert copy.read_bytes() == tail


async def test_j2_every_flipped_bit_is_noticed_and_changes_or_adds_no_record(
    written: tuple[Path, list[Operation]],
) -> None:
    segment, operations = written
    operations = operations[:4]
    whole = bytearray(b"".join(lines(segment)[:5]))
    expected = found_in(read(segment.parent, bytes(whole)))
    start = len(lines(segment)[0])
    for bit in range(start * 8, len(whole) * 8):
        whole[bit // 8] ^= 1 << bit % 8
        contents = read(segment.parent, bytes(whole))
        whole[bit // 8] ^= 1 << bit % 8
        found = found_in(contents)
        assert contents.damage
        assert found.items() <= expected.items()
        assert len(found) >= len(operations) - 2  # a flipped newline makes one bad line of two


async def test_j2_a_damaged_header_is_noticed_and_costs_no_record(
    written: tuple[Path, list[Operation]],
) -> None:
    segment, operations = written
    whole = bytearray(segment.read_bytes())
    newline = whole.index(b"\n")
    for bit in range((newline + 1) * 8):
        whole[bit // 8] ^= 1 << bit % 8
        contents = read(segment.parent, bytes(whole))
        whole[bit // 8] ^= 1 << bit % 8
        assert contents.damage
        assert len(found_in(contents)) == len(operations) - (bit // 8 == newline)


async def test_j2_a_line_of_another_file_is_not_taken_for_one_of_this(
    tmp_path: Path, written: tuple[Path, list[Operation]]
) -> None:
    segment, operations = written
    await write(tmp_path / "other", create("foreign"))
    (other,) = segments(tmp_path / "other")
    segment.write_bytes(segment.read_bytes() + lines(other)[1])
    found, damage = await reopen(tmp_path / "j")
    assert [run.operation for run in found] == operations
    assert len(damage) == 1


async def test_j2_a_line_that_is_there_twice_counts_once(
    tmp_path: Path, written: tuple[Path, list[Operation]]
) -> None:
    segment, operations = written
    segment.write_bytes(segment.read_bytes() + lines(segment)[2])
    found, (damage,) = await reopen(tmp_path / "j")
    assert [run.operation for run in found] == operations
    assert "out of place" in damage.reason


async def test_j4_damage_in_the_middle_is_kept_and_said_and_the_rest_is_replayed(
    tmp_path: Path, written: tuple[Path, list[Operation]]
) -> None:
    segment, operations = written
    header, *records = lines(segment)
    damaged = records[2].replace(b"create", b"delete")
    segment.write_bytes(b"".join([header, *records[:2], damaged, *records[3:]]))
    found, (damage,) = await reopen(tmp_path / "j")
    assert [run.operation for run in found] == [*operations[:2], *operations[3:]]
    assert damage.offset == len(header) + len(records[0]) + len(records[1])
    assert damage.length == len(damaged)
    assert "do not match their checksum; lost: the lines numbered 3 to 3" in damage.reason
    (copy,) = (tmp_path / "j" / "quarantine").iterdir()
    assert copy.read_bytes() == damaged
    assert (await reopen(tmp_path / "j"))[1] == [damage], "it is said as long as the file is there"


async def test_j4_a_line_that_is_gone_without_a_trace_is_missed(
    tmp_path: Path, written: tuple[Path, list[Operation]]
) -> None:
    segment, operations = written
    header, *records = lines(segment)
    segment.write_bytes(b"".join([header, *records[:1], *records[3:]]))
    found, (damage,) = await reopen(tmp_path / "j")
    assert [run.operation for run in found] == [operations[0], *operations[3:]]
    assert "lost: the lines numbered 2 to 3" in damage.reason


async def two_segments(path: Path) -> tuple[Path, Path]:
    journal = FileJournal(path, segment_bytes=1_000)
    await journal.open(Events())
    for number in range(8):
        await journal.append(create(str(number)), [PRIMARY])
    await crash(journal)
    first, second = segments(path)
    return first, second


async def test_j4_the_torn_end_of_a_sealed_segment_is_a_loss_and_is_said(tmp_path: Path) -> None:
    first, _ = await two_segments(tmp_path / "j")
    count = len(lines(first)) - 1
    first.write_bytes(first.read_bytes()[:-5])
    found, (damage,) = await reopen(tmp_path / "j")
    assert len(found) == 7
    assert f"lost: the lines numbered {count} to {count}" in damage.reason


async def test_j4_a_sealed_segment_that_ends_too_early_is_missed(tmp_path: Path) -> None:
    first, _ = await two_segments(tmp_path / "j")
    count = len(lines(first)) - 1
    first.write_bytes(b"".join(lines(first)[:-2]))
    found, (damage,) = await reopen(tmp_path / "j")
    assert len(found) == 6
    assert f"lost: the lines numbered {count - 1} to {count}" in damage.reason


async def test_j4_a_sealed_segment_that_is_empty_is_missed(tmp_path: Path) -> None:
    first, _ = await two_segments(tmp_path / "j")
    held = len(lines(first)) - 1
    first.write_bytes(b"")
    found, (damage,) = await reopen(tmp_path / "j")
    assert len(found) == 8 - held
    assert "lines are missing" in damage.reason


@pytest.mark.parametrize("cut", [1, 2, 4])
async def test_j4_a_segment_whose_first_lines_are_gone_is_missed(
    written: tuple[Path, list[Operation]], cut: int
) -> None:
    segment, operations = written
    contents = read(segment.parent, b"".join(lines(segment)[cut:]))
    assert list(found_in(contents).values()) == operations[cut - 1 :]
    (damage,) = contents.damage
    assert "lines are missing; which lines are lost is not known" in damage.problem


async def test_j4_a_segment_that_is_gone_is_missed(tmp_path: Path) -> None:
    first, _ = await two_segments(tmp_path / "j")
    held = len(lines(first)) - 1
    first.unlink()
    found, (damage,) = await reopen(tmp_path / "j")
    assert len(found) == 8 - held
    assert (damage.path, damage.length) == (str(first), 0)
    assert "missing" in damage.reason


async def test_j4_a_damaged_unit_is_lost_as_a_whole(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.append_unit([create("a"), create("b")], [PRIMARY])
        await journal.append(create("c"), [PRIMARY])
        await crash(journal)
    (segment,) = segments(tmp_path / "j")
    segment.write_bytes(segment.read_bytes().replace(b'"id":"b"', b'"id":"x"'))
    found, (damage,) = await reopen(tmp_path / "j")
    assert [run.operation.key.id for run in found] == ["c"]
    assert "lost: the lines numbered 1 to 2" in damage.reason


async def test_j4_what_the_disk_cannot_read_is_said_and_its_file_is_kept(tmp_path: Path) -> None:
    await write(tmp_path / "j", create("a"))
    (segment,) = segments(tmp_path / "j")
    heard = Heard()
    async with opened(tmp_path / "j", heard, disk=ScratchedDisk()) as journal:
        (damage, *_) = heard.of(JournalDamaged)
        assert pending(journal) == []
        await asyncio.sleep(0.3)
    assert segment.exists()
    found, damages = await reopen(tmp_path / "j")
    assert [run.operation.key.id for run in found] == ["a"]
    assert damages == []
    assert damage.path


async def test_j4_damage_of_which_no_copy_can_be_made_keeps_its_file(
    tmp_path: Path, written: tuple[Path, list[Operation]]
) -> None:
    segment, operations = written
    whole = segment.read_bytes() + b"garbage"
    segment.write_bytes(whole)
    (tmp_path / "j" / "quarantine").write_text("in the way")
    heard = Heard()
    async with opened(tmp_path / "j", heard) as journal:
        (damage,) = heard.of(JournalDamaged)
        assert "kept as it is" in damage.reason
        journal.settle(PRIMARY, pending(journal))
        await asyncio.sleep(0.3)
    assert segment.read_bytes() == whole
    (tmp_path / "j" / "quarantine").unlink()
    assert len((await reopen(tmp_path / "j"))[1]) == 1
    assert not segments(tmp_path / "j")
    assert len(operations) == 6


async def test_a_damaged_note_of_what_was_done_costs_a_second_replay_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.append(create("a"), [PRIMARY])
        journal.settle(PRIMARY, pending(journal))
        await journal.append(create("b"), [PRIMARY])
        await asyncio.sleep(0.2)
        await crash(journal)
    (segment,) = segments(tmp_path / "j")
    assert [run.operation.key.id for run in found_runs(segment.parent)] == ["b"]
    segment.write_bytes(segment.read_bytes().replace(b'"done":"mysql"', b'"done":"mxsql"'))
    found, (damage,) = await reopen(tmp_path / "j")
    assert {run.operation.key.id for run in found} == {"a", "b"}
    assert "lost" in damage.reason


def found_runs(folder: Path) -> list[Run]:
    return read(folder).overlay.runs(PRIMARY, 1000)


async def test_j10_opening_again_and_again_finds_the_same(
    tmp_path: Path, written: tuple[Path, list[Operation]]
) -> None:
    _, operations = written
    for _ in range(5):
        found, damage = await reopen(tmp_path / "j")
        assert [run.operation for run in found] == operations
        assert damage == []
    assert len(segments(tmp_path / "j")) <= 2, "headers of earlier openings do not pile up"


async def test_a_key_owed_to_more_targets_later_opens_again_in_the_same_process(tmp_path: Path) -> None:
    first, second = create("a"), update("a")
    async with opened(tmp_path / "other") as journal:  # the process has seen both forms of line before
        await journal.append(create("x"), [PRIMARY])
        await journal.append(update("y"), [PRIMARY, REPLICA])
    await reopen(tmp_path / "other")
    async with opened(tmp_path / "j") as journal:
        await journal.append(first, [PRIMARY])
        await journal.append(second, [PRIMARY, REPLICA])
    async with opened(tmp_path / "j") as journal:
        (run,) = journal.runs(REPLICA, 9)
        assert (run.operation, journal.owes(PRIMARY), journal.owes(REPLICA)) == (second, 2, 1)


async def test_j10_what_was_settled_stays_settled_for_each_target(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        for name in "abc":
            await journal.append(create(name), [PRIMARY, REPLICA])
        journal.settle(PRIMARY, journal.runs(PRIMARY, 2))
        journal.settle(REPLICA, journal.runs(REPLICA, 1))
        await journal.append(create("d"), [PRIMARY])
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert [run.operation.key.id for run in pending(journal)] == ["c", "d"]
        assert [run.operation.key.id for run in pending(journal, REPLICA)] == ["b", "c"]
        assert journal.statistics().pending == 3


async def test_j12_an_unknown_format_is_refused_by_name_and_nothing_is_changed(
    tmp_path: Path, written: tuple[Path, list[Operation]]
) -> None:
    segment, _ = written
    change_format(segment)
    before = {path: path.read_bytes() for path in segment.parent.iterdir()}
    with pytest.raises(JournalCorrupt, match=r"000001\.jsonl has format version 9, .* knows 1 alone"):
        await reopen(tmp_path / "j")
    assert {path: path.read_bytes() for path in segment.parent.iterdir()} == before
    assert [path.name for path in (tmp_path / "j").glob("writer-*")] == [segment.parent.name]


def change_format(segment: Path) -> None:
    first, *others = lines(segment)
    header = decode_header(first[: -SUM_LENGTH - 1])
    assert header is not None
    seed = salt(segment.parent.name, 1)
    segment.write_bytes(b"".join([encode_header(header._replace(format=9), seed), *others]))


async def test_j12_the_shared_folders_own_format_is_checked_too(tmp_path: Path) -> None:
    from octopus_async.journal.format import seal

    await write(tmp_path / "j", create())
    ceiling = tmp_path / "j" / "ceiling"
    body = b'{"octopus":"octopus journal","format":9,"anything":1'
    ceiling.write_bytes(body + seal(body, 0) + b"\n")
    with pytest.raises(JournalCorrupt, match="ceiling has format version 9"):
        await reopen(tmp_path / "j")


def forge_ceiling(path: Path, number: bytes) -> None:
    """A number that no writer writes, under a sum that is right."""
    from octopus_async.journal.format import seal

    body = b'{"octopus":"octopus journal","format":1,"milliseconds":%s,"sequence":9' % number
    path.write_bytes(body + seal(body, 0) + b"\n")


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b"rubbish"),
        lambda path: forge_ceiling(path, b"1e400"),
        lambda path: forge_ceiling(path, b"-1"),
        lambda path: forge_ceiling(path, b"9" * 40),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["damaged", "infinite", "negative", "endless", "empty", "missing"],
)
async def test_a_lost_ceiling_is_said_and_replaced_by_a_later_moment(
    tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    journal = FileJournal(tmp_path / "j", wall=lambda: 1000.0)
    await journal.open(Events())
    await journal.reserve(1_020_000)
    old = await journal.append(create("a"), [PRIMARY])
    await crash(journal)
    harm(tmp_path / "j" / "ceiling")
    heard = Heard()
    journal = FileJournal(tmp_path / "j", wall=lambda: 1001.0)
    assert await journal.open(Events(heard)) > 1_020_000
    (damage,) = heard.of(JournalDamaged)
    assert "the ceiling of versions" in damage.reason
    assert await journal.append(create("b"), [PRIMARY]) > old
    await journal.close()


async def test_a_file_that_is_no_line_of_the_journal_is_left_alone(
    tmp_path: Path, written: tuple[Path, list[Operation]]
) -> None:
    segment, operations = written
    stranger = segment.parent / "notes.txt"
    stranger.write_text("mine")
    found, damage = await reopen(tmp_path / "j")
    assert len(found) == len(operations)
    assert damage == []
    assert stranger.read_text() == "mine"


async def test_an_unfinished_file_is_removed(tmp_path: Path, written: tuple[Path, list[Operation]]) -> None:
    segment, operations = written
    unfinished = segment.with_name("000002.tmp")
    unfinished.write_bytes(b"half a header")
    found, damage = await reopen(tmp_path / "j")
    assert (len(found), damage) == (len(operations), [])
    assert not unfinished.exists()


async def test_a_line_without_end_is_read_in_bounded_memory(
    tmp_path: Path, written: tuple[Path, list[Operation]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octopus_async.journal.scan.MOST_BYTES", 50_000)
    monkeypatch.setattr("octopus_async.journal.scan._CHUNK", 10_000)
    segment, operations = written
    header, *records = lines(segment)
    segment.write_bytes(b"".join([header, *records[:3], b"x" * 200_000 + b"\n", *records[3:]]))
    found, (damage,) = await reopen(tmp_path / "j")
    assert [run.operation for run in found] == operations
    assert damage.length == 200_001


async def test_chunks_may_end_anywhere(
    tmp_path: Path, written: tuple[Path, list[Operation]], monkeypatch: pytest.MonkeyPatch
) -> None:
    segment, operations = written
    shutil.copytree(tmp_path / "j", tmp_path / "copy")
    for size in (1, 2, 7, 100, 331, 1000):
        monkeypatch.setattr("octopus_async.journal.scan._CHUNK", size)
        assert list(found_in(read(segment.parent)).values()) == operations


async def test_a_folder_that_cannot_be_read_makes_opening_fail_and_leaves_nothing_locked(
    tmp_path: Path,
) -> None:
    await write(tmp_path / "j", create("a"))
    disk = FaultyDisk(Failure("open", 2))  # the first is the ceiling
    with pytest.raises(JournalError, match="take over the journal"):
        async with opened(tmp_path / "j", disk=disk):
            pass
    assert not disk._open
    assert [run.operation.key.id for run in (await reopen(tmp_path / "j"))[0]] == ["a"]
