"""What sessions with MySQL and MariaDB do alike, whichever driver holds the connection.

From the first byte of a request until its replies are wholly parsed a connection is in doubt: whatever
ends the talk before that, a cancellation included, breaks the connection off, so that nobody ever
reads somebody else's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from octopus_async.adapters._sql.faults import Faults
from octopus_async.adapters._sql.server import Address, Scripted
from octopus_async.errors import ConstraintViolated, InvalidRecord

OURS_ALONE = (b"mysql_clear_password", b"mysql_old_password", b"dialog")
"""Ways to log in that hand the password, or as good as that, to whoever asks for it."""

_GONE = frozenset({1053, 1152, 1153, 1158, 1159, 1160, 1161, 1184, 1927, 4031})
"""Answers after which the server closes the connection."""
_MARGIN = 1024  # bytes of a packet that are not the statement
_SHORTEST_PACKET = 1 << 20
_IDLE_SECONDS = 30.0
_AS_WRITTEN = {0, 7, 10, 11, 12, 246}  # decimals, timestamps, dates, times

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


class Result(NamedTuple):
    """What came back of one statement."""

    rows: Sequence[Sequence[Any]]
    affected: int


def as_written(decoders: Mapping[Any, Any]) -> dict[Any, Any]:
    """A driver's decoders, but for values that are taken as the server writes them.

    That is exact, and cheaper than objects that would be written down again.
    """
    return {type_: decode for type_, decode in decoders.items() if type_ not in _AS_WRITTEN}


def password_of(address: Address) -> str:
    """What a driver is given, which writes it in Latin-1: servers expect the bytes of UTF-8."""
    return address.password.encode().decode("latin-1")


class Wire(Protocol):
    """A driver's connection. They have their interface in common."""

    @property
    def result(self) -> Any:  # noqa: ANN401 - the drivers'
        """The reply that was read last."""
        ...

    @property
    def broken(self) -> bool:
        """Whether it is closed, or the server has closed it."""
        ...

    async def query(self, sql: bytes) -> object:
        """Send statements, and read the reply to the first."""
        ...

    async def next_result(self) -> object:
        """Read the reply to the next."""
        ...

    def get_transaction_status(self) -> bool:
        """Whether there is anything to roll back."""
        ...

    def thread_id(self) -> int:
        """What the server calls it."""
        ...

    def abort(self) -> None:
        """Break it off at once; closing politely waits for a server that may have stopped reading."""
        ...

    async def ensure_closed(self) -> None:
        """Close it politely; a server that has stopped reading lets that take for ever."""
        ...


class Session(Scripted):
    """A connection that knows whether it may be used again, and can be broken off.

    Parameters:
        raw: the driver's connection, logged in.
        faults: how the driver's errors are translated.
    """

    def __init__(self, raw: Wire, faults: Faults) -> None:
        self.raw = raw
        self.faults = faults
        self.in_doubt = True
        self.last_used = 0.0
        self.max_packet = _SHORTEST_PACKET

    async def set_up(self) -> None:
        """Make every setting that is relied on. Raises whatever the driver raises."""
        *_, (rows, _) = await self.run(_SET_UP)
        self.max_packet = int(rows[0][0])

    async def execute(self, statements: Sequence[str]) -> int:
        """Run statements in as few exchanges as they fit; how many rows the last one affected."""
        results = await self.run(statements)
        return results[-1].affected if results else 0

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
        raw = self.raw
        self.in_doubt = True
        try:
            await raw.query(packet)
            results.append(Result(raw.result.rows or (), raw.result.affected_rows))
            while raw.result.has_next:
                await raw.next_result()
                results.append(Result(raw.result.rows or (), raw.result.affected_rows))
        except Exception as error:
            code = self.faults.code_of(error)
            self.in_doubt = code is None or code in _GONE
            raise
        self.in_doubt = False

    @property
    def in_transaction(self) -> bool:
        """Whether there is anything to roll back."""
        return bool(self.raw.get_transaction_status())

    @property
    def reusable(self) -> bool:
        """Whether another caller may have it."""
        return not (self.in_doubt or self.raw.broken or self.in_transaction)

    @property
    def stale(self) -> bool:
        """Whether the server has closed it meanwhile, or may be about to."""
        return self.raw.broken or asyncio.get_running_loop().time() - self.last_used > _IDLE_SECONDS

    def abort(self) -> None:
        """Break it off at once."""
        self.raw.abort()

    async def farewell(self) -> None:
        """Close it politely; a server that has stopped reading lets that take for ever."""
        await self.raw.ensure_closed()


async def opened(raw: Wire, connecting: Awaitable[object], faults: Faults) -> Session:
    """A session over a connection that is being made, with its settings.

    Raises whatever the driver raises, and leaves nothing behind then.
    """
    session = Session(raw, faults)
    try:
        await connecting
        await session.set_up()
    except BaseException:
        session.abort()
        raise
    return session
