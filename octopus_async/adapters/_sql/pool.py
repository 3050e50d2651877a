"""A small pool of connections that are never in doubt, whatever the driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Pooled(Protocol):
    """What the pool asks of a connection."""

    last_used: float

    @property
    def reusable(self) -> bool:
        """Whether another caller may have it: wholly answered, in no transaction, open."""
        ...

    @property
    def stale(self) -> bool:
        """Whether the server has closed it meanwhile, or may be about to."""
        ...

    def abort(self) -> None:
        """Break it off at once, without a word to the server."""
        ...

    async def farewell(self) -> None:
        """Close it politely, which may take for ever."""
        ...


C = TypeVar("C", bound=Pooled)


class ConnectFailed(Exception):
    """No connection could be made; its cause says why."""


class Pool(Generic[C]):
    """At most ``size`` connections; each is one caller's until its talk is over.

    Nobody holds a lock while connecting, and nobody waits but for a slot, so that a server that
    has stopped answering keeps no free connection from anyone.

    Parameters:
        connect: makes a connection; what it leaves half done it cleans up itself.
        size: how many at most.
        seconds: how long connecting may take.
    """

    def __init__(self, connect: Callable[[], Awaitable[C]], size: int, seconds: float) -> None:
        self._make = connect
        self._seconds = seconds
        self._slots = asyncio.Semaphore(size)
        self._idle: list[C] = []
        self._busy: set[C] = set()
        self._closed = False

    async def run(self, talk: Callable[[C], Awaitable[T]]) -> T:
        """Have a talk over a connection; if it does not come to its end, the connection is broken off.

        Raises:
            ConnectFailed: there was no connection to be had; nothing was sent.
            Exception: whatever the talk raises.
        """
        async with self._slots:
            connection = self._take() or await self._connect()
            self._busy.add(connection)
            try:
                return await talk(connection)
            finally:
                self._busy.discard(connection)
                self._give_back(connection)

    async def close(self, seconds: float) -> None:
        """Break off what is under way, and say goodbye on the others, within ``seconds``."""
        self._closed = True
        for connection in self._busy:
            connection.abort()
        farewells = [asyncio.ensure_future(connection.farewell()) for connection in self._idle]
        try:
            if farewells:
                await asyncio.wait(farewells, timeout=seconds)
        finally:
            for farewell in farewells:
                farewell.cancel()
            self.abort()
        if farewells:
            await asyncio.gather(*farewells, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close their sockets in the next turn of the loop

    def abort(self) -> None:
        """Break off every connection, those in use too, without a word to the server; no more are made."""
        self._closed = True
        for connection in (*self._busy, *self._idle):
            connection.abort()
        self._idle.clear()

    def _take(self) -> C | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale:
                return connection
            connection.abort()
        return None

    def _give_back(self, connection: C) -> None:
        if connection.reusable and not self._closed:
            connection.last_used = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()

    async def _connect(self) -> C:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._make()
        except Exception as error:
            raise ConnectFailed from error
