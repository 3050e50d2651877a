"""Every call of every adapter is cancelled at each of its awaits in turn, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import pytest

from octopus_async.adapters._redis_cluster import Cluster
from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.adapters.mongodb import MongoDBAdapter
from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.adapters.postgres import PostgresAdapter
from octopus_async.adapters.redis import RedisAdapter
from octopus_async.adapters.sqlalchemy import SQLAlchemyAdapter
from octopus_async.backend import Adapter, CacheAdapter, PeekAdapter, ScanAdapter
from octopus_async.guard import Guard
from octopus_async.record import APPLIED, Miss, Mode, Operation, Record
from octopus_async.testing.cancellation import Holdings, Moment, cancel_at
from octopus_async.testing.contract import Subject
from octopus_async.testing.operations import ALL_TYPES, fields_of
from octopus_async.testing.servers import MongoDBServer, RedisCluster, RedisServer, Server
from octopus_async.url import BackendURL
from tests.adversity.memcache import stat
from tests.contract.conftest import in_guard
from tests.contract.sql import MySQLDatabase, PostgresDatabase

PROBES = 50
ROUNDS = int(os.environ.get("OCTOPUS_CANCELLATION_ROUNDS", "0"))
"""How often each call is cancelled at each of its awaits, in both moments.

With 0 the moments take turns, and of the calls only those are cancelled that the contract's own suite
does not cancel already.
"""
_MOST_AWAITS = 80

Call = Callable[[Subject, Operation], Awaitable[object]]


async def _consumed(subject: Subject, victim: Operation) -> None:
    """Read the newest records, a few at a time."""
    adapter = cast("ScanAdapter", subject.adapter)
    after = victim.version[:7] + "0" * 19
    async with aclosing(
        cast("AsyncGenerator[Record]", adapter.scan(subject.model, after=after, batch=40))
    ) as found:
        async for _ in found:
            pass


async def _filled(subject: Subject, victim: Operation) -> None:
    (answer,) = await subject.adapter.read([victim.key])
    record = Record(victim.key, victim.version, victim.born, victim.fields)
    miss = answer if isinstance(answer, Miss) else Miss(None)
    await cast("CacheAdapter", subject.adapter).fill([(record, miss)])


def _applying(mode: Mode, make: Callable[[Subject, Operation], list[Operation]]) -> Call:
    return lambda subject, victim: subject.adapter.apply(make(subject, victim), mode)


def _changed(subject: Subject, victim: Operation) -> Operation:
    return subject.update(victim.key, fields_of(title="changed"), born=victim.born)


def _conditional(subject: Subject, victim: Operation) -> Operation:
    return _changed(subject, victim)._replace(if_version=victim.version)


_FORMS: dict[str, Callable[[Subject, Operation], list[Operation]]] = {
    "create": lambda subject, _: [subject.create(subject.key(), fields_of(title="whole"))],
    "update": lambda subject, victim: [_changed(subject, victim)],
    "conditional": lambda subject, victim: [_conditional(subject, victim)],
    "delete": lambda subject, victim: [subject.delete(victim.key)],
    "batch": lambda subject, victim: [
        subject.create(victim.key, fields_of(title="a duplicate")),
        subject.create(subject.key(), fields_of(title="whole")),
        _changed(subject, victim),
        subject.delete(victim.key),
    ],
}
CALLS: dict[str, Call] = {
    "ping": lambda subject, _: subject.adapter.ping(),
    "probe": lambda subject, _: subject.adapter.probe(),
    "prepare": lambda subject, _: subject.adapter.prepare(ALL_TYPES, create=True),
    "read": lambda subject, victim: subject.adapter.read([victim.key, subject.key()]),
    "peek": lambda subject, victim: cast("PeekAdapter", subject.adapter).peek([victim.key, subject.key()]),
    "scan": _consumed,
    "fill": _filled,
    **{f"{form} {mode.value}": _applying(mode, make) for form, make in _FORMS.items() for mode in Mode},
}


SHORT = ("prepare", "peek", "scan", "fill", "conditional live", "batch live", "update mirror")


def moments(step: int) -> Sequence[Moment]:
    """In which moments to cancel at that await."""
    return [*Moment] * ROUNDS or [[*Moment][step % 2]]


def _knows(adapter: Adapter, call: str) -> bool:
    if call == "scan":
        return adapter.capabilities.scan
    if call == "fill":
        return not adapter.capabilities.durable and not isinstance(adapter, Guard)
    if call == "peek":
        return isinstance(adapter.adapter if isinstance(adapter, Guard) else adapter, PeekAdapter)
    return True


@pytest.fixture
async def mongodb(mongodb_server: Server) -> Adapter:
    """Of one connection, and in a loop with one thread for looking up hosts.

    The driver and the loop would have further ones when they like, which would look like a leak.
    """
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    await loop.run_in_executor(None, int)
    url = BackendURL.parse(mongodb_server.url)
    options = {**url.options, "journal": "false", "connections": "1", "timeout": "20"}
    return MongoDBAdapter.from_url(replace(url, options=options))


@pytest.fixture(
    params=[
        "memory_cache",
        "shm",
        "memory",
        "sqlite",
        "mysql",
        "postgres",
        "asyncmy",
        "sqlalchemy_mysql",
        "sqlalchemy_postgres",
        "rest",
        "rest_singly",
        "memcached",
        "redis",
        "redis_in_cluster",
        "mongodb",
    ]
)
def bare(request: pytest.FixtureRequest) -> Adapter:
    found: Adapter = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["bare", "guarded"])
def closed(bare: Adapter, request: pytest.FixtureRequest) -> Adapter:
    return in_guard(bare) if request.param == "guarded" else bare


@pytest.fixture
async def adapter(closed: Adapter) -> AsyncGenerator[Adapter]:
    await closed.open()
    yield closed
    await closed.close()


@pytest.fixture
async def connections(bare: Adapter, request: pytest.FixtureRequest) -> Callable[[], Awaitable[int]]:
    """How many connections the adapter's server says it has."""
    dialect = bare._dialect if isinstance(bare, SQLAlchemyAdapter) else None
    if isinstance(bare, MySQLAdapter) or dialect == "mysql":
        server: Server = request.getfixturevalue("mariadb_server")
        database = MySQLDatabase(BackendURL.parse(server.url))

        async def of_mysql() -> int:
            ours = "user = SUBSTRING_INDEX(USER(), '@', 1)"
            statement = f"SELECT COUNT(*) FROM information_schema.processlist WHERE {ours}"
            ((count,),) = await database.run(statement)
            return cast("int", count)

        return of_mysql
    if isinstance(bare, PostgresAdapter) or dialect == "postgresql":
        server = request.getfixturevalue("postgres_server")
        sessions = PostgresDatabase(BackendURL.parse(server.url))

        async def of_postgres() -> int:
            ((count,),) = await sessions.run(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user"
            )
            return cast("int", count)

        return of_postgres
    if isinstance(bare, MemcacheAdapter):
        server = request.getfixturevalue("memcached_server")
        ((_, port),) = BackendURL.parse(server.url).hosts
        return lambda: stat(port or 11211, "curr_connections")
    if isinstance(bare, MongoDBAdapter):
        mongodb = request.getfixturevalue("mongodb_server")
        return lambda: _connected_to_mongodb(mongodb)
    if isinstance(bare, RedisAdapter):
        return lambda: _connected_to_redis(bare, request)

    async def of_nobody() -> int:
        return 0

    return of_nobody


