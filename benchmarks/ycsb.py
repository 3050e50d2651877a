"""YCSB's workloads A, B, C and F on SQLite and memcached, uniform and zipfian."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

from benchmarks import hand
from benchmarks.load import MIXES, Item, Mix, decisions, item, uniform, zipfian
from benchmarks.rig import Operation, Rig
from octopus_async import Dao, DaoManager

_RECORDS = 1000  # YCSB's recordcount

Draw = Callable[[], UUID]


async def run(rig: Rig) -> None:
    """Measure the mixes. An update writes all ten fields (YCSB's writeallfields)."""
    folder = rig.fresh("ycsb")
    async with (
        DaoManager(
            [f"sqlite:///{folder}/ours.db", rig.memcached.url], journal=folder / "journal", create_tables=True
        ) as octopus,
        hand.sqlite(hand.ITEMS, folder / "hand.db") as database,
        hand.memcached(hand.ITEMS, rig.memcached) as cache,
    ):
        items = octopus.dao(Item)
        stored = [item() for _ in range(min(_RECORDS, rig.sizes.records))]
        (await items.create_many(stored)).unwrap()
        await database.upsert_many([hand.ITEMS.values(made) for made in stored])
        for made in stored:
            await cache.set(made)
        ids = [made.id for made in stored]
        spare = uniform(stored)  # whose fields are written: drawn beforehand
        for mix in MIXES:
            for name, draw in (("uniform", uniform(ids)), ("zipfian", zipfian(ids))):
                for tasks in rig.sizes.tasks:
                    await rig.compare(
                        f"YCSB {mix.name}, {name}",
                        _ours(items, mix, draw, spare),
                        "by hand, a commit each",
                        _by_hand(database, cache, mix, draw, spare),
                        tasks,
                    )


def _ours(items: Dao[Item], mix: Mix, draw: Draw, spare: Callable[[], Item]) -> Operation:
    reads = decisions(mix.reads)

    async def operation() -> None:
        id_ = draw()
        if reads():
            await items.get_one(id_)
        elif mix.modifies:
            found = await items.get_one(id_)
            found.field0 = spare().field1
            await items.update(found)
        else:
            await items.update(_with_id(spare(), id_))

    return operation


def _by_hand(
    database: hand.SQLite[Item], cache: hand.Memcached[Item], mix: Mix, draw: Draw, spare: Callable[[], Item]
) -> Operation:
    reads = decisions(mix.reads)

    async def find(id_: UUID) -> Item:
        found = await cache.get(id_.hex)
        if found is None:
            found = await database.select(id_.hex)
            await cache.set(found)
        return found

    async def write(changed: Item) -> None:
        both: tuple[Awaitable[None], Awaitable[None]] = (database.update(changed), cache.set(changed))
        await asyncio.gather(*both)

    async def operation() -> None:
        id_ = draw()
        if reads():
            await find(id_)
        elif mix.modifies:
            found = await find(id_)
            found.field0 = spare().field1
            await write(found)
        else:
            await write(_with_id(spare(), id_))

    return operation


def _with_id(made: Item, id_: UUID) -> Item:
    return Item.model_construct(None, **{**dict(made), "id": id_})
