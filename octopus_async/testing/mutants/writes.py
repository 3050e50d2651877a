"""Mutations of the way of a write: who wins, in which order, and what a caller is told."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import octopus_async.cachevalue
import octopus_async.record
from octopus_async.errors import BackendFailed, Unavailable
from octopus_async.guard import Guard, Lane, guard
from octopus_async.manager import DaoManager
from octopus_async.record import Mode, Operation, Outcome, Status, Stored, rejected
from octopus_async.strategies import writer
from octopus_async.strategies.keys import KeyLocks
from octopus_async.testing.simulation import server

# A mutation reaches into what is private: that is where bugs are.
# ruff: noqa: SLF001
# mypy: disable-error-code="method-assign,assignment"


def _decide_by(decide: Any) -> None:  # noqa: ANN401 - a function of the shape of `record.decide`
    for module in (octopus_async.record, octopus_async.cachevalue, server, writer):
        module.decide = decide  # type: ignore[attr-defined]


def no_version_guard() -> None:
    """A store takes what is older than what it has."""
    original = octopus_async.record.decide

    def decide(operation: Operation, stored: Stored | None, mode: Mode) -> Outcome | None:
        outcome = original(operation, stored, mode)
        return None if outcome is not None and outcome.status is Status.SUPERSEDED else outcome

    _decide_by(decide)


def tombstone_forgotten() -> None:
    """A deleted record is as good as one that never was."""
    original = octopus_async.record.decide

    def decide(operation: Operation, stored: Stored | None, mode: Mode) -> Outcome | None:
        return original(operation, stored if stored is not None and stored.alive else None, mode)

    _decide_by(decide)


def rejections_counted_as_failures() -> None:
    """A rejected record opens the breaker."""

    def verdict(outcomes: Any) -> Unavailable | None:  # noqa: ANN401 - a sequence of outcomes
        if any(outcome.status is Status.REJECTED for outcome in outcomes):
            return BackendFailed("rejected")
        return None

    guard._verdict = verdict


def operations_of_a_key_reordered() -> None:
    """The write that came last leaves first."""
    original = Lane._next_in_chain

    def next_in_chain(self: Lane[Any, Any], key: Any) -> None:  # noqa: ANN401 - any key
        chain = self._chains[key]
        if chain:
            self._chains[key] = deque(reversed(chain))
        original(self, key)

    Lane._next_in_chain = next_in_chain

    def release(self: KeyLocks, key: Any) -> None:  # noqa: ANN401 - any key
        line = self._held[key]
        if line:
            self._held[key] = deque(reversed(line))
        original_release(self, key)

    original_release = KeyLocks.release
    KeyLocks.release = release


def unknown_treated_as_failed() -> None:
    """What was sent and not answered is said to have failed."""

    def failed(error: Any) -> Outcome:  # noqa: ANN401 - an error of a backend
        return Outcome(Status.UNAVAILABLE, error)

    guard.failed = failed  # type: ignore[attr-defined]


def compensation_missing() -> None:
    """What caches were given too early stays there."""
    writer.Writer._compensate = lambda *_: None


def read_only_taken_for_a_rejection() -> None:
    """A server that takes no writes is said to refuse the record."""
    original = guard.Guard._run_writes

    async def run_writes(self: Guard, operations: Any, mode: object) -> Any:  # noqa: ANN401 - as in the original
        outcomes = await original(self, operations, mode)
        return [_rejected_if_read_only(*pair) for pair in zip(operations, outcomes, strict=True)]

    guard.Guard._run_writes = run_writes


def _rejected_if_read_only(operation: Operation, outcome: Outcome) -> Outcome:
    if "read-only" in str(outcome.error):
        return rejected(octopus_async.record.duplicate(operation.key))
    return outcome


def locks_of_keys_not_taken() -> None:
    """Two writes of a key go their ways at the same time."""

    async def acquire(*_: object) -> None:
        pass

    KeyLocks.acquire = acquire
    KeyLocks.try_acquire = lambda *_: True
    KeyLocks.release = lambda *_: None


def caller_cancels_the_write() -> None:
    """The write dies with its caller."""

    async def write(self: DaoManager, plan: Any, draft: Any, seconds: float | None) -> Any:  # noqa: ANN401 - as in the original
        self.check_open()
        return await self._writer.write(plan, draft, self.deadline(seconds))

    DaoManager.write = write


def deadline_not_kept_in_the_queue() -> None:
    """Nobody looks at the deadline of what waits."""
    Lane._arm = lambda *_: None


def backlog_overtaken() -> None:
    """A write goes to the primary although earlier ones of its key wait in the journal."""

    async def ask_primary(_: writer.Writer, attempt: writer.Attempt, deadline: float) -> Outcome:
        attempt.send(attempt.at_once(), deadline)
        now = asyncio.get_running_loop().time()
        return await attempt.plan.primary.submit(attempt.operation, Mode.LIVE, now + (deadline - now) * 0.75)

    writer.Writer._ask_primary = ask_primary


def condition_dropped() -> None:
    """``if_version`` is not looked at."""
    original = writer.Draft.at

    def at(self: writer.Draft, version: str) -> Operation:
        return original(self, version)._replace(if_version=None)

    writer.Draft.at = at


def replicas_debt_forgotten() -> None:
    """What a replica missed is not written down."""
    original = writer.Writer._note_outcomes

    def note(self: writer.Writer, attempt: writer.Attempt) -> list[str]:
        original(self, attempt)
        return []

    writer.Writer._note_outcomes = note


def updates_shown_before_they_are_taken() -> None:
    """Caches and replicas are given what the primary may still refuse."""

    def at_once(self: writer.Attempt) -> Any:  # noqa: ANN401 - a list of backends
        return [*self.plan.caches, *self.plan.replicas]

    writer.Attempt.at_once = at_once


def read_only_mariadb_taken_for_a_rejection() -> None:
    """MariaDB's refusal of all writes is said to be the record's fault."""
    from octopus_async.adapters._sql import codes

    codes.MYSQL_CODES.record.add(1290)


def read_only_postgres_taken_for_a_rejection() -> None:
    """Postgres's refusal of all writes is said to be the record's fault."""
    from octopus_async.adapters._sql import codes

    codes.POSTGRES_CODES.record.add("25006")


def full_disk_taken_for_a_rejection() -> None:
    """SQLite's lack of room is said to be the record's fault."""
    import sqlite3

    from octopus_async.adapters import _sqlite_errors

    _sqlite_errors._RECORD_FAULTS = (*_sqlite_errors._RECORD_FAULTS, sqlite3.SQLITE_FULL)


def unknown_taken_for_applied() -> None:
    """A write that the primary has not answered is acknowledged, and kept nowhere."""
    original = writer.Writer._ask_primary

    async def ask(self: writer.Writer, attempt: writer.Attempt, deadline: float) -> Outcome:
        outcome = await original(self, attempt, deadline)
        return octopus_async.record.APPLIED if outcome.status is Status.UNKNOWN else outcome

    writer.Writer._ask_primary = ask


def condition_accepted_unasked() -> None:
    """An update with ``if_version`` is acknowledged although the primary cannot be asked."""
    original = writer.Writer._refusal

    def refusal(self: writer.Writer, attempt: writer.Attempt) -> Any:  # noqa: ANN401 - an error or None
        reason = original(self, attempt)
        return None if self._journal is not None and attempt.operation.if_version is not None else reason

    writer.Writer._refusal = refusal
