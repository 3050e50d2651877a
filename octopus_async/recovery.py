"""Brings backends up to date once they can be written again: the journal's replay, and caches' debts."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from octopus_async.backend import Backend, Journal, PendingUnit, Run
from octopus_async.clock import version_after, writer_of
from octopus_async.errors import JournalError, OctopusError, RecordRejected, Unavailable
from octopus_async.events import (
    DeadLettered,
    Events,
    ReplayFinished,
    ReplayPaused,
    ReplayProgressed,
    ReplayStarted,
)
from octopus_async.record import NOT_TAKEN, WITHHELD, Key, Kind, Mode, Operation, Outcome, Status
from octopus_async.strategies.debts import CacheDebts
from octopus_async.strategies.keys import KeyLocks
from octopus_async.strategies.lowwater import LowWater
from octopus_async.strategies.plan import Plan
from octopus_async.strategies.versions import Versions

_log = logging.getLogger("octopus_async")
_FIRST_BATCH = 64
_SHORT, _LONG = 0.05, 0.2
_REJECTIONS_IN_A_ROW = 10
_RETRY_AFTER = 0.2
_RETRY_AT_MOST = 2.0
_DEBTS_AT_ONCE = 500
_LOOK_AHEAD = 1024
_EVERYTHING = sys.maxsize
_FOR_PRIMARY = ""  # as the reason for setting a key aside; any other is the name of a model
_FOR_OTHERS = "\0"  # of a unit of work: something else comes first at one of its keys
_BEFORE = 3600.0  # far longer than a write takes from its version to the journal
_BROKEN = "it belongs to a session of which another record was refused"
_EXPIRED = "older than tombstones are kept: replaying it could bring a deleted record back"


class Replayer:
    """Replays what the journal owes to one backend, whenever it can be written.

    A replica never gets what its primary might still refuse: it waits for the primary, key by key.

    Parameters:
        backend: the backend.
        journal: what is owed.
        plan_of: the plan of a model by its name; None for a model that nobody asked for yet,
            whose operations have to wait.
        debts: what each cache missed, by its name.
        water: is told of what replicas may lack.
        locks: who writes which key; the replay holds the keys of its batch.
        versions: is moved past what the backend holds.
        events: is told of the progress.
        wall: seconds since 1970.
        retention: entries older than this many seconds are not replayed by themselves: a
            tombstone that would have stopped them may be gone.
        writable: whether the backend can be written now.
        busy: whether live calls wait for the backend, so that the replay has to leave room.
    """

    def __init__(  # noqa: PLR0913 - the composition root passes what a replay touches
        self,
        backend: Backend,
        journal: Journal,
        *,
        plan_of: Callable[[str], Plan | None],
        debts: Mapping[str, CacheDebts],
        water: LowWater,
        locks: KeyLocks,
        versions: Versions,
        events: Events,
        wall: Callable[[], float],
        retention: float,
        writable: Callable[[], bool],
        busy: Callable[[], bool],
    ) -> None:
        self.backend = backend
        self.paused: str | None = None
        self._journal = journal
        self._plan_of = plan_of
        self._debts = debts
        self._water = water
        self._locks = locks
        self._versions = versions
        self._events = events
        self._wall = wall
        self._retention = retention
        self._writable = writable
        self._busy = busy
        self._wanted = asyncio.Event()
        self._limit = _FIRST_BATCH
        self._in_a_row = 0
        self._aside: set[str] = set()
        self._unfit: set[str] = set()
        self._passed_over = False

    @property
    def waiting(self) -> set[str]:
        """The models whose operations wait: nobody asked for them yet, or their tables do not fit."""
        return self._aside - {_FOR_PRIMARY, _FOR_OTHERS}

    def wake(self) -> None:
        """There may be work, or the backend may be writable again."""
        self._wanted.set()

    def resume(self) -> None:
        """An operator lets a paused replay go on."""
        self.paused = None
        self._in_a_row = 0
        self.wake()

    async def run(self) -> None:
        """Replay whenever there is something to replay; ends by being cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._can_go_on():
                await self._drain()

    @property
    def _owed(self) -> int:
        return self._journal.owes(self.backend.name)

    def _can_go_on(self) -> bool:
        return self.paused is None and self._writable() and self._owed > 0

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        start, applied, pause = loop.time(), 0, _RETRY_AFTER
        self._events.emit(ReplayStarted(self.backend.name, self._owed))
        while self._can_go_on():
            began, self._passed_over = loop.time(), False
            progressed = await self._replay_batch()
            seconds = loop.time() - began
            if progressed:
                applied, pause = applied + progressed, 0.0
                self._pace(seconds)
                self._events.emit(ReplayProgressed(self.backend.name, applied, self._owed))
                # Live calls get as much of the backend as the replay does.
                await asyncio.sleep(seconds if self._busy() else 0)
            elif not self._passed_over:
                await asyncio.sleep(pause)
                pause = min(_RETRY_AT_MOST, pause * 2 or _RETRY_AFTER)
                self._bring_back()
        if not self._owed:
            self._events.emit(ReplayFinished(self.backend.name, applied, loop.time() - start))

    def _pace(self, seconds: float) -> None:
        # A backend may be slow at every call: then small batches cost as much as large ones.
        if seconds < _SHORT or self._limit < _FIRST_BATCH:
            self._limit = min(self._limit * 2, self.backend.capabilities.write_batch)
        elif seconds > _LONG:
            self._limit = max(self._limit // 2, _FIRST_BATCH)

    async def _replay_batch(self) -> int:
        """Replay one batch; gives how many operations are done with, 0 where none could be."""
        runs = await self._take()
        try:
            done = 0
            now = self._wall()
            sound: list[Run] = []
            for run in runs:
                if now - run.at > self._retention:
                    done += await self._bury(run, _EXPIRED, JournalError.__name__)
                elif self._is_broken(run):
                    done += await self._bury(run, _BROKEN, RecordRejected.__name__)
                else:
                    sound.append(run)
            alone = [run for run in sound if not self._is_unit(run)]
            for mode in (Mode.REPLAY, Mode.MIRROR):
                done += await self._apply([run for run in alone if self._mode(run) is mode], mode)
            for unit in _units_of(run for run in sound if self._is_unit(run)):
                done += await self._apply_unit(unit)
            return done
        finally:
            for run in runs:
                self._locks.release(run.operation.key)

    async def _apply(self, runs: Sequence[Run], mode: Mode) -> int:
        if not runs:
            return 0
        runs = sorted(runs, key=lambda run: run.operation.key)
        outcomes = await self.backend.apply([run.operation for run in runs], mode)
        return await self._conclude(runs, outcomes)

    async def _apply_unit(self, runs: Sequence[Run]) -> int:
        outcomes = await self.backend.apply_unit([run.operation for run in runs], Mode.REPLAY)
        # Those at fault first, for whose sake the replay may pause before it gives the others up.
        pairs = sorted(zip(runs, outcomes, strict=True), key=lambda pair: pair[1].error is None)
        return await self._conclude([run for run, _ in pairs], [outcome for _, outcome in pairs])

    def _is_unit(self, run: Run) -> bool:
        """Whether it is applied with others or not at all; replicas look at each version alone."""
        return run.unit != 0 and self.backend.has_units and self._mode(run) is Mode.REPLAY

    def _is_broken(self, run: Run) -> bool:
        return self._is_unit(run) and self._journal.unit(self.backend.name, run).broken

    def _together(self, run: Run) -> PendingUnit:
        """What is applied together with a run: itself, or its unit of work."""
        unit = self._journal.unit(self.backend.name, run) if self._is_unit(run) else None
        return PendingUnit((run,), ready=True, broken=False) if unit is None or unit.broken else unit

    def _mode(self, run: Run) -> Mode:
        plan = self._plan_of(run.operation.key.model)
        return Mode.REPLAY if plan is None or plan.primary is self.backend else Mode.MIRROR

    async def _take(self) -> list[Run]:
        """The oldest runs whose keys nobody writes at this moment, their keys now held."""
        name, limit = self.backend.name, self._limit
        while True:
            runs = self._journal.runs(name, limit)
            taken, blocked = self._choose(runs)
            if taken or blocked or not runs:
                break
            # All of these have to wait, which must not hold up what is behind them.
            limit = min(limit * 2, _LOOK_AHEAD)
            await asyncio.sleep(0)
        if taken or not blocked:
            return taken
        # Only keys that are being written are left: get in line for them, so that they can leave too.
        keys = blocked[0]
        held: list[Key] = []
        try:
            for key in keys:
                await self._locks.acquire(key)
                held.append(key)
            # The write that was waited for may have joined the run, and wait for the primary itself.
            again = [run for run in self._journal.runs(name, limit) if run.operation.key in keys]
            chosen, _ = self._choose(again, held) if again else ([], [])
            held = [key for key in held if key not in {run.operation.key for run in chosen}]
            return chosen
        finally:
            for key in held:
                self._locks.release(key)

    def _choose(
        self, runs: Sequence[Run], held: Collection[Key] = ()
    ) -> tuple[list[Run], list[Sequence[Key]]]:
        """The runs to replay now, their keys held, and the keys that others hold, of each of the rest.

        Parameters:
            runs: the oldest, one for each key.
            held: keys that are held already.
        """
        taken: list[Run] = []
        blocked: list[Sequence[Key]] = []
        waiting: dict[str, list[Key]] = {}
        units: set[int] = set()
        room = self.backend.capabilities.batch_bytes
        for run in runs:
            if run.unit in units:
                continue
            together = self._together(run)
            if len(together.runs) > 1:
                units.add(run.unit)
            keys = sorted(it.operation.key for it in together.runs)
            reason = next((it for it in map(self._must_wait, keys) if it is not None), None)
            if reason is not None or not together.ready:
                waiting.setdefault(_FOR_OTHERS if reason is None else reason, []).append(run.operation.key)
            elif self._locks.try_acquire_all([key for key in keys if key not in held]):
                taken += together.runs
                room -= sum(len(it.operation.payload or b"") for it in together.runs)
                if room <= 0 or len(taken) >= self._limit:
                    break
            else:
                blocked.append(keys)
        for reason, keys in waiting.items():
            self._set_aside(keys, reason)
        return taken, blocked

    def _must_wait(self, key: Key) -> str | None:
        """Why a key has to wait: nobody knows its model yet, its table does not fit, the primary is first."""
        plan = self._plan_of(key.model)
        if plan is None or key.model in self._unfit:
            return key.model
        first = plan.primary is not self.backend and self._journal.owes_key(plan.primary.name, key)
        return _FOR_PRIMARY if first else None

    def _set_aside(self, keys: Sequence[Key], reason: str) -> None:
        """Keys that have to wait must not be looked at again and again: there may be a million of them."""
        self._journal.set_aside(self.backend.name, keys, reason)
        self._aside.add(reason)
        self._passed_over = True

    def _bring_back(self) -> None:
        """Look again at what may wait no longer; the primary has a replica's oldest keys first."""
        self._unfit.clear()
        for reason in list(self._aside):
            if reason == _FOR_PRIMARY:
                self._journal.bring_back(self.backend.name, reason, _LOOK_AHEAD)
            elif reason == _FOR_OTHERS:
                self._journal.bring_back(self.backend.name, reason, _EVERYTHING)
            elif self._plan_of(reason) is not None:
                self._aside.discard(reason)
                self._journal.bring_back(self.backend.name, reason, _EVERYTHING)

    async def _conclude(self, runs: Sequence[Run], outcomes: Sequence[Outcome]) -> int:
        done: list[Run] = []
        known: list[Operation] = []
        buried, unwell = 0, False
        for run, answer in zip(runs, outcomes, strict=True):
            outcome = self._as_before_a_crash(run, answer)
            if outcome.status in (Status.APPLIED, Status.SUPERSEDED):
                self._in_a_row = 0
                if outcome.status is Status.SUPERSEDED:
                    self._versions.overtaken(outcome.stored, self.backend.name)
                done.append(run)
                known.append(_as_known(run.operation, outcome))
            elif outcome.status is Status.REJECTED and self.paused is None:
                buried += await self._reject(run, outcome)
            elif isinstance(outcome.error, Unavailable) and outcome.error.alive:
                # This model's table does not fit: the others need not wait for it.
                self._unfit.add(run.operation.key.model)
                self._set_aside([run.operation.key], run.operation.key.model)
            elif outcome.status in NOT_TAKEN:
                unwell = True
        if unwell:
            self._limit = max(self._limit // 2, 1)
        await self._tell_caches(known)
        await self._mind_replicas(done)
        self._journal.settle(self.backend.name, done)
        return buried + sum(len(run.sequences) for run in done)

    def _as_before_a_crash(self, run: Run, outcome: Outcome) -> Outcome:
        """What the run was answered before, where it is in fact replayed again.

        A process that dies before it has noted what it replayed leaves that to be replayed anew. What
        was created, deleted and created again then meets its own later self, which no rival made.
        """
        stored, version = outcome.stored, run.operation.version
        repeated = (
            outcome.status is Status.REJECTED
            and stored is not None
            and stored > version
            and self._journal.owes_version(self.backend.name, run.operation.key, stored)
            and writer_of(stored) == writer_of(version)
        )
        return Outcome(Status.SUPERSEDED, stored=stored) if repeated else outcome

    async def _mind_replicas(self, runs: Sequence[Run]) -> None:
        """What was journalled before a replica was configured is not owed to it: it is compared."""
        for run in runs:
            key = run.operation.key
            plan = self._plan_of(key.model)
            if (
                plan is not None
                and plan.primary is self.backend
                and not all(self._journal.owes_key(replica.name, key) for replica in plan.replicas)
            ):
                await self._water.distrust(key.model, run.at - _BEFORE)

    async def _reject(self, run: Run, outcome: Outcome) -> int:
        if outcome is WITHHELD:
            return await self._bury(run, _BROKEN, RecordRejected.__name__)
        error = outcome.error
        self._in_a_row += 1
        if self._in_a_row > _REJECTIONS_IN_A_ROW:
            self.paused = f"{_REJECTIONS_IN_A_ROW} rejections in a row, and then: {error}"
            self._events.emit(ReplayPaused(self.backend.name, self.paused))
            return 0
        return await self._bury(run, str(error), type(error).__name__)

    async def _bury(self, run: Run, reason: str, error: str) -> int:
        operation = run.operation
        plan = self._plan_of(operation.key.model)
        # What the primary refused, its replicas must not have.
        replicas = plan.replicas if plan is not None and plan.primary is self.backend else ()
        if replicas:
            # A state of it that was sent before it was journalled may land all the same.
            await self._water.distrust(operation.key.model, run.at - _BEFORE)
        spare = [replica.name for replica in replicas]
        # While the overlay still has the key nobody reads it from a cache, nor fills one with it.
        newest = self._journal.newest(operation.key, self.backend.name) or operation
        # What is to be taken back may still be on its way to a cache, and must not arrive there afterwards.
        behind = version_after(newest.version)
        await self._tell_caches([Operation(Kind.INVALIDATE, operation.key, behind, operation.born)])
        try:
            await self._journal.bury(self.backend.name, run, reason, error, spare=spare)
        except OctopusError:
            _log.warning("the dead letter of %s could not be written; it stays pending", operation.key)
            return 0
        self._events.emit(DeadLettered(self.backend.name, operation.key, operation.version, reason))
        return len(run.sequences)

    async def _tell_caches(self, operations: Sequence[Operation]) -> None:
        """Write the keys into every cache, or have them invalidated later, before the overlay goes."""
        for cache, owed in self._by_cache(operations):
            outcomes = await cache.apply(owed, Mode.MIRROR)
            for operation, outcome in zip(owed, outcomes, strict=True):
                if outcome.status in NOT_TAKEN:
                    self._debts[cache.name].add(operation, sent=outcome.status is Status.UNKNOWN)

    def _by_cache(self, operations: Sequence[Operation]) -> list[tuple[Backend, list[Operation]]]:
        owed: dict[str, tuple[Backend, list[Operation]]] = {}
        for operation in operations:
            plan = self._plan_of(operation.key.model)
            # What a replica is given late may be older than what the caches were told long ago.
            caches = plan.caches if plan is not None and plan.primary is self.backend else ()
            for cache in caches:
                owed.setdefault(cache.name, (cache, []))[1].append(operation)
        return list(owed.values())


def _units_of(runs: Iterable[Run]) -> Iterable[list[Run]]:
    units: dict[int, list[Run]] = {}
    for run in runs:
        units.setdefault(run.unit, []).append(run)
    return units.values()


def _as_known(operation: Operation, outcome: Outcome) -> Operation:
    """What caches are to be told: the operation, or that the backend has something newer, unseen."""
    if outcome.status is Status.APPLIED or outcome.stored is None:
        return operation
    return Operation(Kind.INVALIDATE, operation.key, outcome.stored, operation.born)


class DebtCollector:
    """Tells one cache what it missed, as soon as it can be written again."""

    def __init__(self, cache: Backend, debts: CacheDebts, writable: Callable[[], bool]) -> None:
        self.backend = cache
        self._debts = debts
        self._writable = writable

    async def run(self, every: float = 0.1) -> None:
        """Look after the debts each ``every`` seconds; ends by being cancelled."""
        while True:
            await asyncio.sleep(every)
            if self._writable():
                self._debts.answers()
            while self._debts.total and self._writable():
                if not await self._pay():
                    break

    async def _pay(self) -> bool:
        due = self._debts.due(_DEBTS_AT_ONCE)
        if not due:
            return False
        outcomes = await self.backend.apply(due, Mode.MIRROR)
        paid = 0
        for operation, outcome in zip(due, outcomes, strict=True):
            if outcome.status in NOT_TAKEN:
                self._debts.postpone(operation)
            else:
                self._debts.paid(operation)
                paid += 1
        return paid > 0
