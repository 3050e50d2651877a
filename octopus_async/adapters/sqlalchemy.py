"""Records in any database that SQLAlchemy knows, over an AsyncEngine.

Slower than the adapters made for a database, and for those that have none: SQL Server, Oracle,
CockroachDB, or an engine that an application has configured already.
`octopus_async.adapters._sqlalchemy_tables` says how writers of one key contend.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, CompileError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateTable

from octopus_async.adapters import _sqlalchemy_tables as core
from octopus_async.adapters._sql import layout
from octopus_async.adapters._sql.base import split
from octopus_async.adapters._sql.batch import Batch, Change
from octopus_async.adapters._sql.dialect import SIDE
from octopus_async.adapters._sql.locks import LOCKS, name_of, row_name
from octopus_async.adapters._sql.rows import Row
from octopus_async.adapters._sql.writing import WritingAdapter
from octopus_async.adapters._sqlalchemy_connection import Calls, Connection
from octopus_async.adapters._sqlalchemy_errors import faults_of
from octopus_async.adapters._sqlalchemy_tables import CoreTable, Statement
from octopus_async.adapters._sqlalchemy_types import MYSQL
from octopus_async.backend import Capabilities
from octopus_async.errors import (
    BackendRefused,
    ConfigurationError,
    OctopusError,
    RecordRejected,
    SchemaMismatch,
    Unavailable,
)
from octopus_async.record import NO_VERSION, Kind, Mode, Operation
from octopus_async.schema import Schema, Type
from octopus_async.url import BackendURL

T = TypeVar("T")

_ISOLATION = "READ COMMITTED"  # a statement sees what was committed before it began: who waited sees more
_CLOSE_SECONDS = 1.0
_WRITE_BATCH = 100


class Found(NamedTuple):
    """A table that exists: its columns with their types, and whether its texts compare exactly."""

    columns: dict[str, str]
    exact: bool


class SQLAlchemyAdapter(WritingAdapter[CoreTable, Statement, Found, Connection, Statement]):
    """A database behind a SQLAlchemy engine.

    Parameters:
        engine: an engine of `create_async_engine`. It stays the caller's, who disposes of it.
        name: the name by which strategies call it.
        connections: how many to use at once, at most as many as the engine's pool has.
        timeout: seconds that connecting may take, and that a call may go on which nobody waits for.
    """

    def __init__(
        self, engine: AsyncEngine, *, name: str = "sqlalchemy", connections: int = 4, timeout: float = 5.0
    ) -> None:
        half = max(1, connections // 2)
        capabilities = Capabilities(
            durable=True,
            transactional=True,
            scan=True,
            write_batch=_WRITE_BATCH,
            read_concurrency=half,
            write_concurrency=half,
        )
        super().__init__(name, capabilities)
        self._engine = self._chosen = engine
        self._owns = False
        self._dialect = engine.dialect.name
        self._faults = faults_of(self._dialect)
        self._connections = connections
        self._timeout = timeout
        self._calls: Calls | None = None

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "sqlalchemy") -> Self:
        """Make one of ``sqlalchemy+postgresql+asyncpg://user:password@host/database?connections=4``.

        What follows ``sqlalchemy+`` is a URL of SQLAlchemy's, with a driver for asyncio. Options of
        ours are ``connections`` and ``timeout``; all others are the driver's.

        Raises `ConfigurationError`.
        """
        if len(url.hosts) > 1:
            raise ConfigurationError(f"{url}: needs one host")
        host, port = url.hosts[0] if url.hosts else (None, None)
        connections = url.integer("connections", 4)
        address = sa.URL.create(
            url.scheme.partition("+")[2],
            username=url.user or None,
            password=url.password or None,
            host=host,
            port=port,
            database=url.path,
            query={key: text for key, text in url.options.items() if key not in ("connections", "timeout")},
        )
        try:
            engine = create_async_engine(address, **_engine_options(address, connections))
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"{url}: needs the package {error.name}: pip install it") from None
        except (ArgumentError, NoSuchModuleError) as error:
            raise ConfigurationError(f"{url}: {error}") from None
        except InvalidRequestError as error:
            raise ConfigurationError(f"{url}: needs a driver for asyncio: {error}") from None
        adapter = cls(engine, name=name, connections=connections, timeout=url.number("timeout", 5.0))
        adapter._owns = True
        return adapter

    # -- opening and closing ---------------------------------------------------------------------

    async def open(self) -> None:
        """Connect. Raises `Unavailable`."""
        if self._calls is None:
            self._calls = Calls(self._connections, self._timeout)
        try:
            await self._choose_isolation()
        except BaseException:
            await self.close()
            raise

    async def _choose_isolation(self) -> None:
        self._chosen = self._engine
        level = await self._run(lambda connection: connection.raw.get_isolation_level())
        if self._dialect != "sqlite" and level != _ISOLATION:  # SQLite has one writer, and no levels
            self._chosen = self._engine.execution_options(isolation_level=_ISOLATION)
        await self.ping()

    async def close(self) -> None:
        """End what is under way, and close the connections of an engine of our own, within seconds."""
        calls, self._calls = self._calls, None
        if calls is not None:
            await calls.close(_CLOSE_SECONDS)
        if self._owns:
            await self._engine.dispose()

    # -- models ----------------------------------------------------------------------------------

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        """Check a model's table, or create it. Raises `SchemaMismatch`, `Unavailable`."""
        try:
            await super().prepare(schema, create=create)
        except CompileError as error:
            message = f"{self.name}: the database {self._dialect} has no type for a field of {schema.model}"
            raise SchemaMismatch(f"{message} ({type(error).__name__})", backend=self.name) from error

    def _definitions(self, schema: Schema) -> Mapping[str, str]:
        table = core.table_of(schema, self._dialect)
        return {SIDE: self._written(core.side), schema.table: self._written(table)}

    def _written(self, table: sa.Table) -> str:
        return " ".join(str(CreateTable(table).compile(dialect=self._engine.dialect)).split())

    async def _found(self, names: Sequence[str]) -> Mapping[str, Found]:
        def look(connection: sa.Connection) -> Mapping[str, Found]:
            inspector = sa.inspect(connection)
            there = [name for name in names if inspector.has_table(name)]
            return {name: _look_at(inspector, connection, name) for name in there}

        return await self._run(lambda connection: connection.raw.run_sync(look))

    async def _create(self, schema: Schema, definitions: Mapping[str, str]) -> None:
        wanted = {SIDE: core.side, schema.table: core.table_of(schema, self._dialect)}
        for name in definitions:
            statements = [Statement(CreateTable(wanted[name]))]
            try:
                await self._run(partial(Connection.alone, statements=statements))
            except (Unavailable, RecordRejected):  # somebody may have been faster
                if name not in await self._found([name]):
                    raise

    async def _fit(self, schema: Schema, found: Found) -> CoreTable:
        dialect = self._engine.dialect
        quote = dialect.identifier_preparer.quote_identifier
        columns = core.table_of(schema, self._dialect).columns
        types = {column.name: column.type.compile(dialect=dialect) for column in columns}
        versioned = layout.check_types(self.name, schema, types, found.columns, quote=quote)
        await self._insistently(self._make_locks)
        binary = "BINARY" in found.columns[schema.id_column.lower()]
        exact = found.exact or binary or schema.id_type is not Type.TEXT
        return CoreTable(schema, self._dialect, versioned=versioned, exact=exact)

    async def _make_locks(self) -> None:
        (there,) = await self._select([Statement(core.LOCKS_THERE)])
        missing = {row_name(number) for number in range(LOCKS)} - {row[0] for row in there}
        if not missing:
            return
        rows = [("", name, "", "", True) for name in sorted(missing)]
        *_, insert = core.side_writes(rows)
        try:
            await self._run(lambda connection: connection.alone([insert]))
        except RecordRejected:  # somebody was faster, with at least one of them
            await self._make_locks()

    # -- reading ---------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Have a query answered. Raises `Unavailable`."""
        await self._select([Statement(sa.select(sa.literal(1)))])

    async def _select(self, queries: Sequence[Statement]) -> Sequence[Sequence[Row]]:
        async def ask(connection: Connection) -> list[Sequence[Row]]:
            return [await connection.select(query) for query in queries]

        return await self._run(ask)

    def _reading(self, table: CoreTable, ids: Sequence[object]) -> Statement:
        return Statement(table.read, {"ids": ids})

    def _burials(self, table: CoreTable, ids: Sequence[str]) -> Statement:
        return Statement(core.BURIALS, {"model": table.model, "ids": ids})

    def _page(self, table: CoreTable, after: str, last: object | None, limit: int) -> Statement:
        return table.page(after, last, limit)

    def _burial_page(self, table: CoreTable, after: str, last: str, limit: int) -> Statement:
        values = {"model": table.model, "after": after, "last": last, "limit": limit}
        return Statement(core.BURIAL_PAGE, values)

    # -- writing ---------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Write the reserved row. Raises `Unavailable`."""
        await self._insistently(lambda: self._run(_probe))

    def _single(self, operation: Operation, mode: Mode) -> Sequence[Statement] | None:
        table = self._table(operation.key.model)
        wanted = operation.if_version if mode is Mode.LIVE else None
        simple = table.versioned and table.exact and mode in (Mode.LIVE, Mode.MIRROR)
        if operation.kind is not Kind.UPDATE or not simple or wanted == NO_VERSION:
            return None
        key, fields = operation.key, operation.fields or {}
        return [table.update_alone(key, fields, operation.version, operation.born, wanted)]

    async def _load(self, connection: Connection, batch: Batch[CoreTable], *, exclusive: bool) -> None:
        del exclusive  # there is but one kind of lock that all databases have
        names = sorted({name_of(key) for keys in batch.keys.values() for key in keys})
        if self._dialect == "sqlite":
            taken = await connection.execute([Statement(core.TOUCH, {"lock": names[0]})])
            names = names[:1]
        else:
            taken = len(await connection.select(Statement(core.LOCK, {"ids": names})))
        if taken != len(names):
            message = f"{self.name}: the table {SIDE} lacks reserved rows, which preparing a model makes"
            raise SchemaMismatch(message, backend=self.name)
        for table, keys in batch.keys.items():
            rows: list[Row] = []
            side_rows: list[Row] = []
            for part in split([*keys.items()]):
                ids, texts = [id_ for _, id_ in part], [key.id for key, _ in part]
                rows += await connection.select(Statement(table.states, {"ids": ids}))
                states = Statement(core.SIDE_STATES, {"model": table.model, "ids": texts})
                side_rows += await connection.select(states)
            batch.load(table, rows, side_rows)

    def _writes(self, changes: Sequence[Change[CoreTable]]) -> list[Statement]:
        return core.writes(changes)

    async def _converse(self, talk: Callable[[Connection], Awaitable[T]]) -> T:
        if self._calls is None:
            raise BackendRefused(f"{self.name} is not open", backend=self.name)
        return await self._calls.run(self._chosen, talk)

    def _translated(self, error: Exception, *, sent: bool) -> OctopusError:
        return self._faults.translate(error, self.name, sent=sent)


def _engine_options(url: sa.URL, connections: int) -> dict[str, Any]:
    options: dict[str, Any] = {"pool_size": connections, "max_overflow": 0}
    return options if url.get_backend_name() == "sqlite" else {**options, "isolation_level": _ISOLATION}


async def _probe(connection: Connection) -> None:
    values = {"mark": secrets.token_hex(13)}  # changed each time: the same would not be written
    if await connection.alone([Statement(core.PROBE, values)]) == 0:
        await connection.alone([Statement(core.PROBE_FIRST, values)])


def _look_at(inspector: sa.Inspector, connection: sa.Connection, name: str) -> Found:
    columns = {column["name"].lower(): str(column["type"]) for column in inspector.get_columns(name)}
    dialect = connection.dialect.name
    if dialect == "sqlite":
        made = connection.execute(core.DEFINITION, {"name": name}).scalar() or ""
        return Found(columns, "COLLATE" not in made.upper())
    return Found(columns, dialect not in (*MYSQL, "mssql"))
