"""What the crash tests found, told again without chance."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.guard import BreakerPolicy, GuardPolicy
from octopus_async.journal import FileJournal
from octopus_async.manager import DaoManager
from octopus_async.model import Model
from octopus_async.testing.faulty import Fault, FaultyAdapter
from tests.crash.journals import PRIMARY, opened, pending

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
