"""The power is cut before each call to the disk, and each state that it may leave is opened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from octopus_async.backend import Run
from octopus_async.events import Events
from octopus_async.journal import FileJournal
from tests.crash.journals import (
    PRIMARY,
    REPLICA,
    ROUNDS,
    InlineRunner,
    create,
    delete,
    pending,
    update,
)
from tests.crash.powercut import PowerDisk, State

pytestmark = pytest.mark.timeout(60 * ROUNDS)

FOLDER = Path("/j")
STATES = 60 * ROUNDS


@dataclass
class Truth:
    """What the outside world was told, at one moment, by target and name."""

    sent: dict[str, set[str]] = field(default_factory=lambda: {PRIMARY: set(), REPLICA: set()})
    owed: dict[str, set[str]] = field(default_factory=lambda: {PRIMARY: set(), REPLICA: set()})
    burying: set[str] = field(default_factory=set)
    buried: set[str] = field(default_factory=set)
    freed: set[str] = field(default_factory=set)
    ceiling: int = 0
    units: list[set[str]] = field(default_factory=list)

    def copy(self) -> Truth:
        return Truth(
            {target: set(names) for target, names in self.sent.items()},
            {target: set(names) for target, names in self.owed.items()},
            set(self.burying),
            set(self.buried),
            set(self.freed),
            self.ceiling,
            list(self.units),
        )


class Cut:
    """A life of a journal, and the moments at which the power may go."""

    def __init__(self, state: State | None = None) -> None:
        self.truth = Truth()
        self.moments: list[tuple[list[State], Truth]] = []
        self.disk = PowerDisk(state, self._look)

    def _look(self) -> None:
        self.moments.append((list(self.disk.states(STATES)), self.truth.copy()))

    def journal(self) -> FileJournal:
        return FileJournal(FOLDER, disk=self.disk, runner=InlineRunner(), segment_bytes=900)

    async def append(self, journal: FileJournal, *names: str, targets: tuple[str, ...] = (PRIMARY,)) -> None:
        for target in targets:
            self.truth.sent[target] |= set(names)
        await asyncio.gather(*[journal.append(create(name), targets) for name in names])
        for target in targets:
            self.truth.owed[target] |= set(names)

    async def unit(self, journal: FileJournal, *names: str) -> None:
        self.truth.units.append(set(names))
        self.truth.sent[PRIMARY] |= set(names)
        await journal.append_unit([create(name) for name in names], [PRIMARY])
        self.truth.owed[PRIMARY] |= set(names)

    def settle(self, journal: FileJournal, limit: int, target: str = PRIMARY) -> None:
        runs = journal.runs(target, limit)
        journal.settle(target, runs)
        self.truth.owed[target] -= {run.operation.key.id for run in runs}

    async def bury(self, journal: FileJournal) -> None:
        (run,) = journal.runs(PRIMARY, 1)
        name = run.operation.key.id
        self.truth.burying.add(name)
        await journal.bury(PRIMARY, run, "no", "DuplicateRecord")
        self.truth.buried.add(name)
        self.truth.owed[PRIMARY].discard(name)

    async def free(self, journal: FileJournal, what: Callable[[int], Awaitable[object]]) -> None:
        letter = journal.dead_letters()[0]
        self.truth.freed.add(letter.operation.key.id)
        await what(letter.sequence)

    async def reserve(self, journal: FileJournal, milliseconds: int) -> None:
        await journal.reserve(milliseconds)
        self.truth.ceiling = milliseconds


async def check(state: State, truth: Truth) -> None:
    """Open what was left, twice, the second time after another cut; write to it; and compare."""
    disk = PowerDisk(state)
    for turn in range(2):
        journal = FileJournal(FOLDER, disk=disk, runner=InlineRunner(), segment_bytes=900)
        heard: list[object] = []
        assert await journal.open(Events(heard.append)) >= truth.ceiling
        letters = {letter.operation.key.id for letter in journal.dead_letters()}
        waiting = {target: names_of(pending(journal, target)) for target in (PRIMARY, REPLICA)}
        for target in (PRIMARY, REPLICA):
            expected = truth.owed[target] - truth.burying - truth.freed
            assert expected <= waiting[target], "acknowledged, not settled, and gone"
            assert waiting[target] <= truth.sent[target], "never sent"
        assert truth.burying - truth.freed <= waiting[PRIMARY] | letters, "neither pending nor a dead letter"
        assert truth.buried - truth.freed <= letters
        assert letters <= truth.burying
        assert not letters & waiting[PRIMARY] - truth.freed, "pending and a dead letter"
        for unit in truth.units:
            found = unit & waiting[PRIMARY]
            assert not found or found == unit & truth.owed[PRIMARY] or found == unit, "half a unit"
        lost = [event for event in heard if "numbered" in str(event) or "missing" in str(event)]
        assert not lost, "a power cut is no damage"
        await journal.append(update(f"turn {turn}"), [PRIMARY])
        truth.sent[PRIMARY].add(f"turn {turn}")
        truth.owed[PRIMARY].add(f"turn {turn}")
        journal._is_open = False
        state = next(disk.states(1)) if turn else list(disk.states(50))[-1]
        disk = PowerDisk(state)


def names_of(runs: list[Run]) -> set[str]:
    return {run.operation.key.id for run in runs}


async def check_all(cut: Cut) -> int:
    seen: set[tuple[object, ...]] = set()
    for states, truth in cut.moments:
        for state in states:
            frozen = (*sorted((str(path), content or b"") for path, content in state.items()), str(truth))
            if frozen not in seen:
                seen.add(frozen)
                await check(state, truth.copy())
    return len(seen)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octopus_async.journal.commit._PATIENCE", 0.001)


async def pause() -> None:
    await asyncio.sleep(0.005)


async def test_from_the_first_call_to_the_first_records() -> None:
    cut = Cut({FOLDER.parent: None})
    journal = cut.journal()
    await journal.open(Events())
    await cut.reserve(journal, 7_000)
    await cut.append(journal, "a")
    await cut.append(journal, "b", "c", "d")
    await cut.unit(journal, "u1", "u2", "u3")
    cut.settle(journal, 2)
    await cut.append(journal, "e")
    await cut.reserve(journal, 9_000)
    await journal.close()
    assert await check_all(cut) > 50


async def test_through_rotations_and_checkpoints() -> None:
    cut = Cut()
    journal = cut.journal()
    await journal.open(Events())
    await cut.append(journal, "old", targets=(REPLICA,))
    for turn in range(4):
        await cut.append(journal, *[f"{turn}-{number}" for number in range(5)], targets=(PRIMARY, REPLICA))
        cut.settle(journal, 4)
        cut.settle(journal, 2, REPLICA)
        await pause()
    cut.settle(journal, 99)
    await pause()
    cut.settle(journal, 99, REPLICA)
    await pause()
    await cut.append(journal, "last")
    await journal.close()
    assert await check_all(cut) > 50


async def test_through_dead_letters_that_are_carried_retried_and_dropped() -> None:
    cut = Cut()
    journal = cut.journal()
    await journal.open(Events())
    for name in ("x", "y", "z"):
        await cut.append(journal, name)
        await cut.bury(journal)
    for turn in range(2):
        await cut.append(journal, *[f"{turn}-{number}" for number in range(5)])
        cut.settle(journal, 99)
        await pause()
    await cut.free(journal, journal.drop)
    await cut.free(journal, journal.retry)
    await cut.append(journal, *[f"2-{number}" for number in range(5)])
    cut.settle(journal, 99)
    await pause()
    await journal.close()
    assert await check_all(cut) > 50


async def test_through_an_adoption_and_the_removal_of_what_was_taken_over() -> None:
    first = Cut()
    journal = first.journal()
    await journal.open(Events())
    await first.append(journal, "a", "b", "c", targets=(PRIMARY, REPLICA))
    await first.append(journal, "x")
    first.settle(journal, 1)
    await pause()
    journal._is_open = False
    cut = Cut(next(first.disk.states(1)))
    cut.truth = first.truth
    journal = cut.journal()
    await journal.open(Events())
    await cut.append(journal, "d")
    cut.settle(journal, 2)
    await pause()
    cut.settle(journal, 99)
    cut.settle(journal, 99, REPLICA)
    await pause()
    await cut.append(journal, "e")
    await journal.close()
    assert await check_all(cut) > 50


async def test_of_one_key_the_newest_state_survives() -> None:
    cut = Cut()
    journal = cut.journal()
    await journal.open(Events())
    history = [create("k"), update("k"), update("k", "three"), delete("k"), create("k", "again")]
    acknowledged: list[tuple[int, str]] = []
    for operation in history:
        await journal.append(operation, [PRIMARY])
        acknowledged.append((len(cut.moments), operation.version))
    await journal.close()
    for place, (states, _) in enumerate(cut.moments):
        least = max((version for moment, version in acknowledged if moment <= place), default="")
        for state in states:
            found = FileJournal(FOLDER, disk=PowerDisk(state), runner=InlineRunner())
            await found.open(Events())
            newest = found.newest(history[0].key, PRIMARY)
            assert (newest.version if newest is not None else "") >= least
            found._is_open = False
