"""Helpers of the tests of the SQL adapters: a database that can also be used behind their back."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from uuid import uuid4

import aiomysql
import asyncpg

from octopus_async.adapters._sql.batch import Batch
from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.adapters.postgres import PostgresAdapter
from octopus_async.adapters.sqlalchemy import SQLAlchemyAdapter
from octopus_async.adapters.sqlite import SQLiteAdapter
from octopus_async.record import Key, Mode, Operation, Outcome, Record
from octopus_async.schema import Column, Schema, Type
from octopus_async.testing.operations import Author
from octopus_async.url import BackendURL

SQLAdapter: TypeAlias = SQLiteAdapter | MySQLAdapter | PostgresAdapter | SQLAlchemyAdapter
Rows: TypeAlias = list[tuple[Any, ...]]

BOOK = Schema(
    model="Book",
    table="books",
    id_column="id",
    id_type=Type.TEXT,
    columns=(
        Column("title", "title", Type.TEXT, nullable=False, max_length=40),
        Column("pages", "pages", Type.INTEGER, nullable=True),
    ),
)


class Database(Protocol):
    """A database of one test, its model, and a way to run statements outside of any adapter."""

    kind: str
    schema: Schema

    def adapter(self) -> SQLAdapter:
        """A new adapter on the same database, not yet opened."""
        ...

    async def run(self, *statements: str) -> Rows:
        """Run statements; the rows of the last one."""
        ...


class SQLiteDatabase:
    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "shop.sqlite3")
        self.schema = BOOK

    def adapter(self) -> SQLiteAdapter:
        return SQLiteAdapter(self.path, synchronous="NORMAL", busy_timeout=5.0)

    async def run(self, *statements: str) -> Rows:
        return await asyncio.to_thread(self._run, statements)

    def _run(self, statements: Sequence[str]) -> Rows:
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            rows = [connection.execute(statement).fetchall() for statement in statements]
        finally:
            connection.close()
        return rows[-1]


class Pausing:
    """Of an adapter: it stands still between taking its locks and writing, until it may go on."""

    def pause(self) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def _write(self, connection: Any, batch: Batch[Any], call: Any, *, singly: bool) -> None:  # noqa: ANN401 - each has its own
        self.reached.set()
        await self.go_on.wait()
        await super()._write(connection, batch, call, singly=singly)  # type: ignore[misc]


class PausedMySQL(Pausing, MySQLAdapter):
    pass


class PausedPostgres(Pausing, PostgresAdapter):
    def _single(self, operation: Operation, mode: Mode) -> Sequence[str] | None:  # noqa: ARG002 - whichever it is
        return None  # in a transaction, which can be paused


class PausedSQLAlchemy(Pausing, SQLAlchemyAdapter):
    pass


class MySQLDatabase:
    kind = "mysql"
    id_type = "VARBINARY(99)"

    def __init__(self, url: BackendURL) -> None:
        self.url = url
        self.schema = BOOK

    def adapter(self) -> MySQLAdapter:
        return MySQLAdapter.from_url(self.url)

    def paused(self) -> PausedMySQL:
        return PausedMySQL.from_url(self.url)

    async def run(self, *statements: str) -> Rows:
        async with self.connection() as connection:
            for statement in statements:
                await connection.query(statement)
            return list(connection._result.rows or ())

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Any]:
        """A connection outside of any adapter, in autocommit."""
        connection = await connect(self.url)
        try:
            yield connection
        finally:
            connection.close()

    @asynccontextmanager
    async def shut_gate(self) -> AsyncGenerator[Any]:
        """A connection that holds a named lock of the server."""
        async with self.connection() as connection:
            await connection.query("SELECT GET_LOCK('gate', 10)")
            yield connection

    async def open_gate(self, connection: Any) -> None:  # noqa: ANN401 - the driver is not typed
        await connection.query("SELECT RELEASE_LOCK('gate')")

    async def put_gate(self, event: str) -> None:
        """Have each row wait for that lock, before it is inserted or updated."""
        await self.run(
            f"CREATE TRIGGER gate BEFORE {event} ON {self.schema.table} FOR EACH ROW "
            "BEGIN DECLARE got INT; SET got = GET_LOCK('gate', 10); SET got = RELEASE_LOCK('gate'); END"
        )

    async def put_brake(self, seconds: float) -> None:
        """Have each insert take some time."""
        await self.run(
            f"CREATE TRIGGER slow BEFORE INSERT ON {self.schema.table} FOR EACH ROW DO SLEEP({seconds})"
        )

    async def somebody_waits(self) -> bool:
        query = "SELECT 1 FROM information_schema.processlist WHERE state = 'User lock' AND db = DATABASE()"
        return bool(await self.run(query))

    async def cut(self, connection: Any) -> None:  # noqa: ANN401 - of the adapter's pool
        await self.run(f"KILL {connection.raw.thread_id()}")


class PostgresDatabase:
    kind = "postgres"
    id_type = "TEXT"

    def __init__(self, url: BackendURL) -> None:
        self.url = url
        self.schema = BOOK

    def adapter(self) -> PostgresAdapter:
        return PostgresAdapter.from_url(self.url)

    def paused(self) -> PausedPostgres:
        return PausedPostgres.from_url(self.url)

    async def run(self, *statements: str) -> Rows:
        async with self.connection() as connection:
            rows: Sequence[asyncpg.Record] = []
            for statement in statements:
                rows = await connection.fetch(statement)
            return [tuple(row) for row in rows]

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[asyncpg.Connection[asyncpg.Record]]:
        """A connection outside of any adapter."""
        connection = await connect_postgres(self.url)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def shut_gate(self) -> AsyncGenerator[asyncpg.Connection[asyncpg.Record]]:
        """A connection that holds a lock."""
        async with self.connection() as connection:
            await connection.execute("SELECT pg_advisory_lock(1)")
            yield connection

    async def open_gate(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        await connection.execute("SELECT pg_advisory_unlock(1)")

    async def put_gate(self, event: str) -> None:
        """Have each row wait for that lock, before it is inserted or updated."""
        await self._trigger("gate", event, "PERFORM pg_advisory_xact_lock_shared(1)")

    async def put_gate_before_tombstones(self) -> None:
        """Have each tombstone wait for that lock, before it is inserted."""
        action = "PERFORM pg_advisory_xact_lock_shared(1)"
        await self._trigger("gate", "INSERT", action, table="octopus_versions")

    async def put_brake(self, seconds: float) -> None:
        """Have each insert take some time."""
        await self._trigger("slow", "INSERT", f"PERFORM pg_sleep({seconds})")

    async def _trigger(self, name: str, event: str, action: str, *, table: str = "") -> None:
        await self.run(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = '10s' AS "
            f"$$ BEGIN {action}; RETURN COALESCE(NEW, OLD); END $$",
            f"CREATE TRIGGER {name} BEFORE {event} ON {table or self.schema.table} FOR EACH ROW "
            f"EXECUTE FUNCTION {name}()",
        )

    async def somebody_waits(self) -> bool:
        query = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        )
        return bool(await self.run(query))

    async def cut(self, connection: Any) -> None:  # noqa: ANN401 - of the adapter's pool
        await self.run(f"SELECT pg_terminate_backend({connection.raw.get_server_pid()})")


class SQLAlchemyOnMySQL(MySQLDatabase):
    """Through SQLAlchemy, where it is not behind the adapter's back."""

    scheme = "sqlalchemy+mysql+aiomysql"

    def adapter(self) -> SQLAlchemyAdapter:  # type: ignore[override]
        return SQLAlchemyAdapter.from_url(replace(self.url, scheme=self.scheme))

    def paused(self) -> PausedSQLAlchemy:  # type: ignore[override]
        return PausedSQLAlchemy.from_url(replace(self.url, scheme=self.scheme))


