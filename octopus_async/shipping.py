"""Journalled operations on their way through a queue: shipped beside the journal, collected elsewhere.

A sink is one more target of what is journalled, which the journal notes as it notes a replica. So a write is
acknowledged by the local disk as before, what was not shipped is known across a restart, and what the primary
has applied meanwhile need not be shipped any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from octopus_async.backend import Backend, Journal, Run
from octopus_async.clock import decode_version
from octopus_async.errors import JournalError, ManagerClosed, OctopusError, Unavailable
from octopus_async.events import Events, NotShipped, WriteJournalled
from octopus_async.record import NOT_TAKEN, Mode, Status
from octopus_async.sink import SINK, Delivery, SinkAdapter
from octopus_async.strategies.plan import Plan

_log = logging.getLogger("octopus_async")
_AT_ONCE = 40
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_POLL = 1.0
_EMPTY_POLLS = 2
"""So many answers without a message mean that a queue is empty: one may come from a part of its servers."""
_SETTLE_SECONDS = 20.0
_REDELIVERIES = 10
"""So often what cannot be read is given back at once, for the queue to put it with its dead letters."""


class Shipper:
    """Gives a sink what the journal holds for a primary that is away.

    Parameters:
        sink: the guarded queue; None where there is none any more, and what was meant for one is forgotten.
        journal: what is owed.
        plan_of: the plan of a model by its name; None for one that nobody asked for yet.
        events: is told of what cannot be shipped.
        writable: whether the queue can be written now.
    """

    def __init__(
        self,
        sink: Backend | None,
        journal: Journal,
        plan_of: Callable[[str], Plan | None],
        events: Events,
        writable: Callable[[], bool],
    ) -> None:
        self._sink = sink
        self._journal = journal
        self._plan_of = plan_of
        self._events = events
        self._writable = writable
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """There may be work, or the queue may be writable again."""
        self._wanted.set()

    async def run(self) -> None:
        """Ship whenever there is something to ship; ends by being cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            pause = _FIRST_PAUSE
            while runs := self._journal.runs(SINK, _AT_ONCE):
                done = await self._ship(runs)
                self._journal.settle(SINK, done)
                if done:
                    pause = _FIRST_PAUSE
                    await asyncio.sleep(0)
                else:
                    await asyncio.sleep(pause)
                    pause = min(_LONGEST_PAUSE, 2 * pause)

    async def _ship(self, runs: Sequence[Run]) -> list[Run]:
        """Ship what is still needed; gives what is done with."""
        needed = [run for run in runs if self._is_needed(run)]
        done = [run for run in runs if run not in needed]
        if self._sink is None or not needed or not self._writable():
            return done
        outcomes = await self._sink.apply([run.operation for run in needed], Mode.REPLAY)
        for run, outcome in zip(needed, outcomes, strict=True):
            if outcome.status in NOT_TAKEN:
                continue
            done.append(run)
            if outcome.status is Status.REJECTED:
                operation = run.operation
                self._events.emit(
                    NotShipped(self._sink.name, operation.key, operation.version, str(outcome.error))
                )
        return done

    def _is_needed(self, run: Run) -> bool:
        """Whether the primary has not applied it meanwhile."""
        if self._sink is None:
            return False
        plan = self._plan_of(run.operation.key.model)
        return plan is None or self._journal.owes_key(plan.primary.name, run.operation.key)


