"""Records in MySQL or MariaDB, through aiomysql.

A live create or update of a table with our columns is one statement. Everything else, and every
batch, is a transaction of two exchanges: one takes the locks and looks at what is stored, the other
writes and commits. `octopus_async.adapters._mysql_statements` says how writers of one key contend.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple, Self, TypeVar

from pymysql.err import MySQLError

from octopus_async.adapters import _mysql_statements as sql
from octopus_async.adapters._mysql_errors import NO_SUCH_TABLE, Collision, translate
from octopus_async.adapters._mysql_pool import Address, Connection, answer_code, connect
from octopus_async.adapters._sql import layout, tls
from octopus_async.adapters._sql.base import Query, SQLAdapter
from octopus_async.adapters._sql.batch import Batch, Change
from octopus_async.adapters._sql.dialect import MYSQL, OURS, SIDE
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
from octopus_async.record import APPLIED, Mode, Operation, Outcome
from octopus_async.schema import Schema, Type
from octopus_async.url import BackendURL

T = TypeVar("T")

_CLOSE_SECONDS = 1.0
_PAUSES = (0.005, 0.02, 0.05)
"""Seconds, at most, before each further try after a collision with another transaction."""
_NO_TRANSACTIONS = {"ARCHIVE", "ARIA", "CSV", "MEMORY", "MRG_MYISAM", "MYISAM"}


class _Call:
    """How far a call has come: whether what it sent may take effect."""

    sent = False


class _Found(NamedTuple):
    """A table that exists: its columns with their types, its engine, whether it was made by us."""

    columns: dict[str, str]
    engine: str
    ours: bool


class MySQLAdapter(SQLAdapter):
    """A database of a MySQL or MariaDB server, with InnoDB tables.

    Parameters:
        host: the server's name or address.
        port: its TCP port.
        user: who logs in.
        password: never shown.
        database: the name of the database.
        name: the name by which strategies call it.
        connections: how many at most; half of them serve reads, half writes.
        timeout: seconds that connecting may take.
        tls: how to encrypt; None for not at all.
    """

    def __init__(  # noqa: PLR0913 - options, by keyword
        self,
        *,
        database: str,
        user: str,
        password: str = "",
        host: str = "localhost",
        port: int = 3306,
        name: str = "mysql",
        connections: int = 8,
        timeout: float = 2.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        half = max(1, connections // 2)
        capabilities = Capabilities(
            durable=True, transactional=True, scan=True, read_concurrency=half, write_concurrency=half
        )
        super().__init__(name, capabilities, MYSQL)
        self._address = Address(host, port, user, password, database, tls)
        self._connections = connections
        self._timeout = timeout
        self._pool: Pool[Connection] | None = None

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "mysql") -> Self:
        """Make one of ``mysql://user:password@host:3306/database?connections=8&tls=verify``.

        Options: ``connections``, ``timeout``, ``tls`` (``off``, ``verify``, or ``insecure`` for a
        certificate that nobody checks), and files ``tls_ca``, ``tls_cert``, ``tls_key``.

        Raises `ConfigurationError`.
        """
        url.check_options("connections", "timeout", *tls.OPTIONS)
        if len(url.hosts) > 1 or not url.user or not url.path:
            raise ConfigurationError(f"{url}: needs one host, a user and a database: mysql://app@db/shop")
        host, port = url.hosts[0] if url.hosts else ("localhost", None)
        return cls(
            database=url.path,
            user=url.user,
            password=url.password,
            host=host,
            port=port or 3306,
            name=name,
            connections=url.integer("connections", 8),
            timeout=url.number("timeout", 2.0),
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
            SchemaMismatch: it is missing, lacks columns, or knows no transactions; the message
                says what to run.
            Unavailable: the backend failed.
        """
        self._tables.pop(schema.model, None)
        statements = {SIDE: MYSQL.side, schema.table: layout.create_table(schema, MYSQL) % ()}
        found = await self._run(lambda connection: _found(connection, statements))
        missing = [name for name in statements if name not in found]
        if missing and not create:
            raise layout.no_table(self.name, schema.model, missing[0], statements[missing[0]])
        if missing:
            await self._create([statements[name] for name in missing])
            found = await self._run(lambda connection: _found(connection, statements))
        there = found[schema.table]
        if there.engine.upper() in _NO_TRANSACTIONS:
            raise layout.no_transactions(self.name, schema, MYSQL, there.engine)
        await self._insistently(self._make_locks)
        self._tables[schema.model] = Table(
            schema,
            MYSQL,
            versioned=layout.check_columns(self.name, schema, MYSQL, there.columns),
            exact=schema.id_type is not Type.TEXT or "binary" in there.columns[schema.id_column.lower()],
            plain=there.ours and len(there.columns) == len(schema.columns) + 3,
        )

    async def _create(self, statements: Sequence[str]) -> None:
        try:
            await self._run(lambda connection: connection.run(statements))
        except RecordRejected as error:  # so many columns that no row would fit
            raise SchemaMismatch(str(error), backend=self.name) from error

    async def _make_locks(self) -> None:
        ((rows, _),) = await self._run(lambda connection: connection.run([sql.COUNT_LOCKS]))
        if rows[0][0] != sql.LOCKS:
            await self._run(lambda connection: connection.run(sql.MAKE_LOCKS))

    # -- reading ---------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Have a query answered. Raises `Unavailable`."""
        await self._run(lambda connection: connection.run(["SELECT 1"]))

    async def _select(self, queries: Sequence[Query]) -> Sequence[Sequence[Row]]:
        statements = [sql.written(*query) for query in queries]
        results = await self._run(lambda connection: connection.run(statements))
        return [result.rows for result in results]

    # -- writing ---------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Write the reserved row. Raises `Unavailable`."""
        statement = sql.probe(secrets.token_hex(13))  # changed each time: the same is not written
        await self._insistently(lambda: self._run(lambda connection: connection.run([statement])))

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
        return await self._apply_together(operations, mode, singly=True)

    async def _apply_alone(self, operation: Operation, mode: Mode) -> bool:
        """Try the one statement; if it has no effect the transaction finds out why."""
        call = _Call()
        try:
            query = self._alone(operation, mode)
            if query is None:
                return False
            statement = sql.written(*query)
            call.sent = True
            ((_, affected),) = await self._run(lambda connection: connection.run([statement]), call)
        except RecordRejected:
            return False
        return affected == 1

    def _unless_dead(self, operation: Operation) -> tuple[object, ...]:
        return (sql.lock_name(operation.key), *super()._unless_dead(operation))

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
                if not connection.in_doubt:
                    await connection.run(["ROLLBACK"])
                raise

        if batch.rounds:
            await self._run(transact, call)
        return batch.outcomes

    async def _load(self, connection: Connection, batch: Batch, *, exclusive: bool) -> None:
        keys = [key for keys in batch.keys.values() for key in keys]
        locking, expected = sql.lock(keys, exclusive=exclusive)
        statements = ["START TRANSACTION", locking if exclusive or batch.touches_absent else "SELECT NULL"]
        selects = {table: list(sql.states(table, list(keys.values()))) for table, keys in batch.keys.items()}
        for table_selects in selects.values():
            statements += table_selects
        _, (locks, _), *results = await connection.run(statements)
        if locks[0][0] not in (None, expected):
            message = f"{self.name}: the table {SIDE} lacks reserved rows, which preparing a model makes"
            raise SchemaMismatch(message, backend=self.name)
        for table, table_selects in selects.items():
            found = [result.rows for result in results[: len(table_selects)]]
            results = results[len(table_selects) :]
            batch.load(table, chain.from_iterable(found[::2]), chain.from_iterable(found[1::2]))

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
            await connection.run(statements)
            batch.applied(changes)
        if singly:
            call.sent = True
            await connection.run(["COMMIT"])

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
            await connection.run(["SAVEPOINT octopus", *sql.writes(changes)])
        except RecordRejected as error:
            return error  # before anything was sent
        except MySQLError as error:
            fault = translate(error, self.name, sent=False)
            if not isinstance(fault, RecordRejected):
                raise
            await connection.run(["ROLLBACK TO SAVEPOINT octopus"])
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
            raise translate(error, self.name, sent=call is not None and call.sent) from error


async def _found(connection: Connection, statements: dict[str, str]) -> dict[str, _Found]:
    """Those of the tables that exist."""
    found: dict[str, _Found] = {}
    for name in statements:
        table = "`" + name.replace("`", "``") + "`"
        try:
            columns, made = await connection.run([f"SHOW COLUMNS FROM {table}", f"SHOW CREATE TABLE {table}"])
        except MySQLError as error:
            if answer_code(error) != NO_SUCH_TABLE:
                raise
            continue
        text = made.rows[0][1]
        engine = re.search(r"\) ENGINE=(\w+)", text)
        types = {field.lower(): type_.lower() for field, type_, *_ in columns.rows}
        found[name] = _Found(types, engine[1] if engine else "", f"COMMENT='{OURS}'" in text)
    return found
