"""aiomcache's pool made safe, and pipelined exchanges over it.

Written against aiomcache 0.8.2, whose private parts it overrides. From the first byte of a request
until its reply is wholly parsed a connection is in doubt: whatever ends the exchange before that,
a cancellation included, closes it, so that nobody ever reads somebody else's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from aiomcache import ClientException
from aiomcache.pool import Connection, MemcachePool

from octopus_async.adapters._memcache_replies import CHUNK, Item, Replies
from octopus_async.errors import BackendFailed, BackendRefused, BackendTimeout, Unavailable

REST = 1.0
"""Seconds for which a server that did not answer, one of several, is left alone."""
_DRIVER_ERRORS = (OSError, EOFError, ClientException)


@dataclass(frozen=True, slots=True)
class Connecting:
    """How servers are talked to.

    Attributes:
        connections: the most connections to each; further calls queue, in the order they came.
        connect_timeout: seconds.
        timeout: seconds that an answer may take, connecting and queueing included; None for as
            long as the caller waits.
        tls: how to encrypt; None for not at all.
    """

    connections: int
    connect_timeout: float
    timeout: float | None = None
    tls: ssl.SSLContext | None = None


@dataclass(slots=True)
class Exchange:
    """What came back of a pipeline.

    Attributes:
        replies: one line for each store command, in order; fewer where ``error`` cut them short.
        items: what the keys asked for hold; keys that hold nothing are absent.
        error: what ended the exchange early.
    """

    replies: list[bytes] = field(default_factory=list)
    items: dict[bytes, Item] = field(default_factory=dict)
    error: Unavailable | None = None


class _SafePool(MemcachePool):
    """The driver's pool for callers that never outnumber its connections.

    Its own waiters are never woken when the connections in use die, and are served unfairly: so
    nobody waits in it. It also closes politely, which never ends if the server has stopped.
    """

    def idle(self) -> Connection | None:
        """A connection at hand, if there is one that still stands."""
        while not self._pool.empty():
            connection = self._pool.get_nowait()
            if not connection.reader.at_eof() and connection.reader.exception() is None:
                self._in_use.add(connection)
                return connection
            self._do_close(connection)
        return None

    async def acquire(self) -> Connection:
        """A fresh connection. Raises `OSError`, and `ClientException` once it was closed."""
        fresh = await self._create_new_conn()
        if fresh is None:
            raise ClientException("not open")
        self._in_use.add(fresh)
        return fresh

    def release(self, conn: Connection) -> None:
        """Put a connection back whose last reply was wholly read, unless it was closed meanwhile."""
        if conn in self._in_use:
            super().release(conn)

    def discard(self, connection: Connection) -> None:
        """Close a connection that is in doubt."""
        self._in_use.discard(connection)
        self._do_close(connection)

    async def clear(self) -> None:
        """Close every connection, those in use too, and make no more."""
        self._maxsize = 0
        connections = [*self._in_use]
        while not self._pool.empty():
            connections.append(self._pool.get_nowait())
        for connection in connections:
            self.discard(connection)
        for connection in connections:
            with contextlib.suppress(OSError):
                await connection.writer.wait_closed()

    def _do_close(self, conn: Connection) -> None:
        conn.writer.transport.abort()


class Server:
    """One memcached server, and the connections to it.

    Parameters:
        host, port: where it listens.
        settings: how it is talked to.
        value_limit: the longest value, in bytes, that is taken into memory.
        backend: the adapter's name, for messages.

    Attributes:
        failing: whether its last call failed.
    """

    def __init__(self, host: str, port: int, settings: Connecting, value_limit: int, backend: str) -> None:
        self.address = f"{host}:{port}"
        self.failing = False
        arguments = {"limit": CHUNK, "ssl": settings.tls}
        self._pool = _SafePool(host, port, minsize=1, maxsize=settings.connections, conn_args=arguments)
        self._turns = asyncio.Semaphore(settings.connections)
        self._settings = settings
        self._value_limit = value_limit
        self._backend = backend
        self._rests_until = 0.0

    async def close(self) -> None:
        """Abort every connection, those in use too."""
        await self._pool.clear()

    async def exchange(self, stores: Sequence[bytes], keys: Sequence[bytes] = ()) -> Exchange:
        """Write store commands and one ``gets`` at once, and read their replies in order.

        A failure does not raise; it is in the answer, beside the replies that came before it.
        """
        done = Exchange()
        if not stores and not keys:
            return done
        request = [*stores, b"gets %b\r\n" % b" ".join(keys)] if keys else stores

        async def parse(replies: Replies) -> None:
            for _ in stores:
                done.replies.append(await replies.store())
            if keys:
                await replies.items(keys, done.items, self._value_limit)

        try:
            await self._talk(request, parse)
        except Unavailable as error:
            done.error = error
        return done

    def failed(self, reason: str) -> BackendFailed:
        """The error for what this server has certainly not done."""
        return BackendFailed(f"{self._backend}: {self.address}: {reason}", backend=self._backend, sent=False)

    async def version(self) -> None:
        """Ask for the server's version: a proof that it answers. Raises `Unavailable`."""
        await self._talk([b"version\r\n"], Replies.version)

    async def _talk(self, request: Sequence[bytes], parse: Callable[[Replies], Awaitable[None]]) -> None:
        try:
            if self._settings.timeout is None:
                await self._take_turn(request, parse)
            else:
                await self._talk_in_time(request, parse, self._settings.timeout)
        except Unavailable:
            self.failing = True
            raise
        self.failing = False

    async def _talk_in_time(
        self, request: Sequence[bytes], parse: Callable[[Replies], Awaitable[None]], timeout: float
    ) -> None:
        """A server that hangs is asked once in a while, so that the others are not kept waiting for it."""
        now = asyncio.get_running_loop().time()
        if now < self._rests_until:
            raise self.failed(f"left alone for {REST:g} s after it did not answer")
        if self._rests_until:
            self._rests_until = now + REST  # one call tries, and the others do not wait for it
        try:
            async with asyncio.timeout(timeout):
                await self._take_turn(request, parse)
        except TimeoutError as error:
            self._rests_until = asyncio.get_running_loop().time() + REST
            reason = f"{self._backend}: {self.address} did not answer in {timeout:g} s"
            raise BackendTimeout(reason, backend=self._backend, sent=True) from error
        except Unavailable:
            self._rests_until = 0.0  # that was soon said
            raise
        self._rests_until = 0.0

    async def _take_turn(self, request: Sequence[bytes], parse: Callable[[Replies], Awaitable[None]]) -> None:
        async with self._turns:
            await self._converse(request, parse)

    async def _converse(self, request: Sequence[bytes], parse: Callable[[Replies], Awaitable[None]]) -> None:
        connection = await self._connect()
        try:
            self._write(connection.writer, request)
            await connection.writer.drain()
            replies = Replies(connection.reader)
            await parse(replies)
            replies.finish()
        except _DRIVER_ERRORS as error:
            self._pool.discard(connection)
            reason = f"{self._backend}: {self.address}: {_describe(error)}"
            raise BackendFailed(reason, backend=self._backend, sent=True) from error
        except BaseException:
            self._pool.discard(connection)
            raise
        self._pool.release(connection)

    def _write(self, writer: asyncio.StreamWriter, request: Sequence[bytes]) -> None:
        if self._settings.tls is None:
            writer.write(b"".join(request))
            return
        # memcached (1.6.18) forgets what its TLS layer has read beyond a value, and waits for more: so
        # each command ends a TLS record, which a write of its own makes.
        for command in request:
            writer.write(command)

    async def _connect(self) -> Connection:
        idle = self._pool.idle()
        if idle is not None:
            return idle
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                return await self._pool.acquire()
        except TimeoutError as error:
            reason = f"{self._backend}: {self.address}: no connection in {self._settings.connect_timeout:g} s"
            raise BackendTimeout(reason, backend=self._backend, sent=False) from error
        except _DRIVER_ERRORS as error:
            reason = f"{self._backend}: {self.address} can't be reached: {_describe(error)}"
            raise BackendRefused(reason, backend=self._backend) from error


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