class SQLAlchemyOnPostgres(PostgresDatabase):
    """Through SQLAlchemy, where it is not behind the adapter's back."""

    scheme = "sqlalchemy+postgresql+asyncpg"

    def adapter(self) -> SQLAlchemyAdapter:  # type: ignore[override]
        return SQLAlchemyAdapter.from_url(replace(self.url, scheme=self.scheme))

    def paused(self) -> PausedSQLAlchemy:  # type: ignore[override]
        return PausedSQLAlchemy.from_url(replace(self.url, scheme=self.scheme))


ServerDatabase: TypeAlias = MySQLDatabase | PostgresDatabase


@asynccontextmanager
async def mysql_database(url: str) -> AsyncGenerator[MySQLDatabase]:
    """A new database on a server."""
    server = MySQLDatabase(BackendURL.parse(url))
    name = f"octopus_{uuid4().hex}"
    await server.run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    try:
        yield MySQLDatabase(replace(server.url, path=name))
    finally:
        await server.run(f"DROP DATABASE {name}")


@asynccontextmanager
async def postgres_database(url: str) -> AsyncGenerator[PostgresDatabase]:
    """A new database on a server."""
    server = PostgresDatabase(BackendURL.parse(url))
    name = f"octopus_{uuid4().hex}"
    await server.run(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    try:
        yield PostgresDatabase(replace(server.url, path=name))
    finally:
        await server.run(f"DROP DATABASE {name} WITH (FORCE)")


async def emptied(database: PostgresDatabase) -> PostgresDatabase:
    """A database of ours without anything in it, which is there sooner than a new one."""
    await database.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user",
        "DROP OWNED BY CURRENT_USER CASCADE",
    )
    return PostgresDatabase(database.url)


