"""aiosqlite's connections made safe: whole functions run on their threads, and can be given up.

Written against aiosqlite 0.22, whose private parts it uses. Nothing that a thread has begun is ever
called back, so a connection belongs to one function until the thread has come out of it, whatever
became of the caller; and no thread keeps the interpreter from ending.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import aiosqlite

T = TypeVar("T")

_log = logging.getLogger("octopus_async")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.025  # seconds between two tries for a lock
_PRIMARY_CODE = 0xFF
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
# After anything else the connection may be of a file that is gone, or read-only no longer.
_HARMLESS = (
    *_BUSY,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
)


class GivenUp(Exception):
    """Nobody waits for this function any more."""


class Moved(Exception):
    """The file is no longer the one that was opened: what is written would be lost with it."""


class Job:
    """One function's way through a thread.

    Attributes:
        given_up: whether its caller has gone; set by the event loop, looked at by the thread.
        committing: whether it came as far as its commit.
    """

    __slots__ = ("committing", "given_up")

    def __init__(self) -> None:
        self.given_up = False
        self.committing = False

    def check(self) -> None:
        """Raise `GivenUp` if nobody waits any more."""
        if self.given_up:
            raise GivenUp("nobody waits for it any more")

    def patiently(self, action: Callable[[], T], seconds: float) -> T:
        """Try until no lock is in the way; SQLite's own waiting could not be given up.

        Raises:
            sqlite3.Error: whatever else was in the way, or the lock after ``seconds``.
            GivenUp: nobody waits any more.
        """
        deadline = time.monotonic() + seconds
        pause = _FIRST_PAUSE
        while True:
            self.check()
            try:
                return action()
            except sqlite3.OperationalError as error:
                if primary_code(error) not in _BUSY or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


Function = Callable[[sqlite3.Connection, Job], T]


def primary_code(error: BaseException) -> int | None:
    """SQLite's result code without its extension; None for what the module itself raised."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY_CODE


class _Lane:
    """One connection and its thread, connected when it is needed."""

    def __init__(self, path: str, set_up: Function[None]) -> None:
        self._path = path
        self._set_up = set_up
        self.connection: aiosqlite.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def start(self, function: Function[T], job: Job) -> asyncio.Future[T]:
        """Hand a function to the thread; nothing that happens to its caller ends this future."""
        if self.connection is None:
            return asyncio.ensure_future(self._connect_and_run(function, job))
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.connection._tx.put_nowait((future, partial(self._call, self.connection, function, job)))  # noqa: SLF001
        return future

    async def _connect_and_run(self, function: Function[T], job: Job) -> T:
        self.connection = await self._connect(job)
        return await self.start(function, job)

    def is_harmed_by(self, error: BaseException) -> bool:
        """Whether the connection is not to be used again after that error."""
        if self.connection is None:
            return False
        ours = isinstance(error, Moved) or self.connection.in_transaction
        return ours or primary_code(error) not in (*_HARMLESS, None)

    async def _connect(self, job: Job) -> aiosqlite.Connection:
        # Not by its own waiting for locks, and without transactions of its own making.
        connection = aiosqlite.connect(self._path, timeout=0, isolation_level=None, cached_statements=256)
        connection._thread.daemon = True  # noqa: SLF001 - one left open would hang the interpreter's exit
        try:
            await connection
        except Exception:
            # aiosqlite has told its thread to stop; its last word has to find this loop open.
            while connection._thread.is_alive():  # noqa: ASYNC110, SLF001 - a thread sets no event
                await asyncio.sleep(0.001)
            raise
        try:
            await connection._execute(self._prepare, connection, job)  # type: ignore[no-untyped-call]  # noqa: SLF001
        except BaseException:
            await connection.close()
            raise
        return connection

    def _prepare(self, connection: aiosqlite.Connection, job: Job) -> None:
        job.check()
        self._set_up(connection._conn, job)  # noqa: SLF001 - on its own thread
        self._identity = self._identify()

    def _call(self, connection: aiosqlite.Connection, function: Function[T], job: Job) -> T:
        raw = connection._conn  # noqa: SLF001 - on its own thread
        job.check()
        if self._identify() != self._identity:
            raise Moved(f"{self._path} was moved, removed or replaced")
        return function(raw, job)

    def _identify(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - for every call: a Path takes thrice as long
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    async def interrupt(self) -> None:
        if self.connection is not None:
            await self.connection.interrupt()

    async def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close()


class Lanes:
    """Connections to one database, each for one function at a time.

    Parameters:
        path: the database's file.
        set_up: runs on each new connection.
        size: how many.
    """

    def __init__(self, path: str, set_up: Function[None], size: int) -> None:
        self._path = path
        self._lanes = [_Lane(path, set_up) for _ in range(size)]
        self._idle = list(self._lanes)
        self._slots = asyncio.Semaphore(size)
        self._running: dict[asyncio.Future[Any], tuple[_Lane, Job]] = {}
        self._closings: set[asyncio.Future[None]] = set()
        self._closed = False

    async def run(self, function: Function[T], job: Job) -> T:
        """Run a function on a connection's thread; it ends the transaction that it begins.

        A caller that is cancelled gives the function up: what has not begun never will, and what
        has is interrupted, and has to come to its end before the connection is used again.

        Raises:
            sqlite3.Error: and whatever else the function raises.
            GivenUp: the lanes were closed.
        """
        await self._slots.acquire()
        if self._closed:
            self._slots.release()
            raise GivenUp("it was closed meanwhile")
        lane = self._idle.pop()
        work = lane.start(function, job)
        self._running[work] = (lane, job)
        work.add_done_callback(self._finished)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await self._give_up(lane, job)
            raise

    async def close(self, seconds: float) -> None:
        """Give up what is running, and close all connections; each of the two takes at most ``seconds``."""
        self._closed = True
        for lane, job in list(self._running.values()):
            await self._give_up(lane, job)
        if self._running:
            await asyncio.wait(list(self._running), timeout=seconds)
        closings = {*self._closings, *(asyncio.ensure_future(lane.close()) for lane in self._lanes)}
        _, late = await asyncio.wait(closings, timeout=seconds)
        if late:
            _log.warning("%d connections to %s did not close within %g s", len(late), self._path, seconds)

    async def _give_up(self, lane: _Lane, job: Job) -> None:
        job.given_up = True
        await lane.interrupt()

    def _finished(self, work: asyncio.Future[Any]) -> None:
        lane, _ = self._running.pop(work)
        error = None if work.cancelled() else work.exception()
        if error is not None and lane.is_harmed_by(error):
            closing = asyncio.ensure_future(lane.close())
            self._closings.add(closing)
            closing.add_done_callback(self._closings.discard)
        self._idle.append(lane)
        self._slots.release()
