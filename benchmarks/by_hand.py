"""The library beside the same drivers used by hand, in one run: ratios, not times.

    python benchmarks/by_hand.py [--quick] [--json FILE]

By hand means: the driver's own calls, one for each operation, a pool of 8 connections (SQLite: one
shared connection), one commit each, and the same durability settings. Both sides take turns for
several rounds, and the medians are compared. Real servers are started for it, on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from uuid import UUID

import aiomcache
import aiomysql
import aiosqlite

from octopus_async import DaoManager, Model, State
from octopus_async.testing.servers import MariaDBServer, MemcachedServer
from octopus_async.url import BackendURL

Operation = Callable[[], Awaitable[object]]


class Book(Model):
    """What is written and read."""

    title: str
    author: str | None = None
    year: int = 0


@dataclass
class Row:
    """One comparison. Times are microseconds; the ratio is ours to theirs, of operations a second."""

    name: str
    tasks: int
    ops_per_s: float
    p50_us: float
    p99_us: float
    peer_ops_per_s: float
    peer_p50_us: float
    peer_p99_us: float
    ratio: float


@dataclass
class Measured:
    """One side of one comparison."""

    seconds: float
    latencies: list[float]


async def measure(operation: Operation, tasks: int, count: int) -> Measured:
    """Do an operation ``count`` times in all, by ``tasks`` callers at the same time."""
    latencies: list[float] = []

    async def caller() -> None:
        for _ in range(count // tasks):
            start = perf_counter()
            await operation()
            latencies.append(perf_counter() - start)

    start = perf_counter()
    await asyncio.gather(*(caller() for _ in range(tasks)))
    return Measured(perf_counter() - start, latencies)


async def compare(  # noqa: PLR0913 - two sides, and how to measure them
    name: str, ours: Operation, theirs: Operation, tasks: int, count: int, rounds: int
) -> Row:
    """Measure both sides in turns."""
    sides: tuple[list[Measured], list[Measured]] = ([], [])
    for _ in range(rounds):
        for operation, side in zip((ours, theirs), sides, strict=True):
            side.append(await measure(operation, tasks, count))
    (rate, p50, p99), (peer_rate, peer_p50, peer_p99) = (figures(side) for side in sides)
    return Row(name, tasks, rate, p50, p99, peer_rate, peer_p50, peer_p99, rate / peer_rate)


def figures(side: list[Measured]) -> tuple[float, float, float]:
    """Operations a second, and latencies at p50 and p99: medians over the rounds."""
    rates = [len(measured.latencies) / measured.seconds for measured in side]
    cuts = [statistics.quantiles(measured.latencies, n=100) for measured in side]
    return (
        statistics.median(rates),
        statistics.median(cut[49] for cut in cuts) * 1e6,
        statistics.median(cut[98] for cut in cuts) * 1e6,
    )


def book(number: int) -> Book:
    """A book as good as another."""
    return Book(title=f"A Tale of {number} Cities", author="Charles Dickens", year=1859)


class Numbered:
    """Calls an operation with the next book, or the next of some ids."""

    def __init__(self, ids: list[UUID]) -> None:
        self._ids = ids
        self._next = 0

    def book(self) -> Book:
        """The next book."""
        self._next += 1
        return book(self._next)

    def id(self) -> UUID:
        """The next id."""
        self._next += 1
        return self._ids[self._next % len(self._ids)]


INSERT = "INSERT INTO {table} (id, title, author, year, created_at, updated_at) VALUES ({marks})"


@asynccontextmanager
async def sqlite_by_hand(path: Path) -> AsyncGenerator[aiosqlite.Connection]:
    """One shared connection, with the settings of a careful hand."""
    async with aiosqlite.connect(path) as connection:
        await connection.execute("PRAGMA journal_mode=WAL")
        await connection.execute("PRAGMA synchronous=FULL")
        await connection.execute(
            "CREATE TABLE book (id TEXT PRIMARY KEY, title TEXT, author TEXT, year INTEGER,"
            " created_at TEXT, updated_at TEXT)"
        )
        yield connection


async def on_sqlite(folder: Path, cache: MemcachedServer, sizes: Sizes) -> list[Row]:
    """SQLite as the primary, memcached as the cache."""
    host, port = BackendURL.parse(cache.url).hosts[0]
    memcached = aiomcache.Client(host, port or 11211, pool_size=8)
    rows: list[Row] = []
    ours = DaoManager(
        [f"sqlite:///{folder}/ours.db", cache.url], journal=folder / "journal", create_tables=True
    )
    async with ours as octopus, sqlite_by_hand(folder / "hand.db") as connection:
        books, numbered = octopus.dao(Book), Numbered([])

        async def insert() -> None:
            made = numbered.book()
            values = (
                str(made.id),
                made.title,
                made.author,
                made.year,
                str(made.created_at),
                str(made.updated_at),
            )
            await connection.execute(INSERT.format(table="book", marks="?,?,?,?,?,?"), values)
            await asyncio.gather(
                connection.commit(),
                memcached.set(f"book:{made.id}".encode(), made.model_dump_json().encode(), exptime=300),
            )

        for tasks in sizes.tasks:
            rows.append(
                await compare(
                    "create: SQLite + memcached",
                    lambda: books.create(numbered.book()),
                    insert,
                    tasks,
                    sizes.writes,
                    sizes.rounds,
                )
            )
        known = [made.id for made in (book(number) for number in range(500))]
        for number, id_ in enumerate(known):
            made = book(number).model_copy(update={"id": id_})
            await books.create(made)
            await memcached.set(f"book:{id_}".encode(), made.model_dump_json().encode(), exptime=300)
        numbered = Numbered(known)

        async def get() -> None:
            value = await memcached.get(f"book:{numbered.id()}".encode())
            assert value is not None
            Book.model_validate_json(value)

        for tasks in sizes.tasks:
            rows.append(
                await compare(
                    "read: memcached hits",
                    lambda: books.get_one(numbered.id()),
                    get,
                    tasks,
                    sizes.reads,
                    sizes.rounds,
                )
            )
        octopus.backends["sqlite"].writes.force(State.FORCED_OPEN)
        for tasks in sizes.tasks:
            rows.append(
                await compare(
                    "create: journalled in an outage, against SQLite + memcached by hand",
                    lambda: books.create(numbered.book()),
                    insert,
                    tasks,
                    sizes.writes,
                    sizes.rounds,
                )
            )
        octopus.backends["sqlite"].writes.release()
        await octopus.drained()
    await memcached.close()
    return rows


async def reading_sqlite(folder: Path, sizes: Sizes) -> list[Row]:
    """SQLite without a cache."""
    async with (
        DaoManager([f"sqlite:///{folder}/alone.db"], create_tables=True) as octopus,
        aiosqlite.connect(folder / "alone.db") as connection,
    ):
        books = octopus.dao(Book)
        made = [book(number) for number in range(500)]
        (await books.create_many(made)).unwrap()
        numbered = Numbered([one.id for one in made])

        async def select() -> None:
            async with connection.execute(
                "SELECT id, title, author, year, created_at, updated_at FROM book WHERE id = ?",
                (str(numbered.id()),),
            ) as cursor:
                row = await cursor.fetchone()
            assert row is not None
            Book(id=row[0], title=row[1], author=row[2], year=row[3], created_at=row[4], updated_at=row[5])

        return [
            await compare(
                "read: SQLite", lambda: books.get_one(numbered.id()), select, tasks, sizes.reads, sizes.rounds
            )
            for tasks in sizes.tasks
        ]


async def on_mariadb(server: MariaDBServer, sizes: Sizes) -> list[Row]:
    """MariaDB without a cache."""
    url = BackendURL.parse(server.url)
    host, port = url.hosts[0]
    pool = await aiomysql.create_pool(
        host=host,
        port=port,
        user=url.user,
        password=url.password,
        db=url.path,
        minsize=8,
        maxsize=8,
        autocommit=True,
    )
    rows: list[Row] = []
    async with DaoManager([server.url], create_tables=True) as octopus:
        books = octopus.dao(Book)
        made = [book(number) for number in range(500)]
        (await books.create_many(made)).unwrap()
        numbered = Numbered([one.id for one in made])
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("CREATE TABLE hand LIKE book")

        async def insert() -> None:
            one = numbered.book()
            values = (
                str(one.id),
                one.title,
                one.author,
                one.year,
                one.created_at.replace(tzinfo=None),
                one.updated_at.replace(tzinfo=None),
            )
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute(INSERT.format(table="hand", marks="%s,%s,%s,%s,%s,%s"), values)

        async def select() -> None:
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute(
                    "SELECT id, title, author, year, created_at, updated_at FROM book WHERE id = %s",
                    (str(numbered.id()),),
                )
                row = await cursor.fetchone()
            Book(id=row[0], title=row[1], author=row[2], year=row[3], created_at=row[4], updated_at=row[5])

        for tasks in sizes.tasks:
            rows.append(
                await compare(
                    "create: MariaDB",
                    lambda: books.create(numbered.book()),
                    insert,
                    tasks,
                    sizes.writes,
                    sizes.rounds,
                )
            )
            rows.append(
                await compare(
                    "read: MariaDB",
                    lambda: books.get_one(numbered.id()),
                    select,
                    tasks,
                    sizes.reads,
                    sizes.rounds,
                )
            )
    pool.close()
    await pool.wait_closed()
    return rows


async def open_breaker(sizes: Sizes) -> Row:
    """What a call at an open breaker costs, against an awaited future that is done."""
    from octopus_async.adapters.memory import MemoryAdapter
    from octopus_async.guard import Guard
    from octopus_async.record import Key

    guard = Guard(MemoryAdapter(durable=True))
    await guard.open()
    guard.reads.force(State.FORCED_OPEN)
    loop, key = asyncio.get_running_loop(), Key("Book", "1")

    async def ours() -> None:
        await guard.fetch(key, loop.time() + 1)

    async def nothing() -> None:
        future = loop.create_future()
        future.set_result(None)
        await future

    row = await compare(
        "a call at an open breaker, against a future that is done",
        ours,
        nothing,
        1,
        sizes.reads,
        sizes.rounds,
    )
    await guard.close()
    return row


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    tasks: tuple[int, ...]
    writes: int
    reads: int
    rounds: int


async def main() -> None:
    """Measure, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    sizes = Sizes((1, 100), 400, 1000, 3) if options.quick else Sizes((1, 100, 1000), 4000, 10_000, 5)
    with tempfile.TemporaryDirectory() as folder:
        async with MariaDBServer() as database, MemcachedServer() as cache:
            rows = await on_sqlite(Path(folder), cache, sizes)
            rows += await reading_sqlite(Path(folder), sizes)
            rows += await on_mariadb(database, sizes)
        rows.append(await open_breaker(sizes))
    print(f"{'':64} {'tasks':>5} {'ops/s':>8} {'by hand':>8} {'ratio':>6} {'p99 us':>8} {'by hand':>8}")
    for row in rows:
        print(
            f"{row.name:64} {row.tasks:5} {row.ops_per_s:8.0f} {row.peer_ops_per_s:8.0f} {row.ratio:6.2f}"
            f" {row.p99_us:8.0f} {row.peer_p99_us:8.0f}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
