"""A whole manager, killed while its database comes and goes; and what it told its callers."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from octopus_async.adapters.sqlite import SQLiteAdapter
from octopus_async.errors import RecordNotFound, Unavailable
from octopus_async.events import Event, JournalDamaged
from octopus_async.guard import BreakerPolicy, GuardPolicy
from octopus_async.journal import FileJournal
from octopus_async.manager import DaoManager
from octopus_async.model import Model
from octopus_async.testing.faulty import Fault, FaultyAdapter
from tests.crash.zygote import DeadlyDisk, Voice, Work

GONE = ""
"""The title of a record that is deleted, and of one that was never there."""

SOON = BreakerPolicy(open_for=0.01, open_at_most=0.02)
FAULTS = (Fault.REFUSE, Fault.FAIL, Fault.LOSE)


class Book(Model):
    title: str


@dataclass
class Shelf:
    """Every record's titles, in the order in which its only writer sent them.

    Attributes:
        titles: by id; each title is unique in its record but for `GONE`.
        owed: how many of them are at least in force: the last that was acknowledged, and those before.
    """

    titles: dict[str, list[str]] = field(default_factory=dict)
    owed: dict[str, int] = field(default_factory=dict)

    def begin(self, id_: str, title: str) -> None:
        self.titles.setdefault(id_, [GONE]).append(title)

    def acknowledged(self, id_: str) -> None:
        self.owed[id_] = len(self.titles[id_])

    def problem(self, id_: str, found: str) -> str | None:
        """How it contradicts what was said that a record is found with a title."""
        titles, owed = self.titles.get(id_, [GONE]), self.owed.get(id_, 1)
        if found in titles[owed - 1 :]:
            return None
        return "lost" if found in titles else "extra"


class ServiceLife:
    """A service under load whose database is there, and is not.

    Parameters:
        octopus: the manager, open.
        database: its primary.
        voice: says what is about to be done, and what was acknowledged.
        life: the name of this life.
        chance: chooses.
    """

    def __init__(
        self, octopus: DaoManager, database: FaultyAdapter, voice: Voice, life: str, chance: random.Random
    ) -> None:
        self._books = octopus.dao(Book)
        self._database = database
        self._voice = voice
        self._life = life
        self._chance = chance

    async def read_all(self, ids: list[str]) -> list[Book]:
        """Read what earlier lives have written, and say what it is."""
        found: list[Book] = []
        for id_ in ids:
            with suppress(Unavailable):  # on a loaded machine the database may be slow
                book = await self._books.read(UUID(id_))
                self._voice.say("read", id_, GONE if book is None else book.title)
                found += [] if book is None else [book]
        return found

    async def load(self, found: list[Book]) -> None:
        """Never ends."""
        await asyncio.gather(self._outages(), *[self._write(found) for _ in range(6)])

    async def _outages(self) -> None:
        while True:
            await asyncio.sleep(self._chance.random() * 0.03)
            self._database.break_down(self._chance.choice(FAULTS))
            await asyncio.sleep(self._chance.random() * 0.03)
            self._database.heal()

    async def _write(self, found: list[Book]) -> None:
        number = 0
        while True:
            number += 1
            book = found.pop() if found and number % 2 else Book(title=f"{self._life}.{number}")
            with suppress(Unavailable):  # it was told so: nothing is claimed
                try:
                    await self._history(book, f"{self._life}.{number}", is_new=not book.version)
                except RecordNotFound:  # right only if a delete was begun, by a life that did not see its end
                    self._voice.say("read", str(book.id), GONE)

    async def _history(self, book: Book, title: str, *, is_new: bool) -> None:
        id_ = str(book.id)
        if is_new:
            self._voice.say("begin", id_, book.title)
            await self._books.create(book)
            self._voice.say("done", id_)
        for step in range(self._chance.choice((0, 1, 4))):
            book.title = f"{title}:{step}"
            self._voice.say("begin", id_, book.title)
            await self._books.update(book)
            self._voice.say("done", id_)
        if self._chance.random() < 0.3:
            self._voice.say("begin", id_, GONE)
            await self._books.delete(book)
            self._voice.say("done", id_)


def service_life(path: Path, life: str, seed: int, ids: list[str]) -> Work:
    """Open a manager, read what is there, and load it until the end."""

    async def work(voice: Voice, disk: DeadlyDisk) -> None:
        chance = random.Random(seed)
        octopus, database = _manager(
            path, voice, FileJournal(path / "journal", disk=disk, segment_bytes=4_000)
        )
        async with octopus:
            service = ServiceLife(octopus, database, voice, life, chance)
            found = await service.read_all(ids)
            voice.say("open")
            await service.load(found)

    return work


def last_service_life(path: Path) -> Work:
    """Open a manager, wait until its journal is empty, and close it."""

    async def work(voice: Voice, disk: DeadlyDisk) -> None:
        octopus, _ = _manager(path, voice, FileJournal(path / "journal", disk=disk))
        async with octopus, asyncio.timeout(20):
            octopus.dao(Book)  # what is journalled of a model waits until the process has told of it
            await octopus.drained()
            assert octopus.journal is not None
            assert not octopus.journal.dead_letters()

    return work


def _manager(path: Path, voice: Voice, journal: FileJournal) -> tuple[DaoManager, FaultyAdapter]:
    def listen(event: Event) -> None:
        if isinstance(event, JournalDamaged):
            voice.say("damage", event.reason)

    database = FaultyAdapter(SQLiteAdapter(str(path / "shop.db")))
    guard = GuardPolicy(reads=SOON, writes=SOON)
    octopus = DaoManager([database], journal=journal, guard=guard, create_tables=True, listeners=[listen])
    return octopus, database


def stored(path: Path) -> Mapping[str, str]:
    """What is in the database, read without the library."""
    with closing(sqlite3.connect(path / "shop.db")) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'book'").fetchone():
            return {}  # all were killed before the first write
        return dict(database.execute("SELECT id, title FROM book"))
