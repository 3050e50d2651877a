"""aiomcache's pool made safe, and pipelined exchanges over it that are parsed strictly.

Written against aiomcache 0.8.2, whose private parts it overrides. From the first byte of a request
until its reply is wholly parsed a connection is in doubt: whatever ends the exchange before that,
a cancellation included, closes it, so that nobody ever reads somebody else's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from aiomcache import ClientException, constants
from aiomcache.pool import Connection, MemcachePool

from octopus_async.errors import BackendFailed, BackendRefused, BackendTimeout, Unavailable

STORED = constants.STORED
SERVER_ERROR = b"SERVER_ERROR "
TOO_LARGE = SERVER_ERROR + b"object too large for cache"
_DRIVER_ERRORS = (OSError, EOFError, ClientException)
_STORE_REPLIES = {constants.STORED, constants.NOT_STORED, constants.EXISTS, constants.NOT_FOUND}
_CHUNK = 256 * 1024
_LINE_LIMIT = 2048
_VALUE_TERMS = 5

T = TypeVar("T")


class Item(NamedTuple):
    """A stored value and the token that a compare-and-swap needs; no data if it was too long."""

    data: bytes
    token: bytes


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
        connections: the most connections; further calls queue here, in the order they came.
        connect_timeout: seconds.
        value_limit: the longest value, in bytes, that is taken into memory.
        backend: the adapter's name, for messages.
    """

    def __init__(  # noqa: PLR0913 - what a connection needs, each by name
        self,
        host: str,
        port: int,
        *,
        connections: int,
        connect_timeout: float,
        value_limit: int,
        backend: str,
    ) -> None:
        self.address = f"{host}:{port}"
        self._pool = _SafePool(host, port, minsize=1, maxsize=connections, conn_args={"limit": _CHUNK})
        self._turns = asyncio.Semaphore(connections)
        self._connect_timeout = connect_timeout
        self._value_limit = value_limit
        self._backend = backend

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
        request = b"".join([*stores, b"gets %b\r\n" % b" ".join(keys)] if keys else stores)

        async def parse(replies: _Replies) -> None:
            for _ in stores:
                done.replies.append(_check_store(await replies.line()))
            if keys:
                await self._parse_items(replies, set(keys), done.items)

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

        async def parse(replies: _Replies) -> None:
            line = await replies.line()
            if not line.startswith(constants.VERSION + b" "):
                raise ClientException("unexpected reply", line[:80])

        await self._talk(b"version\r\n", parse)

    async def _talk(self, request: bytes, parse: Callable[[_Replies], Awaitable[None]]) -> None:
        async with self._turns:
            connection = await self._connect()
            try:
                connection.writer.write(request)
                await connection.writer.drain()
                replies = _Replies(connection.reader)
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

    async def _connect(self) -> Connection:
        idle = self._pool.idle()
        if idle is not None:
            return idle
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await self._pool.acquire()
        except TimeoutError as error:
            reason = f"{self._backend}: {self.address}: no connection in {self._connect_timeout:g} s"
            raise BackendTimeout(reason, backend=self._backend, sent=False) from error
        except _DRIVER_ERRORS as error:
            reason = f"{self._backend}: {self.address} can't be reached: {_describe(error)}"
            raise BackendRefused(reason, backend=self._backend) from error

    async def _parse_items(self, replies: _Replies, expected: set[bytes], items: dict[bytes, Item]) -> None:
        while (line := await replies.line()) != b"END":
            terms = line.split(b" ")
            if len(terms) != _VALUE_TERMS or terms[0] != b"VALUE" or terms[1] not in expected:
                raise ClientException("unexpected reply", line[:80])
            _, key, _, length, token = terms
            if not length.isdigit() or not token.isdigit():
                raise ClientException("malformed reply", line[:80])
            expected.remove(key)
            items[key] = Item(await replies.block(int(length), self._value_limit), token)


class _Replies:
    """Reads lines and blocks out of a connection in large pieces."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._data = b""
        self._at = 0

    async def line(self) -> bytes:
        """The next line without its end."""
        while (end := self._data.find(b"\r\n", self._at)) < 0:
            if len(self._data) - self._at > _LINE_LIMIT:
                raise ClientException("a reply without an end")
            await self._more()
        line = self._data[self._at : end]
        self._at = end + 2
        return line

    async def block(self, length: int, limit: int) -> bytes:
        """The next ``length`` bytes and a line's end; read past, and empty, above ``limit``."""
        data = await self._take(length) if length <= limit else await self._skip(length)
        if await self._take(2) != b"\r\n":
            raise ClientException("a value without an end")
        return data

    def finish(self) -> None:
        """Make sure that nothing follows."""
        if self._at != len(self._data):
            raise ClientException("bytes after the last reply")

    async def _take(self, length: int) -> bytes:
        while len(self._data) - self._at < length:
            await self._more()
        data = self._data[self._at : self._at + length]
        self._at += length
        return data

    async def _skip(self, length: int) -> bytes:
        while (rest := len(self._data) - self._at) < length:
            length -= rest
            self._at = len(self._data)
            await self._more()
        self._at += length
        return b""

    async def _more(self) -> None:
        data = await self._reader.read(_CHUNK)
        if not data:
            raise EOFError("the connection was closed")
        self._data = self._data[self._at :] + data
        self._at = 0


def _check_store(line: bytes) -> bytes:
    if line in _STORE_REPLIES or line.startswith(SERVER_ERROR):
        return line
    raise ClientException("unexpected reply", line[:80])


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
