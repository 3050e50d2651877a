# pyright: basic, reportMissingTypeStubs=false
"""aiomysql's connections made safe, for a pool that is not aiomysql's own.

Written against aiomysql 0.3, whose private parts it uses. From the first byte of a request until its
replies are wholly parsed a connection is in doubt: whatever ends the talk before that, a
cancellation included, breaks the connection off, so that nobody ever reads somebody else's answer.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiomysql
from pymysql.constants import CLIENT, FIELD_TYPE
from pymysql.converters import decoders
from pymysql.err import MySQLError, OperationalError

from octopus_async.errors import ConstraintViolated, InvalidRecord

_SERVER_CODES = 1000
_CLIENT_CODES = range(2000, 3000)
_GONE = frozenset({1053, 1152, 1153, 1158, 1159, 1160, 1161, 1184, 1927, 4031})
"""Answers after which the server closes the connection."""
_MARGIN = 1024  # bytes of a packet that are not the statement
_IDLE_SECONDS = 30.0
_NO_SSL = 2026
_NO_PLUGIN = 2059

# As the server writes them: exact, and cheaper than objects that would be written down again.
_DECODERS = {
    type_: decode
    for type_, decode in decoders.items()
    if type_
    not in (
        FIELD_TYPE.DATE,
        FIELD_TYPE.DATETIME,
        FIELD_TYPE.DECIMAL,
        FIELD_TYPE.NEWDECIMAL,
        FIELD_TYPE.TIME,
        FIELD_TYPE.TIMESTAMP,
    )
}

# Every setting that statements rely on, whatever the server's defaults:
# - READ COMMITTED takes no locks on gaps, so that writers of different keys never meet;
# - a connection left in a transaction by a client that died is closed after a minute;
# - who waits for a row gives up about when its caller does.
_SET_UP = (
    "SET NAMES utf8mb4",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00'",
    "SET SESSION autocommit = 1, wait_timeout = 60, innodb_lock_wait_timeout = 1",
    "SELECT @@max_allowed_packet",
)


@dataclass(frozen=True)
class Address:
    """Where a server is, and how to log in there.

    Attributes:
        tls: how to encrypt; None for not at all.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    tls: ssl.SSLContext | None


class Result(NamedTuple):
    """What came back of one statement."""

    rows: Sequence[Sequence[Any]]
    affected: int


class Connection(aiomysql.Connection):  # type: ignore[misc]  # the driver is not typed
    """A connection that knows whether it may be used again, and can be broken off."""

    in_doubt = True
    last_used = 0.0
    max_packet = 0
    _reader: Any
    _writer: Any
    _result: Any

    async def connect(self) -> None:
        """Log in and set the session up. Raises whatever the driver raises."""
        await self._connect()
        self.max_packet = 1 << 20
        *_, (rows, _) = await self.run(_SET_UP)
        self.max_packet = int(rows[0][0])

    async def run(self, statements: Sequence[str]) -> list[Result]:
        """Run statements, up to the first that fails, in as few packets as they fit.

        Raises:
            ConstraintViolated: one is too long for the server; nothing was sent.
            InvalidRecord: one is no text in UTF-8; nothing was sent.
            MySQLError: the server refused one. Whatever else the driver raises leaves it in doubt.
        """
        results: list[Result] = []
        for packet in list(self._packets(statements)):
            await self._exchange(packet, results)
        return results

    def _packets(self, statements: Sequence[str]) -> Iterator[bytes]:
        limit = self.max_packet - _MARGIN
        packet = bytearray()
        for statement in statements:
            try:
                data = statement.encode()
            except UnicodeEncodeError:
                raise InvalidRecord("a value holds a lone surrogate, which is no text in UTF-8") from None
            if len(data) > limit:
                raise ConstraintViolated(
                    f"the record makes a statement of {len(data)} bytes, over the server's max_allowed_packet"
                )
            if len(packet) + len(data) > limit:
                yield bytes(packet)
                packet.clear()
            packet += b";" + data if packet else data
        if packet:
            yield bytes(packet)

    async def _exchange(self, packet: bytes, results: list[Result]) -> None:
        self.in_doubt = True
        try:
            await self.query(packet)
            results.append(Result(self._result.rows or (), self._result.affected_rows))
            while self._result.has_next:
                await self.next_result()
                results.append(Result(self._result.rows or (), self._result.affected_rows))
        except MySQLError as error:
            code = answer_code(error)
            self.in_doubt = code is None or code in _GONE
            raise
        self.in_doubt = False

    @property
    def reusable(self) -> bool:
        """Whether another caller may have it."""
        return not (self.in_doubt or self.closed or self.get_transaction_status())

    @property
    def stale(self) -> bool:
        """Whether the server has closed it meanwhile, or may be about to."""
        idle = float(self._loop.time()) - self.last_used
        reader = self._reader
        ended = reader is None or reader.eof_received or reader.exception() is not None
        return ended or idle > _IDLE_SECONDS

    def abort(self) -> None:
        """Break it off at once; closing politely waits for a server that may have stopped reading."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._writer = self._reader = None

    async def farewell(self) -> None:
        """Close it politely; a server that has stopped reading lets that take for ever."""
        await self.ensure_closed()

    async def _request_authentication(self) -> None:
        # The driver would go on without TLS if the server, or whoever is in between, says it has none.
        if self._ssl_context and not self.server_capabilities & CLIENT.SSL:
            raise OperationalError(_NO_SSL, "TLS is asked for, but the server does not offer it")
        await super()._request_authentication()

    async def _process_auth(self, plugin_name: bytes, auth_packet: Any) -> Any:  # noqa: ANN401 - the driver's
        # The driver would hand its password to any server that asks for it in clear.
        if plugin_name in (b"mysql_clear_password", b"mysql_old_password") and not self._secure:
            raise OperationalError(_NO_PLUGIN, f"{plugin_name.decode()} is not used without TLS")
        return await super()._process_auth(plugin_name, auth_packet)


def answer_code(error: BaseException) -> int | None:
    """The code with which the server itself answered; None for what the driver made up."""
    code = error.args[0] if isinstance(error, MySQLError) and error.args else None
    if not isinstance(code, int) or code < _SERVER_CODES or code in _CLIENT_CODES:
        return None
    return code


async def connect(address: Address) -> Connection:
    """Log in and set the session up. Raises whatever the driver raises, and leaves nothing behind then."""
    connection = Connection(
        host=address.host,
        port=address.port,
        user=address.user,
        # The driver writes it in Latin-1; servers expect the bytes of UTF-8.
        password=address.password.encode().decode("latin-1"),
        db=address.database,
        charset="utf8mb4",
        autocommit=True,
        conv=_DECODERS,
        client_flag=CLIENT.FOUND_ROWS,
        ssl=address.tls,
    )
    try:
        await connection.connect()
    except BaseException:
        connection.abort()
        raise
    return connection
