"""Runs a scenario: servers, disk, processes and clients on one virtual loop, and looks at what is left."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.backend import Adapter
from octopus_async.errors import OctopusError
from octopus_async.events import (
    DeadLettered,
    Event,
    JournalAdopted,
    ReplayFinished,
    ReplayPaused,
    ReplayStarted,
)
from octopus_async.guard import GuardPolicy
from octopus_async.journal import FileJournal
from octopus_async.manager import DaoManager
from octopus_async.record import Key
from octopus_async.strategies.plan import Acknowledge, Order
from octopus_async.strategies.read import Cascade, Hedge, Race, ReadStrategy
from octopus_async.testing.simulation.backends import SimulatedCache, SimulatedDatabase
from octopus_async.testing.simulation.cacheserver import CacheServer
from octopus_async.testing.simulation.census import Census
from octopus_async.testing.simulation.client import (
    MODELS,
    Client,
    Notes,
    id_of,
    model_of,
    name_of,
    records_of,
)
from octopus_async.testing.simulation.disk import SimulatedDisk
from octopus_async.testing.simulation.faults import begin
from octopus_async.testing.simulation.history import Dead, Final, Row
from octopus_async.testing.simulation.loop import Process, VirtualLoop
from octopus_async.testing.simulation.processdisk import ProcessDisk, SimulatedRunner
from octopus_async.testing.simulation.remains import in_memory, leaks_of, rows_of, served
from octopus_async.testing.simulation.scenario import (
    CACHE,
    PRIMARY,
    REPLICA,
    Scenario,
    Setup,
)
from octopus_async.testing.simulation.server import DatabaseServer

EPOCH = 1_700_000_000.0
_FOLDER = "/journal"
_ADOPT_EVERY = 1.0
_LATE_WRITES = 0.5
_LONGEST_CALLS = 60.0
_LONGEST_DRAIN = 30.0
_STRATEGIES: dict[str, Callable[[], ReadStrategy]] = {"cascade": Cascade, "race": Race, "hedge": Hedge}


class Slot:
    """A place for a process: the one that runs there now, and what its successors inherit.

    Attributes:
        number: its number in the scenario.
        offset: by how many seconds its machine's wall clock is off.
        offset_at_restart: by how many more once it was restarted.
        clients: who calls there.
        process: the process; None while there is none.
        manager: its manager, once it is open.
        died_at: what its wall clock said when the last process died.
        replaying: the backends that the process replays into.
    """

    def __init__(self, number: int, offset: float, clients: list[Client]) -> None:
        self.number = number
        self.offset = offset
        self.offset_at_restart = 0.0
        self.clients = clients
        self.starts = 0
        self.gone = False
        self.died_at: float | None = None
        self.replaying: set[str] = set()
        self.process: Process | None = None
        self.disk: ProcessDisk | None = None
        self.manager: DaoManager | None = None
        self.memory: MemoryAdapter | None = None

    @property
    def is_done(self) -> bool:
        """Whether its clients have nothing left to do, or nobody to do it with."""
        lives = self.process is not None and not self.process.dead and self.manager is not None
        return self.gone or (lives and all(client.is_done for client in self.clients))


class World:
    """Everything there is in a run.

    Attributes:
        census: how often which fault struck.
        is_healed: whether all faults are over.

    Parameters:
        scenario: what happens.
        trace: is told of what happens, for a person to read; None for nobody.
    """

    def __init__(self, scenario: Scenario, trace: Callable[[str], None] | None = None) -> None:
        self.scenario = scenario
        self._trace = trace
        self.setup: Setup = scenario.setup
        seed = self.setup.seed
        self.loop = VirtualLoop(Random(f"order {seed}"), shuffle=self.setup.shuffle)
        self.random = Random(f"world {seed}")
        self.census: Census = Counter()
        self.is_healed = False
        self.notes = Notes()
        self.final = Final()
        self.pauses: list[tuple[str, float, float]] = []
        self.disk = SimulatedDisk(Random(f"disk {seed}"), self.census)
        self.primary = self._database(PRIMARY, constrained=True)
        self.replica = self._database(REPLICA, constrained=False) if self.setup.replica else None
        self.cache = (
            CacheServer(CACHE, self.loop, Random(f"cache {seed}"), self.census, ttl=self.setup.ttl)
            if self.setup.shared_cache
            else None
        )
        self._managers: list[DaoManager] = []
        self._dead: dict[tuple[str, str], Dead] = {}
        self.slots = [self._slot(number) for number in range(self.setup.processes)]

    def run(self) -> None:
        """Run the scenario to its end. Raises `SimulationError` for a deadlock or a livelock."""
        try:
            self.loop.run_until_complete(self._main())
        finally:
            self.loop.abandon()
            # As after a fork: they are another process's, and nobody is going to close them.
            for manager in self._managers:
                manager._forked()  # noqa: SLF001 - what the hook of a fork calls
                if manager.journal is not None:
                    manager.journal.forget_process()

    # -- the course of a run ---------------------------------------------------------------------

    async def _main(self) -> None:
        for slot in self.slots:
            self._start(slot)
        for fault in self.scenario.faults:
            self.loop.outside(begin, self, fault, delay=fault.at)
        await asyncio.sleep(self.scenario.over_at)
        self._heal()
        await self._until(lambda: all(slot.is_done for slot in self.slots), _LONGEST_CALLS, "clients")
        await self._drain()
        # A write of unknown fate that nobody journalled may still lie between its client and the primary.
        await self._until(lambda: not self.primary.awaits_writes, _LONGEST_CALLS, "writes on their way")
        self._look_at_stores()
        self.final.caches_at_once = self._caches()
        # What lay in a cache that hung lands a moment after, and is old from then on.
        await asyncio.sleep(self.setup.ttl + 0.5)
        self.final.caches_later = self._caches()
        await self._read_everything()
        await asyncio.sleep(0.5)
        self._look_for_leaks()
        await self._close()

    async def _until(self, reached: Callable[[], bool], seconds: float, what: str) -> bool:
        until = self.loop.time() + seconds
        while not reached():
            if self.loop.time() >= until:
                self.final.problems.append(f"{what}: not over {seconds:.0f} s after everything was healed")
                return False
            await asyncio.sleep(0.02)
        return True

    async def _drain(self) -> None:
        # Twice the time after which a living process looks for the journals of dead ones.
        await asyncio.sleep(2 * _ADOPT_EVERY + 0.1 if self.census["crash"] else 0.1)
        if not await self._until(self._is_drained, _LONGEST_DRAIN, "the drain"):
            for slot in self._living():
                if slot.manager is not None:
                    self.final.pending[_name(slot)] = str(slot.manager.statistics())

    def _is_drained(self) -> bool:
        managers = [slot.manager for slot in self._living() if slot.manager is not None]
        guards = [guard for manager in managers for guard in manager.backends.values()]
        # A breaker that has just opened closes at its next probe, and has to.
        return all(guard.reads.passes and guard.writes.passes for guard in guards) and all(
            not (manager._owed() or manager.statistics().comparing)  # noqa: SLF001 - `drained` would have to be run in each process
            for manager in managers
        )

    def _living(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.process is not None and not slot.process.dead]

    # -- processes -------------------------------------------------------------------------------

    def _slot(self, number: int) -> Slot:
        clients = sorted({step.client for step in self.scenario.steps if step.process == number})
        return Slot(
            number,
            self.setup.skews[number],
            [
                Client(
                    client,
                    [step for step in self.scenario.steps if (step.process, step.client) == (number, client)],
                    self.notes,
                    self.setup.timeout,
                )
                for client in clients
            ],
        )

    def _start(self, slot: Slot) -> None:
        slot.starts += 1
        slot.process = self.loop.process(f"p{slot.number}{'' if slot.starts == 1 else f'.{slot.starts}'}")
        slot.manager = None
        slot.replaying.clear()
        if slot.died_at is not None:
            slot.offset, slot.offset_at_restart = slot.offset + slot.offset_at_restart, 0.0
        if slot.died_at is not None and self._wall(slot) < slot.died_at:
            self.census["clock set back across a restart"] += 1
        slot.disk = ProcessDisk(self.disk, slot.process)
        slot.disk.on_death = lambda: self._kill(slot)
        self.say(f"{slot.process.name} starts")
        serving = self.loop.run_in(slot.process, self._serve(slot, slot.process))
        serving.add_done_callback(self._served)

    def _served(self, serving: asyncio.Task[None]) -> None:
        error = None if serving.cancelled() else serving.exception()
        if error is not None:
            self.final.problems.append(
                f"a process ended: {error!r} at {traceback.format_tb(error.__traceback__)[-1]}"
            )

    async def _serve(self, slot: Slot, process: Process) -> None:
        manager = self._manager(slot, process)
        for model in MODELS:
            manager.dao(model)
        try:
            await manager.open()
        except OctopusError as error:
            self.say(f"{process.name} could not open: {error}")
            if self.loop.time() > self.scenario.over_at + 1.0:
                self.final.problems.append(f"{process.name} could not open: {error!r}")
                slot.gone = True
            else:
                self.loop.outside(self._restart, slot, delay=0.2)
            return
        slot.manager = manager
        if manager.journal is not None and manager.journal.statistics().pending:
            self.census["restart on pending entries"] += 1
        await asyncio.gather(*(client.run(manager, process.name) for client in slot.clients))

    def _manager(self, slot: Slot, process: Process) -> DaoManager:
        setup = self.setup
        write: list[Adapter] = [self._adapter(self.primary)]
        if self.replica is not None:
            write.append(self._adapter(self.replica))
        if setup.memory_cache:
            slot.memory = MemoryAdapter(ttl=setup.ttl, now=self.loop.time)
            write.append(slot.memory)
        if self.cache is not None:
            write.append(SimulatedCache(self.cache))
        manager = DaoManager(
            write,
            _STRATEGIES[setup.read](),
            self._journal(slot, process) if setup.journal else None,
            listeners=[lambda event: self._on_event(slot, process, event)],
            order=Order[setup.order],
            acknowledge=Acknowledge[setup.acknowledge],
            timeout=setup.timeout,
            guard=GuardPolicy(timeout=setup.call_timeout, open_timeout=2 * setup.call_timeout),
            adopt_every=_ADOPT_EVERY,
            late_writes=_LATE_WRITES,
            wall=lambda: self._wall(slot),
        )
        self._managers.append(manager)
        return manager

    def _journal(self, slot: Slot, process: Process) -> FileJournal:
        assert slot.disk is not None
        random = Random(f"runner {self.setup.seed} {process.name}")
        return FileJournal(
            _FOLDER,
            segment_bytes=self.setup.segment_bytes,
            disk=slot.disk,
            runner=SimulatedRunner(self.loop, process, self.disk, random),
            wall=lambda: self._wall(slot),
        )

    def _wall(self, slot: Slot) -> float:
        return EPOCH + self.loop.time() + slot.offset

    def _adapter(self, server: DatabaseServer) -> SimulatedDatabase:
        return SimulatedDatabase(server, connections=self.setup.connections, batch=self.setup.batch)

    def _database(self, name: str, *, constrained: bool) -> DatabaseServer:
        return DatabaseServer(
            name,
            self.loop,
            Random(f"{name} {self.setup.seed}"),
            self.census,
            constrained=constrained,
            shows_tombstones=self.setup.shows_tombstones,
        )

    def _kill(self, slot: Slot) -> None:
        if slot.process is not None and not slot.process.dead:
            self.say(f"{slot.process.name} is killed")
            self._note_death(slot, slot.process)
            slot.process.dead = True
            self.disk.kill(slot.process)

    def _note_death(self, slot: Slot, process: Process) -> None:
        slot.died_at = self._wall(slot)
        self.census["crash"] += 1
        serves = any(call.process == process.name and call.responded is None for call in self.notes.calls)
        self.census["crash within a call"] += serves
        manager = slot.manager
        if manager is None:
            return
        self.final.forgotten |= {
            name_of(key)
            for debts in manager._debts.values()  # noqa: SLF001 - what is lost with it
            for key in debts._owed  # noqa: SLF001
        }
        replays = any(manager.backends[name].writes.passes for name in slot.replaying)
        self.census["crash within a replay"] += replays

    def _restart(self, slot: Slot) -> None:
        if slot.process is not None and not slot.process.dead:
            self._kill(slot)
        self._start(slot)

    def crash(self, slot: Slot, seconds: float, process: Process | None = None) -> None:
        """Kill what runs there (only ``process``, if that is given), and restart it after ``seconds``."""
        if process is not None and slot.process is not process:
            return
        self._kill(slot)
        if seconds and not slot.gone:
            self.loop.outside(self._restart, slot, delay=seconds)

    def _heal(self) -> None:
        self.say("all faults are over")
        self.is_healed = True
        if not self._living() and all(slot.gone for slot in self.slots):
            self.slots[0].gone = False
            self._start(self.slots[0])

    # -- what is left ----------------------------------------------------------------------------

    def _look_at_stores(self) -> None:
        self.final.primary = rows_of(self.primary)
        if self.replica is not None:
            self.final.replicas[REPLICA] = rows_of(self.replica)
        for slot in self._living():
            journal = slot.manager.journal if slot.manager is not None else None
            if journal is not None:
                for letter in journal.dead_letters():
                    self._note_dead(
                        letter.target, letter.operation.key, letter.operation.version, letter.error
                    )
        self.final.dead = list(self._dead.values())

    def _note_dead(self, target: str, key: Key, version: str, error: str) -> None:
        self._dead[target, version] = Dead(target, name_of(key), version, error)

    def _caches(self) -> dict[str, dict[str, Row]]:
        keys = [Key(model_of(name).__name__, str(id_of(name))) for name in self.key_names()]
        found: dict[str, dict[str, Row]] = {}
        if self.cache is not None:
            found[CACHE] = served(keys, self.cache.serves)
        for slot in self._living():
            if slot.memory is not None:
                found[f"memory of {_name(slot)}"] = served(keys, partial(in_memory, slot.memory, self.loop))
        return found

    def key_names(self) -> list[str]:
        """The keys of the scenario."""
        return sorted({key for step in self.scenario.steps for key in records_of(step)})

    async def _read_everything(self) -> None:
        for slot in self._living():
            if slot.manager is not None and slot.process is not None:
                reading = self.loop.run_in(slot.process, self._read_all(slot.manager))
                await asyncio.wait([reading])
                if (error := reading.exception()) is not None:
                    self.final.problems.append(
                        f"{_name(slot)} cannot read though everything is well: {error!r}"
                    )
                else:
                    self.final.reads[_name(slot)] = reading.result()

    async def _read_all(self, manager: DaoManager) -> dict[str, tuple[str | None, str | None]]:
        found: dict[str, tuple[str | None, str | None]] = {}
        for name in self.key_names():
            model: Any = await manager.dao(model_of(name)).read(id_of(name))
            found[name] = (None, None) if model is None else (model.version, model.value)
        return found

    def _look_for_leaks(self) -> None:
        for slot in self._living():
            if slot.manager is not None:
                self.final.leaks += [f"{_name(slot)}: {leak}" for leak in leaks_of(slot.manager)]

    async def _close(self) -> None:
        for slot in self._living():
            if slot.manager is None or slot.process is None:
                continue
            closing = self.loop.run_in(slot.process, slot.manager.close())
            _, late = await asyncio.wait([closing], timeout=10.0)
            if late:
                self.final.leaks.append(f"{_name(slot)} did not close within 10 s")
                continue
            left = [task for task in slot.process.tasks if not task.done()]
            self.final.leaks += [f"{_name(slot)} left the task {task.get_coro()}" for task in left]
            if self.disk.open_files(slot.process):
                self.final.leaks.append(
                    f"{_name(slot)} left {self.disk.open_files(slot.process)} descriptors open"
                )

    # --------------------------------------------------------------------------------------------

    def _on_event(self, slot: Slot, process: Process, event: Event) -> None:
        if isinstance(event, DeadLettered):
            self._note_dead(event.backend, event.key, event.version, event.reason)
        elif isinstance(event, ReplayStarted):
            slot.replaying.add(event.backend)
            process.does("replay")
        elif isinstance(event, ReplayFinished | ReplayPaused):
            slot.replaying.discard(event.backend)
        elif isinstance(event, JournalAdopted):
            self.census["adoption"] += 1
            self.census["adoption of pending entries"] += bool(event.entries)
        self.say(f"{process.name} {event}")

    def say(self, text: str) -> None:
        """Tell the trace."""
        if self._trace is not None:
            self._trace(f"{self.loop.time():8.4f} {text}")


def _name(slot: Slot) -> str:
    return slot.process.name if slot.process is not None else f"p{slot.number}"
