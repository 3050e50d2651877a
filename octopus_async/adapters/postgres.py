"""Records in Postgres, through asyncpg.

A live create, update or delete in a table with our columns is one exchange. Everything else, and every
batch, is a transaction of three: one takes the locks, one looks at what is stored, one writes and
commits. `octopus_async.adapters._postgres_statements` says how writers of one key contend.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Self, TypeVar, cast

import asyncpg

from octopus_async.adapters import _postgres_statements as sql
from octopus_async.adapters._postgres_dialect import POSTGRES, PostgresTable
from octopus_async.adapters._postgres_errors import Collision, translate
from octopus_async.adapters._postgres_layout import Found, found_of
from octopus_async.adapters._postgres_pool import Address, Connection, connect
from octopus_async.adapters._sql import layout, tls
from octopus_async.adapters._sql.base import Query, SQLAdapter
from octopus_async.adapters._sql.batch import Batch, Change
from octopus_async.adapters._sql.dialect import SIDE
from octopus_async.adapters._sql.pool import Pool
from octopus_async.adapters._sql.table import Row, Table
from octopus_async.backend import Capabilities
from octopus_async.errors import (
    BackendRefused,
    ConfigurationError,
    OctopusError,
    RecordRejected,
    SchemaMismatch,
)
from octopus_async.record import APPLIED, Kind, Mode, Operation, Outcome, rejected
from octopus_async.schema import Schema
from octopus_async.url import BackendURL

T = TypeVar("T")

_CLOSE_SECONDS = 1.0
_PAUSES = (0.005, 0.02, 0.05)
"""Seconds, at most, before each further try after a collision with another transaction."""


class _Call:
    """How far a call has come: whether what it sent may take effect."""

    sent = False


class PostgresAdapter(SQLAdapter):
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
        half = max(1, connections // 2)
        capabilities = Capabilities(
            durable=True,
            transactional=True,
            scan=True,
            write_batch=sql.BATCH,
            read_concurrency=half,
            write_concurrency=half,
        )
        super().__init__(name, capabilities, POSTGRES)
        self._address = Address(host, port, user, password, database, pgbouncer, tls)
        self._connections = connections
        self._timeout = timeout
        self._pool: Pool[Connection] | None = None

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "postgres") -> Self:
        """Make one of ``postgres://user:password@host:5432/database?connections=8&tls=verify``.

        Options: ``connections``, ``timeout``, ``pgbouncer`` (true behind a pooler in transaction
        mode), ``tls`` (``off``, ``verify``, or ``insecure`` for a certificate that nobody checks),
        and files ``tls_ca``, ``tls_cert``, ``tls_key``.

        Raises `ConfigurationError`.
        """
        url.check_options("connections", "timeout", "pgbouncer", *tls.OPTIONS)
        if len(url.hosts) > 1 or not url.user or not url.path:
            raise ConfigurationError(f"{url}: needs one host, a user and a database: postgres://app@db/shop")
        host, port = url.hosts[0] if url.hosts else ("localhost", None)
        return cls(
            database=url.path,
            user=url.user,
            password=url.password,
            host=host,
            port=port or 5432,
            name=name,
            connections=url.integer("connections", 8),
            timeout=url.number("timeout", 2.0),
            pgbouncer=url.flag("pgbouncer", default=False),
            tls=tls.context_of(url),
        )

    # -- opening and closing ---------------------------------------------------------------------

    async def open(self) -> None:
        """Connect. Raises `Unavailable`."""
        if self._pool is None:
            self._pool = Pool(partial(connect, self._address), self._connections, self._timeout)
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

    # -- models ----------------------------------------------------------------------------------

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        """Check a model's table, or create it with typed columns.

        Raises:
            SchemaMismatch: it is missing, lacks columns, or has one that can't work; the message
                says what to run.
            Unavailable: the backend failed.
        """
        self._tables.pop(schema.model, None)
        statements = {SIDE: POSTGRES.side, schema.table: layout.create_table(schema, POSTGRES) % ()}
        found = await self._found(statements)
        missing = [name for name in statements if name not in found]
        if missing and not create:
            raise layout.no_table(self.name, schema.model, missing[0], statements[missing[0]])
        if missing:
            script = sql.creation([statements[name] for name in missing])
            await self._insistently(lambda: self._run(lambda connection: connection.execute(script)))
            found = await self._found(statements)
        self._tables[schema.model] = found[schema.table].table(self.name, schema)

    async def _found(self, names: Sequence[str] | dict[str, str]) -> dict[str, Found]:
        (rows,) = await self._run(lambda connection: _fetch(connection, [(sql.COLUMNS, (list(names),))]))
        return found_of(rows)

    # -- reading ---------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Have a query answered. Raises `Unavailable`."""
        await self._run(lambda connection: connection.execute("SELECT 1"))

    async def _select(self, queries: Sequence[Query]) -> Sequence[Sequence[Row]]:
        parts = [(sql.numbered(query.sql, len(query.values)), query.values) for query in queries]
        return await self._insistently(lambda: self._run(lambda connection: _fetch(connection, parts)))

    def _reading(self, table: Table, ids: Sequence[object]) -> Query:
        return Query(table.read, (*table.leading(), ids))

    # -- writing ---------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Write the reserved row. Raises `Unavailable`."""
        statement = sql.probe(secrets.token_hex(13))  # changed each time: the same is not written
        await self._insistently(lambda: self._run(lambda connection: connection.execute(statement)))

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply operations in one transaction. Raises `Unavailable`."""
        return await self._insistently(lambda: self._apply(operations, mode))

    async def _apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        alone = len(operations) == 1
        if alone and await self._apply_alone(operations[0], mode):
            return [APPLIED]
        if not alone:
            try:
                return await self._apply_together(operations, mode, singly=False)
            except RecordRejected:
                pass  # one of them: found by writing them one by one
        try:
            return await self._apply_together(operations, mode, singly=True)
        except RecordRejected as error:  # by what is checked at the commit alone
            if alone:
                return [rejected(error)]
        return [(await self._apply([operation], mode))[0] for operation in operations]

    async def _apply_alone(self, operation: Operation, mode: Mode) -> bool:
        """Try it in one exchange; if it has no effect the transaction finds out why."""
        call = _Call()
        try:
            script = self._script(operation, mode)
            if script is None:
                return False
            call.sent = True
            return await self._run(lambda connection: connection.execute(script), call) == 1
        except RecordRejected:
            return False

    def _script(self, operation: Operation, mode: Mode) -> str | None:
        """What does it in one exchange; None for what needs a transaction. Raises `InvalidRecord`."""
        table = cast("PostgresTable", self._table(operation.key.model))
        if operation.kind is Kind.DELETE:
            unconditional = mode is Mode.MIRROR or (mode is Mode.LIVE and operation.if_version is None)
            return sql.burial(table, operation) if table.versioned and unconditional else None
        query = self._alone(operation, mode)
        if query is None:
            return None
        statement = sql.written(*query)
        if operation.kind is Kind.CREATE:
            return f"{sql.lock([operation.key], exclusive=False)}; {statement}"
        return statement

    async def _apply_together(
        self, operations: Sequence[Operation], mode: Mode, *, singly: bool
    ) -> Sequence[Outcome]:
        batch = Batch(operations, self._table, mode)
        call = _Call()

        async def transact(connection: Connection) -> None:
            try:
                await self._load(connection, batch, exclusive=singly or batch.contends)
                await self._write(connection, batch, call, singly=singly)
            except Exception:
                if connection.raw.is_in_transaction() and not connection.in_doubt:
                    await connection.execute("ROLLBACK")
                raise

        if batch.rounds:
            await self._run(transact, call)
        return batch.outcomes

    async def _load(self, connection: Connection, batch: Batch, *, exclusive: bool) -> None:
        keys = [key for keys in batch.keys.values() for key in keys]
        locks = exclusive or batch.touches_absent
        await connection.execute("BEGIN; " + (sql.lock(keys, exclusive=exclusive) if locks else "SELECT 1"))
        for table, ids in batch.keys.items():
            names = [key.id for key in ids]
            query = sql.states(cast("PostgresTable", table)), (list(ids.values()), table.model, names)
            (rows,) = await _fetch(connection, [query])
            batch.load(
                table,
                [row[:3] for row in rows if row[3] is None],
                [row for row in rows if row[3] is not None],
            )

    async def _write(self, connection: Connection, batch: Batch, call: _Call, *, singly: bool) -> None:
        for indices in batch.rounds:
            changes = batch.decide(indices)
            if singly:
                await self._settle(connection, batch, changes)
                continue
            statements = sql.writes(changes)
            if indices is batch.rounds[-1]:
                call.sent = True
                statements.append("COMMIT")
            if statements:
                await connection.execute("; ".join(statements))
            batch.applied(changes)
        if singly:
            call.sent = True
            await connection.execute("COMMIT")

    async def _settle(self, connection: Connection, batch: Batch, changes: Sequence[Change]) -> None:
        """Write changes, in ever smaller parts until those at fault stand alone."""
        fault = await self._fault_of(connection, changes) if changes else None
        if fault is None:
            batch.applied(changes)
        elif len(changes) == 1:
            batch.refuse(changes[0], fault)
        else:
            half = len(changes) // 2
            await self._settle(connection, batch, changes[:half])
            await self._settle(connection, batch, changes[half:])

    async def _fault_of(self, connection: Connection, changes: Sequence[Change]) -> RecordRejected | None:
        """Write changes; or none of them, and say why."""
        try:
            script = "; ".join(("SAVEPOINT octopus", *sql.writes(changes), "RELEASE octopus"))
            await connection.execute(script)
        except RecordRejected as error:
            return error  # before anything was sent
        except asyncpg.PostgresError as error:
            fault = self._translated(error, sent=False)
            if not isinstance(fault, RecordRejected):
                raise
            await connection.execute("ROLLBACK TO octopus; RELEASE octopus")
            return fault
        return None

    async def _insistently(self, action: Callable[[], Awaitable[T]]) -> T:
        for pause in _PAUSES:
            try:
                return await action()
            except Collision:
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
        return await action()

    async def _run(self, talk: Callable[[Connection], Awaitable[T]], call: _Call | None = None) -> T:
        if self._pool is None:
            raise BackendRefused(f"{self.name} is not open", backend=self.name)
        try:
            return await self._pool.run(talk)
        except OctopusError:
            raise
        except Exception as error:
            raise self._translated(error, sent=call is not None and call.sent) from error

    def _translated(self, error: Exception, *, sent: bool) -> OctopusError:
        fault = translate(error, self.name, sent=sent)
        if isinstance(error, asyncpg.NotNullViolationError) and not self._knows(error):
            return SchemaMismatch(str(fault), backend=self.name)
        return fault

    def _knows(self, error: asyncpg.NotNullViolationError) -> bool:
        """Whether the column that may not be null is one of a model."""
        schemas = [table.schema for table in self._tables.values() if table.schema.table == error.table_name]
        return any(error.column_name in {column.name for column in schema.columns} for schema in schemas)


async def _fetch(
    connection: Connection, queries: Sequence[tuple[str, Sequence[object]]]
) -> list[Sequence[Row]]:
    return [await connection.fetch(query, values) for query, values in queries]
