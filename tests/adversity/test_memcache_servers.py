"""Several memcached servers, some of them down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.errors import BackendRefused, Unavailable
from octopus_async.events import BreakerChanged, Event, Events
from octopus_async.guard import Guard
from octopus_async.record import APPLIED, Miss, Mode, Outcome, Record, Status
from octopus_async.testing.operations import Author, fields_of
from octopus_async.testing.servers import MemcachedServer
from tests.adversity.memcache import (
    LOOPBACK,
    find,
    opened,
    stat,
)


class TestHazard5SeveralServers:
    """Rule: a key has one server, which is not replaced; its old values lose by their versions."""

    @pytest.fixture
    async def servers(self) -> AsyncGenerator[list[MemcachedServer]]:
        async with MemcachedServer() as first, MemcachedServer() as second, MemcachedServer() as third:
            yield [first, second, third]

    @pytest.fixture
    async def sharded(self, servers: list[MemcachedServer]) -> AsyncGenerator[MemcacheAdapter]:
        async for adapter in opened(
            MemcacheAdapter([(LOOPBACK, server.port) for server in servers], timeout=10)
        ):
            yield adapter

    async def test_keys_are_spread_evenly_and_found_again(
        self, sharded: MemcacheAdapter, servers: list[MemcachedServer], author: Author
    ) -> None:
        created = [author.create(author.key(), fields_of(count=number)) for number in range(300)]
        assert await sharded.apply(created, Mode.MIRROR) == [APPLIED] * 300
        answers = await sharded.read([operation.key for operation in created])
        assert [answer.fields for answer in answers if isinstance(answer, Record)] == [
            operation.fields for operation in created
        ]
        counts = [await stat(server.port, "curr_items") for server in servers]
        assert sum(counts) == 300
        assert min(counts) > 50

    async def test_a_server_more_moves_only_the_keys_that_go_to_it(self, author: Author) -> None:
        three = MemcacheAdapter([("a", 1), ("b", 1), ("c", 1)])
        four = MemcacheAdapter([("d", 1), ("c", 1), ("b", 1), ("a", 1)])
        for adapter in (three, four):
            adapter._shards = tuple(adapter._make_shard(host, port) for host, port in adapter._servers)
        keys = [author.key() for _ in range(400)]
        places = [(three._locate(key).seed, four._locate(key).seed) for key in keys]
        new = four._shards[0].seed
        assert all(after in (before, new) for before, after in places)
        assert 40 < sum(after == new for _, after in places) < 180

    async def test_while_one_is_down_its_keys_alone_are_misses_and_unavailable(
        self, sharded: MemcacheAdapter, servers: list[MemcachedServer], author: Author
    ) -> None:
        created = [author.create(author.key(), fields_of(count=number)) for number in range(60)]
        await sharded.apply(created, Mode.MIRROR)
        down = {op.key for op in created if sharded._locate(op.key) is sharded._shards[1]}
        await servers[1].kill()
        await sharded.ping()
        await sharded.probe()
        answers = await sharded.read([operation.key for operation in created])
        assert [answer is None for answer in answers] == [operation.key in down for operation in created]
        updates = [author.update(operation.key, fields_of()) for operation in created]
        outcomes = await sharded.apply(updates, Mode.MIRROR)
        assert [outcome.status for outcome in outcomes] == [
            Status.UNAVAILABLE if update.key in down else Status.APPLIED for update in updates
        ]
        assert await sharded.read(list(down)) == [None] * len(down)
        outcomes = await sharded.apply([author.update(key, fields_of()) for key in down], Mode.MIRROR)
        assert {outcome.status for outcome in outcomes} == {Status.UNAVAILABLE}
        assert all(isinstance(outcome.error, Unavailable) and outcome.error.alive for outcome in outcomes)

    async def test_one_that_is_down_does_not_open_the_breaker_for_the_others(self, author: Author) -> None:
        async with MemcachedServer() as first, MemcachedServer() as second:
            adapter = MemcacheAdapter([(LOOPBACK, first.port), (LOOPBACK, second.port)], timeout=10)
            moves: list[Event] = []
            guard = Guard(adapter, Events(moves.append))
            await guard.open()
            keys = [author.key() for _ in range(60)]
            down = [key for key in keys if adapter._locate(key) is adapter._shards[0]]
            await first.kill()
            deadline = asyncio.get_running_loop().time() + 5
            for key in down:
                assert await guard.fetch(key, deadline) is None
                outcome = await guard.submit(author.create(key, fields_of()), Mode.MIRROR, deadline)
                assert outcome.status is Status.UNAVAILABLE
            assert guard.reads.passes
            assert guard.writes.passes
            assert moves == []
            up = next(key for key in keys if key not in down)
            outcome = await guard.submit(author.create(up, fields_of()), Mode.MIRROR, deadline)
            assert outcome == APPLIED
            await second.kill()
            await guard.fetch(up, deadline)
            assert isinstance(await guard.fetch(down[0], deadline), Unavailable)
            assert [move.direction for move in moves if isinstance(move, BreakerChanged)] == ["reads"]
            await guard.close()

    async def test_when_all_are_down_the_call_is_unavailable(
        self, sharded: MemcacheAdapter, servers: list[MemcachedServer], author: Author
    ) -> None:
        for server in servers:
            await server.kill()
        creates = [author.create(author.key(), fields_of()) for _ in range(30)]
        for call in (sharded.ping(), sharded.probe(), sharded.read([create.key for create in creates])):
            with pytest.raises(Unavailable):
                await call
        with pytest.raises(BackendRefused):
            await sharded.apply(creates, Mode.MIRROR)

    async def test_a_server_that_comes_back_with_old_values_takes_what_is_newer(
        self, cache: MemcacheAdapter, private_memcached: MemcachedServer, author: Author
    ) -> None:
        old = author.create(author.key(), fields_of(title="old"))
        await cache.apply([old], Mode.MIRROR)
        await private_memcached.pause()
        missed = author.update(old.key, fields_of(title="missed"), born=old.born)
        call = asyncio.ensure_future(cache.apply([missed], Mode.MIRROR))
        await asyncio.sleep(0.05)  # until it is sent
        call.cancel()
        await asyncio.wait([call])
        await private_memcached.resume()
        assert await cache.apply([author.invalidate(old.key, missed.version)], Mode.MIRROR) == [APPLIED]
        assert isinstance(await find(cache, old.key), Miss)
        assert await cache.apply([old], Mode.MIRROR) == [Outcome(Status.SUPERSEDED, stored=missed.version)]
