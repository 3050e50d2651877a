"""A server that says just what a test wants, a cache on memcached and books on MariaDB: a test's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.testing.contract.subject import eventually
from octopus_async.testing.operations import Author
from octopus_async.testing.servers import MariaDBServer, MemcachedServer, Server
from octopus_async.url import BackendURL
from tests.adversity.memcache import LOOPBACK, Conversation, ScriptedServer, opened
from tests.contract.sql import Books, MySQLDatabase, mysql_database
from tests.contract.sql import opened as opened_books


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
    writers: set[asyncio.StreamWriter] = set()

    async def start(converse: Conversation) -> int:
        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.add(writer)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await converse(reader, writer)
            writer.transport.abort()
            writers.discard(writer)

        server = await asyncio.start_server(hold, LOOPBACK, 0)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    yield start
    for server in servers:
        server.close()
    for writer in writers:
        writer.transport.abort()
    await eventually(lambda: not writers)


@pytest.fixture
def scheme() -> str:
    """Says by which driver MariaDB is spoken to."""
    return "mysql"


@pytest.fixture
async def database(mariadb_server: Server, scheme: str) -> AsyncGenerator[MySQLDatabase]:
    async with mysql_database(mariadb_server.url) as database:
        yield MySQLDatabase(replace(database.url, scheme=scheme))


@pytest.fixture
async def books(database: MySQLDatabase) -> AsyncGenerator[Books]:
    async with opened_books(database) as books:
        yield books


@pytest.fixture
def private_url(private_mariadb: MariaDBServer, scheme: str) -> BackendURL:
    return replace(BackendURL.parse(private_mariadb.url), scheme=scheme)


@pytest.fixture
async def private(private_url: BackendURL) -> AsyncGenerator[Books]:
    async with opened_books(MySQLDatabase(private_url)) as books:
        yield books
