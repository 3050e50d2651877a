"""The cells of the chaos matrix: each fault in each state of the library; and how one is run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from octopus_async import Dao, DaoManager, JournalFull, Receipt, WriteUnavailable
from octopus_async.cli.drill.judge import compare
from octopus_async.cli.drill.ledger import Fate, History, Ledger, Name
from octopus_async.cli.drill.meter import Meter
from octopus_async.cli.drill.stage import Held
from octopus_async.cli.drill.workload import Load, Onlooker, Volume, Worker
from octopus_async.cli.service import owed
from octopus_async.events import BreakerChanged, Event, ReplayStarted
from octopus_async.guard import State
from octopus_async.journal import FileJournal
from tests.chaos.databases import DATABASES
from tests.chaos.disks import small_disk
from tests.chaos.pulse import Pulse
from tests.chaos.rig import Room

DEADLINE = 2.0
_SEED = 11
_WORKERS = 6
_PATIENCE = 20.0
_SMALL_DISK = 16 * 1024 * 1024
_SPARE = 64 * 1024
_ENOUGH = 50
JOURNAL_FULL = "killed, journal's disk full"
JOURNAL_STAYS_FULL = "killed, journal's disk full beyond it"


class When(Enum):
    """What the library is doing as the fault strikes."""

    IDLE = "idle"
    LOADED = "loaded"
    REPLAYING = "replaying"


class Cell(NamedTuple):
    """One fault at one time."""

    fault: str
    when: When

    def __str__(self) -> str:
        return f"{self.fault}, {self.when.value}"

    @property
    def database(self) -> str:
        """The name of the database that it needs."""
        return "postgres" if self.fault.startswith("postgres") else "mariadb"

    @property
    def needs_small_disk(self) -> bool:
        """Whether the database has to have a disk that can be filled."""
        return self.fault == f"{self.database} disk full"

    @property
    def fills_journal(self) -> bool:
        """Whether the journal's disk is filled as well."""
        return self.fault.endswith((JOURNAL_FULL, JOURNAL_STAYS_FULL))

    @property
    def blind(self) -> bool:
        """Whether a read may be refused: nobody that could know can be asked."""
        harmless = self.fault in _READABLE or self.fault.startswith("memcached")
        return self.when is not When.IDLE and not harmless


_ENDS = (
    *("killed", "stopped 0.5 s", "stopped 5 s", "stopped 60 s"),
    *("cut", "reset", "slow", "half-closed", "swallowed", "at its limit"),
)
_OF_DATABASES = (
    *("read-only", "disk full", "column renamed"),
    *("and memcached killed", "killed, memcached emptied"),
)
_FAULTS = (
    *(f"{server} {end}" for server in ("mariadb", "postgres", "memcached") for end in _ENDS),
    *(f"{database} {what}" for database in DATABASES for what in _OF_DATABASES),
)
_READABLE = ("mariadb read-only", "mariadb disk full", "postgres read-only")
CELLS = [
    *(Cell(fault, when) for fault in _FAULTS for when in When),
    *(
        Cell(f"{database} {fault}", when)
        for database in DATABASES
        for fault in (JOURNAL_FULL, JOURNAL_STAYS_FULL)
        for when in (When.LOADED, When.REPLAYING)
    ),
]
SHORT = [
    Cell("mariadb killed, memcached emptied", When.LOADED),
    Cell("mariadb swallowed", When.LOADED),
    Cell("memcached reset", When.LOADED),
    Cell("mariadb half-closed", When.IDLE),
    Cell("mariadb stopped 0.5 s", When.REPLAYING),
    Cell("mariadb column renamed", When.REPLAYING),
    Cell("mariadb disk full", When.LOADED),
    Cell(f"mariadb {JOURNAL_FULL}", When.LOADED),
    Cell("postgres killed", When.LOADED),
    Cell("postgres column renamed", When.LOADED),
]


_COUNTS = ("acknowledged", "journalled", "refused_reads", "refused_writes")
_TIMES = ("slowest", "late", "blocked", "closed", "drained", "forgiven")


@dataclass
class Measured:
    """What was measured in a cell. Times are seconds; what is forgiven is so of the time to the drain."""

    cell: Cell
    acknowledged: int = 0
    journalled: int = 0
    refused_reads: int = 0
    refused_writes: int = 0
    went_on: int = 0
    slowest: float = 0.0
    late: float = 0.0
    blocked: float = 0.0
    closed: float = 0.0
    drained: float = 0.0
    forgiven: float = 0.0
    breakers: list[str] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)

    @staticmethod
    def table(rows: Iterable[Measured]) -> list[str]:
        """The rows as a table in text."""
        head = ("cell", "writes", "journalled", "unread", "refused", *_TIMES)
        form = "{:<60}{:>8}{:>11}{:>8}{:>9}{:>9}{:>8}{:>9}{:>8}{:>9}{:>10}"
        rows = list(rows)
        return [
            form.format(*head),
            *(
                form.format(
                    str(row.cell),
                    row.acknowledged,
                    row.journalled,
                    row.refused_reads,
                    row.refused_writes,
                    *(f"{getattr(row, time):.3f}" for time in _TIMES),
                )
                for row in rows
            ),
            form.format(
                f"{len(rows)} cells: sums, and worst times",
                *(sum(getattr(row, count) for row in rows) for count in _COUNTS),
                *(f"{max(getattr(row, time) for row in rows):.3f}" for time in _TIMES),
            ),
        ]


