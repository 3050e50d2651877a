"""P3, P4 and P6: reads from memcached, from SQLite, and from the process's own memory."""

from __future__ import annotations

from benchmarks import caches, hand, orms
from benchmarks.load import Book, book, uniform
from benchmarks.rig import Rig
from benchmarks.rows import Goal, at_least
from octopus_async import DaoManager

_TABLE_GOALS = {"by hand": at_least(8), "Tortoise": at_least(15), "SQLAlchemy": at_least(40)}


async def run(rig: Rig) -> None:
    """Measure reads."""
    books = [book(number) for number in range(rig.sizes.records)]
    await _from_memcached(rig, books)
    await _from_sqlite(rig, books)
    await _from_memory(rig, books)


async def _from_memcached(rig: Rig, stored: list[Book]) -> None:
    folder = rig.fresh("hits")
    async with (
        DaoManager([f"sqlite:///{folder}/ours.db", rig.memcached.url], create_tables=True) as octopus,
        hand.memcached(hand.BOOKS, rig.memcached) as cache,
        caches.aiocache(rig.memcached) as (_, remote),
    ):
        books = octopus.dao(Book)
        goals = {rig.sizes.many: (at_least(4), None), rig.sizes.most: (at_least(8), at_least(20))}
        (await books.create_many(stored)).unwrap()
        for made in stored:
            await cache.set(made)
        ids, keys = uniform([made.id for made in stored]), uniform([made.id.hex for made in stored])
        for tasks in rig.sizes.tasks:
            goal, tail = goals.get(tasks, (None, None))
            await rig.compare(
                f"{'P3 ' if goal else ''}read: memcached hits",
                lambda: books.get_one(ids()),
                "by hand",
                lambda: cache.get(keys()),
                tasks,
                goal,
                tail=tail,
            )
        for made in stored:
            await remote.put(made)
        for tasks in rig.sizes.tasks:
            await rig.compare(
                "read: memcached hits",
                lambda: books.get_one(ids()),
                "aiocache",
                lambda: remote.get(keys()),
                tasks,
            )


async def _from_sqlite(rig: Rig, stored: list[Book]) -> None:
    folder = rig.fresh("tables")
    async with (
        DaoManager([f"sqlite:///{folder}/ours.db"], create_tables=True) as octopus,
        hand.sqlite(hand.BOOKS, folder / "hand.db") as database,
        orms.alchemy(folder / "alchemy.db", stored) as alchemy,
        orms.tortoise(folder / "tortoise.db", stored) as tortoise,
    ):
        books = octopus.dao(Book)
        (await books.create_many(stored)).unwrap()
        await database.upsert_many([hand.BOOKS.values(made) for made in stored])
        ids, keys = uniform([made.id for made in stored]), uniform([made.id.hex for made in stored])
        peers = {"by hand": database.select, "Tortoise": tortoise.select, "SQLAlchemy": alchemy.select}
        for tasks in rig.sizes.tasks:
            for peer, select in peers.items():
                goal: Goal | None = _TABLE_GOALS[peer] if tasks == rig.sizes.many else None
                await rig.compare(
                    f"{'P4 ' if goal else ''}read: SQLite",
                    lambda: books.get_one(ids()),
                    peer,
                    lambda select=select: select(keys()),  # type: ignore[misc]
                    tasks,
                    goal,
                )


async def _from_memory(rig: Rig, stored: list[Book]) -> None:
    folder = rig.fresh("memory")
    url = f"sqlite:///{folder}/ours.db"
    async with (
        DaoManager([url, "memory://"], create_tables=True) as octopus,
        caches.cashews() as (objects, texts),
        caches.aiocache(rig.memcached) as (local, _),
    ):
        books = octopus.dao(Book)
        (await books.create_many(stored)).unwrap()
        peers: dict[str, caches.BookCache] = {
            "cashews, JSON": texts,
            "cashews, one object for all": objects,
            "aiocache, JSON": local,
        }
        for cache in peers.values():
            for made in stored:
                await cache.put(made)
        ids, keys = uniform([made.id for made in stored]), uniform([made.id.hex for made in stored])
        for peer, cache in peers.items():
            goal = at_least(4) if peer.startswith("cashews") else None
            await rig.compare(
                f"{'P6 ' if goal else ''}read: memory",
                lambda: books.get_one(ids()),
                peer,
                lambda cache=cache: cache.get(keys()),  # type: ignore[misc]
                1,
                goal,
            )
