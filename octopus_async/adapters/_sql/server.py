"""What the adapters of MySQL and Postgres do alike: a URL, a pool, and statements written out."""

from __future__ import annotations

import abc
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from octopus_async.adapters._sql import script, tls
from octopus_async.adapters._sql.batch import Change
from octopus_async.adapters._sql.dialect import ServerDialect
from octopus_async.adapters._sql.pool import Pool, Pooled
from octopus_async.adapters._sql.table import Table
from octopus_async.adapters._sql.text import Query, TextAdapter
from octopus_async.adapters._sql.writing import Talk, WritingAdapter
from octopus_async.backend import Capabilities
from octopus_async.errors import BackendRefused, ConfigurationError
from octopus_async.record import Mode, Operation
from octopus_async.schema import Schema
from octopus_async.url import BackendURL

T = TypeVar("T")
F = TypeVar("F")
_CLOSE_SECONDS = 1.0
_SAVE, _FORGET, _BACK = "SAVEPOINT octopus", "RELEASE SAVEPOINT octopus", "ROLLBACK TO SAVEPOINT octopus"


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


class Connection(Pooled, Talk[str], Protocol):
    """A connection that knows whether it may be used again, and takes statements as texts."""


C = TypeVar("C", bound=Connection)


class Scripted(abc.ABC):
    """The part of such a connection that is made of `execute`."""

    @abc.abstractmethod
    async def execute(self, statements: Sequence[str]) -> int:
        """Run statements in as few exchanges as they fit; how many rows the last one affected."""

    async def alone(self, statements: Sequence[str]) -> int:
        """Run statements as one transaction; how many rows the last one affected."""
        return await self.execute(statements)

    async def commit(self, statements: Sequence[str]) -> None:
        """Run the last statements of a transaction, and end it."""
        await self.execute([*statements, "COMMIT"])

    async def rollback(self) -> None:
        """Take a transaction back."""
        await self.execute(["ROLLBACK"])

    async def attempt(self, statements: Sequence[str]) -> None:
        """Run statements that `take_back` can undo if one of them is refused."""
        await self.execute([_SAVE, *statements, _FORGET])

    async def take_back(self) -> None:
        """Undo the attempt that was refused, and nothing else."""
        await self.execute([_BACK, _FORGET])


class ServerAdapter(TextAdapter[F], WritingAdapter[Table, Query, F, C, str], Generic[F, C]):
    """A database of a server.

    Parameters:
        name: the name by which strategies call it.
        dialect: how statements are written there.
        address: where it is.
        connections: how many at most; half of them serve reads, half writes.
        timeout: seconds that connecting may take.
        write_batch: most operations of one batch.
    """

    default_port: ClassVar[int]
    example: ClassVar[str]
    """A URL, for who has to be told what one looks like."""

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        name: str,
        dialect: ServerDialect,
        address: Address,
        *,
        connections: int,
        timeout: float,
        write_batch: int = 500,
    ) -> None:
        half = max(1, connections // 2)
        capabilities = Capabilities(
            durable=True,
            transactional=True,
            scan=True,
            write_batch=write_batch,
            read_concurrency=half,
            write_concurrency=half,
        )
        super().__init__(name, capabilities, dialect)
        self._server_dialect = dialect
        self._address = address
        self._connections = connections
        self._timeout = timeout
        self._pool: Pool[C] | None = None

    @classmethod
    def _options(cls, url: BackendURL) -> dict[str, Any]:
        """The options that all servers' URLs have, by the names of the constructor's parameters."""
        if len(url.hosts) > 1 or not url.user or not url.path:
            raise ConfigurationError(f"{url}: needs one host, a user and a database: {cls.example}")
        host, port = url.hosts[0] if url.hosts else ("localhost", None)
        return {
            "database": url.path,
            "user": url.user,
            "password": url.password,
            "host": host,
            "port": port or cls.default_port,
            "connections": url.integer("connections", 8),
            "timeout": url.number("timeout", 2.0),
            "tls": tls.context_of(url),
        }

    @abc.abstractmethod
    async def _connect(self) -> C:
        """Log in. Raises whatever the driver raises, and leaves nothing behind then."""

    # -- opening and closing ---------------------------------------------------------------------

    async def open(self) -> None:
        """Connect. Raises `Unavailable`."""
        if self._pool is None:
            self._pool = Pool(self._connect, self._connections, self._timeout)
        try:
            await self.ping()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections, within a second or so."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close(_CLOSE_SECONDS)

    async def ping(self) -> None:
        """Have a query answered. Raises `Unavailable`."""
        await self._run(lambda connection: connection.execute(["SELECT 1"]))

    async def probe(self) -> None:
        """Write the reserved row. Raises `Unavailable`."""
        # Changed each time: the same would not be written.
        statement = script.probe(self._server_dialect, secrets.token_hex(13))
        await self._insistently(lambda: self._run(lambda connection: connection.execute([statement])))

    # -- what is written out ---------------------------------------------------------------------

    def _definitions(self, schema: Schema) -> Mapping[str, str]:
        return {name: text % () for name, text in super()._definitions(schema).items()}

    def _single(self, operation: Operation, mode: Mode) -> Sequence[str] | None:
        query = self._alone(operation, mode)
        return None if query is None else [self._written(query)]

    def _written(self, query: Query) -> str:
        return script.written(self._server_dialect, *query)

    def _writes(self, changes: Sequence[Change[Table]]) -> list[str]:
        return script.writes(self._server_dialect, changes)

    async def _converse(self, talk: Callable[[C], Awaitable[T]]) -> T:
        if self._pool is None:
            raise BackendRefused(f"{self.name} is not open", backend=self.name)
        return await self._pool.run(talk)
