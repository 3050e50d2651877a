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

from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.adapters.sqlite import SQLiteAdapter
from octopus_async.record import Key, Mode, Operation, Outcome, Record
from octopus_async.schema import Column, Schema, Type
from octopus_async.testing.operations import Author
from octopus_async.url import BackendURL

SQLAdapter: TypeAlias = SQLiteAdapter | MySQLAdapter
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


class MySQLDatabase:
    kind = "mysql"

    def __init__(self, url: BackendURL) -> None:
        self.url = url
        self.schema = BOOK

    def adapter(self) -> MySQLAdapter:
        return MySQLAdapter.from_url(self.url)

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
async def mysql_database(url: str) -> AsyncGenerator[MySQLDatabase]:
    """A new database on a server."""
    server = MySQLDatabase(BackendURL.parse(url))
    name = f"octopus_{uuid4().hex}"
    await server.run(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    try:
        yield MySQLDatabase(replace(server.url, path=name))
    finally:
        await server.run(f"DROP DATABASE {name}")


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
