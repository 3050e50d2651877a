"""P1 and P2: creates and updates in SQLite and memcached, at both fsync policies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from benchmarks import hand, orms
from benchmarks.load import Book, book, uniform
from benchmarks.rig import Rig
from benchmarks.rows import Goal, at_least, at_most
from octopus_async import Dao, DaoManager

COMMIT_EACH = "by hand, a commit each"
SHARED = "by hand, a shared transaction"


async def run(rig: Rig) -> None:
    """Measure writes."""
    for synchronous in ("FULL", "NORMAL"):
        await _beside_the_drivers(rig, synchronous)
    await _beside_mappers(rig)


async def _beside_the_drivers(rig: Rig, synchronous: str) -> None:
    folder = rig.fresh("writes")
    url = f"sqlite:///{folder}/ours.db?synchronous={synchronous}"
    async with (
        DaoManager([url, rig.memcached.url], journal=folder / "journal", create_tables=True) as octopus,
        hand.sqlite(hand.BOOKS, folder / "each.db", synchronous=synchronous) as each,
        hand.sqlite(hand.BOOKS, folder / "shared.db", synchronous=synchronous, shared=True) as shared,
        hand.memcached(hand.BOOKS, rig.memcached) as cache,
    ):
        books = octopus.dao(Book)
        stored = await _fill(rig, books, (each, shared), cache)
        what = f"SQLite ({synchronous}) + memcached"
        for tasks in rig.sizes.tasks:
            for peer, database in ((COMMIT_EACH, each), (SHARED, shared)):
                if database is shared and tasks == 1:
                    continue  # one task shares with nobody
                goal, figure = _goal(rig, tasks, judged=database is each)
                await rig.compare(
                    f"{figure}create: {what}",
                    lambda: books.create(_new()),
                    peer,
                    lambda database=database: _both(database.insert, cache.set, _new()),  # type: ignore[misc]
                    tasks,
                    goal,
                )
                ours, theirs = uniform(stored), uniform(stored)
                await rig.compare(
                    f"{figure}update: {what}",
                    lambda ours=ours: books.update(_changed(ours())),  # type: ignore[misc]
                    peer,
                    lambda database=database, theirs=theirs: _both(  # type: ignore[misc]
                        database.update, cache.set, _changed(theirs())
                    ),
                    tasks,
                    goal,
                )


async def _beside_mappers(rig: Rig) -> None:
    folder = rig.fresh("mappers")
    async with (
        DaoManager([f"sqlite:///{folder}/ours.db"], create_tables=True) as octopus,
        orms.alchemy(folder / "alchemy.db", []) as alchemy,
        orms.tortoise(folder / "tortoise.db", []) as tortoise,
    ):
        books = octopus.dao(Book)
        for tasks in rig.sizes.tasks:
            for peer, insert in (("SQLAlchemy", alchemy.insert), ("Tortoise", tortoise.insert)):
                await rig.compare(
                    "create: SQLite (FULL)",
                    lambda: books.create(_new()),
                    peer,
                    lambda insert=insert: insert(_new()),  # type: ignore[misc]
                    tasks,
                )


def _goal(rig: Rig, tasks: int, *, judged: bool) -> tuple[Goal | None, str]:
    if not judged or tasks == rig.sizes.most:
        return None, ""
    return (at_most(1.15), "P2 ") if tasks == 1 else (at_least(8), "P1 ")


async def _fill(
    rig: Rig, books: Dao[Book], databases: Sequence[hand.SQLite[Book]], cache: hand.Memcached[Book]
) -> list[Book]:
    stored = [_new() for _ in range(rig.sizes.records)]
    (await books.create_many(stored)).unwrap()
    for database in databases:
        await database.upsert_many([hand.BOOKS.values(made) for made in stored])
    for made in stored:
        await cache.set(made)
    return stored


async def _both(
    write: Callable[[Book], Awaitable[None]], put: Callable[[Book], Awaitable[None]], made: Book
) -> None:
    await asyncio.gather(write(made), put(made))


_number = 0


def _new() -> Book:
    global _number  # noqa: PLW0603 - a counter costs both sides the same, and next to nothing
    _number += 1
    return book(_number)


def _changed(made: Book) -> Book:
    made.year += 1
    return made
