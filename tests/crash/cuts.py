"""Lives of a journal on a simulated disk: the power is cut before each call, and what is left is opened.

Run as ``python -m tests.crash.cuts 50000``: random lives until so many different states were opened.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from octopus_async.backend import Run
from octopus_async.events import Events
from octopus_async.journal import FileJournal, commit
from tests.crash.journals import PRIMARY, REPLICA, InlineRunner, create, pending, update
from tests.crash.lanes import Findings, in_lanes
from tests.crash.powercut import PowerDisk, State

FOLDER = Path("/j")
DEEP = 3
"""So many cuts of the recovery itself are opened for each state, where that is asked for."""


@dataclass
class Told:
    """What the outside world was told, at one moment, by target and name."""

    sent: dict[str, set[str]] = field(default_factory=lambda: {PRIMARY: set(), REPLICA: set()})
    owed: dict[str, set[str]] = field(default_factory=lambda: {PRIMARY: set(), REPLICA: set()})
    settled: set[str] = field(default_factory=set)
    burying: set[str] = field(default_factory=set)
    buried: set[str] = field(default_factory=set)
    freed: set[str] = field(default_factory=set)
    ceiling: int = 0
    units: list[set[str]] = field(default_factory=list)

    def copy(self) -> Told:
        return Told(
            {target: set(names) for target, names in self.sent.items()},
            {target: set(names) for target, names in self.owed.items()},
            set(self.settled),
            set(self.burying),
            set(self.buried),
            set(self.freed),
            self.ceiling,
            list(self.units),
        )


@dataclass(frozen=True)
class Moment:
    """What is left if the power goes now.

    Attributes:
        states: whose files end in what was written first, or in zeros: that is no damage.
        holed: whose files may lack what was written before what they have.
        told: what the outside world was told by then.
    """

    states: list[State]
    holed: list[State]
    told: Told


class Cut:
    """A life of a journal, and the moments at which the power may go.

    Parameters:
        state: what is on the disk at the beginning.
        most: so many states of each moment are enumerated, and a third as many taken by chance.
        chance: chooses the latter.
    """

    def __init__(
        self, state: State | None = None, *, most: int = 60, chance: random.Random | None = None
    ) -> None:
        self.told = Told()
        self.moments: list[Moment] = []
        self.disk = PowerDisk(state, self._look)
        self._most = most
        self._chance = chance or random.Random(1)

    def _look(self) -> None:
        holed = (
            [self.disk.sample(self._chance) for _ in range(1 + self._most // 3)] if self.disk.is_dirty else []
        )
        self.moments.append(Moment(list(self.disk.states(self._most)), holed, self.told.copy()))

    def journal(self) -> FileJournal:
        return FileJournal(FOLDER, disk=self.disk, runner=InlineRunner(), segment_bytes=900)

    async def append(self, journal: FileJournal, *names: str, targets: tuple[str, ...] = (PRIMARY,)) -> None:
        for target in targets:
            self.told.sent[target] |= set(names)
        await asyncio.gather(*[journal.append(create(name), targets) for name in names])
        for target in targets:
            self.told.owed[target] |= set(names)

    async def unit(self, journal: FileJournal, *names: str) -> None:
        self.told.units.append(set(names))
        self.told.sent[PRIMARY] |= set(names)
        await journal.append_unit([create(name) for name in names], [PRIMARY])
        self.told.owed[PRIMARY] |= set(names)

    def settle(self, journal: FileJournal, limit: int, target: str = PRIMARY) -> None:
        runs = journal.runs(target, limit)
        journal.settle(target, runs)
        self.told.owed[target] -= names_of(runs)
        self.told.settled |= names_of(runs)

    async def bury(self, journal: FileJournal, name: str) -> None:
        (run,) = (run for run in pending(journal) if run.operation.key.id == name)
        self.told.burying.add(name)
        await journal.bury(PRIMARY, run, "no", "DuplicateRecord")
        self.told.buried.add(name)
        self.told.owed[PRIMARY].discard(name)

    async def free(self, journal: FileJournal, what: Callable[[int], Awaitable[object]]) -> None:
        letter = journal.dead_letters()[0]
        self.told.freed.add(letter.operation.key.id)
        await what(letter.sequence)

    async def reserve(self, journal: FileJournal, milliseconds: int) -> None:
        await journal.reserve(milliseconds)
        self.told.ceiling = milliseconds


def compare(journal: FileJournal, told: Told) -> None:
    """What was told must be found, and no more than was sent."""
    letters = {letter.operation.key.id for letter in journal.dead_letters()}
    waiting = {target: names_of(pending(journal, target)) for target in (PRIMARY, REPLICA)}
    for target in (PRIMARY, REPLICA):
        expected = told.owed[target] - told.burying - told.freed
        assert expected <= waiting[target], "acknowledged, not settled, and gone"
        assert waiting[target] <= told.sent[target], "never sent"
    assert told.burying - told.freed <= waiting[PRIMARY] | letters, "neither pending nor a dead letter"
    assert told.buried - told.freed <= letters
    assert letters <= told.burying
    assert not letters & waiting[PRIMARY] - told.freed, "pending and a dead letter"
    for unit in told.units:
        found = unit & waiting[PRIMARY]
        assert not found or unit - found <= told.settled, "half a unit"


def names_of(runs: Sequence[Run]) -> set[str]:
    return {run.operation.key.id for run in runs}


class Judge:
    """Opens states, each once.

    Parameters:
        chance: chooses among the cuts of a recovery.
        deep: whether the recovery from a state is cut as well.

    Attributes:
        opened: the states that were opened, by a hash of all files and folders.
    """

    def __init__(self, chance: random.Random | None = None, *, deep: bool = False) -> None:
        self.opened: set[bytes] = set()
        self._judged: set[tuple[bytes, str]] = set()
        self._chance = chance or random.Random(1)
        self._deep = deep

    async def judge(self, cut: Cut, *, at_most: int = sys.maxsize) -> None:
        """Open what every moment of a life may leave; no further moments once so many states were opened."""
        for moment in cut.moments:
            for state in moment.states:
                await self._judge(state, moment.told, holed=False)
            for state in moment.holed:
                await self._judge(state, moment.told, holed=True)
            if len(self.opened) >= at_most:
                return

    async def _judge(self, state: State, told: Told, *, holed: bool) -> None:
        known = _hash(state), repr(told)
        if known in self._judged:
            return
        self._judged.add(known)
        told = told.copy()
        for turn in range(2):
            self.opened.add(_hash(state))
            deeper: list[State] = []
            disk = PowerDisk(state)
            if self._deep and not turn:
                disk.before = partial(self._look, disk, deeper)
            before = told.copy()
            await self._open(disk, told, f"turn {turn}", holed=holed)
            for left in self._chance.sample(deeper, min(DEEP, len(deeper))):
                await self._open_again(left, before, told)
            # The next cut: of all that may be left the least.
            state = list(disk.states(50))[-1]

    def _look(self, disk: PowerDisk, deeper: list[State]) -> None:
        deeper.append(disk.sample(self._chance))

    async def _open_again(self, state: State, before: Told, after: Told) -> None:
        """What a cut of the recovery has left: the append after it may be there or not."""
        self.opened.add(_hash(state))
        told = before.copy()
        told.sent = after.sent
        await self._open(PowerDisk(state), told, "turn 9", holed=True)

    async def _open(self, disk: PowerDisk, told: Told, name: str, *, holed: bool) -> None:
        journal = FileJournal(FOLDER, disk=disk, runner=InlineRunner(), segment_bytes=900)
        heard: list[object] = []
        assert await journal.open(Events(heard.append)) >= told.ceiling
        compare(journal, told)
        lost = [event for event in heard if "numbered" in str(event) or "missing" in str(event)]
        assert holed or not lost, f"a power cut is no damage: {lost}"
        told.sent[PRIMARY].add(name)
        await journal.append(update(name), [PRIMARY])
        told.owed[PRIMARY].add(name)
        journal._is_open = False


def _hash(state: State) -> bytes:
    said = hashlib.blake2b(digest_size=12)
    for path in sorted(state):
        content = state[path]
        said.update(b"%s\0%d\0" % (bytes(path), -1 if content is None else len(content)))
        said.update(content or b"")
    return said.digest()


async def random_life(cut: Cut, chance: random.Random) -> None:
    """A life of a few dozen deeds, chosen by chance."""
    journal, names = cut.journal(), (f"n{number}" for number in itertools.count())
    await journal.open(Events())
    for _ in range(chance.randrange(5, 30)):
        deed = chance.choice(
            ("append", "append", "append", "unit", "settle", "settle", "bury", "free", "pause")
        )
        if deed == "append":
            targets = chance.choice(((PRIMARY,), (PRIMARY, REPLICA)))
            await cut.append(journal, *itertools.islice(names, chance.choice((1, 2, 5))), targets=targets)
        elif deed == "unit":
            await cut.unit(journal, *itertools.islice(names, 3))
        elif deed == "settle":
            cut.settle(journal, chance.choice((1, 4, 99)), chance.choice((PRIMARY, REPLICA)))
        elif deed == "bury":
            name = next(names)
            await cut.append(journal, name)
            await cut.bury(journal, name)
        elif deed == "free" and journal.dead_letters():
            await cut.free(journal, chance.choice((journal.drop, journal.retry)))
        else:
            await asyncio.sleep(2 * commit._PATIENCE)
    journal._is_open = False


def campaign(states: int, lanes: int, seed: int) -> Findings:
    """Open so many different states."""
    commit._PATIENCE = 0.001

    def work(seed: int, share: int) -> Findings:
        return asyncio.run(_work(random.Random(seed), share))

    return in_lanes(work, states, lanes, seed)


async def _work(chance: random.Random, share: int) -> Findings:
    judge, findings, state = Judge(chance, deep=True), Findings(), None
    while len(judge.opened) < share:
        cut = Cut(state, most=20, chance=chance)
        await random_life(cut, chance)
        await judge.judge(cut, at_most=share)
        findings.points["moments"] += len(cut.moments)
        findings.points["lives"] += 1
    findings.counts["states"] = len(judge.opened)
    return findings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.cuts", description=__doc__)
    parser.add_argument("states", type=int, nargs="?", default=50_000)
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    findings = campaign(options.states, options.lanes, options.seed)
    findings.seconds = time.monotonic() - began
    print(findings.to_json())
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
