"""P7, P8 and P11: writes while the primary is away, and what an open breaker costs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from uuid import UUID

from benchmarks.load import Book, book, uniform
from benchmarks.rig import Figures, Operation, Rig, figures_of
from benchmarks.rows import at_least, at_most
from octopus_async import Cascade, Dao, DaoManager, State

_WRITERS = 50
_DEADLINE = 1.5
_GRACE = 0.1


async def run(rig: Rig) -> None:
    """Measure outages."""
    await _journalled(rig)
    await _open_breaker(rig)
    await _stopped_primary(rig)


async def _journalled(rig: Rig) -> None:
    folder = rig.fresh("outage")
    healthy = [f"sqlite:///{folder}/healthy.db", rig.memcached.url]
    away = [f"sqlite:///{folder}/away.db", rig.memcached.url]
    async with (
        DaoManager(healthy, journal=folder / "healthy", create_tables=True) as octopus,
        outage(away, folder / "away") as in_outage,
        outage(away[:1], folder / "alone") as alone,
        _bare_appends(folder / "bare") as append,
    ):
        books, journalled, single = (manager.dao(Book) for manager in (octopus, in_outage, alone))
        await rig.compare(
            "P7 create in an outage: journal + memcached",
            lambda: journalled.create(book(0)),
            "create, healthy, SQLite (FULL)",
            lambda: books.create(book(0)),
            100,
            at_least(0.8),
        )
        await rig.compare(
            "P7 create in an outage: journal",
            lambda: single.create(book(0)),
            "write + fdatasync on a thread",
            append,
            1,
            at_most(1.5),
        )


@asynccontextmanager
async def outage(urls: list[str], journal: Path) -> AsyncGenerator[DaoManager]:
    """A manager whose primary is taken to be away."""
    async with DaoManager(urls, journal=journal, create_tables=True) as octopus:
        octopus.backends["sqlite"].writes.force(State.FORCED_OPEN)
        yield octopus


@asynccontextmanager
async def _bare_appends(path: Path) -> AsyncGenerator[Operation]:
    """Appends a line of the same length to a file, durably, on a thread."""
    loop = asyncio.get_running_loop()
    line = b"x" * 420 + b"\n"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write() -> None:
        os.write(file, line)
        os.fdatasync(file)

    with ThreadPoolExecutor(1) as thread:
        yield lambda: loop.run_in_executor(thread, write)
    os.close(file)


async def _open_breaker(rig: Rig) -> None:
    folder = rig.fresh("breaker")
    without = DaoManager([f"sqlite:///{folder}/without.db"], create_tables=True)
    beside = DaoManager(
        [f"sqlite:///{folder}/beside.db", rig.memcached.url],
        read=Cascade("memcache", "sqlite"),
        create_tables=True,
    )
    async with without, beside:
        plain, guarded = without.dao(Book), beside.dao(Book)
        read, read_plain = await _reads(rig, guarded), await _reads(rig, plain)
        cache = beside.backends["memcache"]  # open from here on: of what it missed it would not be asked
        cache.reads.force(State.FORCED_OPEN)
        cache.writes.force(State.FORCED_OPEN)
        what = "memcached's breaker open"
        await rig.compare(
            f"P8 read: SQLite, {what}",
            lambda: guarded.get_one(read()),
            "without memcached",
            lambda: plain.get_one(read_plain()),
            1,
            at_most(1.1),
        )
        await rig.compare(
            f"P8 create: SQLite, {what}",
            lambda: guarded.create(book(0)),
            "without memcached",
            lambda: plain.create(book(0)),
            1,
            at_most(1.1),
        )


async def _reads(rig: Rig, books: Dao[Book]) -> Callable[[], UUID]:
    stored = [book(number) for number in range(rig.sizes.records)]
    (await books.create_many(stored)).unwrap()
    return uniform([made.id for made in stored])


async def _stopped_primary(rig: Rig) -> None:
    """Stop MariaDB's process under load: it takes connections then, and answers nothing."""
    folder = rig.fresh("stopped")
    seconds = rig.sizes.seconds * 5
    manager = DaoManager(
        [rig.mariadb.url, rig.memcached.url],
        journal=folder / "journal",
        create_tables=True,
        timeout=_DEADLINE,
    )
    async with manager as octopus:
        books, writes = octopus.dao(Book), octopus.backends["mysql"].writes
        await books.create(book(0))
        load = _Load(books)
        async with load:
            healthy = await load.through(seconds)
            stopped = perf_counter()
            await rig.mariadb.pause()
            try:
                while writes.state is not State.OPEN:  # noqa: ASYNC110 - no event for one poller
                    await asyncio.sleep(0.005)
                opened = await load.through(seconds)
            finally:
                await rig.mariadb.resume()
        async with asyncio.timeout(60):
            await octopus.drained()
    name = "P11 create: MariaDB stopped"
    row = rig.row_of(f"{name}, breaker open: p99", _WRITERS, opened, "healthy", healthy)
    rig.add(row.judged(opened.p99 / healthy.p99, at_most(2)))
    worst = max(taken for began, taken in load.took if began >= stopped - _DEADLINE)
    row = rig.row_of(f"{name}: worst write, s beyond deadline", _WRITERS, opened, f"{_DEADLINE} s", healthy)
    rig.add(row.judged(max(0.0, worst - _DEADLINE), at_most(_GRACE)))


class _Load:
    """Tasks that write one book after the other while it is entered, and how long each write took."""

    def __init__(self, books: Dao[Book]) -> None:
        self._books = books
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.took: list[tuple[float, float]] = []

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(self._write()) for _ in range(_WRITERS)]

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _write(self) -> None:
        while not self._stopping:
            began = perf_counter()
            await self._books.create(book(0))
            self.took.append((began, perf_counter() - began))

    async def through(self, seconds: float) -> Figures:
        """The figures of what begins from now on, and ends in that time, or a little later."""
        began, took = perf_counter(), list[float]()
        while not took:
            await asyncio.sleep(seconds)
            took = [taken for start, taken in self.took if start >= began]
        return figures_of(took, perf_counter() - began)
