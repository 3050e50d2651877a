"""How operations are written to a database server, whatever the way of talking to it.

A live operation is tried alone first, where one exchange can do it. Everything else, and every batch,
is a transaction: it takes the locks of its keys, looks at what is stored, writes what `decide` says,
and commits.
"""

from __future__ import annotations

import abc
import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from octopus_async.adapters._sql.base import SQLAdapter
from octopus_async.adapters._sql.batch import Batch, Change
from octopus_async.adapters._sql.faults import Collision
from octopus_async.adapters._sql.rows import Rows
from octopus_async.errors import OctopusError, RecordRejected
from octopus_async.record import APPLIED, Mode, Operation, Outcome, rejected

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)

_PAUSES = (0.005, 0.02, 0.05)
"""Seconds, at most, before each further try after a collision with another transaction."""


class Talk(Protocol[S_contra]):
    """A connection, as it is written to; S is what it takes for a statement."""

    @property
    def in_doubt(self) -> bool:
        """Whether a reply may still be under way."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether there is anything to roll back."""
        ...

    async def alone(self, statements: Sequence[S_contra]) -> int:
        """Run statements as one transaction; how many rows the last one affected."""
        ...

    async def execute(self, statements: Sequence[S_contra]) -> int:
        """Run statements of a transaction; how many rows the last one affected."""
        ...

    async def commit(self, statements: Sequence[S_contra]) -> None:
        """Run the last statements of a transaction, and end it."""
        ...

    async def rollback(self) -> None:
        """Take a transaction back."""
        ...

    async def attempt(self, statements: Sequence[S_contra]) -> None:
        """Run statements that `take_back` can undo if one of them is refused."""
        ...

    async def take_back(self) -> None:
        """Undo the attempt that was refused, and nothing else."""
        ...


C = TypeVar("C", bound=Talk[Any])
R = TypeVar("R", bound=Rows)
Q = TypeVar("Q")
F = TypeVar("F")
T = TypeVar("T")


class Call:
    """How far a call has come: whether what it sent may take effect."""

    sent = False


class WritingAdapter(SQLAdapter[R, Q, F], Generic[R, Q, F, C, S]):
    """Writes over connections (C) that take statements (S)."""

    @abc.abstractmethod
    async def _converse(self, talk: Callable[[C], Awaitable[T]]) -> T:
        """Have a talk over a connection. Raises whatever the talk or the driver raises."""

    @abc.abstractmethod
    def _translated(self, error: Exception, *, sent: bool) -> OctopusError:
        """The error of our tree for whatever was raised."""

    @abc.abstractmethod
    def _single(self, operation: Operation, mode: Mode) -> Sequence[S] | None:
        """What does it in one exchange, and affects one row or has no effect; None for what needs more.

        Raises `InvalidRecord`.
        """

    @abc.abstractmethod
    async def _load(self, connection: C, batch: Batch[R], *, exclusive: bool) -> None:
        """Begin a transaction, take its locks, and give the batch what is stored."""

    @abc.abstractmethod
    def _writes(self, changes: Sequence[Change[R]]) -> list[S]:
        """What writes changes, whose locks are held. Raises `InvalidRecord`."""

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply operations in one transaction. Raises `Unavailable`."""
        return await self._insistently(lambda: self._apply(operations, mode))

    async def apply_unit(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply all operations or none of them. Raises `Unavailable`."""
        return await self._insistently(lambda: self._apply_unit(operations, mode))

    async def _apply_unit(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        try:
            return await self._apply_together(operations, mode, singly=False, whole=True)
        except RecordRejected:
            pass  # one of them: found by writing them one by one
        try:
            return await self._apply_together(operations, mode, singly=True, whole=True)
        except RecordRejected as error:  # by what is checked at the commit alone
            return [rejected(error) for _ in operations]

    async def _apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        alone = len(operations) == 1
        if alone and await self._apply_alone(operations[0], mode):
            return [APPLIED]
        if not alone:
            try:
                return await self._apply_together(operations, mode, singly=False)
            except RecordRejected:
                pass  # one of them: found by writing them one by one
        try:
            return await self._apply_together(operations, mode, singly=True)
        except RecordRejected as error:  # by what is checked at the commit alone
            if alone:
                return [rejected(error)]
        return [(await self._apply([operation], mode))[0] for operation in operations]

    async def _apply_alone(self, operation: Operation, mode: Mode) -> bool:
        """Try it in one exchange; if it has no effect the transaction finds out why."""
        call = Call()
        try:
            statements = self._single(operation, mode)
            if statements is None:
                return False
            call.sent = True
            return await self._run(lambda connection: connection.alone(statements), call) == 1
        except RecordRejected:
            return False

    async def _apply_together(
        self, operations: Sequence[Operation], mode: Mode, *, singly: bool, whole: bool = False
    ) -> Sequence[Outcome]:
        batch = Batch(operations, self._table, mode, whole=whole)
        call = Call()

        async def transact(connection: C) -> None:
            try:
                await self._load(connection, batch, exclusive=singly or batch.contends)
                await self._write(connection, batch, call, singly=singly)
            except Exception:
                if connection.in_transaction and not connection.in_doubt:
                    await connection.rollback()
                raise

        if batch.rounds:
            await self._run(transact, call)
        return batch.outcomes

    async def _write(self, connection: C, batch: Batch[R], call: Call, *, singly: bool) -> None:
        statements: list[S] = []
        for indices in batch.rounds:
            if statements:
                await connection.execute(statements)
            changes = batch.decide(indices)
            if singly:
                await self._settle(connection, batch, changes)
            else:
                statements = self._writes(changes)
                batch.applied(changes)
        if batch.withholds:
            await connection.rollback()
            return
        call.sent = True
        await connection.commit(statements)

    async def _settle(self, connection: C, batch: Batch[R], changes: Sequence[Change[R]]) -> None:
        """Write changes, in ever smaller parts until those at fault stand alone."""
        fault = await self._fault_of(connection, changes) if changes else None
        if fault is None:
            batch.applied(changes)
        elif len(changes) == 1:
            batch.refuse(changes[0], fault)
        else:
            half = len(changes) // 2
            await self._settle(connection, batch, changes[:half])
            await self._settle(connection, batch, changes[half:])

    async def _fault_of(self, connection: C, changes: Sequence[Change[R]]) -> RecordRejected | None:
        """Write changes; or none of them, and say why."""
        try:
            await connection.attempt(self._writes(changes))
        except RecordRejected as error:
            return error  # before anything was sent
        except Exception as error:
            fault = self._translated(error, sent=False)
            if connection.in_doubt or not isinstance(fault, RecordRejected):
                raise
            await connection.take_back()
            return fault
        return None

    async def _insistently(self, action: Callable[[], Awaitable[T]]) -> T:
        for pause in _PAUSES:
            try:
                return await action()
            except Collision:
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
        return await action()

    async def _run(self, talk: Callable[[C], Awaitable[T]], call: Call | None = None) -> T:
        try:
            return await self._converse(talk)
        except OctopusError:
            raise
        except Exception as error:
            raise self._translated(error, sent=call is not None and call.sent) from error