async def _connected_to_mongodb(server: Server) -> int:
    if not isinstance(server, MongoDBServer):
        return 0  # somebody else's server has connections of its own
    found = await server.command({"serverStatus": 1})
    return cast("int", found["connections"]["current"])


async def _connected_to_redis(adapter: RedisAdapter, request: pytest.FixtureRequest) -> int:
    servers: Sequence[RedisServer]
    if adapter._cluster:
        servers = cast("RedisCluster", request.getfixturevalue("redis_cluster")).nodes
    else:
        servers = [cast("RedisServer", request.getfixturevalue("redis_server"))]
    if any(server.external for server in servers):
        return 0  # somebody else's server has connections of its own
    counts = [await server.command("INFO", "clients") for server in servers]
    return sum(int(count.partition("connected_clients:")[2].split()[0]) for count in counts)


async def get_their_own_answers(subject: Subject, created: list[Operation]) -> None:
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*[subject.read(operation.key) for operation in created])
    found = [(answer.key, answer.fields) for (answer,) in answers if isinstance(answer, Record)]
    assert found == [(operation.key, operation.fields) for operation in created]


async def prepared(adapter: Adapter) -> tuple[Subject, list[Operation]]:
    """A subject whose adapter has all the connections it will ever have, and what its probes find."""
    await adapter.prepare(ALL_TYPES, create=True)
    subject = Subject(adapter)
    created = [subject.create(subject.key(), fields_of(count=number)) for number in range(PROBES)]
    await asyncio.gather(*[subject.apply(operation) for operation in created])
    await get_their_own_answers(subject, created)
    await _fill_pool(adapter.adapter if isinstance(adapter, Guard) else adapter)
    return subject, created


