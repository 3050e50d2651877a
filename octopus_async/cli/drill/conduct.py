"""The course of a drill: load, blows and recoveries, the drain, and the comparison in the end."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from octopus_async.cli.drill.judge import compare
from octopus_async.cli.drill.ledger import Fate, Fault, Ledger
from octopus_async.cli.drill.meter import Meter, Sample
from octopus_async.cli.drill.report import Report
from octopus_async.cli.drill.stage import Phase, Stage, phases
from octopus_async.cli.drill.workload import Caller, Load, Onlooker, Volume, Worker
from octopus_async.cli.service import ReplayCounter, owed
from octopus_async.events import Event
from octopus_async.guard import GuardStatistics, State
from octopus_async.manager import DaoManager, Statistics

_SLICE = 0.25
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Settings:
    """How hard and how long. Times are seconds.

    Attributes:
        seconds: the length of each phase; a recovery takes half of it, and longer where it has to.
        workers: callers at the same time who write and read; half as many more only read.
        think: the mean pause of a worker between two operations.
        records: how many records there may be in all.
        seed: makes contents and choices repeatable.
        patience: the longest wait for a recovery, and for the drain.
    """

    seconds: float = 5.0
    workers: int = 8
    think: float = 0.003
    records: int = 10_000
    seed: int = 0
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The drill at one moment, for whoever watches. ``at`` is in seconds since the load began."""

    at: float
    backends: dict[str, GuardStatistics]
    sample: Sample
    journalled: int
    replayed: int
    owed: int
    acknowledged: int
    faults: dict[Fault, int]
    refused_reads: int


class Watcher(Protocol):
    """Whoever looks on."""

    def begin(self, stage: Stage, course: list[Phase]) -> None:
        """The stage is set, and this is the course."""
        ...

    def phase(self, at: float, index: int) -> None:
        """A phase of the course begins."""
        ...

    def tick(self, snapshot: Snapshot) -> None:
        """A slice of time is over."""
        ...

    def event(self, at: float, event: Event) -> None:
        """The library tells of something."""
        ...

    def note(self, at: float, text: str) -> None:
        """The drill tells of something."""
        ...


