"""The drivers by hand: one call for each operation, a pool of eight, the library's durability settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import aiomcache
import aiomysql
import aiosqlite

from benchmarks.load import Book, Item
from octopus_async import Model
from octopus_async.testing.servers import MariaDBServer, MemcachedServer
from octopus_async.url import BackendURL

M = TypeVar("M", bound=Model)
POOL = 8
_SECONDS_TO_LIVE = 300


class Table(NamedTuple, Generic[M]):
    """How a careful hand stores a model.

    Attributes:
        name: of the table.
        columns: the id first.
        values: a model's row.
        build: a row's model.
        parse: the model of what a cache holds.
    """

    name: str
    columns: tuple[str, ...]
    values: Callable[[M], Sequence[object]]
    build: Callable[[Sequence[Any]], M]
    parse: Callable[[bytes], M]

    def insert(self, mark: str) -> str:
        """The statement that stores a row."""
        marks = ", ".join([mark] * len(self.columns))
        return f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES ({marks})"

    def upsert(self) -> str:
        """The same for SQLite, over what is there."""
        changes = ", ".join(f"{column} = excluded.{column}" for column in self.columns[1:])
        return f"{self.insert('?')} ON CONFLICT (id) DO UPDATE SET {changes}"

    def upsert_mariadb(self) -> str:
        """The same for MariaDB."""
        changes = ", ".join(f"{column} = VALUES({column})" for column in self.columns[1:])
        return f"{self.insert('%s')} ON DUPLICATE KEY UPDATE {changes}"

    def update(self, mark: str) -> str:
        """The statement that replaces a row."""
        changes = ", ".join(f"{column} = {mark}" for column in self.columns[1:])
        return f"UPDATE {self.name} SET {changes} WHERE id = {mark}"

    def select(self, mark: str) -> str:
        """The statement that finds a row."""
        return f"SELECT {', '.join(self.columns)} FROM {self.name} WHERE id = {mark}"


def _moment(value: datetime) -> datetime:
    return value.replace(tzinfo=None)


def _book_row(book: Book) -> Sequence[object]:
    return (
        book.id.hex, book.title, book.author, book.year, _moment(book.created_at), _moment(book.updated_at)
    )  # fmt: skip


def _book_text_row(book: Book) -> Sequence[object]:
    return (
        book.id.hex, book.title, book.author, book.year,
        book.created_at.isoformat(), book.updated_at.isoformat(),
    )  # fmt: skip


def _book_of(row: Sequence[Any]) -> Book:
    return Book(
        id=row[0], title=row[1], author=row[2], year=row[3], created_at=row[4], updated_at=row[5]
    )  # fmt: skip


def _item_row(item: Item) -> Sequence[object]:
    return (
        item.id.hex, item.created_at.isoformat(), item.updated_at.isoformat(), item.field0, item.field1,
        item.field2, item.field3, item.field4, item.field5, item.field6, item.field7, item.field8,
        item.field9,
    )  # fmt: skip


def _item_of(row: Sequence[Any]) -> Item:
    return Item(
        id=row[0], created_at=row[1], updated_at=row[2], field0=row[3], field1=row[4], field2=row[5],
        field3=row[6], field4=row[7], field5=row[8], field6=row[9], field7=row[10], field8=row[11],
        field9=row[12],
    )  # fmt: skip


_BOOK = ("id", "title", "author", "year", "created_at", "updated_at")
_ITEM = ("id", "created_at", "updated_at", *(f"field{number}" for number in range(10)))
BOOKS = Table("hand", _BOOK, _book_text_row, _book_of, Book.model_validate_json)
BOOKS_MARIADB = Table("hand", _BOOK, _book_row, _book_of, Book.model_validate_json)
ITEMS = Table("hand", _ITEM, _item_row, _item_of, Item.model_validate_json)


class SQLite(Generic[M]):
    """A database file by hand: one connection that writes, eight that read.

    SQLite has one writer at a time. So a careful hand lets a lock see to it that an INSERT and its
    COMMIT stay together, or has all tasks share whatever transaction is open (``shared``): then one
    task's commit is another's too, and one task's error may roll back another's write.
    """

    def __init__(self, table: Table[M], writer: aiosqlite.Connection, *, shared: bool) -> None:
        self.writer = writer
        self._table = table
        self._insert, self._update = table.insert("?"), table.update("?")
        self._select = table.select("?")
        self._shared = shared
        self._lock = asyncio.Lock()
        self.readers: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()

    async def insert(self, model: M) -> None:
        """Store a new record."""
        await self._write(self._insert, self._table.values(model))

    async def update(self, model: M) -> None:
        """Replace a record."""
        row = self._table.values(model)
        await self._write(self._update, (*row[1:], row[0]))

    async def upsert_many(self, rows: Sequence[Sequence[object]]) -> None:
        """Store many rows in one transaction by the driver's own means, over what is there."""
        await self.writer.executemany(self._table.upsert(), rows)
        await self.writer.commit()

    async def select(self, id_: str) -> M:
        """Find a record."""
        connection = await self.readers.get()
        try:
            async with connection.execute(self._select, (id_,)) as cursor:
                row = await cursor.fetchone()
        finally:
            self.readers.put_nowait(connection)
        assert row is not None
        return self._table.build(tuple(row))

    async def _write(self, statement: str, row: Sequence[object]) -> None:
        if self._shared:
            await self.writer.execute(statement, row)
            await self.writer.commit()
            return
        async with self._lock:
            await self.writer.execute(statement, row)
            await self.writer.commit()


