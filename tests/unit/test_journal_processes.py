"""J8 and J12: processes share a folder, what a dead one left is taken over once, and forks hold nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from octopus_async.errors import JournalCorrupt, JournalError, JournalLocked, OctopusError
from octopus_async.events import Events, JournalAdopted
from octopus_async.journal import FileJournal
from octopus_async.journal.disk import OsDisk
from octopus_async.journal.format import SUM_LENGTH, decode_header, encode_header, salt
from octopus_async.journal.inspect import inspect
from tests.crash.journals import (
    PRIMARY,
    REPLICA,
    Failure,
    FaultyDisk,
    Heard,
    crash,
    create,
    key,
    lines,
    opened,
    pending,
    segments,
    update,
)

CHILD = """
import asyncio, sys, time
from octopus_async.events import Events
from octopus_async.journal import FileJournal
from tests.crash.journals import create, PRIMARY

async def main():
    journal = FileJournal(sys.argv[1])
    await journal.open(Events())
    for name in sys.argv[2:]:
        await journal.append(create(name), [PRIMARY])
    print("ready", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@asynccontextmanager
async def another_process(
    path: Path, *names: str, script: str = CHILD
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process that has the journal open, has written what it was told, and is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "ignore", "-c", script, str(path), *names),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    try:
        yield process
    finally:
        await kill(process)


async def kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


def folders(path: Path) -> list[str]:
    return sorted(folder.name for folder in path.glob("writer-*"))


def ids(journal: FileJournal, target: str = PRIMARY) -> list[str]:
    return sorted(run.operation.key.id for run in pending(journal, target))


async def test_j8_each_opening_has_a_folder_of_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as first, opened(tmp_path / "j") as second:
        assert len(folders(tmp_path / "j")) == 2
        one = await first.append(create("a"), [PRIMARY])
        two = await second.append(create("b"), [PRIMARY])
        assert one != two
        assert (ids(first), ids(second)) == (["a"], ["b"])


async def _only_one_folder_is_left(journal: Path) -> None:
    async with asyncio.timeout(20):
        while len(folders(journal)) != 1:  # noqa: ASYNC110 - it is the journal's thread that removes them
            await asyncio.sleep(0.02)


async def test_j8_the_folder_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    async with another_process(tmp_path / "j", "theirs"):
        async with opened(tmp_path / "j") as journal:
            assert ids(journal) == []
            assert await journal.adopt() == 0
            assert ids(journal) == []
        assert len(folders(tmp_path / "j")) == 1


async def test_j8_what_a_killed_process_left_is_taken_over_at_opening(tmp_path: Path) -> None:
    async with another_process(tmp_path / "j", "a", "b"):
        pass
    heard = Heard()
    async with opened(tmp_path / "j", heard) as journal:
        assert ids(journal) == ["a", "b"]
        (adopted,) = heard.of(JournalAdopted)
        assert adopted.entries == 2
        assert Path(adopted.path).name == folders(tmp_path / "j")[0]


async def test_j8_what_a_process_leaves_while_another_lives_is_taken_over_later(tmp_path: Path) -> None:
    heard = Heard()
    async with opened(tmp_path / "j", heard) as journal:
        await journal.append(create("mine"), [PRIMARY])
        async with another_process(tmp_path / "j", "theirs") as other:
            assert await journal.adopt() == 0
            await kill(other)
        moment = await journal.adopt()
        assert ids(journal) == ["mine", "theirs"]
        assert abs(moment / 1000 - journal._wall()) < 60
        assert journal.newest(key("theirs"), PRIMARY) is not None
        assert len(heard.of(JournalAdopted)) == 1
        assert await journal.adopt() == 0
        journal.settle(PRIMARY, pending(journal))
        await _only_one_folder_is_left(tmp_path / "j")
    assert folders(tmp_path / "j") == []


async def test_j8_adoption_is_recorded_durably_by_the_adopters_name(tmp_path: Path) -> None:
    async with another_process(tmp_path / "j", "a"):
        pass
    async with opened(tmp_path / "j"):
        dead, own = folders(tmp_path / "j")
        header = decode_header(lines(segments(tmp_path / "j")[-1])[0][: -SUM_LENGTH - 1])
        assert header is not None
        assert (header.folder, header.writer) == (dead, own)


async def test_j8_of_two_that_race_for_it_exactly_one_takes_it_over(tmp_path: Path) -> None:
    names = [str(number) for number in range(5)]
    async with opened(tmp_path / "j") as first, opened(tmp_path / "j") as second:
        for name in names:
            async with another_process(tmp_path / "j", name):
                pass
            await asyncio.gather(*[journal.adopt() for journal in (first, second)])
        assert sorted(ids(first) + ids(second)) == names


async def test_j8_of_processes_that_open_at_once_exactly_one_takes_it_over(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        for number in range(20):
            await journal.append(create(str(number)), [PRIMARY])
        await crash(journal)
    journals = [FileJournal(tmp_path / "j") for _ in range(4)]
    await asyncio.gather(*[journal.open(Events()) for journal in journals])
    found = [ids(journal) for journal in journals]
    await asyncio.gather(*[journal.close() for journal in journals])
    assert sorted(map(len, found)) == [0, 0, 0, 20]


async def test_j8_an_adopter_that_dies_is_adopted_with_what_it_had_taken_over(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        for name in "abc":
            await journal.append(create(name), [PRIMARY])
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        await journal.append(create("d"), [PRIMARY])
        journal.settle(PRIMARY, journal.runs(PRIMARY, 1))
        await asyncio.sleep(0.3)
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert ids(journal) == ["b", "c", "d"]


async def test_entries_of_one_key_from_several_processes_are_replayed_in_the_order_of_versions(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "j") as dying, opened(tmp_path / "j") as living:
        operations = [create(), update(title="two"), update(title="three")]
        await dying.append(operations[0], [PRIMARY])
        await living.append(operations[1], [PRIMARY])
        await dying.append(operations[2], [PRIMARY])
        await crash(dying)
        await living.adopt()
        (run,) = pending(living)
        assert run.operation == operations[2]._replace(kind=operations[0].kind, born=operations[0].version)
        assert living.newest(key(), PRIMARY) == operations[2]
        living.settle(PRIMARY, [run])
        await asyncio.sleep(0.3)
        await crash(living)
    async with opened(tmp_path / "j") as journal:
        assert pending(journal) == []


async def test_dead_letters_are_taken_over_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as dying, opened(tmp_path / "j") as living:
        number = await dying.append(create(), [PRIMARY])
        await dying.bury(PRIMARY, pending(dying)[0], "no", "DuplicateRecord")
        await crash(dying)
        await living.adopt()
        assert [letter.sequence for letter in living.dead_letters()] == [number]
        await living.drop(number)
        await _only_one_folder_is_left(tmp_path / "j")


async def test_an_empty_folder_of_a_dead_process_is_removed_without_a_word(tmp_path: Path) -> None:
    async with another_process(tmp_path / "j"):
        pass
    heard = Heard()
    async with opened(tmp_path / "j", heard):
        assert len(folders(tmp_path / "j")) == 1
    assert heard == []


async def test_a_folder_that_its_writer_was_about_to_remove_is_removed(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.append(create("a"), [PRIMARY])
        journal.settle(PRIMARY, pending(journal))
    (tmp_path / "j" / "writer-0000000000000001-00000000").mkdir()
    async with opened(tmp_path / "j"):
        assert len(folders(tmp_path / "j")) == 1


async def test_adopting_goes_on_when_the_caller_is_cancelled(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as dying, opened(tmp_path / "j") as living:
        await dying.append(create("a"), [PRIMARY])
        await crash(dying)
        adopting = asyncio.create_task(living.adopt())
        await asyncio.sleep(0)
        adopting.cancel()
        await asyncio.gather(adopting, return_exceptions=True)
        await living.adopt()
        assert ids(living) == ["a"]


async def test_a_folder_of_an_unknown_format_does_not_keep_others_from_being_adopted(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as living:
        for name in "ab":
            async with opened(tmp_path / "j") as dying:
                await dying.append(create(name), [PRIMARY])
                await crash(dying)
        foreign = segments(tmp_path / "j")[0]
        first, *others = lines(foreign)
        header = decode_header(first[: -SUM_LENGTH - 1])
        assert header is not None
        changed = encode_header(header._replace(format=2), salt(foreign.parent.name, 1))
        foreign.write_bytes(b"".join([changed, *others]))
        with pytest.raises(JournalCorrupt, match="format version 2"):
            await living.adopt()
        assert ids(living) == ["b"]


async def test_j8_opening_fails_by_name_while_another_process_holds_the_shared_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octopus_async.journal.root._PATIENCE", 0.05)
    async with opened(tmp_path / "j"):
        pass
    disk = OsDisk()
    held = disk.lock(tmp_path / "j" / "lock")
    assert held is not None
    with pytest.raises(JournalLocked, match="find the process that is stopped"):
        async with opened(tmp_path / "j"):
            pass
    disk.close(held)
    async with opened(tmp_path / "j"):
        pass


async def test_a_lock_on_a_file_that_was_removed_meanwhile_is_no_lock(tmp_path: Path) -> None:
    class Removing(OsDisk):
        def _opened(self, path: Path, flags: int) -> int:
            file = super()._opened(path, flags)
            path.unlink()
            return file

    assert Removing().lock(tmp_path / "lock") is None


def in_child(work: Callable[[], None]) -> int:
    """Fork, and give what the child's exit says: 0 if ``work`` raised nothing."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_j8_after_a_fork_the_childs_calls_raise_and_it_has_no_descriptors(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.append(create("a"), [PRIMARY])

        def work() -> None:
            for descriptor in Path("/proc/self/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # that of the listing itself
                    assert str(tmp_path) not in str(descriptor.readlink())
            (run,) = journal._overlay.runs(PRIMARY, 1)
            for call in (
                lambda: journal.append(create(), [PRIMARY]),
                lambda: journal.append_unit([create()], [PRIMARY]),
                lambda: journal.reserve(1),
                lambda: journal.newest(key(), PRIMARY),
                lambda: journal.owes(PRIMARY),
                lambda: journal.owes_key(PRIMARY, key()),
                lambda: journal.runs(PRIMARY, 1),
                lambda: journal.settle(PRIMARY, [run]),
                lambda: journal.bury(PRIMARY, run, "", ""),
                lambda: journal.settled(1, PRIMARY),
                journal.dead_letters,
                lambda: journal.retry(1),
                lambda: journal.drop(1),
                lambda: journal.adopt().send(None),
                lambda: journal.open(Events()).send(None),
                journal.statistics,
            ):
                with pytest.raises(JournalLocked, match=r"forked|parent"):
                    call()

        assert in_child(work) == 0
        await journal.append(create("b"), [PRIMARY])
        assert ids(journal) == ["a", "b"]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_j8_a_child_that_outlives_its_parent_holds_nobodys_lock(tmp_path: Path) -> None:
    """The parent here is a process of its own, which forks a child that sleeps, and is killed."""
    script = CHILD.replace(
        'print("ready", flush=True)',
        "import os\n    child = os.fork()\n"
        "    if child == 0:\n        os.close(1); time.sleep(60); os._exit(0)\n"
        '    print("ready", flush=True); print(child, flush=True)',
    )
    async with another_process(tmp_path / "j", "a", script=script) as parent:
        assert parent.stdout is not None
        child = int(await parent.stdout.readline())
    try:
        os.kill(child, 0)
        async with opened(tmp_path / "j") as journal:
            assert ids(journal) == ["a"]
    finally:
        os.kill(child, signal.SIGKILL)


async def test_j12_files_can_be_read_by_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path / "j") as journal:
            await journal.append(create(), [PRIMARY])
            for path in [tmp_path / "j", *(tmp_path / "j").rglob("*")]:
                assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    finally:
        os.umask(before)


async def test_j12_a_symbolic_link_is_refused_wherever_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path / "real") as journal:
        await journal.append(create(), [PRIMARY])
        await crash(journal)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (segment,) = segments(tmp_path / "real")
    content = segment.read_bytes()

    async def is_refused(path: Path) -> None:
        with pytest.raises(JournalError):
            async with opened(path):
                pass

    await is_refused(tmp_path / "link")
    segment.rename(tmp_path / "elsewhere")
    segment.symlink_to(tmp_path / "elsewhere")
    await is_refused(tmp_path / "real")
    assert (tmp_path / "elsewhere").read_bytes() == content
    segment.unlink()
    segment.parent.rename(tmp_path / "moved")
    (tmp_path / "real" / segment.parent.name).symlink_to(tmp_path / "moved")
    await is_refused(tmp_path / "real")
    (tmp_path / "real" / segment.parent.name).unlink()
    for name in ("ceiling", "lock"):
        path = tmp_path / "real" / name
        path.rename(tmp_path / name)
        path.symlink_to(tmp_path / name)
        await is_refused(tmp_path / "real")
        path.unlink()
        (tmp_path / name).rename(path)
    async with opened(tmp_path / "real"):
        pass


async def test_what_is_no_folder_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, message in (("file", "not a folder"), ("no/such", "No such file")):
        with pytest.raises(JournalError, match=message):
            async with opened(tmp_path / name):
                pass


def _places(folder: Path) -> dict[str, Path]:
    """What a process left behind that died."""
    (segment,) = segments(folder)
    return {
        "folder": folder,
        "ceiling": folder / "ceiling",
        "writer's folder": segment.parent,
        "segment": segment,
    }


@pytest.mark.parametrize("mode", [0o020, 0o002, 0o022])
@pytest.mark.parametrize("place", ["folder", "ceiling", "writer's folder", "segment"])
async def test_j12_what_others_can_write_to_is_refused_and_nothing_is_changed(
    tmp_path: Path, place: str, mode: int
) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.append(create("a"), [PRIMARY])
        await crash(journal)
    path = _places(tmp_path / "j")[place]
    before = path.stat().st_mode
    path.chmod(before | mode)
    with pytest.raises(JournalError, match=rf"others than its owner can write to {path}.*chmod"):
        async with opened(tmp_path / "j"):
            pass
    path.chmod(before)
    async with opened(tmp_path / "j") as journal:
        assert ids(journal) == ["a"]


@pytest.mark.parametrize("place", ["folder", "ceiling", "writer's folder", "segment"])
async def test_j12_what_belongs_to_somebody_else_is_refused_and_may_be_looked_at(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.append(create("a"), [PRIMARY])
        await crash(journal)
    path = _places(tmp_path / "j")[place]
    if os.geteuid() == 0:
        os.chown(path, 54321, -1)
    else:  # only root can give a file away: then it is this process that is somebody else
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(JournalError, match=r"belongs to the user .* run it as that user"):
        async with opened(tmp_path / "j"):
            pass
    assert inspect(tmp_path / "j").pending == 1


async def test_opening_that_fails_leaves_no_descriptor_and_no_lock(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.append(create("a"), [PRIMARY])
        await crash(journal)
    for method in ("make_folder", "sync", "rename", "sync_folder", "lock", "list_folder"):
        for nth in range(1, 6):
            disk = FaultyDisk(Failure(method, nth))
            try:
                async with opened(tmp_path / "j", disk=disk) as journal:
                    assert ids(journal) == ["a"]
            except OctopusError:
                pass
            assert not disk._open, (method, nth)
    async with opened(tmp_path / "j") as journal:
        assert ids(journal) == ["a"]


async def test_opening_that_is_cancelled_leaves_no_descriptor_and_no_lock(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.append(create("a"), [PRIMARY])
        await crash(journal)
    disk = FaultyDisk()
    journal = FileJournal(tmp_path / "j", disk=disk)
    opening = asyncio.create_task(journal.open(Events()))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not disk._open
    async with opened(tmp_path / "j") as journal:
        assert ids(journal) == ["a"]


async def test_a_journal_that_is_open_cannot_be_opened_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        with pytest.raises(JournalLocked, match="open already"):
            await journal.open(Events())
        await journal.append(create(), [PRIMARY])


async def test_entries_of_two_targets_are_taken_over_with_what_each_has_done(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as dying, opened(tmp_path / "j") as living:
        for name in "ab":
            await dying.append(create(name), [PRIMARY, REPLICA])
        dying.settle(PRIMARY, dying.runs(PRIMARY, 1))
        await dying.append(create("c"), [PRIMARY])
        await crash(dying)
        await living.adopt()
        assert (ids(living), ids(living, REPLICA)) == (["b", "c"], ["a", "b"])
