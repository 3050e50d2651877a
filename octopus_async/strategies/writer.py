"""The way of a write: fan-out to all backends, and the journal where the primary could not take it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from octopus_async.backend import Backend, Journal
from octopus_async.clock import is_version, version_after, version_before
from octopus_async.errors import (
    BackendFailed,
    JournalError,
    JournalFull,
    OctopusError,
    Unavailable,
    WriteUnavailable,
)
from octopus_async.events import Events, WriteJournalled
from octopus_async.record import (
    APPLIED,
    NO_VERSION,
    NOT_TAKEN,
    Fields,
    Key,
    Kind,
    Mode,
    Operation,
    Outcome,
    Status,
    Stored,
    born_after,
    decide,
    failed,
)
from octopus_async.strategies.causes import said, soonest
from octopus_async.strategies.debts import CacheDebts
from octopus_async.strategies.keys import KeyLocks
from octopus_async.strategies.late import LateEntries
from octopus_async.strategies.lowwater import LowWater, Passage
from octopus_async.strategies.plan import Acknowledge, Order, Plan
from octopus_async.strategies.receipt import Receipt
from octopus_async.strategies.versions import Versions

REISSUES = 8
_FALLBACK_SHARE = 0.25
_FALLBACK_SECONDS = 0.5
PERHAPS = "It may still be applied later."

T = TypeVar("T")
Spawn = Callable[[Coroutine[Any, Any, None]], object]
Spreading: TypeAlias = "asyncio.Future[JournalError | None] | None"


class Draft(NamedTuple):
    """A write that has no version yet.

    Attributes:
        kind: create, update or delete.
        key: the record.
        born: the version of its create; empty for a create, and where it is not known.
        fields: the full state; None for a delete.
        payload: ``fields`` as JSON.
        if_version: the version that must be stored.
        may_conflict: whether the primary has a reason to refuse it: an own id, a constraint.
        provisional: whether it may be accepted all the same while the primary cannot be asked.
    """

    kind: Kind
    key: Key
    born: str
    fields: Fields | None = None
    payload: bytes | None = None
    if_version: str | None = None
    may_conflict: bool = False
    provisional: bool = True

    def at(self, version: str) -> Operation:
        """The operation of this draft at ``version``."""
        born = version if self.kind is Kind.CREATE else self.born
        return Operation(self.kind, self.key, version, born, self.fields, self.payload, self.if_version)


class Writer:
    """Writes for all models of a manager.

    Parameters:
        versions: issues the versions.
        locks: who writes which key at the moment.
        journal: takes what the primary could not; None to be refused instead.
        debts: what each cache missed, by its name.
        water: knows which writes are between a primary and its replicas.
        detach: is told of keys whose running searches nobody may join any more.
        events: is told of journalled writes.
        spawn: starts a task that its owner waits for at the end.

    Attributes:
        late: what the journal may still write down although its writer gave up.
    """

    def __init__(  # noqa: PLR0913 - the composition root passes what a write touches
        self,
        versions: Versions,
        locks: KeyLocks,
        journal: Journal | None,
        debts: Mapping[str, CacheDebts],
        water: LowWater,
        detach: Callable[[Key], None],
        events: Events,
        spawn: Spawn,
    ) -> None:
        self._versions = versions
        self._locks = locks
        self._journal = journal
        self._debts = debts
        self._water = water
        self._detach = detach
        self._events = events
        self._spawn = spawn
        self.late = LateEntries(events)

    async def write(self, plan: Plan, draft: Draft, deadline: float) -> tuple[Receipt, Operation]:
        """Write ``draft``. To be run where no caller's cancellation reaches it; it waits for futures alone.

        Raises:
            RecordRejected, RecordNotFound: the primary refused the record; no trace is left.
            WriteUnavailable: neither the primary nor the journal took it.
        """
        try:
            await self._locks.acquire(draft.key, deadline)
        except Unavailable as error:
            raise unavailable(draft.key, {plan.primary.name: error}) from None
        try:
            self._detach(draft.key)
            await self.decided(draft.key, deadline)
            return await self._write_held(plan, draft, deadline)
        finally:
            self._detach(draft.key)
            self._locks.release(draft.key)

    async def decided(self, key: Key, deadline: float) -> None:
        """Wait until nothing of ``key`` is on its way to the journal, or raise `WriteUnavailable`."""
        try:
            await self.late.wait(key, deadline)
        except JournalError as error:
            raise unavailable(key, {"journal": error}) from None

    async def _write_held(self, plan: Plan, draft: Draft, deadline: float) -> tuple[Receipt, Operation]:
        passage = Passage()
        if plan.replicas:
            passage = await self._water.enter(draft.key.model, deadline)
        for _ in range(REISSUES):
            operation = draft.at(await self._versions.issue(deadline))
            attempt = Attempt(plan, draft, operation, passage)
            outcome = await self._ask_primary(attempt, deadline)
            attempt.outcomes[plan.primary.name] = outcome
            if outcome.status is Status.SUPERSEDED:
                self._versions.overtaken(outcome.stored, plan.primary.name)
                # Nobody knows a new id but from a cache that was told at once: who deleted it saw it first.
                if draft.kind is not Kind.CREATE or draft.may_conflict:
                    continue
            if outcome.status is Status.REJECTED:
                # In an outage the next write would otherwise be issued behind what has been seen.
                self._versions.overtaken(outcome.stored, plan.primary.name)
                passage.end()
                self._compensate(attempt, deadline)
                self.correct(attempt, outcome.stored, deadline)
                raise outcome.error or OctopusError(f"{plan.primary.name} refused {draft.key}")
            if outcome.status in NOT_TAKEN:
                return await self._fall_back(attempt, outcome, deadline), attempt.operation
            return await self._acknowledge(attempt, deadline), operation
        passage.end()
        message = f"{draft.key}: {plan.primary.name} held something newer {REISSUES} times in a row"
        raise unavailable(draft.key, {plan.primary.name: BackendFailed(message, backend=plan.primary.name)})

    async def _ask_primary(self, attempt: Attempt, deadline: float) -> Outcome:
        plan, operation = attempt.plan, attempt.operation
        journal = self._journal
        waiting = None if journal is None else journal.newest(operation.key, plan.primary.name)
        if journal is not None and waiting is not None:
            attempt.doubtful |= journal.doubts(plan.primary.name, operation.key)
            return judge_behind(attempt, waiting)
        # In an outage another process may delete the record, or may have.
        attempt.doubtful |= operation.kind is Kind.UPDATE
        noted = None if journal is None else journal.noted(plan.primary.name, operation.key)
        attempt.send(attempt.at_once(), deadline)
        outcome = await plan.primary.submit(operation, Mode.LIVE, with_reserve(deadline))
        if noted is not None:
            # A crash right after the acknowledgement must not bring back what the journal held before.
            await asyncio.wait([noted], timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        return outcome

    async def _acknowledge(self, attempt: Attempt, deadline: float) -> Receipt:
        return await self.confirmed(attempt, self.spread(attempt, deadline))

    def spread(self, attempt: Attempt, deadline: float) -> Spreading:
        """The primary has it: tell all the others. Gives what `confirmed` waits for."""
        attempt.send(attempt.not_asked(), deadline)
        return self._follow_up(attempt)

    async def confirmed(self, attempt: Attempt, spreading: Spreading) -> Receipt:
        """The receipt, as soon as the plan says so. Raises `WriteUnavailable`: only the primary has it."""
        plan, operation = attempt.plan, attempt.operation
        if plan.acknowledge is Acknowledge.ALL and spreading is not None:
            missing = await spreading
            if missing is not None:
                causes = causes_of(attempt, missing)
                raise unavailable(operation.key, causes, f"Backend {plan.primary.name} has it.")
        return Receipt(operation.key, operation.version, plan.primary.name, attempt.outcomes)

    async def _fall_back(self, attempt: Attempt, outcome: Outcome, deadline: float) -> Receipt:
        plan, operation, journal = attempt.plan, attempt.operation, self._journal
        refusal = self._refusal(attempt)
        if journal is None or refusal is not None:
            attempt.passage.end(doubt=outcome.status is Status.UNKNOWN)
            self._compensate(attempt, deadline)
            raise unavailable(operation.key, causes_of(attempt, refusal), claim_of(outcome))
        names = plan.journalled_for
        try:
            appending = journal.append(operation, names, provisional=attempt.doubtful)
            sequence = await self.late.in_time(appending, [operation], names, deadline)
        except JournalError as error:
            attempt.passage.end(doubt=outcome.status is Status.UNKNOWN)
            self._compensate(attempt, deadline)
            # Only a journal that was full has certainly not kept it.
            claim = claim_of(outcome) if isinstance(error, JournalFull) else PERHAPS
            raise unavailable(operation.key, causes_of(attempt, error), claim) from error
        return self.journalled(attempt, journal, sequence, names, deadline)

    def journalled(
        self, attempt: Attempt, journal: Journal, sequence: int, names: Sequence[str], deadline: float
    ) -> Receipt:
        """The journal has it: tell the caches. Gives the receipt."""
        plan, operation = attempt.plan, attempt.operation
        attempt.passage.end()
        self._events.emit(WriteJournalled(operation.key, operation.version, tuple(names)))
        attempt.send([cache for cache in plan.caches if cache.name not in attempt.sent], deadline)
        self._follow_up(attempt)
        return Receipt(
            operation.key,
            operation.version,
            plan.primary.name,
            attempt.outcomes,
            journal=journal,
            sequence=sequence,
            provisional=attempt.doubtful,
        )

    def _refusal(self, attempt: Attempt) -> JournalError | None:
        """Why this write must not wait in the journal, if it must not."""
        if self._journal is None:
            return JournalError("there is no journal to keep it")
        if attempt.operation.if_version is not None:
            return JournalError("if_version cannot be checked while the primary cannot be asked")
        if attempt.unchecked and not attempt.draft.provisional:
            return JournalError("the model refuses what the primary could not check (provisional=False)")
        return None

    def _follow_up(self, attempt: Attempt) -> Spreading:
        """Wait for the other backends in the background, and note what they missed.

        The future gives the reason for which a replica's debt could not be kept, if there is one.
        """
        if not attempt.sent:
            return None
        finished: asyncio.Future[JournalError | None] = asyncio.get_running_loop().create_future()
        self._locks.unsettle(attempt.operation.key)
        waiting = [future for future in attempt.sent.values() if not future.done()]

        def answered(future: asyncio.Future[Outcome]) -> None:
            waiting.remove(future)
            if not waiting:
                self._all_answered(attempt, finished)

        for future in list(waiting):
            future.add_done_callback(answered)
        if not waiting:
            self._all_answered(attempt, finished)
        return finished

    def _all_answered(self, attempt: Attempt, finished: asyncio.Future[JournalError | None]) -> None:
        owing = self._note_outcomes(attempt)
        if owing:
            self._spawn(self._owe(attempt, owing, finished))
        else:
            attempt.passage.end()
            self._finish(attempt, finished, None)

    def _finish(
        self, attempt: Attempt, finished: asyncio.Future[JournalError | None], reason: JournalError | None
    ) -> None:
        if not finished.done():
            finished.set_result(reason)
        self._locks.settle(attempt.operation.key)

    def _note_outcomes(self, attempt: Attempt) -> list[str]:
        """Record what the others said; gives the replicas that missed it."""
        operation = attempt.operation
        owing: list[str] = []
        for name, future in attempt.sent.items():
            outcome = attempt.outcomes[name] = future.result()
            debts = self._debts.get(name)
            if debts is not None and outcome.status in NOT_TAKEN:
                debts.add(operation, sent=outcome.status is Status.UNKNOWN)
            elif debts is None and outcome.status in (*NOT_TAKEN, Status.REJECTED):
                # A value that has to be unique may be free again in a moment; if not, somebody is told.
                owing.append(name)
        return owing

    async def _owe(
        self, attempt: Attempt, names: Sequence[str], finished: asyncio.Future[JournalError | None]
    ) -> None:
        """Have the journal keep what replicas missed."""
        operation = attempt.operation
        reason: JournalError | None = None
        try:
            if self._journal is None:
                reason = JournalError("there is no journal to keep it for those that missed it")
            else:
                await self._journal.append(operation, names)
                self._events.emit(WriteJournalled(operation.key, operation.version, tuple(names)))
            attempt.passage.end(doubt=reason is not None)
        except JournalError as error:
            attempt.passage.end(doubt=True)
            reason = error
        finally:
            self._finish(attempt, finished, reason)

    def _compensate(self, attempt: Attempt, deadline: float) -> None:
        """Take back what caches were given too early."""
        operation = attempt.operation
        undo = Operation(Kind.RETRACT, operation.key, operation.version, operation.born)
        for name, future in attempt.sent.items():
            self._locks.unsettle(operation.key)
            undone = asyncio.gather(future, attempt.backend(name).submit(undo, Mode.MIRROR, deadline))
            undone.add_done_callback(lambda done, name=name: self._undone(done, name, undo))  # type: ignore[misc]

    def _undone(self, done: asyncio.Future[list[Outcome]], name: str, undo: Operation) -> None:
        self._locks.settle(undo.key)
        if done.cancelled() or done.result()[0].status is Status.UNKNOWN:
            # It may land behind its retraction, and would stay.
            behind = version_after(undo.version)
            self._debts[name].add(undo._replace(kind=Kind.INVALIDATE, version=behind), sent=True)
        elif done.result()[1].status in NOT_TAKEN:
            self._debts[name].add(undo, sent=False)  # itself harmless, whenever it lands

    def correct(self, attempt: Attempt, stored: str | None, deadline: float) -> None:
        """Who was refused reads again: no cache may then show anything older than what refused it."""
        if stored is not None and is_version(stored):
            older = version_before(stored)
            operation = Operation(Kind.INVALIDATE, attempt.operation.key, older, NO_VERSION)
            for cache in attempt.plan.caches:
                self._locks.unsettle(operation.key)
                telling = cache.submit(operation, Mode.MIRROR, deadline)
                telling.add_done_callback(lambda done, name=cache.name: self._was_told(done, name, operation))  # type: ignore[misc]

    def _was_told(self, done: asyncio.Future[Outcome], name: str, operation: Operation) -> None:
        self._locks.settle(operation.key)
        if done.cancelled() or done.result().status in NOT_TAKEN:
            self._debts[name].add(operation, sent=False)  # itself harmless, whenever it lands


def with_reserve(deadline: float) -> float:
    """The deadline of the primary, which leaves time for what is done where it does not answer."""
    left = deadline - asyncio.get_running_loop().time()
    return deadline - min(_FALLBACK_SECONDS, _FALLBACK_SHARE * left)


class Attempt:
    """One try of a write at one version: who was asked already, and what they said.

    Attributes:
        doubtful: whether the primary may still refuse the write, if it has to wait in the journal.
        passage: its way to the replicas.
    """

    __slots__ = ("doubtful", "draft", "operation", "outcomes", "passage", "plan", "sent")

    def __init__(self, plan: Plan, draft: Draft, operation: Operation, passage: Passage) -> None:
        self.plan = plan
        self.draft = draft
        self.operation = operation
        self.passage = passage
        self.outcomes: dict[str, Outcome] = {}
        self.sent: dict[str, asyncio.Future[Outcome]] = {}
        self.doubtful = draft.may_conflict and draft.kind is not Kind.DELETE

    @property
    def unchecked(self) -> bool:
        """Whether nobody has ever checked what the primary may refuse.

        Whoever has read the record knows that it was there: what another process did to it
        meanwhile makes an update doubtful, but it is not unchecked.
        """
        draft, operation = self.draft, self.operation
        blind = draft.kind is Kind.UPDATE and operation.born == NO_VERSION
        return blind or (draft.may_conflict and draft.kind is not Kind.DELETE)

    def at_once(self) -> Sequence[Backend]:
        """The caches, where the primary has no reason to refuse.

        Never a replica: a create that is tried again, or a delete, could not be taken back there
        without harm to what the primary has.
        """
        plan, draft = self.plan, self.draft
        # An update may find nothing, and would have put a cache's tombstone out of the way.
        may_reject = draft.may_conflict or draft.if_version is not None or draft.kind is Kind.UPDATE
        concurrent = plan.order is Order.CONCURRENT or not may_reject
        return plan.caches if concurrent and plan.order is not Order.PRIMARY_FIRST else ()

    def not_asked(self) -> list[Backend]:
        """The backends that were not asked yet."""
        plan = self.plan
        return [backend for backend in (*plan.caches, *plan.replicas) if backend.name not in self.sent]

    def send(self, backends: Iterable[Backend], deadline: float) -> None:
        """Ask ``backends``, which look at the version alone."""
        for backend in backends:
            self.sent[backend.name] = backend.submit(self.operation, Mode.MIRROR, deadline)

    def backend(self, name: str) -> Backend:
        """The backend of that name."""
        return next(other for other in (*self.plan.caches, *self.plan.replicas) if other.name == name)


def judge_behind(attempt: Attempt, waiting: Operation) -> Outcome:
    """The key has work in the journal: judge by the newest of it, then queue up behind it."""
    operation, primary = attempt.operation, attempt.plan.primary.name
    stored = Stored(waiting.version, waiting.born, waiting.kind is not Kind.DELETE)
    verdict = decide(operation, stored, Mode.LIVE)
    if verdict is not None and verdict is not APPLIED:
        return verdict
    # It is a write to the record that waits there, whatever its caller has read before.
    attempt.operation = operation._replace(born=born_after(operation, stored))
    message = f"earlier writes of {operation.key} to backend {primary} wait in the journal"
    return failed(BackendFailed(message, backend=primary, sent=False))


def causes_of(attempt: Attempt, journal: JournalError | None) -> dict[str, OctopusError]:
    """What each backend, and the journal, said."""
    causes = {name: outcome.error for name, outcome in attempt.outcomes.items() if outcome.error is not None}
    return {**causes, "journal": journal} if journal is not None else causes


def claim_of(outcome: Outcome) -> str:
    """What can be said of a write that was not taken."""
    return PERHAPS if outcome.status is Status.UNKNOWN else "Nothing was written."


def unavailable(
    key: Key, causes: Mapping[str, OctopusError], claim: str = "Nothing was written."
) -> WriteUnavailable:
    """The error for a write that nobody took."""
    return WriteUnavailable(
        f"the write of {key} was not taken: {said(causes)}. {claim}",
        retry_after=soonest(causes),
        causes=causes,
    )
