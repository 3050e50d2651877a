"""Every call to the disk fails once, and twice, in every way: nobody is told a falsehood, nothing is lost."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from octopus_async.errors import JournalFull, OctopusError
from octopus_async.events import JournalDamaged
from octopus_async.journal import FileJournal
from tests.crash.journals import (
    PRIMARY,
    REPLICA,
    ROUNDS,
    Failure,
    FaultyDisk,
    Heard,
    InlineRunner,
    crash,
    create,
    lines,
    opened,
    pending,
    segments,
)

pytestmark = pytest.mark.timeout(60 * ROUNDS)

METHODS = ["make_folder", "check_folder", "list_folder", "sync_folder", "remove_folder", "create", "open"]
ALL_METHODS = [*METHODS, "size", "read", "write", "truncate", "sync", "rename", "unlink", "lock"]
ALL_WAYS = [(times, code) for times in (1, 2, 3, 7) for code in (errno.EIO, errno.ENOSPC, errno.EDQUOT)]
WAYS = ALL_WAYS if ROUNDS > 1 else [*ALL_WAYS[:3], (7, errno.EIO)]


class Ledger:
    """What was acknowledged, and what is known to be settled, refused or buried."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()
        self.settled: set[str] = set()
        self.buried: set[str] = set()
        self.count = 0

    async def append(self, journal: FileJournal, count: int) -> None:
        names = [f"{self.count + number}" for number in range(count)]
        self.count += count
        futures = [journal.append(create(name, "x" * 60), [PRIMARY, REPLICA]) for name in names]
        for name, result in zip(names, await asyncio.gather(*futures, return_exceptions=True), strict=True):
            if isinstance(result, int):
                self.acknowledged.add(name)
            else:
                assert isinstance(result, OctopusError), result
                self.refused.add(name)

    async def live(self, journal: FileJournal) -> None:
        """A life of appends, settlements, a dead letter, rotations and checkpoints."""
        await self.append(journal, 6)
        await self.append(journal, 6)
        runs = list(journal.runs(PRIMARY, 4))
        journal.settle(PRIMARY, runs)
        self.settled |= {run.operation.key.id for run in runs}
        await asyncio.sleep(0.01)
        await self.append(journal, 6)
        for run in journal.runs(PRIMARY, 1):
            try:
                await journal.bury(PRIMARY, run, "no", "DuplicateRecord")
                self.buried.add(run.operation.key.id)
            except OctopusError:
                pass
        runs = list(journal.runs(REPLICA, 9))
        journal.settle(REPLICA, runs)
        await asyncio.sleep(0.01)
        await self.append(journal, 6)

    def check(self, journal: FileJournal) -> None:
        waiting = {run.operation.key.id for run in pending(journal)}
        letters = {letter.operation.key.id for letter in journal.dead_letters()}
        assert self.acknowledged - self.settled - self.buried <= waiting | letters
        assert self.buried <= letters
        assert not waiting & letters
        # What was refused may be found again, as its write may have reached the disk: nothing else may.
        assert waiting | letters <= self.acknowledged | self.refused


async def predecessor(path: Path, ledger: Ledger) -> None:
    """A process was killed in the middle of a write: the next cuts that back, and removes its folder."""
    async with opened(path, runner=InlineRunner()) as journal:
        await ledger.append(journal, 2)
        await crash(journal)
    (segment,) = segments(path)
    with segment.open("ab") as file:
        file.write(lines(segment)[-1][:20])


async def live(path: Path, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch) -> tuple[Ledger, Heard]:
    monkeypatch.setattr("octopus_async.journal.root._PATIENCE", 0.0)
    monkeypatch.setattr("octopus_async.journal.commit._PATIENCE", 0.002)
    ledger, heard = Ledger(), Heard()
    await predecessor(path, ledger)
    try:
        async with opened(path, heard, disk=disk, runner=InlineRunner(), segment_bytes=900) as journal:
            await ledger.live(journal)
            if not any("cannot read" in damage.reason for damage in heard.of(JournalDamaged)):
                ledger.check(journal)  # what could not be read was reported, and is for the next opening
            await crash(journal)
    except OctopusError:
        pass
    return ledger, heard


def test_the_life_that_is_led_uses_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FaultyDisk()
    asyncio.run(live(tmp_path / "j", disk, monkeypatch))
    assert disk.counts.keys() >= set(ALL_METHODS)


@pytest.mark.parametrize(("times", "code"), WAYS, ids=str)
@pytest.mark.parametrize("method", ALL_METHODS)
def test_each_call_in_turn_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, code: int, times: int
) -> None:
    counting = FaultyDisk()
    asyncio.run(live(tmp_path / "counting", counting, monkeypatch))
    calls = counting.counts.get(method, 0)
    for nth in range(1, calls + 1):
        path = tmp_path / f"{nth}"
        disk = FaultyDisk(Failure(method, nth, code, times))
        ledger, _ = asyncio.run(live(path, disk, monkeypatch))
        assert not disk._open

        async def reopen(path: Path = path, ledger: Ledger = ledger) -> None:
            for _ in range(2):
                async with opened(path, runner=InlineRunner()) as journal:
                    ledger.check(journal)
                    await ledger.append(journal, 1)
                    await crash(journal)

        asyncio.run(reopen())


@pytest.mark.parametrize("room", range(0, 6000, max(1, 200 // ROUNDS)))
def test_the_disk_fills_up_at_any_byte_and_is_cleared_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr("octopus_async.journal.commit._PATIENCE", 0.002)

    async def fill() -> None:
        disk, ledger = FaultyDisk(), Ledger()
        async with opened(tmp_path / "j", disk=disk, runner=InlineRunner(), segment_bytes=900) as journal:
            disk.room = room
            await ledger.live(journal)
            await ledger.live(journal)
            full = bool(ledger.refused)
            disk.room = None
            before = len(ledger.refused)
            await ledger.live(journal)
            assert len(ledger.refused) == before, "service goes on when there is room"
            assert full or room > 5000
            ledger.check(journal)
            await crash(journal)
        async with opened(tmp_path / "j", runner=InlineRunner()) as journal:
            ledger.check(journal)
            assert not {run.operation.key.id for run in pending(journal)} & ledger.refused

    asyncio.run(fill())


async def test_the_error_of_a_full_disk_says_where_and_what_to_do(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        disk.room = 0
        with pytest.raises(JournalFull, match=f"{tmp_path}.*No space left.*Make room"):
            await journal.append(create(), [PRIMARY])
        disk.room = None
