"""A Redis Cluster: keys that move, and nodes that are down."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator

import pytest
from redis.crc import key_slot

from octopus_async.adapters._redis_cluster import Cluster
from octopus_async.adapters.redis import RedisAdapter
from octopus_async.errors import BackendFailed, Unavailable
from octopus_async.events import Event, Events
from octopus_async.guard import Guard
from octopus_async.record import APPLIED, Key, Miss, Mode, Operation, Record, Status
from octopus_async.testing.operations import Author, fields_of
from octopus_async.testing.servers import RedisCluster, RedisServer
from octopus_async.url import BackendURL
from tests.adversity.memcache import ScriptedServer
from tests.adversity.redis import LOOPBACK, find, found, opened, wire_of


@pytest.fixture
async def cache(redis_cluster: RedisCluster) -> AsyncGenerator[RedisAdapter]:
    async with opened(redis_cluster.url) as adapter:
        yield adapter


def cluster_of(adapter: RedisAdapter) -> Cluster:
    assert isinstance(adapter._servers, Cluster)
    return adapter._servers


def port_of(adapter: RedisAdapter, operation: Operation) -> int:
    node = cluster_of(adapter)._slots[key_slot(wire_of(operation.key))]
    assert node is not None
    return node.address[1]


def some(author: Author, count: int) -> list[Operation]:
    return [author.create(author.key(), fields_of(count=number)) for number in range(count)]


async def test_keys_of_one_model_are_spread_over_all_nodes_and_found_again(
    cache: RedisAdapter, author: Author
) -> None:
    created = some(author, 300)
    assert await cache.apply(created, Mode.MIRROR) == [APPLIED] * 300
    answers = await found(cache, created)
    assert [answer.fields for answer in answers if isinstance(answer, Record)] == [
        operation.fields for operation in created
    ]
    counts = Counter(port_of(cache, operation) for operation in created)
    assert len(counts) == 3
    assert min(counts.values()) > 50


async def test_one_node_is_enough_to_find_the_others(redis_cluster: RedisCluster, author: Author) -> None:
    node = redis_cluster.nodes[2]
    async with opened(f"redis://:{node.password}@{LOOPBACK}:{node.port}?cluster=true") as adapter:
        created = some(author, 50)
        assert await adapter.apply(created, Mode.MIRROR) == [APPLIED] * 50
        assert len(cluster_of(adapter).nodes) == 3


async def test_a_cluster_that_is_taken_for_one_server_is_unavailable(
    redis_cluster: RedisCluster, author: Author
) -> None:
    node = redis_cluster.nodes[0]
    async with opened(f"redis://:{node.password}@{LOOPBACK}:{node.port}") as adapter:
        outcomes = await adapter.apply(some(author, 50), Mode.MIRROR)
        assert {outcome.status for outcome in outcomes} == {Status.APPLIED, Status.UNAVAILABLE}


async def test_a_server_that_is_taken_for_a_cluster_says_so(private_redis: RedisServer) -> None:
    adapter = RedisAdapter([(LOOPBACK, private_redis.port)], password=private_redis.password, cluster=True)
    with pytest.raises(BackendFailed, match="cluster support disabled"):
        await adapter.open()
    await adapter.close()


async def test_slots_that_move_take_their_keys_along(redis_cluster: RedisCluster, author: Author) -> None:
    cluster = redis_cluster
    async with opened(cluster.url) as adapter:
        created = some(author, 3)
        assert await adapter.apply(created, Mode.MIRROR) == [APPLIED] * 3
        victim = created[0]
        wire, slot = wire_of(victim.key).decode(), key_slot(wire_of(victim.key))
        source = next(node for node in cluster.nodes if node.port == port_of(adapter, victim))
        target = next(node for node in cluster.nodes if node is not source)
        ids = {node: await node.command("CLUSTER", "MYID") for node in cluster.nodes}
        await target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        await source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        assert await find(adapter, victim.key) == victim.fields  # it has not gone yet
        reply = await source.command(
            "MIGRATE", LOOPBACK, target.port, wire, 0, 5000, "AUTH", cluster.nodes[0].password
        )
        assert reply == "+OK"
        assert await find(adapter, victim.key) == victim.fields  # it has gone ahead: ASK
        update = author.update(victim.key, fields_of(title="on its way"), born=victim.born)
        assert await adapter.apply([update], Mode.MIRROR) == [APPLIED]
        for node in (target, source, *cluster.nodes):
            await node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        assert await find(adapter, victim.key) == update.fields  # MOVED
        assert port_of(adapter, victim) == target.port
        assert await adapter.apply([author.delete(victim.key)], Mode.MIRROR) == [APPLIED]


async def test_while_a_node_is_down_its_keys_alone_are_misses_and_unavailable(author: Author) -> None:
    async with RedisCluster() as cluster, opened(cluster.url) as adapter:
        created = some(author, 60)
        assert await adapter.apply(created, Mode.MIRROR) == [APPLIED] * 60
        down = {op.key for op in created if port_of(adapter, op) == cluster.nodes[1].port}
        await cluster.nodes[1].kill()
        await adapter.ping()
        await adapter.probe()
        answers = await found(adapter, created)
        assert [answer is None for answer in answers] == [operation.key in down for operation in created]
        updates = [author.update(op.key, fields_of(), born=op.born) for op in created]
        outcomes = await adapter.apply(updates, Mode.MIRROR)
        assert [outcome.status for outcome in outcomes] == [
            Status.UNAVAILABLE if update.key in down else Status.APPLIED for update in updates
        ]
        assert await adapter.read(list(down)) == [None] * len(down)
        outcomes = await adapter.apply([author.update(key, fields_of()) for key in down], Mode.MIRROR)
        assert {outcome.status for outcome in outcomes} == {Status.UNAVAILABLE}
        assert all(isinstance(outcome.error, Unavailable) and outcome.error.alive for outcome in outcomes)
        await _does_not_open_the_breaker(cluster, updates, down)
        await cluster.nodes[1].start()
        async with asyncio.timeout(20):
            while await found(adapter, created) != [*map(_record, updates)]:
                await asyncio.sleep(0.1)
                await adapter.apply(updates, Mode.MIRROR)
        for node in cluster.nodes:
            await node.kill()
        for call in (adapter.ping(), adapter.probe(), adapter.read([create.key for create in created])):
            with pytest.raises(Unavailable):
                await call
        with pytest.raises(Unavailable) as caught:
            await adapter.apply(created, Mode.MIRROR)
        assert not caught.value.sent


async def test_a_replica_takes_over(author: Author) -> None:
    async with RedisCluster(replicas=1) as cluster, opened(cluster.url) as adapter:
        created = some(author, 30)
        await adapter.apply(created, Mode.MIRROR)
        lost = [op for op in created if port_of(adapter, op) == cluster.nodes[0].port]
        async with asyncio.timeout(20):
            while "connected_slaves:1" not in await cluster.nodes[0].command("INFO", "replication"):  # noqa: ASYNC110 - it announces nothing
                await asyncio.sleep(0.05)
            await cluster.nodes[0].kill()
            while None in await found(adapter, lost):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.1)
        update = author.update(lost[0].key, fields_of(title="on the replica"), born=lost[0].born)
        assert await adapter.apply([update], Mode.MIRROR) == [APPLIED]
        assert port_of(adapter, lost[0]) == cluster.nodes[3].port


@pytest.mark.parametrize(
    "reply",
    [
        b"*0\r\n",
        b"+OK\r\n",
        b"*1\r\n*1\r\n:0\r\n",
        b"*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$1\r\na\r\n:1\r\n",
        b"$-1\r\n",
    ],
)
async def test_a_map_that_makes_no_sense_is_unavailability(scripted: ScriptedServer, reply: bytes) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readuntil(b"\r\n"):
            if line == b"PING\r\n":
                writer.write(b"+PONG\r\n")
            elif line == b"SLOTS\r\n":
                writer.write(reply)

    adapter = RedisAdapter([(LOOPBACK, await scripted(converse))], cluster=True)
    with pytest.raises(BackendFailed, match="slot"):
        await adapter.open()
    await adapter.close()


async def test_keys_that_are_sent_in_circles_are_given_up(scripted: ScriptedServer, author: Author) -> None:
    port = 0

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readuntil(b"\r\n"):
            if line == b"PING\r\n":
                writer.write(b"+PONG\r\n")
            elif line == b"SLOTS\r\n":
                writer.write(b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n" % port)
            elif line == b"EVALSHA\r\n":
                writer.write(b"-MOVED 1 :%d\r\n" % port)
            elif line == b"MGET\r\n":
                writer.write(b"*1\r\n$-1\r\n")

    port = await scripted(converse)
    adapter = RedisAdapter([(LOOPBACK, port)], cluster=True)
    await adapter.open()
    (outcome,) = await adapter.apply(some(author, 1), Mode.MIRROR)
    assert outcome.status is Status.UNAVAILABLE
    assert isinstance(await find(adapter, author.key()), Miss | None)
    await adapter.close()


async def _does_not_open_the_breaker(
    cluster: RedisCluster, operations: list[Operation], down: set[Key]
) -> None:
    moves: list[Event] = []
    guard = Guard(RedisAdapter.from_url(BackendURL.parse(cluster.url)), Events(moves.append))
    await guard.open()
    deadline = asyncio.get_running_loop().time() + 10
    for operation in operations:
        outcome = await guard.submit(operation, Mode.MIRROR, deadline)
        assert outcome.status is (Status.UNAVAILABLE if operation.key in down else Status.APPLIED)
        assert isinstance(
            await guard.fetch(operation.key, deadline), type(None) if operation.key in down else Record
        )
    assert guard.reads.passes
    assert guard.writes.passes
    assert moves == []
    await guard.close()


def _record(operation: Operation) -> Record:
    return Record(operation.key, operation.version, operation.born, operation.fields)
