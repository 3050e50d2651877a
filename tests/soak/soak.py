"""Load without end on MariaDB, memcached and a journal: one fault after the other, and a recovery between."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from octopus_async import DaoManager
from octopus_async.cli.drill.judge import compare
from octopus_async.cli.drill.ledger import Fate, Ledger, Name
from octopus_async.cli.drill.meter import Meter
from octopus_async.cli.drill.stage import Held as HeldRecord
from octopus_async.cli.drill.workload import Load, Onlooker, Volume, Worker
from octopus_async.cli.service import owed
from tests.chaos.cells import Cell, When, all_closed
from tests.chaos.rig import Room
from tests.soak.measures import Held, Trend, trends

DEADLINE = 5.0
_WORKERS = 6
_RECORDS = 40  # a worker's: the books that the soak keeps itself must not grow either
_RECOVERY = 20.0
_CALM = 0.5
_ON_ITS_WAY = 2.0
_WARM_UP = 0.1  # of the whole time


@dataclass
class Course:
    """What a soak has been through, and what was measured.

    Attributes:
        seconds: how long it took.
        acknowledged: writes.
        journalled: how many of them went by way of the journal.
        reads: that were answered.
        faults: how often each was made.
        samples: what the process held at the end of each recovery, with the moment in seconds.
        peaks: the most that was owed to backends, and the most writes under way.
        slowest: the longest recovery, in seconds.
        wrong: examples of what must not be, by its kind.
    """

    seconds: float = 0.0
    acknowledged: int = 0
    journalled: int = 0
    reads: int = 0
    refused_reads: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[float, Held]] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=lambda: {"owed": 0, "writing": 0})
    slowest: float = 0.0
    wrong: dict[str, list[str]] = field(default_factory=dict)

    @property
    def trends(self) -> list[Trend]:
        """How each measure went, once the process was warm."""
        warm = [sample for sample in self.samples if sample[0] >= self.seconds * _WARM_UP]
        return trends(warm or self.samples)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            **asdict(replace(self, faults=Counter())),  # asdict cannot copy one that holds anything
            "faults": dict(self.faults),
            "trends": [{**trend._asdict(), "flat": trend.flat} for trend in self.trends],
        }

    def table(self) -> list[str]:
        """All of it as text."""
        form = "{:<14}{:>14}{:>14}{:>18}{:>14}"
        return [
            f"{self.seconds:.0f} s, {self.faults.total()} faults, the slowest recovery {self.slowest:.2f} s",
            f"{self.acknowledged} writes acknowledged, {self.journalled} of them by way of the journal",
            f"{self.reads} reads, and {self.refused_reads} refused while nobody could know",
            f"at most {self.peaks['owed']} owed to backends, and {self.peaks['writing']} writes under way",
            form.format("", "median", "most", "growth, 2nd half", "noise"),
            *(
                form.format(
                    it.name, f"{it.middle:.0f}", f"{it.most:.0f}", f"{it.growth:+.1f}", f"{it.allowed:.0f}"
                )
                for it in self.trends
            ),
        ]


class Soak:
    """One soak.

    Parameters:
        room: the servers.
        folder: for the journal.
        seconds: how long faults are made; the last recovery comes after it.
        seed: decides which faults, and when.
        say: is given a line now and then.
    """

    def __init__(
        self, room: Room, folder: Path, seconds: float, seed: int = 1, say: Callable[[str], object] = print
    ) -> None:
        self.course = Course()
        self._room = room
        self._journal = folder / "journal"
        self._seconds = seconds
        self._seed = seed
        self._chance = random.Random(seed)
        self._say = say
        self._ledger = Ledger()
        self._meter = Meter()
        self._meter.begin_phase("all", 0.0, away=False)
        self._blind = False

    async def run(self) -> Course:
        """Do all of it."""
        await self._room.do("clear")
        self._began = time.monotonic()
        options: dict[str, Any] = {"timeout": DEADLINE, "create_tables": True}
        async with DaoManager(self._room.urls, journal=self._journal, **options) as manager:
            await manager.create_tables(Volume)
            await self._loaded(manager)
            async with asyncio.timeout(_RECOVERY):
                await manager.drained()
        rows = await self._room.do("held", self._seed)
        compare(self._ledger, [HeldRecord(Name(*name), step, intact) for name, step, intact in rows])
        return self._conclude()

    async def _loaded(self, manager: DaoManager) -> None:
        load, stop = self._load(manager), asyncio.Event()
        callers = [Worker(shelf, load) for shelf in range(1, _WORKERS + 1)]
        onlookers = [Onlooker(number, load) for number in range(_WORKERS // 2)]
        async with asyncio.TaskGroup() as group:
            for caller in (*callers, *onlookers):
                group.create_task(caller.run(stop))
            watching = group.create_task(self._watch(manager))
            try:
                while time.monotonic() - self._began < self._seconds and not self._ledger.faults:
                    await self._round(manager)
            finally:
                stop.set()
                watching.cancel()

    async def _round(self, manager: DaoManager) -> None:
        """A fault, the recovery from it, and a look at what the process holds then."""
        fault = self._chance.choice([*self._faults()])
        self._blind = Cell(fault, When.LOADED).blind
        await self._room.do("strike", fault)
        seconds = self._chance.uniform(0.3, 3.0)
        await asyncio.sleep(seconds / 2)
        if self._room.faults[fault][1]:
            await self._room.do("middle", fault)
        await asyncio.sleep(seconds / 2)
        await self._room.do("heal", fault)
        took = await self._recovered(manager)
        self._blind = False
        self.course.faults[fault] += 1
        self.course.slowest = max(self.course.slowest, took)
        await asyncio.sleep(self._chance.uniform(0.5, 2.0))
        held = Held.now(self._journal)
        self.course.samples.append((time.monotonic() - self._began, held))
        self._say(
            f"{self.course.samples[-1][0]:7.0f} s  {fault:<36} {seconds:.1f} s, recovered in {took:.2f} s;"
            f" {held.rss / 1e6:.1f} MB, {held.objects} objects, {held.tasks} tasks,"
            f" {held.descriptors} descriptors, journal {held.journal / 1e6:.2f} MB"
        )

    async def _recovered(self, manager: DaoManager) -> float:
        """Wait for the recovery; for how many seconds anything was amiss.

        A connection that was harmed is found out by the next call on it, which may take its whole time.
        """
        healed = amiss = time.monotonic()
        async with asyncio.timeout(_RECOVERY):
            while (now := time.monotonic()) < max(amiss + _CALM, healed + _ON_ITS_WAY):
                if not all_closed(manager) or owed(manager.statistics()):
                    amiss = now
                await asyncio.sleep(0.02)
        return amiss - healed

    def _faults(self) -> list[str]:
        """Those that the servers of any machine allow; how long one lasts is decided anew each time."""
        once = {"stopped 5 s", "stopped 60 s", "disk full"}
        return [name for name in self._room.faults if not any(name.endswith(end) for end in once)]

    async def _watch(self, manager: DaoManager) -> None:
        peaks = self.course.peaks
        while True:
            statistics = manager.statistics()
            peaks["owed"] = max(peaks["owed"], owed(statistics))
            peaks["writing"] = max(peaks["writing"], statistics.writing)
            await asyncio.sleep(0.1)

    def _load(self, manager: DaoManager) -> Load:
        return Load(
            volumes=manager.dao(Volume),
            ledger=self._ledger,
            meter=self._meter,
            seed=self._seed,
            think=0.01,
            records=_RECORDS,
            blind=lambda: self._blind,
        )

    def _conclude(self) -> Course:
        course, ledger = self.course, self._ledger
        course.seconds = time.monotonic() - self._began
        course.acknowledged = ledger.fates[Fate.ACKNOWLEDGED]
        course.journalled = ledger.journalled
        course.refused_reads = ledger.refused_reads
        course.reads = self._meter.phases[0].tally.reads.count
        course.wrong = {fault.name.lower(): found for fault, found in ledger.examples.items() if found}
        return course