@dataclass(slots=True)
class Collected:
    """What came of the messages of a queue.

    Attributes:
        applied: how many the primary has, now or by an earlier way; they were deleted from the queue.
        dead_letters: how many it refused: they are dead letters of the local journal, and were deleted.
        unreadable: how often a message was handed out that cannot be read; the queue keeps it.
        unknown: models of messages that were left in the queue, as nobody asked for them.
        expired: how many were left there because they are older than tombstones are kept.
        pending: how many were taken into the local journal, and still wait there for the primary.
        problems: what was wrong, in words.
    """

    applied: int = 0
    dead_letters: int = 0
    unreadable: int = 0
    unknown: list[str] = field(default_factory=list)
    expired: int = 0
    pending: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all that was in the queue is in the primary."""
        left = self.unreadable or self.unknown or self.expired or self.pending
        return not (left or self.dead_letters or self.problems)

    def reasons(self) -> Iterator[str]:
        """Why something is left in the queue, in words."""
        yield from self.problems
        if self.unknown:
            yield f"nobody asked for {', '.join(self.unknown)}: what the queue holds for them was left there"
        if self.expired:
            yield f"{self.expired} messages are older than tombstones are kept, and were left in the queue"
        if self.unreadable:
            yield f"what cannot be read was handed out {self.unreadable} times, and left to the queue"
        if self.pending:
            yield f"{self.pending} messages wait in the local journal, and are in the queue as well"


class Collector:
    """Takes what a queue holds into the local journal, from which it is replayed as any outage is.

    A message is deleted when the primary has applied its operation, or found something newer, or when the
    operation is a durable dead letter here. Until then the queue keeps it, and hands it out again.

    Parameters:
        queue: an open queue.
        journal: the local journal.
        plan_of: the plan of a model by its name; None for an unknown one.
        events: is told of what is journalled, as the replay listens to that.
        writable: whether the backend of that name can be written now.
        wall: seconds since 1970.
        retention: messages older than this many seconds are left alone.
    """

    def __init__(  # noqa: PLR0913 - the composition root passes what collecting touches
        self,
        queue: SinkAdapter,
        journal: Journal,
        *,
        plan_of: Callable[[str], Plan | None],
        events: Events,
        writable: Callable[[str], bool],
        wall: Callable[[], float],
        retention: float,
    ) -> None:
        self._queue = queue
        self._journal = journal
        self._plan_of = plan_of
        self._events = events
        self._writable = writable
        self._wall = wall
        self._retention = retention
        self._left: list[Delivery] = []
        self.result = Collected()

    async def run(self, *, patience: float) -> Collected:
        """Collect until the queue is empty, or ``patience`` seconds are over, or the primary is away.

        Raises:
            Unavailable: the queue cannot be asked.
            JournalError: the local journal does not take what comes.
        """
        loop = asyncio.get_running_loop()
        until, empty = loop.time() + patience, 0
        try:
            while empty < _EMPTY_POLLS and loop.time() < until and not self.result.problems:
                deliveries = await self._queue.receive(wait=_POLL)
                empty = 0 if deliveries else empty + 1
                await self._take(deliveries)
        finally:
            await self._give_back()
        return self.result

    async def _take(self, deliveries: Sequence[Delivery]) -> None:
        taken: dict[int, asyncio.Future[None]] = {}
        for place, delivery in enumerate(deliveries):
            plan = self._judge(delivery)
            if delivery.operation is None and delivery.received < _REDELIVERIES:
                await self._queue.release([delivery])
            elif plan is None:
                self._left.append(delivery)
            else:
                taken[place] = await self._keep(delivery, plan)
        if taken:
            await asyncio.wait(taken.values(), timeout=_SETTLE_SECONDS)
        done = [deliveries[place] for place, settled in taken.items() if self._is_done(settled)]
        self._left += [deliveries[place] for place, settled in taken.items() if not settled.done()]
        if done:
            await self._forget(done)

    def _judge(self, delivery: Delivery) -> Plan | None:
        """Where a message goes; None, and a note in the result, for what has to stay in the queue."""
        operation, result = delivery.operation, self.result
        if operation is None:
            result.unreadable += 1
            _log.warning("%s: %s", self._queue.name, delivery.problem)
            return None
        if self._wall() - decode_version(operation.version)[0] / 1000 > self._retention:
            result.expired += 1
            return None
        plan = self._plan_of(operation.key.model)
        if plan is None:
            result.unknown = sorted({*result.unknown, operation.key.model})
        elif not self._writable(plan.primary.name):
            result.problems.append(f"{plan.primary.name} cannot be written: what is in the queue stays there")
            return None
        return plan

    async def _keep(self, delivery: Delivery, plan: Plan) -> asyncio.Future[None]:
        operation = delivery.operation
        assert operation is not None  # noqa: S101 - `_judge` has looked
        names = [backend.name for backend in (plan.primary, *plan.replicas)]
        sequence = await self._journal.append(operation, names, provisional=True)
        self._events.emit(WriteJournalled(operation.key, operation.version, tuple(names)))
        return self._journal.settled(sequence, plan.primary.name)

    def _is_done(self, settled: asyncio.Future[None]) -> bool:
        if not settled.done():
            self.result.pending += 1
            return False
        error = None if settled.cancelled() else settled.exception()
        if isinstance(error, JournalError | ManagerClosed) or settled.cancelled():
            self.result.pending += 1
            return False
        if error is None:
            self.result.applied += 1
        else:
            self.result.dead_letters += 1
        return True

    async def _forget(self, done: Sequence[Delivery]) -> None:
        try:
            await self._queue.delete(done)
        except Unavailable as error:
            _log.warning("%s", error)  # they come again, and find themselves applied

    async def _give_back(self) -> None:
        left, self._left = self._left, []
        try:
            if left:
                await self._queue.release(left)
        except OctopusError as error:
            _log.warning("%s", error)
