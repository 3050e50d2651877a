"""Helpers of the tests of the memcached adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeAlias

from octopus_async.adapters._memcache_form import Form
from octopus_async.adapters._memcache_pool import Server
from octopus_async.adapters.memcache import DEFAULT_ITEM_LIMIT, MemcacheAdapter
from octopus_async.record import Key, Record

LOOPBACK = "127.0.0.1"

Conversation: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ScriptedServer: TypeAlias = Callable[[Conversation], Awaitable[int]]
"""Starts a server on a free port, for replies that no real one can be made to give."""


async def opened(adapter: MemcacheAdapter) -> AsyncGenerator[MemcacheAdapter]:
    await adapter.open()
    yield adapter
    await adapter.close()


def scripted_cache(port: int, *, connections: int = 4) -> MemcacheAdapter:
    """An adapter that is open although its server answers no ``version``."""
    adapter = MemcacheAdapter([(LOOPBACK, port)], connections=connections)
    adapter._shards = (adapter._make_shard(LOOPBACK, port),)
    return adapter


def server_of(adapter: MemcacheAdapter) -> Server:
    return adapter._shards[0]._server


def wire_of(key: Key) -> bytes:
    return Form("octopus:", 300, DEFAULT_ITEM_LIMIT).wire_key(key)


async def raw(port: int, request: bytes, end: bytes = b"\r\n") -> bytes:
    """Say something to a memcached by hand."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(request)
    reply = await reader.readuntil(end)
    writer.close()
    await writer.wait_closed()
    return reply


async def stat(port: int, name: str) -> int:
    lines = (await raw(port, b"stats\r\n", b"END\r\n")).split(b"\r\n")
    return int(dict(line.split()[1:] for line in lines if line.startswith(b"STAT"))[name.encode()])


async def find(adapter: MemcacheAdapter, key: Key) -> object:
    (answer,) = await adapter.read([key])
    return answer.fields if isinstance(answer, Record) else answer
