"""What a process does until it is killed: everything a journal can be asked for, said before and after."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from octopus_async.backend import Run
from octopus_async.clock import Clock
from octopus_async.events import Events, JournalDamaged
from octopus_async.journal import FileJournal
from octopus_async.record import Operation
from tests.crash import journals
from tests.crash.journals import PRIMARY, REPLICA, create, delete, pending, update
from tests.crash.zygote import DeadlyDisk, Voice, Work

TARGETS = (PRIMARY, REPLICA)
SIZES = (1_500, 6_000, 40_000)
_ALL = 1_000_000


def sum_of(operation: Operation) -> int:
    return zlib.crc32(operation.payload or b"")


class JournalLife:
    """A loaded journal.

    Parameters:
        voice: says what is about to be done, and what was done.
        journal: the journal, open.
        life: the name of this life; the names of its records begin with it.
        chance: chooses.
    """

    def __init__(self, voice: Voice, journal: FileJournal, life: str, chance: random.Random) -> None:
        self._voice = voice
        self._journal = journal
        self._chance = chance
        self._names = (f"{life}-{number}" for number in itertools.count())

    async def load(self) -> None:
        """Never ends."""
        writers = [self._forever(self._write) for _ in range(self._chance.choice((1, 4, 12)))]
        rest = (self._units, self._settle, self._bury, self._free, self._reserve, self._adopt)
        await asyncio.gather(*writers, *[self._forever(work) for work in rest])

    async def _forever(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await work()

    async def _write(self) -> None:
        """The history of one record."""
        name = next(self._names)
        targets = TARGETS if self._chance.random() < 0.5 else TARGETS[:1]
        born = await self._append(create(name, "x" * self._chance.randrange(300)), *targets)
        for _ in range(self._chance.choice((0, 0, 1, 3))):
            await self._append(update(name, "y" * self._chance.randrange(100), born=born), *targets)
        if self._chance.random() < 0.2:
            await self._append(delete(name, born=born), *targets)

    async def _append(self, operation: Operation, *targets: str) -> str:
        self._voice.say("append", operation.key.id, operation.version, sum_of(operation), targets)
        await self._journal.append(operation, targets)
        self._voice.say("appended", operation.key.id, operation.version)
        return operation.version

    async def _units(self) -> None:
        await asyncio.sleep(self._chance.random() * 0.01)
        operations = [create(next(self._names), "u" * 50) for _ in range(self._chance.randrange(2, 5))]
        members = [(operation.key.id, operation.version, sum_of(operation)) for operation in operations]
        self._voice.say("unit", members)
        await self._journal.append_unit(operations, [PRIMARY])
        self._voice.say("united", members)

    async def _settle(self) -> None:
        """What a replay does."""
        await asyncio.sleep(self._chance.random() * 0.004)
        for target in TARGETS:
            runs = self._journal.runs(target, self._chance.choice((3, 40, 400)))
            self._voice.say("settle", target, [(run.operation.key.id, run.operation.version) for run in runs])
            self._journal.settle(target, runs)

    async def _bury(self) -> None:
        await asyncio.sleep(self._chance.random() * 0.02)
        name = next(self._names)
        await self._append(create(name, "refused"), PRIMARY)
        for run in pending(self._journal):
            if run.operation.key.id == name:
                self._voice.say("bury", name)
                await self._journal.bury(PRIMARY, run, "no", "DuplicateRecord")
                self._voice.say("buried", name)

    async def _free(self) -> None:
        await asyncio.sleep(self._chance.random() * 0.05)
        letters = self._journal.dead_letters()
        if letters:
            letter = self._chance.choice(letters)
            self._voice.say("free", letter.operation.key.id)
            await self._chance.choice((self._journal.drop, self._journal.retry))(letter.sequence)

    async def _reserve(self) -> None:
        milliseconds = int(time.time() * 1000) + self._chance.randrange(10_000)
        await self._journal.reserve(milliseconds)
        self._voice.say("reserved", milliseconds)
        await asyncio.sleep(self._chance.random() * 0.02)

    async def _adopt(self) -> None:
        await asyncio.sleep(self._chance.random() * 0.01)
        await self._journal.adopt()


def journal_life(path: Path, life: str, seed: int, *, alone: bool = True) -> Work:
    """Open a journal, say what it holds, and load it until the end; ``alone`` if no other has it open."""

    async def work(voice: Voice, disk: DeadlyDisk) -> None:
        chance = random.Random(seed)
        journal = FileJournal(path, disk=disk, segment_bytes=chance.choice(SIZES))
        await _open(journal, voice, whole=alone)
        await JournalLife(voice, journal, life, chance).load()

    return work


def last_journal_life(path: Path) -> Work:
    """Open a journal, say what it holds, do all of it, and close it."""

    async def work(voice: Voice, disk: DeadlyDisk) -> None:
        journal = FileJournal(path, disk=disk)
        await _open(journal, voice, whole=True)
        for letter in journal.dead_letters():
            await journal.drop(letter.sequence)
        for target in TARGETS:
            journal.settle(target, journal.runs(target, _ALL))
        await journal.close()

    return work


async def _open(journal: FileJournal, voice: Voice, *, whole: bool) -> None:
    damage: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, JournalDamaged):
            damage.append(event.reason)

    ceiling = await journal.open(Events(listen))
    journals.clock = Clock()  # a forked one would issue its brother's versions
    journals.clock.start_above(ceiling)
    found = {target: [_told(run) for run in pending(journal, target)] for target in TARGETS}
    letters = [letter.operation.key.id for letter in journal.dead_letters()]
    voice.say("found", {"whole": whole, "ceiling": ceiling, "damage": damage, "letters": letters, **found})
    voice.say("open")


def _told(run: Run) -> tuple[str, str, int, int]:
    return run.operation.key.id, run.operation.version, sum_of(run.operation), len(run.sequences)
