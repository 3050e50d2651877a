"""Brings replicas up to their primary where a process died, or lost track of a write, between the two."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import cast

from pydantic_core import to_json

from octopus_async.backend import Backend, Journal
from octopus_async.errors import JournalError, OperationNotSupported, Unavailable
from octopus_async.events import CatchUpFinished, CatchUpStarted, Events, WriteJournalled
from octopus_async.record import NOT_TAKEN, Kind, Mode, Operation, Record, Status
from octopus_async.strategies.lowwater import LowWater
from octopus_async.strategies.plan import Plan

_log = logging.getLogger("octopus_async")
_BATCH = 500
_RETRY_AFTER = 0.2
_RETRY_AT_MOST = 5.0
_PAGE_SECONDS = 10.0
_PAGE_AT_MOST = 3600.0
_MOST_REJECTED = 10_000


class CatchUp:
    """Compares what is wanted of `LowWater`, model by model, and gives replicas what they lack.

    The primary's records above the low-water mark are read and written to the replica, which looks
    at the version alone: so it may happen twice, and beside live writes. Each model is compared at
    once, and again some time after its primary has answered: what was sent to a primary that hung
    may land there when nobody waits for it any more.

    Parameters:
        water: knows what is wanted.
        models: the models that somebody asked for; others have to wait.
        plan_of: the plan of such a model.
        journal: keeps what a replica refuses, to make a dead letter of it; None without one.
        events: is told of each comparison.
        late: after how many seconds nothing lands any more.
        usable: whether a backend can be read, or written, now.
        busy: whether live calls wait for the backend.
    """

    def __init__(  # noqa: PLR0913 - the composition root passes what a comparison touches
        self,
        water: LowWater,
        *,
        models: Callable[[], Iterable[str]],
        plan_of: Callable[[str], Plan],
        journal: Journal | None,
        events: Events,
        late: float,
        usable: Callable[[str, str], bool],
        busy: Callable[[str], bool],
    ) -> None:
        self._water = water
        self._models = models
        self._plan_of = plan_of
        self._journal = journal
        self._events = events
        self._late = late
        self._usable = usable
        self._busy = busy
        self._behind: set[str] = set()
        self._turn = asyncio.Lock()

    def behind(self) -> set[str]:
        """The models, of those asked for, whose replicas have not been compared even once."""
        return self._behind | self._water.wanted(self._models())

    async def run(self) -> None:
        """Compare whatever is wanted; ends by being cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._water.changed.clear()
                for model in sorted(self._water.wanted(self._models())):
                    group.create_task(self._bring_up(model, self._water.take(model)))
                await self._water.changed.wait()

    async def _bring_up(self, model: str, after: str) -> None:
        self._behind.add(model)
        try:
            await self._compare_all(model, after, final=False)
            self._behind.discard(model)
            await asyncio.sleep(self._late)
            await self._compare_all(model, after, final=True)
        except BaseException:
            self._water.give_back(model)
            raise
        else:
            self._water.done(model)
        finally:
            self._behind.discard(model)

    async def _compare_all(self, model: str, after: str, *, final: bool) -> None:
        plan = self._plan_of(model)
        async with asyncio.TaskGroup() as group:
            for replica in plan.replicas:
                comparison = Comparison(plan.primary, replica, model, after, pace=self._pace)
                group.create_task(self._compare(comparison, final=final))

    async def _compare(self, comparison: Comparison, *, final: bool) -> None:
        loop = asyncio.get_running_loop()
        start, replica, model = loop.time(), comparison.replica.name, comparison.model
        self._events.emit(CatchUpStarted(replica, model, comparison.after))
        try:
            await self._persist(comparison)
        except OperationNotSupported as error:
            _log.warning("%s may lack records of %s for good: %s", replica, model, error)
            return
        if final:
            await self._owe(comparison)
        self._events.emit(CatchUpFinished(replica, model, comparison.compared, loop.time() - start))

    async def _persist(self, comparison: Comparison) -> None:
        """Go on until it is done, however long a backend is away. Raises `OperationNotSupported`."""
        pause = _RETRY_AFTER
        while True:
            if self._usable(comparison.primary.name, "reads") and self._usable(
                comparison.replica.name, "writes"
            ):
                before = comparison.compared
                async with self._turn:
                    if await comparison.advance():
                        return
                pause = _RETRY_AFTER if comparison.compared > before else pause
            await asyncio.sleep(pause)
            pause = min(_RETRY_AT_MOST, pause * 2)

    async def _pace(self, comparison: Comparison, seconds: float) -> None:
        """Live calls get as much of the backends as the comparison does."""
        busy = self._busy(comparison.primary.name) or self._busy(comparison.replica.name)
        await asyncio.sleep(seconds if busy else 0)

    async def _owe(self, comparison: Comparison) -> None:
        """Have the journal keep what the replica refused: its replay makes dead letters of it, and tells."""
        name = comparison.replica.name
        for operation in comparison.rejected:
            _log.warning("%s refuses %s, which its primary has", name, operation.key)
            if self._journal is not None:
                with contextlib.suppress(JournalError):  # a full journal has said so already
                    await self._journal.append(operation, [name])
                    self._events.emit(WriteJournalled(operation.key, operation.version, (name,)))


