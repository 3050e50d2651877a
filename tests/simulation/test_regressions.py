"""What the simulation found, each with the seed that found it first, told again without chance."""

import asyncio

import pytest

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.errors import RecordNotFound, WriteUnavailable
from octopus_async.manager import DaoManager
from octopus_async.model import KeyedModel
from octopus_async.record import Key, Record
from octopus_async.strategies.plan import Order
from octopus_async.testing.faulty import Fault, FaultyAdapter


class Book(KeyedModel):
    id: str
    title: str


KEY = Key("Book", "1")


async def test_a_refused_delete_leaves_the_replica_as_it_was() -> None:
    """Seed 48: the replica was told at once, and a delete cannot be taken back."""
    primary = FaultyAdapter(MemoryAdapter(durable=True, name="primary"))
    replica = MemoryAdapter(durable=True, name="replica")
    async with DaoManager([primary, replica]) as octopus:
        books = octopus.dao(Book)
        await books.create(Book(id="1", title="kept"))
        await asyncio.sleep(0.01)
        primary.break_down(Fault.REFUSE)
        with pytest.raises(WriteUnavailable):
            await books.delete("1")
        await asyncio.sleep(0.01)
        [record] = await replica.read([KEY])
        assert isinstance(record, Record)
        assert record.fields is not None


async def test_an_update_that_finds_nothing_leaves_the_tombstone_in_the_cache() -> None:
    """Seed 105: the cache took it before the primary refused it, and its tombstone was gone with it."""
    cache = MemoryAdapter(name="cache")
    async with DaoManager([MemoryAdapter(durable=True, name="primary"), cache]) as octopus:
        books = octopus.dao(Book)
        book = Book(id="1", title="gone")
        await books.create(book)
        deleted = await books.delete(book)
        with pytest.raises(RecordNotFound):
            await books.update(book)
        await asyncio.sleep(0.01)
        [record] = await cache.read([KEY])
        assert isinstance(record, Record)
        assert (record.version, record.fields) == (deleted.version, None)


async def test_a_read_under_way_does_not_show_a_write_that_was_refused_meanwhile() -> None:
    """Seed 1498: the key was not busy yet when the read asked the cache, and the answer came late."""
    failing = FaultyAdapter(MemoryAdapter(durable=True, name="primary"))
    primary = FaultyAdapter(failing, delay=0.1)
    cache = FaultyAdapter(MemoryAdapter(name="cache"), delay=0.05)
    async with DaoManager([primary, cache], order=Order.CONCURRENT) as octopus:
        books = octopus.dao(Book)
        await books.create(Book(id="1", title="old"))
        await asyncio.sleep(0.01)
        cache.reads = Fault.SLOW
        reading = asyncio.ensure_future(books.read("1"))
        await asyncio.sleep(0.03)
        primary.writes, failing.writes = Fault.SLOW, Fault.FAIL
        with pytest.raises(WriteUnavailable):
            await books.update(Book(id="1", title="refused"))
        found = await reading
        assert found is not None
        assert found.title == "old"
