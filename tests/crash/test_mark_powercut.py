"""The power is cut before each call that keeps a low-water mark: it is found again, and never too high."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from octopus_async.clock import Clock
from octopus_async.events import Events, JournalDamaged
from octopus_async.journal import FileJournal
from tests.crash.journals import Heard, InlineRunner
from tests.crash.powercut import PowerDisk, State

FOLDER = Path("/j")
STATES = 40
Marks = dict[str, str]


def journal_on(disk: PowerDisk) -> FileJournal:
    return FileJournal(FOLDER, disk=disk, runner=InlineRunner())


async def inherited_from(state: State) -> Marks:
    """What an opener finds after the power cut; nothing is damaged by one."""
    disk, heard = PowerDisk(state), Heard()
    journal = journal_on(disk)
    await journal.open(Events(heard))
    marks = dict(journal.inherited())
    journal._is_open = False
    assert not heard.of(JournalDamaged)
    return marks


class Cuts:
    """Collects what a power cut may leave before each call, with the marks that may be found then."""

    def __init__(self, state: State | None = None) -> None:
        self.disk = PowerDisk(state or {FOLDER.parent: None}, self.cut)
        self.allowed: list[Marks] = [{}]
        self.found: list[tuple[State, list[Marks]]] = []

    def cut(self) -> None:
        self.found += [(state, list(self.allowed)) for state in self.disk.states(STATES)]

    async def check(self) -> int:
        self.cut()
        for state, allowed in self.found:
            assert await inherited_from(state) in allowed
        return len(self.found)


def marks_of(clock: Clock) -> Iterator[Marks]:
    while True:
        yield {"Book": clock.next()}


async def test_once_a_mark_is_durable_it_or_a_later_one_is_found() -> None:
    cuts, marks = Cuts(), marks_of(Clock())
    journal = journal_on(cuts.disk)
    await journal.open(Events())
    for mark in (next(marks), next(marks), {}, next(marks)):
        cuts.allowed.append(mark)
        await journal.mark(mark)
        cuts.allowed = [mark]
    journal._is_open = False
    assert await cuts.check() > 50


async def test_a_mark_outlives_whoever_takes_it_over_at_any_moment() -> None:
    clock = Clock()
    low, high = {"Book": clock.next()}, {"Book": clock.next()}
    first = Cuts()
    journal = journal_on(first.disk)
    await journal.open(Events())
    await journal.mark(low)
    journal._is_open = False
    cuts = Cuts(next(first.disk.states(1)))
    cuts.allowed = [low]
    heir = journal_on(cuts.disk)
    await heir.open(Events())
    assert heir.inherited() == low
    # A folder that was removed may come back: it asks for more than is needed, never for less.
    cuts.allowed = [low, high]
    await heir.mark(high)
    cuts.cut()
    cuts.allowed = [low, high, {}]
    await heir.mark({})
    await heir.close()
    assert await cuts.check() > 50
