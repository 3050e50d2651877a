"""Connections of a SQLAlchemy engine, and calls over them that nobody's cancellation reaches.

What a driver does when it is cancelled in the middle differs, and not all do well. So each call is a
task of its own: who no longer waits for it leaves it to its end, and only if that does not come in time
is it cancelled, and its connection with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from octopus_async.adapters._sql.pool import ConnectFailed
from octopus_async.adapters._sqlalchemy_tables import Statement

T = TypeVar("T")


class ClosedMeanwhile(Exception):
    """The call was not made, or not to its end."""


class Connection:
    """A connection, as it is written to."""

    def __init__(self, raw: AsyncConnection) -> None:
        self.raw = raw
        self._savepoint: AsyncTransaction | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether a reply may still be under way."""
        return self.raw.invalidated

    @property
    def in_transaction(self) -> bool:
        """Whether there is anything to roll back: no, as going back to the pool does that."""
        return False

    async def select(self, statement: Statement) -> Sequence[Row[tuple[object, ...]]]:
        """The rows of a query."""
        return (await self.raw.execute(*statement)).all()

    async def execute(self, statements: Sequence[Statement]) -> int:
        """Run statements of a transaction; how many rows the last one affected."""
        affected = 0
        for statement in statements:
            affected = (await self.raw.execute(*statement)).rowcount
        return affected

    async def alone(self, statements: Sequence[Statement]) -> int:
        """Run statements as one transaction; how many rows the last one affected."""
        affected = await self.execute(statements)
        await self.raw.commit()
        return affected

    async def commit(self, statements: Sequence[Statement]) -> None:
        """Run the last statements of a transaction, and end it."""
        await self.alone(statements)

    async def rollback(self) -> None:
        """Take a transaction back."""
        await self.raw.rollback()

    async def attempt(self, statements: Sequence[Statement]) -> None:
        """Run statements that `take_back` can undo if one of them is refused."""
        self._savepoint = await self.raw.begin_nested()
        await self.execute(statements)
        await self._savepoint.commit()

    async def take_back(self) -> None:
        """Undo the attempt that was refused, and nothing else."""
        if self._savepoint is not None:
            await self._savepoint.rollback()


class _Job:
    """A call's way: whether anybody waits for it still."""

    given_up = False


class Calls:
    """At most ``size`` calls at once over the connections of an engine.

    Parameters:
        size: how many.
        seconds: how long connecting may take, and how long a call may that nobody waits for.
    """

    def __init__(self, size: int, seconds: float) -> None:
        self._slots = asyncio.Semaphore(size)
        self._seconds = seconds
        self._under_way: set[asyncio.Task[Any]] = set()

    async def run(self, engine: AsyncEngine, talk: Callable[[Connection], Awaitable[T]]) -> T:
        """Have a talk over a connection.

        Raises:
            ConnectFailed: there was no connection to be had; nothing was sent.
            Exception: whatever the talk raises.
        """
        await self._slots.acquire()
        job = _Job()
        work = asyncio.get_running_loop().create_task(self._work(engine, talk, job))
        self._under_way.add(work)
        work.add_done_callback(self._ended)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled():
                raise ClosedMeanwhile("it was closed meanwhile") from None
            job.given_up = True
            timer = asyncio.get_running_loop().call_later(self._seconds, work.cancel)
            work.add_done_callback(lambda _: timer.cancel())
            raise

    async def _work(self, engine: AsyncEngine, talk: Callable[[Connection], Awaitable[T]], job: _Job) -> T:
        try:
            async with asyncio.timeout(self._seconds):
                raw = await engine.connect()
        except Exception as error:
            raise ConnectFailed from error
        try:
            if job.given_up:
                raise ClosedMeanwhile("nobody waits for it any more")
            return await talk(Connection(raw))
        finally:
            await raw.close()

    def _ended(self, work: asyncio.Task[Any]) -> None:
        self._under_way.discard(work)
        self._slots.release()
        if not work.cancelled():
            work.exception()  # nobody may be left to hear of it

    async def close(self, seconds: float) -> None:
        """Cancel what is under way, and see it end, within that time."""
        for work in self._under_way:
            work.cancel()
        if self._under_way:
            await asyncio.wait([*self._under_way], timeout=seconds)
