"""Each adapter on its real server, open, for hostile keys and values."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.adapters.postgres import PostgresAdapter
from octopus_async.adapters.sqlite import SQLiteAdapter
from octopus_async.backend import Adapter
from octopus_async.testing.servers import Server
from octopus_async.url import BackendURL


@pytest.fixture
def memory() -> Adapter:
    return MemoryAdapter(durable=True)


@pytest.fixture
def memory_cache() -> Adapter:
    return MemoryAdapter()


@pytest.fixture
def sqlite(tmp_path: Path) -> Adapter:
    return SQLiteAdapter(str(tmp_path / "fuzz.sqlite3"), synchronous="NORMAL")


@pytest.fixture
def mysql(mariadb_server: Server) -> Adapter:
    return MySQLAdapter.from_url(BackendURL.parse(mariadb_server.url))


@pytest.fixture
def postgres(postgres_server: Server) -> Adapter:
    return PostgresAdapter.from_url(BackendURL.parse(postgres_server.url))


@pytest.fixture
def memcached(memcached_server: Server) -> Adapter:
    return MemcacheAdapter.from_url(BackendURL.parse(memcached_server.url))


@pytest.fixture(params=["memory", "memory_cache", "sqlite", "mysql", "postgres", "memcached"])
def bare(request: pytest.FixtureRequest) -> Adapter:
    found: Adapter = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def adapter(bare: Adapter) -> AsyncGenerator[Adapter]:
    await bare.open()
    yield bare
    await bare.close()
