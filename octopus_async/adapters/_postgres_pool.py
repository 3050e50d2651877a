"""asyncpg's connections made safe.

From the first byte of a request until its replies are wholly parsed a connection is in doubt. The
driver answers a cancelled call by a request for cancellation, which travels on a connection of its
own and may hit the next statement: here such a connection is broken off, and the request with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from octopus_async.adapters._sql.server import Address, Scripted

T = TypeVar("T")

BEGIN = "BEGIN"
_IDLE_SECONDS = 60.0
_CACHED_STATEMENTS = 100

# Whatever the defaults of the server, the database and the user:
# - a statement sees what was committed before it began, so that who waited for a lock sees more;
# - who waits for a lock gives up about when its caller does, whom nobody may be waiting for;
# - a connection left in a transaction by a client that died is closed after a minute.
_SETTINGS = {
    "default_transaction_isolation": "read committed",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "60s",
}
# Known to a server without any files of time zones.
_TIME_ZONE = {"TimeZone": "GMT"}

# The same for a pooler in between, where a session is somebody else's after each transaction.
_PER_TRANSACTION = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET LOCAL lock_timeout = '1s'",
    "SET LOCAL idle_in_transaction_session_timeout = '60s'",
)


class Connection(Scripted):
    """A connection that knows whether it may be used again, and can be broken off."""

    def __init__(self, raw: asyncpg.Connection[Any], *, pooled: bool) -> None:
        self.raw = raw
        self.last_used = 0.0
        self._in_doubt = False
        self._preamble = _PER_TRANSACTION if pooled else ()

    async def execute(self, statements: Sequence[str]) -> int:
        """Run statements in one exchange, each of which sees what the one before waited for.

        Outside of a transaction they are one.

        Returns:
            How many rows the last one affected.

        Raises:
            PostgresError: the server refused one. Whatever else is raised leaves it in doubt.
        """
        if self._preamble and not self.raw.is_in_transaction():
            begins = 1 if statements[0] == BEGIN else 0
            statements = [*statements[:begins], *self._preamble, *statements[begins:]]
        status = await self._exchange(self.raw.execute("; ".join(statements)))
        _, _, count = status.rpartition(" ")
        return int(count) if count.isdigit() else 0

    async def fetch(self, sql: str, values: Sequence[object]) -> Sequence[Sequence[Any]]:
        """The rows of one query. Raises what `execute` raises."""
        return await self._exchange(self.raw.fetch(sql, *values))

    async def _exchange(self, call: Awaitable[T]) -> T:
        self._in_doubt = True
        try:
            result = await call
        except asyncpg.PostgresError:
            self._in_doubt = self.raw.is_closed()
            raise
        self._in_doubt = False
        return result

    @property
    def in_doubt(self) -> bool:
        """Whether a reply may still be under way."""
        return self._in_doubt

    @property
    def in_transaction(self) -> bool:
        """Whether there is anything to roll back."""
        return self.raw.is_in_transaction()

    @property
    def reusable(self) -> bool:
        """Whether another caller may have it."""
        return not (self._in_doubt or self.raw.is_closed() or self.raw.is_in_transaction())

    @property
    def stale(self) -> bool:
        """Whether the server has closed it meanwhile, or may be about to."""
        return self.raw.is_closed() or asyncio.get_running_loop().time() - self.last_used > _IDLE_SECONDS

    def abort(self) -> None:
        """Break it off at once, and the driver's request for cancellation, if there is one."""
        self.raw.terminate()

    async def farewell(self) -> None:
        """Close it politely; a server that has stopped reading lets that take for ever."""
        await self.raw.close()


async def connect(address: Address, *, pooled: bool) -> Connection:
    """Log in. Raises whatever the driver raises, and leaves nothing behind then.

    Parameters:
        address: where the server is.
        pooled: whether a pooler in between may hand each transaction to another session.
    """
    settings = _TIME_ZONE if pooled else _TIME_ZONE | _SETTINGS
    raw = await asyncpg.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        database=address.database,
        # Nothing of this comes from the driver's environment variables.
        ssl=address.tls or False,
        target_session_attrs=SessionAttribute.any,
        server_settings=settings,
        statement_cache_size=0 if pooled else _CACHED_STATEMENTS,
    )
    return Connection(raw, pooled=pooled)