async def _fill_pool(adapter: Adapter) -> None:
    """A pool has as many connections as were needed at once: by chance, where probes are shared out."""
    if isinstance(adapter, SQLAlchemyAdapter):
        taken = [await adapter._engine.connect() for _ in range(adapter._connections)]
        for connection in taken:
            await connection.close()
    if isinstance(adapter, RedisAdapter) and isinstance(adapter._servers, Cluster):
        for node in adapter._servers._nodes.values():
            all_taken = asyncio.Barrier(adapter._connections)
            await asyncio.gather(
                *(node._pool.run(lambda _, here=all_taken: here.wait()) for _ in range(adapter._connections))  # type: ignore[misc]
            )


def holds_no_permit(adapter: Adapter) -> bool:
    if not isinstance(adapter, Guard):
        return True
    now = adapter.statistics()
    return not (now.queued_reads or now.queued_writes or now.reads_under_way or now.writes_under_way)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110 - a server announces nothing
            await asyncio.sleep(0.02)


async def awaited(call: Awaitable[object]) -> None:
    await call


@pytest.mark.parametrize("call", CALLS if ROUNDS else SHORT)
async def test_a_call_cancelled_at_any_await_leaves_nothing_behind(
    adapter: Adapter, call: str, connections: Callable[[], Awaitable[int]]
) -> None:
    if not _knows(adapter, call):
        return
    subject, created = await prepared(adapter)
    held, connected = Holdings.now(), await connections()
    for step in range(1, _MOST_AWAITS):
        reached = [await _cancelled(subject, created, call, step, moment) for moment in moments(step)]
        if not any(reached):
            break
    else:
        pytest.fail(f"more than {_MOST_AWAITS} awaits")
    assert held.covers(await held.are_back())
    assert holds_no_permit(adapter)
    await no_more_are(connected, connections)


async def _cancelled(
    subject: Subject, created: list[Operation], call: str, step: int, moment: Moment
) -> bool:
    """Cancel a call, and see that all others get their own answers; whether it came that far."""
    victim = subject.create(subject.key(), fields_of(title="whole"))
    if call != "fill":
        assert await subject.apply(victim) == [APPLIED]
    reached = await cancel_at(awaited(CALLS[call](subject, victim)), step, moment)
    if call == "prepare":
        await subject.adapter.prepare(ALL_TYPES, create=True)
    await get_their_own_answers(subject, created)
    found = await subject.find(victim.key)
    assert found is None or found.fields in (fields_of(title="whole"), fields_of(title="changed"))
    return reached


async def no_more_are(connected: int, connections: Callable[[], Awaitable[int]]) -> None:
    async def holds() -> bool:
        return await connections() <= connected

    await eventually(holds)


@pytest.mark.parametrize("call", ["open", "close"])
async def test_opening_and_closing_cancelled_at_any_await_leave_nothing_behind(
    closed: Adapter, call: str, connections: Callable[[], Awaitable[int]]
) -> None:
    held, connected = Holdings.now(), await connections()
    for step in range(1, _MOST_AWAITS):
        reached = [await _cancelled_between(closed, call, step, moment) for moment in moments(step)]
        if not any(reached):
            break
    else:
        pytest.fail(f"more than {_MOST_AWAITS} awaits")
    assert held.covers(await held.are_back())
    await no_more_are(connected, connections)


async def _cancelled_between(closed: Adapter, call: str, step: int, moment: Moment) -> bool:
    """Cancel opening or closing, and leave it closed; whether it came that far."""
    if call == "close":
        await closed.open()
        await prepared(closed)
    reached = await cancel_at(awaited(getattr(closed, call)()), step, moment)
    if call == "open" and reached:
        await closed.open()
        await get_their_own_answers(*await prepared(closed))
    await closed.close()
    return reached
