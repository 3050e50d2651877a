"""The way of a read: overlay, then the strategy's backends, and what `None` is allowed to mean."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import Enum

from octopus_async.backend import Answer, Backend, Journal
from octopus_async.clock import Clock
from octopus_async.errors import BackendTimeout, OctopusError, ReadUnavailable, Unavailable
from octopus_async.record import Key, Kind, Miss, Operation, Record
from octopus_async.strategies.causes import said, soonest
from octopus_async.strategies.debts import CacheDebts
from octopus_async.strategies.keys import KeyLocks
from octopus_async.strategies.plan import Plan
from octopus_async.strategies.read import Cascade, Search


class Fetch:
    """A search under way, and what others wait for who look for the same key; made when the first joins."""

    __slots__ = ("deadline", "outcome")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.outcome: asyncio.Future[Record | None] | None = None

    def join(self) -> asyncio.Future[Record | None]:
        """What its leader is going to find; cancelled if there will be nothing to tell."""
        if self.outcome is None:
            self.outcome = asyncio.get_running_loop().create_future()
        return self.outcome


class _Again(Enum):
    AGAIN = "nothing is known: look once more"


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
        self._fetches: dict[Key, Fetch] = {}

    async def find(self, plan: Plan, key: Key, deadline: float, *, fresh: bool = False) -> Record | None:
        """The living record of ``key``, or None if it certainly does not exist.

        Parameters:
            plan: who is asked.
            key: the record.
            deadline: a moment of the loop's clock.
            fresh: ask the primary, and nobody else.

        Raises:
            ReadUnavailable: nobody that could know was able to say.
        """
        while True:
            pending = None if self._journal is None else self._journal.newest(key, plan.primary.name)
            if pending is not None:
                return _as_record(pending)
            if fresh or self._locks.busy(key):
                answer = await plan.primary.fetch(key, deadline)
                if not isinstance(answer, Unavailable):
                    return self._living(answer if isinstance(answer, Record) else None)
                if fresh and not self._is_written(plan, key):
                    raise _unavailable(key, {plan.primary.name: answer})
                await self._write_ended(plan, key, answer, deadline)
                continue
            at_hand = self._at_hand(plan, key)
            if at_hand is not None:
                return self._living(at_hand)
            fetch = self._fetches.get(key)
            if fetch is None:
                found = await self._lead(plan, key, deadline)
            else:
                found = await self._follow(plan, key, deadline, fetch)
            if found is not _Again.AGAIN:
                return found

    def _at_hand(self, plan: Plan, key: Key) -> Record | None:
        """What a cascade finds at its first step, where that takes no waiting: no search has to begin."""
        first = plan.readers[0]
        if type(plan.read) is not Cascade or self._is_behind(plan, first, key):
            return None
        return first.at_hand(key)

    def detach(self, key: Key) -> None:
        """Let nobody join a search of ``key`` that began before this moment."""
        self._fetches.pop(key, None)

    async def _lead(self, plan: Plan, key: Key, deadline: float) -> Record | _Again | None:
        """Search, for all who join meanwhile as well."""
        fetch = self._fetches[key] = Fetch(deadline)
        try:
            backends = [backend for backend in plan.readers if not self._is_behind(plan, backend, key)]
            search = await plan.read.search(key, backends, deadline)
            # If a write began meanwhile, a cache may have shown what the primary is going to refuse.
            if self._fetches.get(key) is not fetch:
                return _Again.AGAIN
            found = self._found(plan, key, search)
            if fetch.outcome is not None:
                fetch.outcome.set_result(found)
        except OctopusError as error:
            # At the deadline the others may still have time.
            if fetch.outcome is not None and asyncio.get_running_loop().time() < deadline:
                fetch.outcome.set_exception(error)
                fetch.outcome.exception()  # who joined may be gone by now
            raise
        else:
            return found
        finally:
            if fetch.outcome is not None:
                fetch.outcome.cancel()
            if self._fetches.get(key) is fetch:
                del self._fetches[key]

    async def _follow(self, plan: Plan, key: Key, deadline: float, fetch: Fetch) -> Record | _Again | None:
        """Wait for another's search, but no longer than there is time."""
        left = deadline - asyncio.get_running_loop().time() if deadline < fetch.deadline else None
        outcome = fetch.join()
        done, _ = await asyncio.wait([outcome], timeout=left)
        if not done:
            name = plan.primary.name
            message = f"backend {name} did not answer before the deadline"
            raise _unavailable(key, {name: BackendTimeout(message, backend=name)})
        # Its leader may have been cancelled, or a write may have begun meanwhile.
        return _Again.AGAIN if outcome.cancelled() else outcome.result()

    def _is_written(self, plan: Plan, key: Key) -> bool:
        """Whether the key is being written, or has just been, to the journal."""
        journal = self._journal
        waits = journal is not None and journal.newest(key, plan.primary.name) is not None
        return waits or self._locks.busy(key)

    async def _write_ended(self, plan: Plan, key: Key, answer: Unavailable, deadline: float) -> None:
        """Wait for the write of a key whose primary cannot be asked."""
        try:
            await self._locks.ended(key, deadline)
        except TimeoutError:
            raise _unavailable(key, {plan.primary.name: answer}) from None

    def _found(self, plan: Plan, key: Key, search: Search) -> Record | None:
        if search.record is None:
            self._check_authority(plan, key, search.answers)
            return None
        if len(search.answers) > 1:
            self._fill(plan, search.record, search.answers)
        return self._living(search.record)

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
    return ReadUnavailable(
        f"nobody could say whether {key} exists: {said(causes)}",
        retry_after=soonest(causes),
        causes=causes,
    )
