"""What Redis and redis-py do to a careless cache: each hazard by name, on a real server."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.adapters.redis import RedisAdapter
from octopus_async.cachevalue import Cell, encode_cell, seal
from octopus_async.errors import BackendFailed, Unavailable
from octopus_async.record import APPLIED, Key, Kind, Miss, Mode, Operation, Outcome, Record, Status
from octopus_async.schema import Schema, Type
from octopus_async.testing.contract.subject import eventually
from octopus_async.testing.operations import Author, fields_of
from octopus_async.testing.servers import RedisServer, Server
from tests.adversity.memcache import ScriptedServer
from tests.adversity.redis import LOOPBACK, find, found, node_of, opened, raw, wire_of
from tests.conftest import ProxyFactory

PROBES = 50


@pytest.fixture
async def cache(redis_server: Server) -> AsyncGenerator[RedisAdapter]:
    async with opened(redis_server.url) as adapter:
        yield adapter


async def stored(adapter: RedisAdapter, author: Author, count: int) -> list[Operation]:
    created = [author.create(author.key(), fields_of(count=number)) for number in range(count)]
    assert await adapter.apply(created, Mode.MIRROR) == [APPLIED] * count
    return created


async def get_their_own_answers(adapter: RedisAdapter, created: list[Operation]) -> None:
    answers = await asyncio.gather(*[find(adapter, operation.key) for operation in created])
    assert answers == [operation.fields for operation in created]


class TestCancelledCallsMixUpReplies:
    """Rule: from the first byte sent to the last one parsed, whatever ends a call ends its connection."""

    async def test_a_late_reply_is_nobody_elses(self, scripted: ScriptedServer) -> None:
        late = asyncio.Event()

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readuntil(b"\r\n"):
                if line == b"PING\r\n":
                    writer.write(b"+PONG\r\n")
                elif line.endswith(b"late\r\n"):
                    await late.wait()
                    writer.write(b"*1\r\n$8\r\nthe late\r\n")
                elif line.endswith(b"next\r\n"):
                    writer.write(b"*1\r\n$8\r\nthe next\r\n")

        adapter = RedisAdapter([(LOOPBACK, await scripted(converse))], connections=1)
        await adapter.open()
        for _ in range(PROBES):
            call = asyncio.ensure_future(raw(adapter, "MGET", "late"))
            await asyncio.sleep(0.001)
            call.cancel()
            late.set()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await raw(adapter, "MGET", "next") == [b"the next"]
            late.clear()
        await adapter.close()

    async def test_calls_cancelled_before_a_stopped_server_answers_leave_the_others_their_replies(
        self, private_redis: RedisServer, author: Author
    ) -> None:
        async with opened(private_redis.url) as adapter:
            created = await stored(adapter, author, PROBES)
            for _ in range(3):
                await private_redis.pause()
                calls = [asyncio.ensure_future(adapter.read([operation.key])) for operation in created]
                await asyncio.sleep(0.02)  # until some are sent and the others wait
                for call in calls:
                    call.cancel()
                await asyncio.wait(calls)
                await private_redis.resume()
                async with asyncio.timeout(10):
                    await get_their_own_answers(adapter, created)

    async def test_a_cancelled_batch_may_have_landed_and_is_whole_or_absent(
        self, private_redis: RedisServer, author: Author
    ) -> None:
        async with opened(private_redis.url) as adapter:
            await private_redis.pause()
            creates = [author.create(author.key(), fields_of(title="whole")) for _ in range(20)]
            call = asyncio.ensure_future(adapter.apply(creates, Mode.MIRROR))
            await asyncio.sleep(0.02)
            call.cancel()
            await asyncio.wait([call])
            await private_redis.resume()
            for answer in await found(adapter, creates):
                assert isinstance(answer, Miss) or (
                    answer is not None and answer.fields == fields_of(title="whole")
                )


class TestServersThatDie:
    async def test_a_kill_is_unavailability_and_a_restart_knows_no_scripts(
        self, private_redis: RedisServer, author: Author
    ) -> None:
        async with opened(private_redis.url) as adapter:
            before = await stored(adapter, author, 3)
            await private_redis.kill()
            with pytest.raises(Unavailable):
                await found(adapter, before)
            with pytest.raises(Unavailable) as caught:
                await adapter.apply(before, Mode.MIRROR)
            assert not caught.value.sent
            await private_redis.start()
            assert [type(answer) for answer in await found(adapter, before)] == [Miss] * 3
            await stored(adapter, author, 3)

    async def test_scripts_that_the_server_has_forgotten_are_told_again(
        self, cache: RedisAdapter, author: Author
    ) -> None:
        for _ in range(3):
            assert await raw(cache, "SCRIPT", "FLUSH") == b"OK"
            created = await stored(cache, author, 5)
            assert await found(cache, created) == [
                Record(operation.key, operation.version, operation.born, operation.fields)
                for operation in created
            ]

    async def test_a_connection_cut_in_mid_reply_leaves_the_write_unknown(
        self, redis_server: Server, proxy: ProxyFactory, author: Author
    ) -> None:
        between = await proxy(redis_server.url)
        async with opened(between.url) as adapter:
            await stored(adapter, author, 1)
            await between.swallow()
            call = asyncio.ensure_future(adapter.apply([author.create(author.key(), {})], Mode.MIRROR))
            await asyncio.sleep(0.05)
            await between.reset()
            with pytest.raises(BackendFailed) as caught:
                await call
            assert caught.value.sent
            await between.heal()
            await stored(adapter, author, 1)

    async def test_closing_ends_calls_under_way_although_the_server_has_stopped(
        self, private_redis: RedisServer, author: Author
    ) -> None:
        async with opened(private_redis.url) as adapter:
            await asyncio.gather(*[adapter.read([author.key()]) for _ in range(8)])  # over all connections
            await private_redis.pause()
            large = [author.create(author.key(), fields_of(title="x" * 900_000)) for _ in range(20)]
            calls: list[asyncio.Future[Any]] = [
                asyncio.ensure_future(adapter.apply(large, Mode.MIRROR)),
                asyncio.ensure_future(adapter.read([author.key()])),
            ]
            await asyncio.sleep(0.05)  # until the first has filled every buffer on the way
            async with asyncio.timeout(3):
                await adapter.close()
                results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [BackendFailed] * 2
            await private_redis.resume()


class TestKeysThatVanish:
    """Rule: what is evicted is a miss, and so is the lease that was evicted with it."""

    async def test_evicted_keys_are_misses(self, author: Author) -> None:
        async with RedisServer(memory_mb=8) as server, opened(server.url) as adapter:
            creates = [author.create(author.key(), fields_of(title="x" * 100_000)) for _ in range(120)]
            for create in creates:
                assert await adapter.apply([create], Mode.MIRROR) == [APPLIED]
            kinds = [type(answer) for answer in await found(adapter, creates)]
            assert set(kinds) == {Miss, Record}

    async def test_a_lease_that_was_evicted_fills_nothing(self, cache: RedisAdapter, author: Author) -> None:
        created = author.create(author.key(), fields_of(title="ours"))
        (miss,) = await cache.read([created.key])
        assert isinstance(miss, Miss)
        await raw(cache, "DEL", wire_of(created.key))
        await cache.fill([(Record(created.key, created.version, created.born, created.fields), miss)])
        assert await cache.peek([created.key]) == [None]

    async def test_everything_expires(self, redis_server: Server, author: Author) -> None:
        async with opened(redis_server.url, ttl=0.2) as adapter:
            gone, marked, missed = author.delete(author.key()), author.key(), author.key()
            (created,) = await stored(adapter, author, 1)
            await adapter.apply([gone, author.invalidate(marked, author.clock.next())], Mode.MIRROR)
            await adapter.read([missed])
            keys = [created.key, gone.key, marked, missed]
            for key in keys:
                life = await raw(adapter, "PTTL", wire_of(key))
                assert isinstance(life, int)
                assert 0 < life <= 200
            await asyncio.sleep(0.25)
            assert await raw(adapter, "EXISTS", *map(wire_of, keys)) == 0

    async def test_a_place_for_a_lease_lives_shorter_than_a_value(
        self, cache: RedisAdapter, author: Author
    ) -> None:
        key = author.key()
        await cache.read([key])
        assert 0 < int(str(await raw(cache, "PTTL", wire_of(key)))) <= 10_000


class TestForeignValues:
    """Rule: what others have put there, or another version of the application, is a miss and no error."""

    @pytest.mark.parametrize("form", ["bare", "behind a head of ours"])
    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"42",
            b"\xff\xfe\x00",
            b"[" * 100_000,
            seal(b'[1,"r","ContractRecord","%s","","","01"]\n{}'),
            seal(b'[1,"r","Other","%s","","",""]\n{}'),
            b'00000000[1,"r","ContractRecord","%s","","",""]\n{}',
        ],
    )
    async def test_foreign_bytes_are_a_miss_that_can_be_filled_and_written(
        self, cache: RedisAdapter, author: Author, value: bytes, form: str
    ) -> None:
        version = author.clock.next().encode()
        head = b"r" + version * 3 if form != "bare" else b""
        for write in (False, True):
            created = author.create(author.key(), fields_of(title="ours"))
            await raw(cache, "SET", wire_of(created.key), head + value)
            (miss,) = await cache.read([created.key])
            assert isinstance(miss, Miss)
            if write:
                assert await cache.apply([created], Mode.MIRROR) == [APPLIED]
            else:
                await cache.fill([(Record(created.key, created.version, created.born, created.fields), miss)])
            assert await find(cache, created.key) == created.fields

    @pytest.mark.parametrize("command", [("LPUSH", "x"), ("HSET", "a", "b"), ("SADD", "x"), ("ZADD", 1, "x")])
    async def test_what_is_no_text_is_a_miss_that_can_be_written(
        self, cache: RedisAdapter, author: Author, command: tuple[str | int, ...]
    ) -> None:
        written, filled = (author.create(author.key(), fields_of(title="ours")) for _ in range(2))
        for operation in (written, filled):
            await raw(cache, command[0], wire_of(operation.key), *command[1:])
        assert await cache.peek([written.key, filled.key]) == [None, None]
        assert await cache.apply([written], Mode.MIRROR) == [APPLIED]
        (miss,) = await cache.read([filled.key])
        assert isinstance(miss, Miss)
        await cache.fill([(Record(filled.key, filled.version, filled.born, filled.fields), miss)])
        assert [await find(cache, operation.key) for operation in (written, filled)] == [written.fields] * 2

    async def test_a_flipped_bit_anywhere_is_a_miss_or_the_same_record(
        self, cache: RedisAdapter, author: Author
    ) -> None:
        (created,) = await stored(cache, author, 1)
        wire = wire_of(created.key)
        value = await raw(cache, "GET", wire)
        assert isinstance(value, bytes)
        record = Record(created.key, created.version, created.born, created.fields)
        for place in range(len(value)):
            flipped = bytes((*value[:place], value[place] ^ 1 << place % 8, *value[place + 1 :]))
            await raw(cache, "SET", wire, flipped)
            assert await cache.peek([created.key]) in ([None], [record])

    async def test_a_value_longer_than_any_of_ours_is_not_taken_into_memory(
        self, redis_server: Server, author: Author
    ) -> None:
        async with opened(redis_server.url, item_limit=20_000) as adapter:
            created = await stored(adapter, author, 3)
            await raw(adapter, "SET", wire_of(created[1].key), b"x" * 5_000_000)
            assert await raw(adapter, "GET", wire_of(created[1].key)) == b""
            kinds = [type(answer) for answer in await found(adapter, created)]
            assert kinds == [Record, Miss, Record]
            later = author.update(created[1].key, fields_of(title="ours"), born=created[1].born)
            assert await adapter.apply([later], Mode.MIRROR) == [APPLIED]
            assert await find(adapter, later.key) == later.fields

    async def test_a_record_that_is_too_large_is_invalidated_and_never_sent(
        self, redis_server: Server, author: Author
    ) -> None:
        async with opened(redis_server.url, item_limit=20_000) as adapter:
            (small,) = await stored(adapter, author, 1)
            large = author.update(small.key, fields_of(title="x" * 20_000), born=small.born)
            assert await adapter.apply([large], Mode.MIRROR) == [APPLIED]
            (miss,) = await adapter.read([small.key])
            assert isinstance(miss, Miss)
            await adapter.fill([(Record(large.key, large.version, large.born, large.fields), miss)])
            assert await adapter.peek([large.key]) == [None]
            assert await adapter.apply([small], Mode.MIRROR) == [
                Outcome(Status.SUPERSEDED, stored=large.version)
            ]

    async def test_a_value_of_another_schema_is_a_miss_that_nothing_older_may_fill(
        self, redis_server: Server, author: Author
    ) -> None:
        key = author.key()
        older, newer = (author.create(key, {"title": title}) for title in ("older", "newer"))
        schemas = [Schema(author.model, "t", "id", id_type, ()) for id_type in (Type.TEXT, Type.UUID)]
        async with opened(redis_server.url) as theirs, opened(redis_server.url) as ours:
            for adapter, schema in zip((theirs, ours), schemas, strict=True):
                await adapter.prepare(schema, create=True)
            await theirs.apply([newer], Mode.MIRROR)
            (miss,) = await ours.read([key])
            assert isinstance(miss, Miss)
            await ours.fill([(Record(key, older.version, older.born, older.fields), miss)])
            assert await find(theirs, key) == newer.fields
            await ours.fill([(Record(key, newer.version, newer.born, newer.fields), miss)])
            assert await find(ours, key) == newer.fields


class TestTheRuleInTheServer:
    """Rule: the script decides as `cachevalue.settle` does, in one step."""

    @pytest.mark.parametrize("seed", range(6))
    async def test_a_random_history_ends_as_in_the_cache_of_this_process(
        self, cache: RedisAdapter, author: Author, seed: int
    ) -> None:
        chance = random.Random(seed)
        model = MemoryAdapter()
        await model.open()
        keys = [author.key() for _ in range(3)]
        versions = sorted(author.clock.next() for _ in range(12))
        for _ in range(60):
            batch = [_any_operation(author, chance, keys, versions) for _ in range(chance.randint(1, 5))]
            assert await cache.apply(batch, Mode.MIRROR) == await model.apply(batch, Mode.MIRROR)
            looked = [chance.choice(keys)] if chance.random() < 0.5 else keys
            assert await cache.peek(looked) == await model.peek(looked)

    async def test_of_racing_writers_the_newest_wins(
        self, cache: RedisAdapter, redis_server: Server, author: Author
    ) -> None:
        async with opened(redis_server.url) as other:
            for _ in range(20):
                key, born = author.key(), author.clock.next()
                writes = [author.update(key, fields_of(count=n), born=born) for n in range(12)]
                await asyncio.gather(
                    *[
                        (cache, other)[number % 2].apply([write], Mode.MIRROR)
                        for number, write in enumerate(reversed(writes))
                    ]
                )
                assert await find(cache, key) == writes[-1].fields

    async def test_model_and_id_are_never_run_together(self, cache: RedisAdapter) -> None:
        keys = [Key("a", "b:c"), Key("a:b", "c"), Key("a%3Ab", "c"), Key("a%b", "c"), Key("", "a:b:c")]
        assert len({cache._form.wire_key(key) for key in keys}) == len(keys)

    async def test_a_value_of_another_key_is_a_miss(self, cache: RedisAdapter, author: Author) -> None:
        (created,) = await stored(cache, author, 1)
        other = author.key()
        await raw(cache, "COPY", wire_of(created.key), wire_of(other))
        assert isinstance(await find(cache, other), Miss)

    async def test_any_language_can_read_a_value(self, cache: RedisAdapter, author: Author) -> None:
        (created,) = await stored(cache, author, 1)
        value = await raw(cache, "GET", wire_of(created.key))
        assert isinstance(value, bytes)
        kind, version, born = value[:1], value[1:27], value[27:53]
        assert (kind, version.decode(), born.decode()) == (b"r", created.version, created.born)
        cell = Cell(created.version, created.version, created.payload)
        assert value[79:] == encode_cell(cell, created.key, "")
        assert json.loads(value[79:].partition(b"\n")[2]) == created.fields


class TestConnections:
    async def test_there_are_never_more_than_allowed(
        self, private_redis: RedisServer, author: Author
    ) -> None:
        async with opened(private_redis.url, connections=3) as adapter:
            created = await stored(adapter, author, 20)
            await asyncio.gather(*[get_their_own_answers(adapter, created) for _ in range(5)])
            info = await private_redis.command("INFO", "clients")
            assert "connected_clients:4" in info  # and the one that asks

    async def test_idle_ones_that_the_server_has_closed_are_replaced_and_nobody_notices(
        self, private_redis: RedisServer, author: Author
    ) -> None:
        async with opened(private_redis.url) as adapter:
            for _ in range(3):
                created = await stored(adapter, author, 8)
                await get_their_own_answers(adapter, created)
                await private_redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                pool = node_of(adapter)._pool
                await eventually(lambda pool=pool: all(one.stale for one in pool._idle))  # type: ignore[misc]

    async def test_a_database_of_a_number_is_its_own(
        self, private_redis: RedisServer, author: Author
    ) -> None:
        async with opened(private_redis.url) as first, opened(f"{private_redis.url}/5") as second:
            (created,) = await stored(first, author, 1)
            assert isinstance(await find(second, created.key), Miss)


def _any_operation(author: Author, chance: random.Random, keys: list[Key], versions: list[str]) -> Operation:
    key, version = chance.choice(keys), chance.choice(versions)
    born = chance.choice(["", *versions])
    kind = chance.choice(list(Kind))
    if kind is Kind.INVALIDATE:
        return author.invalidate(key, version)
    if kind is Kind.RETRACT:
        return author.retract(key, version)
    if kind is Kind.DELETE:
        return author.delete(key, version=version, born=born)
    make = author.create if kind is Kind.CREATE else author.update
    return make(key, fields_of(count=chance.randint(0, 9)), version=version, born=born)