class Comparison:
    """One model in one replica, on its way through the primary's records.

    Attributes:
        compared: how many records were.
        rejected: what the replica refused, also when it was asked again at the end.
    """

    def __init__(
        self,
        primary: Backend,
        replica: Backend,
        model: str,
        after: str,
        pace: Callable[[Comparison, float], Awaitable[None]],
    ) -> None:
        self.primary = primary
        self.replica = replica
        self.model = model
        self.after = after
        self.compared = 0
        self.rejected: list[Operation] = []
        self._pace = pace
        self._last: Record | None = None
        self._patience = _PAGE_SECONDS

    async def advance(self) -> bool:
        """Go on from where it stopped; whether it came to the end. Raises `OperationNotSupported`."""
        try:
            return await self._scan() and await self._retry()
        except TimeoutError:
            # Without an index on versions a large table takes its time.
            self._patience = min(_PAGE_AT_MOST, self._patience * 2)
        except Unavailable as error:
            _log.debug("%s: the comparison of %s waits: %s", self.replica.name, self.model, error)
        return False

    async def _scan(self) -> bool:
        loop = asyncio.get_running_loop()
        records = self.primary.scan(self.model, after=self.after, batch=_BATCH, beyond=self._last)
        async with contextlib.aclosing(cast("AsyncGenerator[Record]", records)):
            while True:
                start = loop.time()
                async with asyncio.timeout(self._patience):
                    page = [record async for record in _at_most(records, _BATCH)]
                if not await self._mirror([_operation_of(record) for record in page if record.version]):
                    return False
                self.compared += len(page)
                if len(page) < _BATCH:
                    return True
                self._last = page[-1]
                await self._pace(self, loop.time() - start)

    async def _mirror(self, operations: Sequence[Operation]) -> bool:
        """Give the replica what it lacks; whether it could be asked."""
        outcomes = await self.replica.apply(operations, Mode.MIRROR)
        if any(outcome.status in NOT_TAKEN for outcome in outcomes):
            return False
        self.rejected += [
            operation
            for operation, outcome in zip(operations, outcomes, strict=True)
            if outcome.status is Status.REJECTED
        ]
        return len(self.rejected) < _MOST_REJECTED or await self._retry()

    async def _retry(self) -> bool:
        """Ask again for what was refused: another record may have held a value that has to be unique."""
        outcomes = await self.replica.apply(self.rejected, Mode.MIRROR)
        self.rejected = [
            operation
            for operation, outcome in zip(self.rejected, outcomes, strict=True)
            if outcome.status in (*NOT_TAKEN, Status.REJECTED)
        ]
        return not any(outcome.status in NOT_TAKEN for outcome in outcomes)


async def _at_most(records: AsyncIterator[Record], count: int) -> AsyncGenerator[Record]:
    """The next records, but no more than so many."""
    while count:
        try:
            yield await anext(records)
        except StopAsyncIteration:
            return
        count -= 1


def _operation_of(record: Record) -> Operation:
    """What makes a replica hold that record."""
    kind = Kind.DELETE if record.fields is None else Kind.UPDATE
    payload = None if record.fields is None else to_json(record.fields)
    return Operation(kind, record.key, record.version, record.born, record.fields, payload)
