"""One Redis server: connections of redis-py, and pipelined exchanges over them.

The driver's client and its pool are left out: they retry by themselves, and whoever cancels a pipeline has to
trust them with the replies that are still to come. Here a connection is in doubt from the first byte of a
request until its last reply is parsed; whatever ends the exchange before that closes it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis._parsers import _AsyncRESP2Parser
from redis.asyncio.connection import Connection as DriverConnection
from redis.exceptions import NoScriptError, RedisError

from octopus_async.adapters._redis_errors import is_answer, translate, translate_connecting
from octopus_async.adapters._redis_form import SCRIPTS, Script
from octopus_async.adapters._sql.pool import ConnectFailed, Pool
from octopus_async.errors import Unavailable

_CHUNK = 64 * 1024

Part: TypeAlias = "bytes | str | int"
Command: TypeAlias = "tuple[Part, ...]"
Reply: TypeAlias = "bytes | int | list[Any] | RedisError | Unavailable | None"
"""What a command gave: a value; an error that the server answered; or why there is no answer."""


@dataclass(frozen=True, slots=True)
class Login:
    """What every connection of a backend begins with. ``timeout`` is in seconds."""

    user: str
    password: str
    database: int
    tls: ssl.SSLContext | None
    timeout: float
    value_limit: int

    def __repr__(self) -> str:
        return f"Login({self.user!r})"


def called(script: Script, wire: bytes, *arguments: Part) -> Command:
    """The command that runs a script on one key."""
    return ("EVALSHA", script.digest, 1, wire, *arguments)


class _Connection(DriverConnection):
    def __init__(self, *, tls: ssl.SSLContext | None, **options: Any) -> None:  # noqa: ANN401 - the driver's own
        super().__init__(**options)
        self._tls = tls

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = super()._connection_arguments()
        return arguments if self._tls is None else {**arguments, "ssl": self._tls}

    def abort(self) -> None:
        """Break it off: what was not sent yet is not waited for."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._writer = self._reader = None

    @property
    def at_end(self) -> bool:
        reader = self._reader
        return reader is None or reader.at_eof() or reader.exception() is not None or bool(reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001 - an answer that nobody asked for


def _parser(limit: int) -> type[_AsyncRESP2Parser]:
    """The driver's parser, to which a text longer than ``limit`` is empty: it is not taken into memory."""

    class Parser(_AsyncRESP2Parser):
        async def _read(self, length: int) -> bytes:
            if length <= limit:
                return bytes(await super()._read(length))
            left = length + 2
            while left and self._stream is not None:
                skipped = await self._stream.read(min(left, _CHUNK))
                if not skipped:
                    raise EOFError
                left -= len(skipped)
            self._pos += length + 2
            return b""

    return Parser


class _Pooled:
    """A connection of the pool, which is never in doubt there."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.last_used = 0.0
        self.in_doubt = False

    @property
    def reusable(self) -> bool:
        return not self.in_doubt and not self.stale

    @property
    def stale(self) -> bool:
        return self._connection.at_end

    def abort(self) -> None:
        self._connection.abort()

    async def farewell(self) -> None:
        self.abort()  # a server needs no word of it

    async def exchange(self, commands: Sequence[Command], replies: list[Reply]) -> None:
        """Send commands at once, and add the reply to each; what the server refuses is a reply too."""
        connection = self._connection
        self.in_doubt = True
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        for _ in commands:
            try:
                replies.append(
                    await connection.read_response(disable_decoding=True, disconnect_on_error=False)
                )
            except RedisError as error:
                if not is_answer(error):
                    raise
                replies.append(error)
        self.in_doubt = False


class Node:
    """A server, and at most ``connections`` connections to it; further calls queue, first come, first served.

    Attributes:
        address: its host and port.
        failing: whether its last call got no answer.
    """

    def __init__(self, host: str, port: int, *, login: Login, connections: int, backend: str) -> None:
        self.address = (host, port)
        self.failing = False
        self._login = login
        self._backend = backend
        self._where = f"{backend}: {host}:{port}"
        self._pool: Pool[_Pooled] = Pool(self._connect, connections, login.timeout)

    def abort(self) -> None:
        """Abort every connection, those in use too; the sockets close in the next turn of the loop."""
        self._pool.abort()

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """Send commands at once and read their replies in order; never raises `Unavailable`."""
        replies = await self._exchange(commands)
        unknown = [
            place
            for place, (command, reply) in enumerate(zip(commands, replies, strict=True))
            if isinstance(reply, NoScriptError) and command[1] in SCRIPTS
        ]
        if unknown:  # the server was restarted, or has forgotten it
            again = [commands[place] for place in unknown]
            digests = {str(command[1]) for command in again}
            loads: list[Command] = [("SCRIPT", "LOAD", SCRIPTS[digest]) for digest in digests]
            second = await self._exchange([*loads, *again])
            for place, reply in zip(unknown, second[len(loads) :], strict=True):
                replies[place] = reply
        return replies

    def refused(self, error: RedisError) -> Unavailable:
        """The error of our tree for what the server has answered."""
        return translate(error, self._where, self._backend)

    async def _exchange(self, commands: Sequence[Command]) -> list[Reply]:
        replies: list[Reply] = []
        if not commands:
            return replies
        try:
            await self._pool.run(lambda connection: connection.exchange(commands, replies))
        except ConnectFailed as error:
            failure = translate_connecting(error.__cause__, self._where, self._backend)
        except Exception as error:  # noqa: BLE001 - whatever the driver comes up with
            failure = translate(error, self._where, self._backend)
        else:
            self.failing = False
            return replies
        self.failing = True
        return [*replies, *[failure] * (len(commands) - len(replies))]

    async def _connect(self) -> _Pooled:
        login = self._login
        host, port = self.address
        connection = _Connection(
            host=host,
            port=port,
            db=login.database,
            username=login.user or None,
            password=login.password or None,
            tls=login.tls,
            socket_timeout=None,
            socket_connect_timeout=login.timeout,
            protocol=2,  # RESP3 adds messages that nobody has asked for
            driver_info=None,
            parser_class=_parser(login.value_limit),
        )
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # the driver's
            # Only now a server says that it takes no more clients, is loading, or wants a password.
            await connection.send_packed_command(connection.pack_command("PING"), check_health=False)
            await connection.read_response(disconnect_on_error=False)
        except BaseException:
            connection.abort()
            await asyncio.sleep(0)  # the transport closes its socket in the next turn of the loop
            raise
        return _Pooled(connection)
