"""Records in Postgres, through asyncpg.

A live create, update or delete in a table with our columns is one exchange. Everything else, and every
batch, is a transaction of three: one takes the locks, one looks at what is stored, one writes and
commits. `octopus_async.adapters._postgres_statements` says how writers of one key contend.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Self, cast

import asyncpg

from octopus_async.adapters import _postgres_statements as sql
from octopus_async.adapters._postgres_dialect import POSTGRES, PostgresTable
from octopus_async.adapters._postgres_errors import FAULTS
from octopus_async.adapters._postgres_layout import Found, found_of
from octopus_async.adapters._postgres_pool import BEGIN, Connection, connect
from octopus_async.adapters._sql import tls
from octopus_async.adapters._sql.batch import Batch
from octopus_async.adapters._sql.rows import Row
from octopus_async.adapters._sql.server import Address, ServerAdapter
from octopus_async.adapters._sql.table import Table
from octopus_async.adapters._sql.text import Query
from octopus_async.errors import OctopusError, SchemaMismatch
from octopus_async.record import Kind, Mode, Operation
from octopus_async.schema import Schema
from octopus_async.url import BackendURL


class PostgresAdapter(ServerAdapter[Found, Connection]):
    """A database of a Postgres server.

    Parameters:
        host: the server's name or address.
        port: its TCP port.
        user: who logs in.
        password: never shown.
        database: the name of the database.
        name: the name by which strategies call it.
        connections: how many at most; half of them serve reads, half writes.
        timeout: seconds that connecting may take.
        pgbouncer: whether a pooler in between may hand each transaction to another session; then
            no statement is prepared under a name, and no setting outlives its transaction.
        tls: how to encrypt; None for not at all.
    """

    default_port = 5432
    example = "postgres://app@db/shop"

    def __init__(  # noqa: PLR0913 - options, by keyword
        self,
        *,
        database: str,
        user: str,
        password: str = "",
        host: str = "localhost",
        port: int = 5432,
        name: str = "postgres",
        connections: int = 8,
        timeout: float = 2.0,
        pgbouncer: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        address = Address(host, port, user, password, database, tls)
        super().__init__(
            name, POSTGRES, address, connections=connections, timeout=timeout, write_batch=sql.BATCH
        )
        self._pooled = pgbouncer

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "postgres") -> Self:
        """Make one of ``postgres://user:password@host:5432/database?connections=8&tls=verify``.

        Options: ``connections``, ``timeout``, ``pgbouncer`` (true behind a pooler in transaction
        mode), ``tls`` (``off``, ``verify``, or ``insecure`` for a certificate that nobody checks),
        and files ``tls_ca``, ``tls_cert``, ``tls_key``.

        Raises `ConfigurationError`.
        """
        url.check_options("connections", "timeout", "pgbouncer", *tls.OPTIONS)
        return cls(**cls._options(url), name=name, pgbouncer=url.flag("pgbouncer", default=False))

    async def _connect(self) -> Connection:
        return await connect(self._address, pooled=self._pooled)

    # -- models ----------------------------------------------------------------------------------

    async def _found(self, names: Sequence[str]) -> Mapping[str, Found]:
        (rows,) = await self._run(lambda connection: _fetch(connection, [Query(sql.COLUMNS, (names,))]))
        return found_of(rows)

    async def _create(self, schema: Schema, definitions: Mapping[str, str]) -> None:
        del schema  # the statements say it all
        statements = sql.creation(definitions.values())
        await self._insistently(lambda: self._run(lambda connection: connection.execute(statements)))

    async def _fit(self, schema: Schema, found: Found) -> Table:
        return found.table(self.name, schema)

    # -- reading and writing ---------------------------------------------------------------------

    async def _select(self, queries: Sequence[Query]) -> Sequence[Sequence[Row]]:
        parts = [Query(sql.numbered(text, len(values)), values) for text, values in queries]
        return await self._insistently(lambda: self._run(lambda connection: _fetch(connection, parts)))

    def _reading(self, table: Table, ids: Sequence[object]) -> Query:
        return Query(table.read, (*table.leading(), ids))

    def _single(self, operation: Operation, mode: Mode) -> Sequence[str] | None:
        table = cast("PostgresTable", self._table(operation.key.model))
        if operation.kind is Kind.DELETE:
            unconditional = mode is Mode.MIRROR or (mode is Mode.LIVE and operation.if_version is None)
            return sql.burial(table, operation) if table.versioned and unconditional else None
        query = self._alone(operation, mode)
        if query is None:
            return None
        if operation.kind is Kind.CREATE:
            return [sql.lock([operation.key], exclusive=False), self._written(query)]
        return [self._written(query)]

    async def _load(self, connection: Connection, batch: Batch[Table], *, exclusive: bool) -> None:
        keys = [key for keys in batch.keys.values() for key in keys]
        locks = [sql.lock(keys, exclusive=exclusive)] if exclusive or batch.touches_absent else []
        await connection.execute([BEGIN, *locks])
        for table, ids in batch.keys.items():
            names = [key.id for key in ids]
            states = sql.states(cast("PostgresTable", table))
            rows = await connection.fetch(states, (list(ids.values()), table.model, names))
            batch.load(
                table,
                [row[:3] for row in rows if row[3] is None],
                [row for row in rows if row[3] is not None],
            )

    # -- errors ----------------------------------------------------------------------------------

    def _translated(self, error: Exception, *, sent: bool) -> OctopusError:
        fault = FAULTS.translate(error, self.name, sent=sent)
        if isinstance(error, asyncpg.NotNullViolationError) and not self._knows(error):
            return SchemaMismatch(str(fault), backend=self.name)
        return fault

    def _knows(self, error: asyncpg.NotNullViolationError) -> bool:
        """Whether the column that may not be null is one of a model."""
        schemas = [table.schema for table in self._tables.values() if table.schema.table == error.table_name]
        return any(error.column_name in {column.name for column in schema.columns} for schema in schemas)


async def _fetch(connection: Connection, queries: Sequence[Query]) -> list[Sequence[Row]]:
    return [await connection.fetch(*query) for query in queries]
