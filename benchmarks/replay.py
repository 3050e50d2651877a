"""P9 and P12: how fast a backlog is replayed, and what the event loop feels of it."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

from benchmarks import hand
from benchmarks.load import Book, book
from benchmarks.rig import Figures, Rig, medians, percentile
from benchmarks.rows import Goal, Row, at_least, at_most
from octopus_async import Dao, DaoManager, FileJournal, State
from octopus_async.events import Event, ReplayFinished

_BATCH = 500  # as the replay has it
_CALLERS = 50
_PAUSE = 0.05
_TICK = 0.001
_SMALL_SEGMENT = 64 * 1024

Upserts = Callable[[Sequence[Sequence[object]]], Awaitable[None]]


async def run(rig: Rig) -> None:
    """Measure replays."""
    folder = rig.fresh("replay")
    async with hand.sqlite(hand.BOOKS, folder / "hand.db") as database:
        await _replays(rig, "SQLite", hand.BOOKS, database.upsert_many, at_least(0.5))
    async with hand.mariadb(rig.mariadb) as server:
        await _replays(rig, "MariaDB", hand.BOOKS_MARIADB, server.upsert_many, at_least(0.4))
    await _lag_of_replay(rig)
    await _lag_of_rotation(rig)


async def _replays(rig: Rig, name: str, table: hand.Table[Book], upserts: Upserts, goal: Goal) -> None:
    count, ours = rig.sizes.replayed, list[float]()
    peers: dict[str, tuple[int, list[float]]] = {
        f"executemany, {_BATCH} a commit": (_BATCH, []),
        "executemany, one commit": (count, []),
    }
    for _ in range(min(rig.sizes.rounds, 3)):
        url = f"sqlite:///{rig.fresh('primary')}/ours.db" if name == "SQLite" else rig.mariadb.url
        async with _backlog(rig, url, count) as (octopus, finished):
            ours.append(await _timed(_replayed(octopus, finished)))
        rows = [table.values(book(number)) for number in range(count)]
        for size, theirs in peers.values():
            theirs.append(await _timed(_in_batches(upserts, rows, size)))
    for peer, (size, theirs) in peers.items():
        rates = [count / statistics.median(seconds) for seconds in (ours, theirs)]
        judged = size == _BATCH  # a replay that may be interrupted cannot be one transaction
        what = f"{'P9 ' if judged else ''}replay of {count:,}: {name}"
        row = Row(rig.named(what), 1, rates[0], peer=peer, peer_ops_per_s=rates[1])
        rig.add(row.judged(rates[0] / rates[1], goal if judged else None))


async def _in_batches(upserts: Upserts, rows: Sequence[Sequence[object]], size: int) -> None:
    for start in range(0, len(rows), size):
        await upserts(rows[start : start + size])


@asynccontextmanager
async def _backlog(rig: Rig, url: str, count: int) -> AsyncGenerator[tuple[DaoManager, asyncio.Event]]:
    """A manager whose primary has missed ``count`` creates, and what is set when it has them."""
    finished = asyncio.Event()

    def listen(event: Event) -> None:
        if isinstance(event, ReplayFinished):
            finished.set()

    journal = rig.fresh("journal") / "journal"
    async with DaoManager([url], journal=journal, create_tables=True, listeners=[listen]) as octopus:
        await _miss(octopus, count)
        yield octopus, finished


async def _miss(octopus: DaoManager, count: int) -> None:
    await octopus.create_tables(Book)
    (backend,) = octopus.backends.values()
    backend.writes.force(State.FORCED_OPEN)
    (await octopus.dao(Book).create_many([book(number) for number in range(count)])).unwrap()


async def _replayed(octopus: DaoManager, finished: asyncio.Event) -> None:
    finished.clear()
    (backend,) = octopus.backends.values()
    backend.writes.release()
    await finished.wait()


async def _timed(work: Awaitable[None]) -> float:
    began = perf_counter()
    await work
    return perf_counter() - began


async def _lag_of_replay(rig: Rig) -> None:
    """The same paced load, with and without a backlog that is replayed meanwhile."""
    calm, replaying = list[Figures](), list[Figures]()
    for _ in range(min(rig.sizes.rounds, 3)):
        url = f"sqlite:///{rig.fresh('lag')}/ours.db"
        async with _backlog(rig, url, rig.sizes.replayed) as (octopus, finished):
            books = octopus.dao(Book)
            replaying.append(await _lag(books, _replayed(octopus, finished)))
            calm.append(await _lag(books, asyncio.sleep(rig.sizes.seconds * 3)))
    _add_lag(rig, "P12 loop lag: replaying", replaying, "not replaying", calm)


async def _lag_of_rotation(rig: Rig) -> None:
    """The same paced load in an outage, into small files and into one that is not full."""
    folder = rig.fresh("rotation")
    sizes = {"small": _SMALL_SEGMENT, "large": 1 << 30}
    lags: dict[str, list[Figures]] = {name: [] for name in sizes}
    for number in range(min(rig.sizes.rounds, 3)):
        for name, size in sizes.items():
            url = f"sqlite:///{folder}/{name}-{number}.db"
            journal = FileJournal(_made(folder / f"{name}-{number}"), segment_bytes=size)
            async with DaoManager([url], journal=journal, create_tables=True) as octopus:
                await _miss(octopus, 1)
                lags[name].append(await _lag(octopus.dao(Book), asyncio.sleep(rig.sizes.seconds * 3)))
    _add_lag(rig, "P12 loop lag: rotating the journal", lags["small"], "not rotating", lags["large"])


def _made(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def _add_lag(rig: Rig, name: str, ours: Sequence[Figures], peer: str, theirs: Sequence[Figures]) -> None:
    lagging, calm = medians(ours), medians(theirs)
    row = rig.row_of(name, _CALLERS, lagging, peer, calm)
    rig.add(row.judged(lagging.p99 / calm.p99, at_most(3)))


async def _lag(books: Dao[Book], work: Awaitable[None]) -> Figures:
    """Writes a second of a paced load, and how late the loop is, while some work goes on."""
    late: list[float] = []
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            await books.create(book(0))
            written += 1
            await asyncio.sleep(_PAUSE)

    async def watch() -> None:
        while True:
            before = perf_counter()
            await asyncio.sleep(_TICK)
            late.append(max(0.0, perf_counter() - before - _TICK))

    tasks = [asyncio.create_task(watch()), *(asyncio.create_task(write()) for _ in range(_CALLERS))]
    try:
        seconds = await _timed(work)
        await asyncio.sleep(_TICK * 5)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Figures(written / seconds, percentile(late, 50) * 1e6, percentile(late, 99) * 1e6)