class Conductor:
    """Takes one stage through one drill."""

    def __init__(self, settings: Settings, stage: Stage, watcher: Watcher) -> None:
        self._settings = settings
        self._stage = stage
        self._watcher = watcher
        self._course = phases(stage.primary, stage.cache)
        self._ledger = Ledger()
        self._meter = Meter()
        self._blind = False
        self._replayed = ReplayCounter()
        self._started = 0.0

    async def run(self) -> Report:
        """Do all of it.

        Raises:
            OctopusError: the stage itself failed: a server did not come back, the journal did not open.
        """
        stage = self._stage
        self._watcher.begin(stage, self._course)
        self._started = asyncio.get_running_loop().time()
        with _logged_errors(lambda text: self._ledger.note(Fault.FAILED, f"the library logged: {text}")):
            async with self._manager() as manager:
                await manager.create_tables(Volume)
                load = self._load(manager)
                async with self._sampled(manager):
                    await self._under_load(manager, load)
                    await self._settle(manager, load)
                statistics = manager.statistics()
                letters = manager.journal.dead_letters() if manager.journal is not None else ()
        self._note(f"comparing {len(self._ledger.histories):,} records with what {stage.primary.label} holds")
        held = await stage.held(self._settings.seed)
        compare(self._ledger, held, {letter.operation.key.id for letter in letters})
        return self._report(statistics, len(held), len(letters))

    def _manager(self) -> DaoManager:
        stage = self._stage
        return DaoManager(
            [stage.primary.url, stage.cache.url],
            journal=stage.folder / "journal",
            listeners=[self._replayed, self._tell],
        )

    def _tell(self, event: Event) -> None:
        self._watcher.event(self._now(), event)

    def _note(self, text: str) -> None:
        self._watcher.note(self._now(), text)

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._started

    def _load(self, manager: DaoManager) -> Load:
        settings = self._settings
        return Load(
            volumes=manager.dao(Volume),
            ledger=self._ledger,
            meter=self._meter,
            seed=settings.seed,
            think=settings.think,
            records=max(1, settings.records // settings.workers),
            blind=lambda: self._blind,
        )

    # -- phases ----------------------------------------------------------------------------------

    async def _under_load(self, manager: DaoManager, load: Load) -> None:
        stop = asyncio.Event()
        self._begin(0)
        workers = self._settings.workers
        callers: list[Caller] = [Worker(shelf, load) for shelf in range(1, workers + 1)]
        callers += [Onlooker(number, load) for number in range(1, workers // 2 + 1)]
        tasks = [asyncio.get_running_loop().create_task(caller.run(stop)) for caller in callers]
        try:
            for index, phase in enumerate(self._course[:-1]):
                if index:
                    self._begin(index)
                await self._play(manager, phase)
            stop.set()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _begin(self, index: int) -> None:
        phase = self._course[index]
        self._meter.begin_phase(phase.name, self._now(), away=bool(phase.blows))
        self._watcher.phase(self._now(), index)

    async def _play(self, manager: DaoManager, phase: Phase) -> None:
        settings = self._settings
        if phase.blows:
            await self._strike(manager, phase)
        elif phase is self._course[0]:
            await asyncio.sleep(settings.seconds)
        else:
            await asyncio.sleep(settings.seconds / 2)
            await self._until(lambda: not owed(manager.statistics()))

    async def _strike(self, manager: DaoManager, phase: Phase) -> None:
        self._blind = phase.blind
        await asyncio.gather(*(blow.strike() for blow in phase.blows))
        await asyncio.sleep(self._settings.seconds)
        await asyncio.gather(*(blow.heal() for blow in phase.blows))
        await self._until(lambda: all(_is_well(guard) for guard in manager.statistics().backends.values()))
        self._blind = False

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Wait for something, as long as patience lasts: what follows will tell if it did not come."""
        until = self._now() + self._settings.patience
        while not reached() and self._now() < until:  # noqa: ASYNC110 - statistics tell nobody that they changed
            await asyncio.sleep(_POLL)

    async def _settle(self, manager: DaoManager, load: Load) -> None:
        """Without load: wait for the drain, then read every record once more."""
        self._begin(len(self._course) - 1)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.patience):
                await manager.drained()
        histories, at_once = self._ledger.histories, self._settings.workers
        self._note(f"reading all {len(histories):,} records once more")
        for start in range(0, len(histories), at_once):
            await asyncio.gather(*(load.look_up(history) for history in histories[start : start + at_once]))
        self._meter.end_phase(self._now())

    # -- what is seen of it ----------------------------------------------------------------------

    @asynccontextmanager
    async def _sampled(self, manager: DaoManager) -> AsyncGenerator[None]:
        async def sample() -> None:
            while True:
                await asyncio.sleep(_SLICE)
                self._watcher.tick(self._snapshot(manager))

        task = asyncio.get_running_loop().create_task(sample())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _snapshot(self, manager: DaoManager) -> Snapshot:
        statistics = manager.statistics()
        left = owed(statistics)
        ledger = self._ledger
        return Snapshot(
            at=self._now(),
            backends=statistics.backends,
            sample=self._meter.sample(self._now(), left, sum(statistics.behind.values())),
            journalled=ledger.journalled,
            replayed=self._replayed.total,
            owed=left,
            acknowledged=ledger.fates[Fate.ACKNOWLEDGED],
            faults=dict(ledger.faults),
            refused_reads=ledger.refused_reads,
        )

    def _report(self, statistics: Statistics, held: int, dead: int) -> Report:
        return Report(
            primary=self._stage.primary.label,
            cache=self._stage.cache.label,
            seed=self._settings.seed,
            seconds=self._now(),
            ledger=self._ledger,
            phases=self._meter.phases,
            samples=self._meter.samples,
            records=len(self._ledger.histories),
            held=held,
            replayed=self._replayed.total,
            dead_letters=dead,
            pending=owed(statistics),
        )


async def drill(settings: Settings, stage: Stage, watcher: Watcher) -> Report:
    """Take a stage through a drill. See `Conductor.run`."""
    return await Conductor(settings, stage, watcher).run()


def any_seed() -> int:
    """A seed for those who gave none; it is in the report, so that it can be given then."""
    return random.SystemRandom().getrandbits(32)


def _is_well(guard: GuardStatistics) -> bool:
    return guard.reads.state is State.CLOSED and guard.writes.state is State.CLOSED


@contextmanager
def _logged_errors(note: Callable[[str], None]) -> Generator[None]:
    """Take what the library and asyncio log as an error for what it is, and keep all else from the screen."""
    handler = _Errors(note)
    loggers = [logging.getLogger(name) for name in ("octopus_async", "asyncio")]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate


class _Errors(logging.Handler):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        problem = record.exc_info[1] if record.exc_info else None
        text = record.getMessage().splitlines()[0]
        self._note(text if problem is None else f"{text}: {type(problem).__name__}: {problem}")
