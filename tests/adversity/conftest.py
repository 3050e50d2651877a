"""A server that says exactly what a test wants, and a cache on a memcached of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.testing.operations import Author
from octopus_async.testing.servers import MemcachedServer
from tests.adversity.memcache import LOOPBACK, Conversation, ScriptedServer, opened


@pytest.fixture
def author() -> Author:
    return Author()


@pytest.fixture
async def cache(private_memcached: MemcachedServer) -> AsyncGenerator[MemcacheAdapter]:
    async for adapter in opened(MemcacheAdapter([(LOOPBACK, private_memcached.port)])):
        yield adapter


@pytest.fixture
async def scripted() -> AsyncGenerator[ScriptedServer]:
    """Starts servers on free ports, and gives their ports."""
    servers: list[asyncio.Server] = []
    conversations: set[asyncio.Task[None]] = set()

    async def start(converse: Conversation) -> int:
        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            conversations.add(task)
            try:
                await converse(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                conversations.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    yield start
    for server in servers:
        server.close()
    for task in list(conversations):
        task.cancel()
    await asyncio.gather(*conversations, return_exceptions=True)
