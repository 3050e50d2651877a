"""Fixtures for real servers: those that all tests share, and those of one test, which it may kill."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from tempfile import TemporaryDirectory
from typing import TypeAlias

import pytest
import pytest_asyncio
from hypothesis import settings

from octopus_async.errors import ConfigurationError
from octopus_async.testing.proxy import FaultyProxy
from octopus_async.testing.servers import (
    MARIADB,
    MEMCACHED,
    MONGODB,
    POSTGRES,
    REDIS,
    MariaDBServer,
    MemcachedServer,
    MongoDBServer,
    MotoServer,
    PostgresServer,
    PrivateServer,
    RedisCluster,
    RedisServer,
    RestServer,
    Server,
    ServerKind,
    find,
    open_server,
)
from tests import turns
from tests.contract.sql import PostgresDatabase, emptied
from tests.contract.sql import postgres_database as new_postgres_database

pytest_plugins = ["tests.contract.table"]

ProxyFactory: TypeAlias = Callable[[str], Awaitable[FaultyProxy]]

# The same examples each time: who looks for new ones runs the fuzzing session.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

_NEEDS = {
    "memcached_server": MEMCACHED,
    "private_memcached": MEMCACHED,
    "mariadb_server": MARIADB,
    "private_mariadb": MARIADB,
    "postgres_server": POSTGRES,
    "private_postgres": POSTGRES,
    "mongodb_server": MONGODB,
    "mongodb_replica_set": MONGODB,
    "mortal": MONGODB,
    "redis_server": REDIS,
    "redis_cluster": REDIS,
    "private_redis": REDIS,
}
_missing: dict[ServerKind, str] = {}
_found: list[str] = []  # the versions of the servers that this process uses
_FOUND = "servers found"


def pytest_configure(config: pytest.Config) -> None:
    """Give all processes of this run one place to take turns."""
    if turns.VARIABLE not in os.environ:
        folder = TemporaryDirectory(prefix="octopus-tests-")
        os.environ[turns.VARIABLE] = folder.name
        config.add_cleanup(folder.cleanup)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Find the servers before the first test, as a download is not to count against a test's timeout."""
    if session.config.option.collectonly:
        return
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for kind in {kind for name, kind in _NEEDS.items() if name in used}:
        try:
            found = find(kind)
        except ConfigurationError as error:
            _missing[kind] = str(error)
        else:
            _found.append(f"{found.version} ({found.origin})")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints, where tests run in several, with which servers they ran."""
    if isinstance(output := getattr(session.config, "workeroutput", None), dict):
        output[_FOUND] = _found


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Collect what a process that ran tests has told."""
    _found.extend(getattr(node, "workeroutput", {}).get(_FOUND, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which servers the tests ran against: real ones, of these versions."""
    if _found:
        terminalreporter.section("servers")
        for version in sorted(set(_found)):
            terminalreporter.line(version)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # first: waiting for one's turn is not the test's time
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that is marked ``alone`` run while no other process of this run tests anything."""
    with turns.turn(exclusive=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(autouse=True, scope="module")
def light() -> None:
    """Keep what thousands of tests have left in this process out of the garbage collector's sight.

    A full collection over their modules and reports was seen to stop the event loop for 70 to 170 ms,
    which tests of deadlines would take for the library's doing.
    """
    gc.collect()
    gc.freeze()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def memcached_server() -> AsyncGenerator[Server]:
    """A memcached that all tests share: OCTOPUS_TEST_MEMCACHED_URL, or a private one."""
    async with _shared(MemcachedServer) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mariadb_server() -> AsyncGenerator[Server]:
    """A MariaDB or MySQL that all tests share: OCTOPUS_TEST_MYSQL_URL, or a private one."""
    async with _shared(MariaDBServer) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server() -> AsyncGenerator[Server]:
    """A Postgres that all tests share: OCTOPUS_TEST_POSTGRES_URL, or a private one."""
    async with _shared(QuickPostgres) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mongodb_server() -> AsyncGenerator[Server]:
    """A MongoDB that all tests share: OCTOPUS_TEST_MONGODB_URL, or a private one."""
    async with _shared(MongoDBServer) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mongodb_replica_set() -> AsyncGenerator[MongoDBServer]:
    """A private MongoDB that all tests share, and that has transactions."""
    async with MongoDBServer(replica_set=True) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_server() -> AsyncGenerator[Server]:
    """A Redis or Valkey that all tests share: OCTOPUS_TEST_REDIS_URL, or a private one."""
    async with _shared(RedisServer) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rest_server() -> AsyncGenerator[Server]:
    """A REST service that all tests share: OCTOPUS_TEST_REST_URL, or a private one."""
    async with open_server(RestServer) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_cluster() -> AsyncGenerator[RedisCluster]:
    """A cluster of three Redis that all tests share."""
    _require(REDIS)
    async with RedisCluster() as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def spare_postgres_database(postgres_server: Server) -> AsyncGenerator[PostgresDatabase]:
    """A database of all tests that want one to themselves, for a while."""
    async with new_postgres_database(postgres_server.url) as database:
        yield database


@pytest.fixture
async def postgres_database(spare_postgres_database: PostgresDatabase) -> PostgresDatabase:
    """A database with nothing in it."""
    return await emptied(spare_postgres_database)


@pytest.fixture
async def private_memcached() -> AsyncGenerator[MemcachedServer]:
    """A memcached of this test alone, which may kill it."""
    _require(MEMCACHED)
    async with MemcachedServer() as server:
        yield server


@pytest.fixture
async def private_mariadb() -> AsyncGenerator[MariaDBServer]:
    """A MariaDB of this test alone, which may kill it."""
    _require(MARIADB)
    async with MariaDBServer() as server:
        yield server


@pytest.fixture
async def private_postgres() -> AsyncGenerator[PostgresServer]:
    """A Postgres of this test alone, which may kill it."""
    _require(POSTGRES)
    async with QuickPostgres() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def spare_moto_server() -> AsyncGenerator[MotoServer]:
    """What stands in for SQS, of all tests: a Python takes long to start."""
    async with MotoServer() as server:
        yield server


@pytest.fixture
async def moto(spare_moto_server: MotoServer) -> AsyncGenerator[MotoServer]:
    """What stands in for SQS; a test may kill it, and it forgets its queues then."""
    if not spare_moto_server.running:
        await spare_moto_server.start()
    yield spare_moto_server
    if spare_moto_server.running:
        await spare_moto_server.resume()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def spare_rest_server() -> AsyncGenerator[RestServer]:
    """A REST service of all tests that want to kill one: a Python takes long to start."""
    async with RestServer() as server:
        yield server


@pytest.fixture
async def private_rest(spare_rest_server: RestServer) -> AsyncGenerator[RestServer]:
    """A REST service that runs, of this test alone, which may kill it."""
    if not spare_rest_server.running:
        await spare_rest_server.start()
    yield spare_rest_server
    if spare_rest_server.running:
        await spare_rest_server.resume()


@pytest.fixture
async def private_redis() -> AsyncGenerator[RedisServer]:
    """A Redis of this test alone, which may kill it."""
    _require(REDIS)
    async with RedisServer() as server:
        yield server


@pytest.fixture
async def proxy() -> AsyncGenerator[ProxyFactory]:
    """Makes proxies in front of servers, given their URLs."""
    async with AsyncExitStack() as stack:
        yield lambda url: stack.enter_async_context(FaultyProxy(url))


class QuickPostgres(PostgresServer):
    """One that waits for no disk: nobody cuts its power, and what it wrote outlives a kill all the same."""

    def __init__(self) -> None:
        super().__init__(durable=False)


def _shared(private: type[PrivateServer]) -> AbstractAsyncContextManager[Server]:
    if not os.environ.get(private.kind.variable):
        _require(private.kind)
    return open_server(private)


def _require(kind: ServerKind) -> None:
    if kind in _missing:
        pytest.fail(_missing[kind], pytrace=False)
