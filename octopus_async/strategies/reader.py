"""The way of a read: overlay, then the strategy's backends, and what `None` is allowed to mean."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from octopus_async.backend import Answer, Backend, Journal
from octopus_async.clock import Clock
from octopus_async.errors import BackendTimeout, OctopusError, ReadUnavailable, Unavailable
from octopus_async.record import Key, Kind, Miss, Operation, Record
from octopus_async.strategies.debts import CacheDebts
from octopus_async.strategies.keys import KeyLocks
from octopus_async.strategies.plan import Plan


class Reader:
    """Finds records for all models of a manager.

    Parameters:
        clock: is told every version that is seen.
        locks: who writes which key at the moment.
        journal: whose overlay answers first; None without a journal.
        debts: what each cache missed, by its name.
    """

    def __init__(
        self, clock: Clock, locks: KeyLocks, journal: Journal | None, debts: Mapping[str, CacheDebts]
    ) -> None:
        self._clock = clock
        self._locks = locks
        self._journal = journal
        self._debts = debts
        self._fetches: dict[Key, asyncio.Future[Record | None]] = {}

    async def find(self, plan: Plan, key: Key, deadline: float) -> Record | None:
        """The living record of ``key``, or None if it certainly does not exist.

        Raises:
            ReadUnavailable: nobody that could know was able to say.
        """
        while True:
            pending = None if self._journal is None else self._journal.newest(key, plan.primary.name)
            if pending is not None:
                return _as_record(pending)
            if self._locks.busy(key):
                return await self._find_busy(plan, key, deadline)
            shared = self._fetches.get(key)
            if shared is None:
                return await self._lead(plan, key, deadline)
            try:
                return await asyncio.shield(shared)
            except asyncio.CancelledError:
                # Either this reader was cancelled, or the one whose search it shared.
                if not shared.cancelled():
                    raise

    def detach(self, key: Key) -> None:
        """Let nobody join a search of ``key`` that began before this moment."""
        self._fetches.pop(key, None)

    async def _lead(self, plan: Plan, key: Key, deadline: float) -> Record | None:
        shared: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()
        self._fetches[key] = shared
        try:
            record = await self._search(plan, key, deadline, shared)
        except OctopusError as error:
            shared.set_exception(error)
            shared.exception()  # it has been seen: the leader raises it
            raise
        else:
            shared.set_result(record)
            return record
        finally:
            shared.cancel()
            if self._fetches.get(key) is shared:
                del self._fetches[key]

    async def _find_busy(self, plan: Plan, key: Key, deadline: float) -> Record | None:
        """A key that is being written: ask the primary, or wait for the write and look again."""
        answer = await plan.primary.fetch(key, deadline)
        if not isinstance(answer, Unavailable):
            return self._living(answer if isinstance(answer, Record) else None)
        try:
            await self._locks.idle(key, deadline)
        except TimeoutError:
            causes = {plan.primary.name: answer}
            raise _unavailable(key, causes) from None
        return await self.find(plan, key, deadline)

    async def _search(
        self, plan: Plan, key: Key, deadline: float, shared: asyncio.Future[Record | None]
    ) -> Record | None:
        backends = [backend for backend in plan.readers if not self._is_behind(plan, backend, key)]
        record, answers = await plan.read.search(key, backends, deadline)
        if self._fetches.get(key) is not shared:
            # A write began meanwhile: a cache may have shown what the primary is going to refuse.
            return await self.find(plan, key, deadline)
        if record is None:
            self._check_authority(plan, key, answers)
            return None
        self._fill(plan, record, answers)
        return self._living(record)

    def _is_behind(self, plan: Plan, backend: Backend, key: Key) -> bool:
        debts = self._debts.get(backend.name)
        if debts is not None:
            return debts.owes(key)
        return (
            self._journal is not None
            and backend is not plan.primary
            and self._journal.owes_key(backend.name, key)
        )

    def _check_authority(self, plan: Plan, key: Key, answers: Mapping[str, Answer | Unavailable]) -> None:
        """None is only allowed if everybody who would know was asked, and answered."""
        readers = plan.readers
        if plan.primary in readers:
            readers = (plan.primary,)
        elif any(backend.capabilities.durable for backend in readers):
            readers = tuple(backend for backend in readers if backend.capabilities.durable)
        causes: dict[str, OctopusError] = {
            name: answer for name, answer in answers.items() if isinstance(answer, Unavailable)
        }
        for backend in readers:
            if backend.name not in answers:
                message = f"backend {backend.name} has not caught up for {key}"
                causes[backend.name] = BackendTimeout(message, backend=backend.name, sent=False)
        if any(backend.name in causes for backend in readers):
            raise _unavailable(key, causes)

    def _fill(self, plan: Plan, record: Record, answers: Mapping[str, Answer | Unavailable]) -> None:
        if record.fields is None:
            return
        for backend in plan.readers:
            lease = answers.get(backend.name)
            if isinstance(lease, Miss):
                backend.fill(record, lease)

    def _living(self, record: Record | None) -> Record | None:
        if record is None:
            return None
        self._clock.see(record.version)
        return None if record.fields is None else record


def _as_record(operation: Operation) -> Record | None:
    if operation.kind is Kind.DELETE:
        return None
    return Record(operation.key, operation.version, operation.born, operation.fields)


def _unavailable(key: Key, causes: Mapping[str, OctopusError]) -> ReadUnavailable:
    said = "; ".join(f"{name}: {error}" for name, error in causes.items())
    waits = [
        error.retry_after for error in causes.values() if isinstance(error, Unavailable) and error.retry_after
    ]
    return ReadUnavailable(
        f"nobody could say whether {key} exists: {said}",
        retry_after=min(waits, default=None),
        causes=causes,
    )