async def connect_postgres(url: BackendURL) -> asyncpg.Connection[asyncpg.Record]:
    """The driver's own connection."""
    ((host, port),) = url.hosts
    return await asyncpg.connect(
        host=host, port=port or 5432, user=url.user, password=url.password, database=url.path, ssl=False
    )


async def connect(url: BackendURL) -> Any:  # noqa: ANN401 - the driver is not typed
    """The driver's own connection."""
    ((host, port),) = url.hosts
    return await aiomysql.connect(
        host=host,
        port=port or 3306,
        user=url.user,
        password=url.password,
        db=url.path,
        charset="utf8mb4",
        autocommit=True,
    )


class Books(Author):
    """An author for one adapter, prepared."""

    def __init__(self, adapter: SQLAdapter, schema: Schema) -> None:
        super().__init__(schema.model)
        self.adapter = adapter

    def new(self, key: Key | None = None, title: str = "new", *, version: str = "") -> Operation:
        """A create."""
        return self.create(key or self.key(), book(title), version=version)

    async def apply(self, *operations: Operation, mode: Mode = Mode.LIVE) -> list[Outcome]:
        """Apply operations."""
        return list(await self.adapter.apply(operations, mode))

    async def find(self, key: Key) -> Record | None:
        """Read one."""
        (answer,) = await self.adapter.read([key])
        assert answer is None or isinstance(answer, Record)
        return answer

    async def scan(self, after: str = "", batch: int = 500) -> list[Record]:
        """List them."""
        return [record async for record in self.adapter.scan(self.model, after=after, batch=batch)]


def book(title: str = "new", pages: int | None = None) -> dict[str, Any]:
    """A book's fields."""
    return {"title": title, "pages": pages}


@asynccontextmanager
async def opened(
    database: Database, adapter: SQLAdapter | None = None, *, create: bool = True
) -> AsyncGenerator[Books]:
    """An adapter, opened and prepared."""
    adapter = adapter or database.adapter()
    await adapter.open()
    try:
        await adapter.prepare(database.schema, create=create)
        yield Books(adapter, database.schema)
    finally:
        await adapter.close()