@asynccontextmanager
async def sqlite(
    table: Table[M], path: Path, *, synchronous: str = "FULL", shared: bool = False
) -> AsyncGenerator[SQLite[M]]:
    """Open a database file by hand, with an empty table."""
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(aiosqlite.connect(path))
        await writer.execute("PRAGMA journal_mode=WAL")
        await writer.execute(f"PRAGMA synchronous={synchronous}")
        await writer.execute(
            f"CREATE TABLE {table.name} (id TEXT PRIMARY KEY, {', '.join(table.columns[1:])})"
        )
        hand = SQLite(table, writer, shared=shared)
        for _ in range(POOL):
            hand.readers.put_nowait(await stack.enter_async_context(aiosqlite.connect(path)))
        yield hand


class Memcached(Generic[M]):
    """A cache by hand."""

    def __init__(self, table: Table[M], client: aiomcache.Client) -> None:
        self._parse = table.parse
        self._client = client

    async def set(self, model: M) -> None:
        """Put a record."""
        value = model.model_dump_json().encode()
        await self._client.set(model.id.hex.encode(), value, exptime=_SECONDS_TO_LIVE)

    async def get(self, id_: str) -> M | None:
        """Find a record."""
        value = await self._client.get(id_.encode())
        return None if value is None else self._parse(value)


@asynccontextmanager
async def memcached(table: Table[M], server: MemcachedServer) -> AsyncGenerator[Memcached[M]]:
    """Connect to a cache by hand."""
    host, port = address(server.url)
    client = aiomcache.Client(host, port, pool_size=POOL)
    try:
        yield Memcached(table, client)
    finally:
        await client.close()


def address(url: str) -> tuple[str, int]:
    """Host and port of a server."""
    host, port = BackendURL.parse(url).hosts[0]
    assert port is not None
    return host, port


class MariaDB:
    """A database by hand, autocommit as the library's single writes are."""

    def __init__(self, table: Table[Book], pool: Any) -> None:  # noqa: ANN401 - the driver ships no types
        self._table = table
        self.pool = pool
        self._insert, self._update = table.insert("%s"), table.update("%s")
        self._select = table.select("%s")

    async def insert(self, model: Book) -> None:
        """Store a new record."""
        await self._write(self._insert, self._table.values(model))

    async def update(self, model: Book) -> None:
        """Replace a record."""
        row = self._table.values(model)
        await self._write(self._update, (*row[1:], row[0]))

    async def upsert_many(self, rows: Sequence[Sequence[object]]) -> None:
        """Store many rows in one transaction by the driver's own means, over what is there."""
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await connection.begin()
            await cursor.executemany(self._table.upsert_mariadb(), rows)
            await connection.commit()

    async def select(self, id_: str) -> Book:
        """Find a record."""
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(self._select, (id_,))
            return self._table.build(await cursor.fetchone())

    async def _write(self, statement: str, row: Sequence[object]) -> None:
        async with self.pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(statement, row)


@asynccontextmanager
async def mariadb(server: MariaDBServer) -> AsyncGenerator[MariaDB]:
    """Connect to a database by hand, with an empty table."""
    url = BackendURL.parse(server.url)
    host, port = address(server.url)
    pool = await aiomysql.create_pool(
        host=host, port=port, user=url.user, password=url.password, db=url.path,
        minsize=POOL, maxsize=POOL, autocommit=True,
    )  # fmt: skip
    try:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(
                "CREATE TABLE hand (id CHAR(32) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,"
                " title LONGTEXT, author LONGTEXT, year BIGINT,"
                " created_at DATETIME(6), updated_at DATETIME(6))"
            )
        yield MariaDB(BOOKS_MARIADB, pool)
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("DROP TABLE hand")
    finally:
        pool.close()
        await pool.wait_closed()
