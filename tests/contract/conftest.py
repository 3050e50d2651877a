"""One fixture for each adapter, bare and not yet opened; `adapter` opens it, as it is or in a guard."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.adapters.mongodb import MongoDBAdapter
from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.adapters.postgres import PostgresAdapter
from octopus_async.adapters.redis import RedisAdapter
from octopus_async.adapters.rest import RestAdapter
from octopus_async.adapters.shm import SharedMemoryAdapter
from octopus_async.adapters.sqlalchemy import SQLAlchemyAdapter
from octopus_async.adapters.sqlite import SQLiteAdapter
from octopus_async.backend import Adapter
from octopus_async.guard import Guard, GuardPolicy
from octopus_async.testing.servers import RedisCluster, Server
from octopus_async.url import BackendURL
from tests.contract.sql import MySQLDatabase, SQLiteDatabase
from tests.contract.sql import mysql_database as new_mysql_database

_REPEATS = re.compile(
    r"\[(guarded-(redis_in_cluster|mongodb(_in_set)?\b|asyncmy|sqlalchemy_\w+)"
    r"|bare-mongodb-[1-7]\]"  # further random histories
    r"|bare-mongodb-.*-(among others|behind what it meets)"  # each is a write of its own, as alone
    r"|bare-(asyncmy|sqlalchemy_\w+)-.*-(alone|behind what it meets)"  # their databases have adapters
    r"|bare-sqlalchemy_(sqlite|mysql)\b)"  # the same as on Postgres, but for the forms of statements
    r"|TestARestServiceWithoutBulkRequests.*-(among others|behind what it meets)\]"  # each is sent alone
)


@pytest.fixture
def memory_cache() -> Adapter:
    return MemoryAdapter()


@pytest.fixture
def shm() -> Iterator[Adapter]:
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield SharedMemoryAdapter(folder=Path(folder) / "octopus", max_bytes=16 * 1024**2)


@pytest.fixture
def shm_nowhere(tmp_path: Path) -> Adapter:
    return SharedMemoryAdapter(folder=tmp_path / "missing" / "octopus")


@pytest.fixture
def memory() -> Adapter:
    return MemoryAdapter(durable=True)


@pytest.fixture
def sqlite(tmp_path: Path) -> Adapter:
    return SQLiteAdapter(str(tmp_path / "contract.sqlite3"), synchronous="NORMAL")


@pytest.fixture
def sqlite_nowhere(tmp_path: Path) -> Adapter:
    return SQLiteAdapter(str(tmp_path / "missing" / "contract.sqlite3"))


@pytest.fixture
def mysql(mariadb_server: Server) -> Adapter:
    return MySQLAdapter.from_url(BackendURL.parse(mariadb_server.url))


@pytest.fixture
def asyncmy(mariadb_server: Server) -> Adapter:
    url = BackendURL.parse(mariadb_server.url)
    return MySQLAdapter.from_url(replace(url, scheme="mysql+asyncmy"))


@pytest.fixture
def asyncmy_nowhere(unused_tcp_port: int) -> Adapter:
    return MySQLAdapter(
        host="127.0.0.1", port=unused_tcp_port, user="octopus", database="octopus", driver="asyncmy"
    )


@pytest.fixture
def mysql_nowhere(unused_tcp_port: int) -> Adapter:
    return MySQLAdapter(host="127.0.0.1", port=unused_tcp_port, user="octopus", database="octopus")


@pytest.fixture
def postgres(postgres_server: Server) -> Adapter:
    return PostgresAdapter.from_url(BackendURL.parse(postgres_server.url))


@pytest.fixture
def postgres_nowhere(unused_tcp_port: int) -> Adapter:
    return PostgresAdapter(host="127.0.0.1", port=unused_tcp_port, user="octopus", database="octopus")


@pytest.fixture
def rest_singly(rest_server: Server) -> Adapter:
    return rest_adapter(rest_server.url, bulk="false")


@pytest.fixture
def rest(rest_server: Server) -> Adapter:
    return rest_adapter(rest_server.url)


@pytest.fixture
def rest_nowhere(unused_tcp_port: int) -> Adapter:
    return rest_adapter(f"rest+http://127.0.0.1:{unused_tcp_port}/records?allow=127.0.0.1")


@pytest.fixture
def sqlalchemy_sqlite(tmp_path: Path) -> Adapter:
    return SQLAlchemyAdapter.from_url(
        BackendURL.parse(f"sqlalchemy+sqlite+aiosqlite:///{tmp_path}/contract.sqlite3")
    )


@pytest.fixture
def sqlalchemy_mysql(mariadb_server: Server) -> Adapter:
    url = BackendURL.parse(mariadb_server.url)
    return SQLAlchemyAdapter.from_url(replace(url, scheme="sqlalchemy+mysql+aiomysql"))


@pytest.fixture
def sqlalchemy_postgres(postgres_server: Server) -> Adapter:
    url = BackendURL.parse(postgres_server.url)
    return SQLAlchemyAdapter.from_url(replace(url, scheme="sqlalchemy+postgresql+asyncpg"))


@pytest.fixture
def sqlalchemy_mysql_nowhere(unused_tcp_port: int) -> Adapter:
    return SQLAlchemyAdapter.from_url(
        BackendURL.parse(f"sqlalchemy+mysql+aiomysql://app:secret@127.0.0.1:{unused_tcp_port}/shop")
    )


@pytest.fixture
def sqlalchemy_postgres_nowhere(unused_tcp_port: int) -> Adapter:
    return SQLAlchemyAdapter.from_url(
        BackendURL.parse(f"sqlalchemy+postgresql+asyncpg://app:secret@127.0.0.1:{unused_tcp_port}/shop")
    )


@pytest.fixture
def memcached(memcached_server: Server) -> Adapter:
    return MemcacheAdapter.from_url(BackendURL.parse(memcached_server.url))


@pytest.fixture
def memcached_nowhere(unused_tcp_port: int) -> Adapter:
    return MemcacheAdapter([("127.0.0.1", unused_tcp_port)])


@pytest.fixture
def mongodb(mongodb_server: Server) -> Adapter:
    return MongoDBAdapter.from_url(BackendURL.parse(f"{mongodb_server.url}?journal=false"))


@pytest.fixture
def mongodb_in_set(mongodb_replica_set: Server) -> Adapter:
    return MongoDBAdapter.from_url(BackendURL.parse(f"{mongodb_replica_set.url}&journal=false"))


@pytest.fixture
def mongodb_nowhere(unused_tcp_port: int) -> Adapter:
    return MongoDBAdapter([("127.0.0.1", unused_tcp_port)], database="octopus", timeout=0.2)


@pytest.fixture
def redis(redis_server: Server) -> Adapter:
    return RedisAdapter.from_url(BackendURL.parse(redis_server.url))


@pytest.fixture
def redis_in_cluster(redis_cluster: RedisCluster) -> Adapter:
    return RedisAdapter.from_url(BackendURL.parse(redis_cluster.url))


@pytest.fixture
def redis_nowhere(unused_tcp_port: int) -> Adapter:
    return RedisAdapter([("127.0.0.1", unused_tcp_port)])


@pytest.fixture
def redis_cluster_nowhere(unused_tcp_port: int) -> Adapter:
    return RedisAdapter([("127.0.0.1", unused_tcp_port)], cluster=True)


@pytest.fixture
def sqlite_database(tmp_path: Path) -> SQLiteDatabase:
    return SQLiteDatabase(tmp_path)


@pytest.fixture
async def mysql_database(mariadb_server: Server) -> AsyncGenerator[MySQLDatabase]:
    async with new_mysql_database(mariadb_server.url) as database:
        yield database


@pytest.fixture(params=["bare", "guarded"])
async def adapter(bare: Adapter, request: pytest.FixtureRequest) -> AsyncGenerator[Adapter]:
    adapter = in_guard(bare) if request.param == "guarded" else bare
    await adapter.open()
    yield adapter
    await adapter.close()


@pytest.fixture(params=["bare", "guarded"])
def unreachable(nowhere: Adapter, request: pytest.FixtureRequest) -> Adapter:
    return in_guard(nowhere) if request.param == "guarded" else nowhere


def rest_adapter(text: str, **options: str) -> RestAdapter:
    url = BackendURL.parse(text)
    return RestAdapter.from_url(replace(url, options={**url.options, **options}))


def in_guard(adapter: Adapter) -> Adapter:
    patient = GuardPolicy(timeout=20.0, open_timeout=20.0)  # a busy machine is not what is tested here
    return Guard(adapter, policy=patient)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what repeats, unless OCTOPUS_CONTRACT=whole asks for everything.

    A guard knows nothing of clusters, nor of what stands behind a durable adapter: it is tried on others.
    """
    if os.environ.get("OCTOPUS_CONTRACT") == "whole":
        return
    left_out = {item for item in items if _REPEATS.search(item.nodeid)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
