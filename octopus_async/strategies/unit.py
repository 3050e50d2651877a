"""The way of a unit of work: all its records in one transaction, or one entry of the journal, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from octopus_async.backend import Journal
from octopus_async.errors import (
    BackendFailed,
    JournalError,
    JournalFull,
    OctopusError,
    Unavailable,
    WriteUnavailable,
)
from octopus_async.record import (
    NOT_TAKEN,
    WITHHELD,
    Key,
    Mode,
    Operation,
    Outcome,
    Status,
    failed,
    refusal,
)
from octopus_async.strategies.causes import said, soonest
from octopus_async.strategies.keys import KeyLocks
from octopus_async.strategies.lowwater import LowWater, Passage
from octopus_async.strategies.plan import Plan
from octopus_async.strategies.receipt import Receipt
from octopus_async.strategies.versions import Versions
from octopus_async.strategies.writer import (
    REISSUES,
    Attempt,
    Draft,
    Writer,
    causes_of,
    claim_of,
    judge_behind,
    with_reserve,
)


class UnitWriter:
    """Writes what belongs together, for all models of a manager.

    Parameters:
        versions: issues the versions; a unit has one, so that any two are in the same order at every key.
        locks: who writes which key at the moment.
        journal: takes what the primary could not; None to be refused instead.
        water: knows which writes are between a primary and its replicas.
        detach: is told of keys whose running searches nobody may join any more.
        writer: tells all others when the primary, or the journal, has it.
    """

    def __init__(  # noqa: PLR0913 - the composition root passes what a write touches
        self,
        versions: Versions,
        locks: KeyLocks,
        journal: Journal | None,
        water: LowWater,
        detach: Callable[[Key], None],
        writer: Writer,
    ) -> None:
        self._versions = versions
        self._locks = locks
        self._journal = journal
        self._water = water
        self._detach = detach
        self._writer = writer

    async def write(
        self, drafts: Sequence[tuple[Plan, Draft]], deadline: float
    ) -> list[tuple[Receipt, Operation]]:
        """Write drafts of different keys, whose plans have the same durable backends.

        To be run where no caller's cancellation reaches it; it waits for futures alone.

        Raises:
            RecordRejected: the primary refused some of them; nothing was written.
            WriteUnavailable: neither the primary nor the journal took them.
        """
        held: list[Key] = []
        try:
            # In the order of keys, so that two units never wait for each other.
            for _, draft in sorted(drafts, key=lambda it: it[1].key):
                await self._locks.acquire(draft.key, deadline)
                held.append(draft.key)
                self._detach(draft.key)
                await self._writer.decided(draft.key, deadline)
            return await self._write_held(drafts, deadline)
        except Unavailable as error:
            if isinstance(error, WriteUnavailable):
                raise
            plan, _ = drafts[0]
            raise _unavailable({plan.primary.name: error}, "Nothing was written.", drafts) from None
        finally:
            for key in held:
                self._detach(key)
                self._locks.release(key)

    async def _write_held(
        self, drafts: Sequence[tuple[Plan, Draft]], deadline: float
    ) -> list[tuple[Receipt, Operation]]:
        passages = [await self._passage(plan, draft.key, deadline) for plan, draft in drafts]
        primary = drafts[0][0].primary
        for _ in range(REISSUES):
            version = await self._versions.issue(deadline)
            attempts = [
                Attempt(plan, draft, draft.at(version), passage)
                for (plan, draft), passage in zip(drafts, passages, strict=True)
            ]
            outcomes = await self._ask_primary(attempts, deadline)
            for attempt, outcome in zip(attempts, outcomes, strict=True):
                attempt.outcomes[primary.name] = outcome
                self._versions.overtaken(outcome.stored, primary.name)
            found = {outcome.status for outcome in outcomes}
            if found == {Status.APPLIED}:
                return await self._acknowledge(attempts, deadline)
            if not found.isdisjoint(NOT_TAKEN):
                return await self._fall_back(attempts, deadline)
            if any(outcome.error is not None for outcome in outcomes):
                raise self._refused(attempts, outcomes, deadline)
        for passage in passages:
            passage.end()
        message = f"{primary.name} held something newer {REISSUES} times in a row"
        error = BackendFailed(message, backend=primary.name)
        raise _unavailable({primary.name: error}, "Nothing was written.", drafts)

    async def _passage(self, plan: Plan, key: Key, deadline: float) -> Passage:
        return await self._water.enter(key.model, deadline) if plan.replicas else Passage()

    async def _ask_primary(self, attempts: Sequence[Attempt], deadline: float) -> Sequence[Outcome]:
        primary, journal = attempts[0].plan.primary, self._journal
        for attempt in attempts:
            attempt.doubtful = True  # whatever becomes of it: its conditions are the primary's to check
        if journal is not None:
            behind = self._judged_behind(attempts, journal)
            if behind is not None:
                return behind
        keys = [attempt.operation.key for attempt in attempts]
        noted = [journal.noted(primary.name, key) for key in keys] if journal is not None else []
        operations = [attempt.operation for attempt in attempts]
        outcomes = await primary.submit_unit(operations, Mode.LIVE, with_reserve(deadline))
        waiting = [future for future in noted if future is not None]
        if waiting:
            # A crash right after the acknowledgement must not bring back what the journal held before.
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait(waiting, timeout=max(0.0, left))
        return outcomes

    def _judged_behind(self, attempts: Sequence[Attempt], journal: Journal) -> list[Outcome] | None:
        """If a key has work in the journal all of it queues up there, judged by that as far as it goes."""
        primary = attempts[0].plan.primary.name
        newest = [journal.newest(attempt.operation.key, primary) for attempt in attempts]
        verdicts = [
            None if waiting is None else judge_behind(attempt, waiting)
            for attempt, waiting in zip(attempts, newest, strict=True)
        ]
        judged = [verdict for verdict in verdicts if verdict is not None]
        if not judged:
            return None
        if any(verdict.status not in NOT_TAKEN for verdict in judged):
            return [
                WITHHELD if verdict is None or verdict.status in NOT_TAKEN else verdict
                for verdict in verdicts
            ]
        message = f"earlier writes of its records to backend {primary} wait in the journal"
        return [failed(BackendFailed(message, backend=primary, sent=False))] * len(attempts)

    async def _acknowledge(
        self, attempts: Sequence[Attempt], deadline: float
    ) -> list[tuple[Receipt, Operation]]:
        spreading = [self._writer.spread(attempt, deadline) for attempt in attempts]
        return [
            (await self._writer.confirmed(attempt, waiting), attempt.operation)
            for attempt, waiting in zip(attempts, spreading, strict=True)
        ]

    def _refused(
        self, attempts: Sequence[Attempt], outcomes: Sequence[Outcome], deadline: float
    ) -> OctopusError:
        _end(attempts)
        for attempt, outcome in zip(attempts, outcomes, strict=True):
            self._writer.correct(attempt, outcome.stored, deadline)
        errors = {
            attempt.operation.key: outcome.error
            for attempt, outcome in zip(attempts, outcomes, strict=True)
            if outcome.error is not None
        }
        return refusal(errors)

    async def _fall_back(
        self, attempts: Sequence[Attempt], deadline: float
    ) -> list[tuple[Receipt, Operation]]:
        plan, journal = attempts[0].plan, self._journal
        first = attempts[0].outcomes[plan.primary.name]
        drafts = [(attempt.plan, attempt.draft) for attempt in attempts]
        reason = self._why_not(attempts)
        if journal is None or reason is not None:
            _end(attempts, doubt=first.status is Status.UNKNOWN)
            raise _unavailable(causes_of(attempts[0], reason), claim_of(first), drafts)
        names = plan.journalled_for
        operations = [attempt.operation for attempt in attempts]
        try:
            appending = journal.append_unit(operations, names, provisional=True)
            numbers = await self._writer.late.in_time(appending, operations, names, deadline)
        except JournalError as error:
            _end(attempts, doubt=first.status is Status.UNKNOWN)
            # Only a journal that was full has certainly not kept it.
            claim = claim_of(first) if isinstance(error, JournalFull) else claim_of(failed(error))
            raise _unavailable(causes_of(attempts[0], error), claim, drafts) from error
        return [
            (self._writer.journalled(attempt, journal, number, names, deadline), attempt.operation)
            for attempt, number in zip(attempts, numbers, strict=True)
        ]

    def _why_not(self, attempts: Sequence[Attempt]) -> JournalError | None:
        """Why this unit must not wait in the journal, if it must not."""
        if self._journal is None:
            return JournalError("there is no journal to keep it")
        strict = sorted({attempt.draft.key.model for attempt in attempts if not attempt.draft.provisional})
        if strict:
            names = ", ".join(strict)
            return JournalError(
                f"{names}: the model refuses what the primary could not check (provisional=False)"
            )
        return None


def _end(attempts: Sequence[Attempt], *, doubt: bool = False) -> None:
    for attempt in attempts:
        attempt.passage.end(doubt=doubt)


def _unavailable(
    causes: Mapping[str, OctopusError], claim: str, drafts: Sequence[tuple[Plan, Draft]]
) -> WriteUnavailable:
    names = ", ".join(str(draft.key) for _, draft in drafts[:_MOST_NAMED])
    more = f" and {len(drafts) - _MOST_NAMED} more" if len(drafts) > _MOST_NAMED else ""
    return WriteUnavailable(
        f"the session's writes of {names}{more} were not taken: {said(causes)}. {claim}",
        retry_after=soonest(causes),
        causes=causes,
    )


_MOST_NAMED = 10
