"""Two cache libraries: cashews in the process's own memory, aiocache there and in memcached."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

from aiocache import SimpleMemoryCache
from aiocache.backends.memcached import MemcachedCache
from aiocache.serializers import NullSerializer
from cashews import Cache as Cashews

from benchmarks.hand import POOL, address
from benchmarks.load import Book
from octopus_async.testing.servers import MemcachedServer

_SECONDS_TO_LIVE = 300


class BookCache(Protocol):
    """What all of them can do."""

    async def put(self, book: Book) -> None:
        """Store a book."""
        ...

    async def get(self, id_: str) -> Book:
        """A book that is there."""
        ...


class CashewsObjects:
    """cashews as it is used most: it keeps the object, and gives that same object to everybody."""

    def __init__(self, cache: Cashews) -> None:
        self._cache = cache

    async def put(self, book: Book) -> None:
        """Store a book."""
        await self._cache.set(book.id.hex, book, expire=_SECONDS_TO_LIVE)

    async def get(self, id_: str) -> Book:
        """A book that is there."""
        found = await self._cache.get(id_)
        assert isinstance(found, Book)
        return found


class CashewsBytes(CashewsObjects):
    """cashews with what another process could read as well: JSON, parsed for each caller anew."""

    async def put(self, book: Book) -> None:
        """Store a book."""
        await self._cache.set(book.id.hex, book.model_dump_json(), expire=_SECONDS_TO_LIVE)

    async def get(self, id_: str) -> Book:
        """A book that is there."""
        found = await self._cache.get(id_)
        assert isinstance(found, str)
        return Book.model_validate_json(found)


@asynccontextmanager
async def cashews() -> AsyncGenerator[tuple[CashewsObjects, CashewsBytes]]:
    """Both ways to use cashews' memory backend."""
    objects, texts = Cashews(), Cashews()
    objects.setup("mem://?size=1000000")
    texts.setup("mem://?size=1000000")
    try:
        yield CashewsObjects(objects), CashewsBytes(texts)
    finally:
        await objects.close()
        await texts.close()


class Aiocache:
    """The library aiocache, with JSON in its cache."""

    def __init__(self, cache: SimpleMemoryCache | MemcachedCache) -> None:
        self._cache = cache

    async def put(self, book: Book) -> None:
        """Store a book."""
        await self._cache.set(book.id.hex, book.model_dump_json(), ttl=_SECONDS_TO_LIVE)

    async def get(self, id_: str) -> Book:
        """A book that is there."""
        found = await self._cache.get(id_)
        assert isinstance(found, str)
        return Book.model_validate_json(found)


@asynccontextmanager
async def aiocache(server: MemcachedServer) -> AsyncGenerator[tuple[Aiocache, Aiocache]]:
    """The memory backend of aiocache, and its memcached backend."""
    host, port = address(server.url)
    memory = SimpleMemoryCache(serializer=NullSerializer())
    remote = MemcachedCache(serializer=NullSerializer(), endpoint=host, port=port, pool_size=POOL)
    try:
        yield Aiocache(memory), Aiocache(remote)
    finally:
        await memory.close()
        await remote.close()
