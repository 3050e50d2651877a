"""What the crash tests found, told again without chance."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.events import Events, JournalDamaged
from octopus_async.guard import BreakerPolicy, GuardPolicy
from octopus_async.journal import FileJournal
from octopus_async.journal.disk import OsDisk
from octopus_async.manager import DaoManager
from octopus_async.model import Model
from octopus_async.testing.faulty import Fault, FaultyAdapter
from tests.crash.cuts import Cut, Judge
from tests.crash.journals import PRIMARY, REPLICA, Heard, crash, create, opened, pending, segments, versions


async def test_what_a_disk_could_not_read_once_is_there_at_the_next_opening(tmp_path: Path) -> None:
    """A read failed once, the copy of the same bytes did not: so intact lines were cut off as a torn end."""
    async with opened(tmp_path / "j") as journal:
        await journal.append(operation := create(), [PRIMARY])
        await crash(journal)
    (segment,) = segments(tmp_path / "j")
    heard = Heard()
    async with opened(tmp_path / "j", heard, disk=_FailingOnce(segment.stat().st_ino)):
        assert [damage.reason.split(";")[0] for damage in heard.of(JournalDamaged)] == [
            "the disk cannot read it"
        ]
    async with opened(tmp_path / "j") as journal:
        assert versions(journal) == {operation.version}


class _FailingOnce(OsDisk):
    """The first read of a file's lines fails; its header was read before."""

    def __init__(self, inode: int) -> None:
        super().__init__()
        self._inode = inode
        self._reads = 0

    def read(self, file: int, offset: int, length: int) -> bytes:
        if os.fstat(file).st_ino == self._inode:
            self._reads += 1
            if self._reads == 2:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(file, offset, length)


async def test_a_folder_that_is_cleared_is_not_missed_in_whatever_order_its_names_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that named others as needed outlived them, and the name that said that nothing was."""
    monkeypatch.setattr("octopus_async.journal.commit._PATIENCE", 0.001)
    cut = Cut(most=200)
    journal = cut.journal()
    await journal.open(Events())
    await cut.append(journal, "old", targets=(REPLICA,))
    for turn in range(3):
        await cut.append(journal, *[f"{turn}-{number}" for number in range(5)])
        cut.settle(journal, 4)
        await asyncio.sleep(0.005)
    seen = len(cut.moments)
    cut.settle(journal, 99)
    cut.settle(journal, 99, REPLICA)
    await asyncio.sleep(0.02)
    await journal.close()
    cut.moments = [replace(moment, holed=[]) for moment in cut.moments[seen:]]
    judge = Judge()
    await judge.judge(cut)
    assert len(judge.opened) > 20


SOON = BreakerPolicy(open_for=0.02)


class Book(Model):
    title: str


@pytest.mark.parametrize("deed", ["update", "delete"])
async def test_a_crash_does_not_bring_back_what_was_replayed_before_an_acknowledged_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    """Killed services read older titles, and deleted books, from the journal until it was replayed again.

    A write after the replay went to the primary alone, and the note that the journal's entry was done
    left a tenth of a second later.
    """
    monkeypatch.setattr("octopus_async.journal.commit._PATIENCE", 3600.0)
    primary = FaultyAdapter(MemoryAdapter(durable=True, name=PRIMARY))
    policy = GuardPolicy(reads=SOON, writes=SOON)
    async with DaoManager([primary], journal=FileJournal(tmp_path / "j"), guard=policy) as octopus:
        books, book = octopus.dao(Book), Book(title="first")
        primary.break_down(Fault.REFUSE)
        receipt = await books.create(book)
        assert receipt.journalled
        primary.heal()
        await receipt.settled()
        book.title = "second"
        receipt = await getattr(books, deed)(book)
        assert not receipt.journalled
        shutil.copytree(tmp_path / "j", tmp_path / "as killed now")
    async with opened(tmp_path / "as killed now") as journal:
        assert pending(journal) == []