class TimedVolumes(Dao[Volume]):
    """A Dao whose operations have a deadline, and are timed."""

    pulse: Pulse

    async def read(self, id: Any, *, timeout: float | None = DEADLINE) -> Volume | None:  # noqa: A002, ANN401
        return await self.pulse.timed(super().read(id, timeout=timeout), DEADLINE)

    async def create(self, model: Volume, *, timeout: float | None = DEADLINE) -> Receipt:
        return await self.pulse.timed(super().create(model, timeout=timeout), DEADLINE)

    async def update(
        self,
        model: Volume,
        *,
        only: Collection[str] | None = None,
        if_version: str | None = None,
        timeout: float | None = DEADLINE,
    ) -> Receipt:
        call = super().update(model, only=only, if_version=if_version, timeout=timeout)
        return await self.pulse.timed(call, DEADLINE)

    async def delete(
        self,
        target: Any,  # noqa: ANN401
        *,
        if_version: str | None = None,
        timeout: float | None = DEADLINE,
    ) -> Receipt:
        call = super().delete(target, if_version=if_version, timeout=timeout)
        return await self.pulse.timed(call, DEADLINE)


class Run:
    """One cell, run."""

    def __init__(self, cell: Cell, room: Room, folder: Path) -> None:
        self.measured = Measured(cell)
        self._cell = cell
        self._room = room
        self._folder = folder
        self._ledger = Ledger()
        self._replaying = asyncio.Event()
        self._blind = False
        self._refusals: list[WriteUnavailable] = []
        self._journal: Path | FileJournal = folder / "journal"

    async def run(self) -> Measured:
        """Do all of it, whatever comes of it."""
        room, fault = self._room, self._cell.fault
        await room.do("clear")
        self._pulse = Pulse()
        try:
            async with DaoManager(
                room.urls,
                journal=self._journal,
                timeout=DEADLINE,
                listeners=[self._hear],
            ) as manager:
                await manager.create_tables(Volume)
                await self._with(manager)
        finally:
            self._pulse.stop()
            if fault in room.faults:
                await room.do("heal", fault)
            await room.do("heal", f"{self._cell.database} killed")
        rows = await room.do("held", _SEED)
        compare(self._ledger, [Held(Name(*name), step, intact) for name, step, intact in rows])
        return self._conclude()

    async def _with(self, manager: DaoManager) -> None:
        if self._cell.when is When.IDLE:
            async with self._loaded(manager):
                await self._worked()
            await asyncio.sleep(0.3)  # until caches have what the last writes and reads left for them
            await self._struck()
            async with self._loaded(manager):
                await self._recovered(manager)
                await self._worked()
        else:
            async with self._loaded(manager):
                await self._worked()
                if self._cell.when is When.REPLAYING:
                    await self._until_replaying()
                self._blind = self._blind or self._cell.blind
                await self._struck()
                await self._recovered(manager)
                self._blind = False
                await asyncio.sleep(0.3)
        await self._until(lambda: not owed(manager.statistics()))
        self.measured.faults["dead letters"] = [
            letter.reason
            for letter in manager.journal.dead_letters()  # type: ignore[union-attr]
        ]
        await self._looked_up_again(manager)

    async def _worked(self) -> None:
        """Let the load run for a while, and on a slow machine for as long as it takes to do anything."""
        acknowledged = self._ledger.fates
        enough = acknowledged[Fate.ACKNOWLEDGED] + _ENOUGH
        await asyncio.sleep(0.5)
        await self._until(lambda: acknowledged[Fate.ACKNOWLEDGED] >= enough)

    async def _until_replaying(self) -> None:
        self._blind = True
        await self._room.do("strike", f"{self._cell.database} killed")
        await asyncio.sleep(1.5)
        await self._room.do("heal", f"{self._cell.database} killed")
        async with asyncio.timeout(_PATIENCE):
            await self._replaying.wait()

    async def _struck(self) -> None:
        room, fault = self._room, self._cell.fault
        seconds, middle = room.faults[fault]
        await room.do("strike", fault)
        await asyncio.sleep(seconds / 2)
        if middle:
            await room.do("middle", fault)
        await asyncio.sleep(seconds / 2)
        if self._cell.needs_small_disk and self._cell.when is not When.IDLE:
            journalled = self._ledger.journalled
            await self._until(
                lambda: self._ledger.journalled > journalled
            )  # there was room in pages half full
        await room.do("heal", fault)

    async def _recovered(self, manager: DaoManager) -> None:
        clock = asyncio.get_running_loop().time
        healed = clock()
        await self._until(lambda: all_closed(manager))
        self.measured.closed = clock() - healed
        await self._until(lambda: all_closed(manager) and not owed(manager.statistics()))
        self.measured.drained = clock() - healed
        self.measured.forgiven = self._pulse.forgiven(healed)

    async def _looked_up_again(self, manager: DaoManager) -> None:
        load = self._load(manager)
        for history in self._ledger.histories:
            await load.look_up(history)

    def _make_load(self, **parts: Any) -> Load:  # noqa: ANN401 - the fields of a load
        return Load(**parts)

    @asynccontextmanager
    async def _loaded(self, manager: DaoManager) -> AsyncGenerator[None]:
        load, stop = self._load(manager), asyncio.Event()
        first = len(self._ledger.histories) + 1
        callers = [Worker(shelf, load) for shelf in range(first, first + _WORKERS)]
        onlookers = [Onlooker(number, load) for number in range(_WORKERS // 2)]
        async with asyncio.TaskGroup() as group:
            for caller in (*callers, *onlookers):
                group.create_task(caller.run(stop))
            yield
            stop.set()

    def _load(self, manager: DaoManager) -> Load:
        volumes = manager.dao(TimedVolumes)
        volumes.pulse = self._pulse
        meter = Meter()
        meter.begin_phase("all", 0.0, away=False)
        return self._make_load(
            volumes=volumes,
            ledger=self._ledger,
            meter=meter,
            seed=_SEED,
            think=0.005,
            records=1000,
            blind=lambda: self._blind,
        )

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Wait as long as patience lasts; what is measured tells if it was too long."""
        until = asyncio.get_running_loop().time() + _PATIENCE
        while not reached() and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - statistics tell nobody
            await asyncio.sleep(0.02)

    def _hear(self, event: Event) -> None:
        if isinstance(event, ReplayStarted):
            self._replaying.set()
        elif isinstance(event, BreakerChanged):
            self.measured.breakers.append(str(event))

    def _conclude(self) -> Measured:
        measured, ledger, pulse = self.measured, self._ledger, self._pulse
        measured.acknowledged = ledger.fates[Fate.ACKNOWLEDGED]
        measured.journalled = ledger.journalled
        measured.refused_reads = ledger.refused_reads
        measured.refused_writes = len(self._refusals)
        measured.slowest, measured.late, measured.blocked = pulse.slowest, pulse.late, pulse.blocked
        measured.faults.update({fault.name.lower(): found for fault, found in ledger.examples.items()})
        return measured


class RunWithFullJournal(Run):
    """A cell in which the database is killed, and then the journal's disk is full as well.

    Either there is room again while it is still away, and from then on writes are taken as before. Or it
    is back first: then it is given what it is owed, and takes writes, with a disk that is still full.
    """

    def __init__(self, cell: Cell, room: Room, folder: Path) -> None:
        super().__init__(cell, room, folder)
        self._disk = small_disk(folder / "disk", _SMALL_DISK)
        self._journal = FileJournal(folder / "disk" / "journal", disk=self._disk.journal_disk)

    async def run(self) -> Measured:
        """As without, on a disk that is taken away in the end."""
        try:
            return await super().run()
        finally:
            self._disk.leave()

    def _make_load(self, **parts: Any) -> Load:  # noqa: ANN401 - the fields of a load
        return LoadWithRefusals(**parts, refusals=self._refusals)

    async def _struck(self) -> None:
        ledger = self._ledger
        await self._room.do("strike", f"{self._cell.database} killed")
        await asyncio.sleep(0.5)
        await asyncio.to_thread(self._disk.fill, _SPARE)
        await self._until(lambda: len(self._refusals) >= _ENOUGH)
        if self._cell.fault.endswith(JOURNAL_FULL):
            self._disk.empty()
            await self._went_on(lambda: ledger.journalled)
        await self._room.do("heal", f"{self._cell.database} killed")
        if self._cell.fault.endswith(JOURNAL_STAYS_FULL):
            await self._went_on(lambda: ledger.fates[Fate.ACKNOWLEDGED])

    async def _went_on(self, count: Callable[[], int]) -> None:
        before = count()
        await self._until(lambda: count() >= before + _ENOUGH)
        self.measured.went_on = count() - before


@dataclass(slots=True)
class LoadWithRefusals(Load):
    """A load in which a write may be refused because the journal's disk is full, and for nothing else.

    Attributes:
        refusals: the refusals that said so.
    """

    refusals: list[WriteUnavailable] = field(kw_only=True)

    def _fate(self, error: Exception) -> Fate:
        """That nothing was written is taken at its word."""
        if isinstance(error, WriteUnavailable) and "Nothing was written" in str(error):
            return Fate.REFUSED
        return Load._fate(self, error)

    def _failed(self, history: History, verb: str, error: Exception) -> None:
        """A refusal has to name the journal, and what to do."""
        causes = error.causes if isinstance(error, WriteUnavailable) else {}
        full = causes.get("journal")
        if isinstance(error, WriteUnavailable) and isinstance(full, JournalFull) and "room" in str(full):
            self.refusals.append(error)
        else:
            Load._failed(self, history, verb, error)


def all_closed(manager: DaoManager) -> bool:
    """Whether no breaker keeps anything away."""
    return all(
        guard.reads.state is State.CLOSED and guard.writes.state is State.CLOSED
        for guard in manager.backends.values()
    )
