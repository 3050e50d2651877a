"""What was seen to go wrong between aiomcache and memcached, each by name, and the rule that helps."""

from __future__ import annotations

import asyncio

import pytest

from octopus_async.adapters.memcache import DEFAULT_ITEM_LIMIT, MemcacheAdapter
from octopus_async.cachevalue import Cell, encode_cell
from octopus_async.errors import BackendFailed, BackendRefused
from octopus_async.record import APPLIED, Key, Miss, Mode, Outcome, Record, Status
from octopus_async.testing.operations import Author, fields_of
from octopus_async.testing.servers import MemcachedServer
from tests.adversity.memcache import (
    LOOPBACK,
    ScriptedServer,
    find,
    opened,
    raw,
    scripted_cache,
    server_of,
    stat,
    wire_of,
)


class TestHazard1ACancelledCallLeavesItsReplyInTheConnection:
    """Rule: whatever ends an exchange before its reply is wholly parsed closes the connection."""

    @pytest.mark.parametrize("connections", [1, 4])
    async def test_50_calls_after_a_cancelled_one_get_their_own_answers(
        self, private_memcached: MemcachedServer, author: Author, connections: int
    ) -> None:
        adapter = MemcacheAdapter([(LOOPBACK, private_memcached.port)], connections=connections)
        await adapter.open()
        records = [author.create(author.key(), fields_of(count=number)) for number in range(50)]
        await adapter.apply(records, Mode.MIRROR)
        await private_memcached.pause()
        victims = [
            asyncio.ensure_future(adapter.read([records[0].key])),
            asyncio.ensure_future(adapter.apply([author.delete(author.key())], Mode.MIRROR)),
        ]
        await asyncio.sleep(0.05)  # until both have been sent
        for victim in victims:
            victim.cancel()
        await asyncio.wait(victims)
        await private_memcached.resume()
        answers = await asyncio.gather(*[find(adapter, record.key) for record in records])
        assert answers == [record.fields for record in records]
        assert len(server_of(adapter)._pool._in_use) == 0
        await adapter.close()

    async def test_a_call_cancelled_in_the_middle_of_its_reply_closes_its_connection(
        self, scripted: ScriptedServer, author: Author
    ) -> None:
        closed = asyncio.Event()

        async def half_a_reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readline()
            writer.write(b"VALUE %b 0 100 1\r\nhalf" % request.split()[1])
            assert await reader.read() == b""
            closed.set()

        adapter = scripted_cache(await scripted(half_a_reply))
        call = asyncio.ensure_future(adapter.read([author.key()]))
        await asyncio.sleep(0.05)  # until half of it is read
        call.cancel()
        async with asyncio.timeout(5):
            await closed.wait()
        await adapter.close()

    @pytest.mark.parametrize(
        "reply",
        [
            b"VALUE another:key 0 1 7\r\nx\r\nEND\r\n",
            b"VALUE %b 0 1 7\r\nx\r\nVALUE %b 0 1 7\r\nx\r\nEND\r\n",
            b"VALUE %b 0 1 7\r\nxxxEND\r\n",
            b"VALUE %b 0 -1 7\r\n\r\nEND\r\n",
            b"VALUE %b 0 1\r\nx\r\nEND\r\n",
            b"VALUE %b 0 1 x\r\nx\r\nEND\r\n",
            b"END\r\nSTORED\r\n",
            b"STORED\r\n",
            b"ERROR\r\n",
            b"CLIENT_ERROR bad command line format\r\n",
            b"SERVER_ERROR out of memory writing get response\r\n",
            b"\x00\xff\r\n",
            b"x" * 5000,
        ],
    )
    async def test_a_reply_that_is_not_the_one_expected_is_an_error_and_the_next_call_is_well(
        self, scripted: ScriptedServer, author: Author, reply: bytes
    ) -> None:
        connections = 0

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            request = await reader.readline()
            writer.write(reply.replace(b"%b", request.split()[1]) if connections == 1 else miss(request))
            await reader.read()

        def miss(request: bytes) -> bytes:
            return b"VALUE %b 0 1 7\r\nx\r\nEND\r\n" % request.split()[1]

        adapter = scripted_cache(await scripted(converse))
        with pytest.raises(BackendFailed):
            await adapter.read([author.key()])
        assert isinstance((await adapter.read([author.key()]))[0], Miss)
        assert connections == 2
        await adapter.close()


class TestHazard2AServerThatDiesBeforeItsAnswerFreezesTheLoop:
    """Rule: the end of the stream is an error."""

    @pytest.mark.parametrize("before", [b"", b"STOR", b"VALUE x"])
    async def test_a_write_that_nobody_answered_is_unknown_and_the_loop_goes_on(
        self, scripted: ScriptedServer, author: Author, before: bytes
    ) -> None:
        async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(before)
            await writer.drain()

        adapter = scripted_cache(await scripted(die))
        async with asyncio.timeout(5):
            with pytest.raises(BackendFailed) as caught:
                await adapter.apply([author.create(author.key(), fields_of())], Mode.MIRROR)
        assert caught.value.sent
        await adapter.close()

    async def test_a_server_killed_under_a_call_is_an_error_and_back_after_its_restart(
        self, cache: MemcacheAdapter, private_memcached: MemcachedServer, author: Author
    ) -> None:
        await private_memcached.pause()
        call = asyncio.ensure_future(cache.read([author.key()]))
        await asyncio.sleep(0.05)  # until it is sent
        await private_memcached.kill()
        with pytest.raises(BackendFailed):
            await call
        with pytest.raises(BackendRefused):
            await cache.read([author.key()])
        await private_memcached.restart()
        created = author.create(author.key(), fields_of(count=1))
        assert await cache.apply([created], Mode.MIRROR) == [APPLIED]

    async def test_of_a_cut_batch_what_was_answered_is_known(
        self, scripted: ScriptedServer, author: Author
    ) -> None:
        async def answer_two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"STORED\r\nSTORED\r\nSTO")
            await writer.drain()

        adapter = scripted_cache(await scripted(answer_two))
        creates = [author.create(author.key(), fields_of()) for _ in range(4)]
        update = author.update(author.key(), fields_of())
        outcomes = await adapter.apply([update, *creates], Mode.MIRROR)
        statuses = [outcome.status for outcome in outcomes]
        assert statuses == [Status.UNAVAILABLE, *[Status.APPLIED] * 2, *[Status.UNKNOWN] * 2]
        await adapter.close()


class TestHazard3WaitersOfThePoolAreNeverWoken:
    """Rule: never more calls inside than connections, and a queue of our own in front."""

    async def test_waiters_are_served_although_every_connection_dies(
        self, scripted: ScriptedServer, author: Author
    ) -> None:
        async def die(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.readline()

        adapter = scripted_cache(await scripted(die), connections=2)
        async with asyncio.timeout(10):
            results = await asyncio.gather(
                *[adapter.read([author.key()]) for _ in range(100)], return_exceptions=True
            )
        assert [type(result) for result in results] == [BackendFailed] * 100
        await adapter.close()

    async def test_there_are_never_more_connections_than_allowed_and_calls_take_turns(
        self, scripted: ScriptedServer, author: Author
    ) -> None:
        connections, arrived = 0, []

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            while line := await reader.readline():
                wire = line.split()[1]
                arrived.append(wire)
                await asyncio.sleep(0)
                writer.write(b"VALUE %b 0 1 7\r\nx\r\nEND\r\n" % wire)

        adapter = scripted_cache(await scripted(converse), connections=1)
        keys = [author.key() for _ in range(100)]
        await asyncio.gather(*[adapter.read([key]) for key in keys])
        assert connections == 1
        assert arrived == [wire_of(key) for key in keys]
        await adapter.close()

    async def test_cancelled_waiters_give_their_turns_back(
        self, cache: MemcacheAdapter, private_memcached: MemcachedServer, author: Author
    ) -> None:
        await private_memcached.pause()
        calls = [asyncio.ensure_future(cache.read([author.key()])) for _ in range(50)]
        await asyncio.sleep(0.05)  # until some are sent and the others wait
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await private_memcached.resume()
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*[cache.read([author.key()]) for _ in range(50)])
        assert all(isinstance(answer, Miss) for (answer,) in answers)


class TestHazard4KeysAreCountedInCharactersAndInBytes:
    """Rule: a key is sent as printable ASCII of at most 250 bytes; others are hashed and compared."""

    @pytest.mark.parametrize(
        "id_",
        [
            "世" * 100,
            "x" * 300,
            "with blank",
            "x\r\nset injected 0 0 1\r\ny",
            "\x00",
            "",
            "a\u2028b",
            "é",
        ],
    )
    async def test_any_id_is_stored_and_found(self, cache: MemcacheAdapter, author: Author, id_: str) -> None:
        created = author.create(Key(author.model, id_), fields_of(title=id_))
        assert await cache.apply([created], Mode.MIRROR) == [APPLIED]
        assert await find(cache, created.key) == created.fields
        wire = wire_of(created.key)
        assert len(wire) <= 250
        assert all(33 <= byte <= 126 for byte in wire)

    async def test_a_key_injects_no_command(
        self, cache: MemcacheAdapter, private_memcached: MemcachedServer, author: Author
    ) -> None:
        injecting = Key(author.model, "x 0 0 1\r\ny\r\nset injected 0 0 1\r\ny\r\n" + "世" * 100)
        await cache.apply([author.create(injecting, fields_of())], Mode.MIRROR)
        assert await raw(private_memcached.port, b"get injected\r\n", b"END\r\n") == b"END\r\n"

    def test_ids_at_the_limit_of_250_bytes_are_told_apart(self) -> None:
        fixed = len(wire_of(Key("Book", "")))
        wires = {wire_of(Key("Book", "x" * length)) for length in range(200, 260)}
        assert len(wires) == 60
        assert max(map(len, wires)) == 250
        assert fixed < 250

    def test_model_and_id_are_never_run_together(self) -> None:
        keys = [
            Key("a", "b:c"),
            Key("a:b", "c"),
            Key("a", "b c"),
            Key("a b", "c"),
            Key("", "a:b:c"),
            Key("#", "a"),
        ]
        assert len({wire_of(key) for key in keys}) == len(keys)

    async def test_a_value_of_another_key_is_a_miss(
        self, cache: MemcacheAdapter, private_memcached: MemcachedServer, author: Author
    ) -> None:
        created = author.create(author.key(), fields_of(title="mine"))
        other = author.key()
        value = encode_cell(Cell(created.version, created.born, created.payload), created.key, "")
        request = b"set %b 0 0 %d\r\n%b\r\n" % (wire_of(other), len(value), value)
        assert await raw(private_memcached.port, request) == b"STORED\r\n"
        assert isinstance(await find(cache, other), Miss)


class TestHazard5LimitsOfTheServer:
    """Rules: check the size first; convert the expiry; shard; values carry versions."""

    async def test_a_record_that_is_too_large_is_invalidated_and_never_sent(
        self, cache: MemcacheAdapter, private_memcached: MemcachedServer, author: Author
    ) -> None:
        small = author.create(author.key(), fields_of(title="small"))
        large = author.update(small.key, fields_of(title="x" * 1_100_000), born=small.born)
        assert await cache.apply([small], Mode.MIRROR) == [APPLIED]
        assert await cache.apply([large], Mode.MIRROR) == [APPLIED]
        assert isinstance(await find(cache, small.key), Miss)
        assert await cache.apply([small], Mode.MIRROR) == [Outcome(Status.SUPERSEDED, stored=large.version)]
        assert await stat(private_memcached.port, "store_too_large") == 0
        assert await stat(private_memcached.port, "bytes_read") < 10_000

    async def test_a_fill_that_is_too_large_is_dropped(
        self, cache: MemcacheAdapter, private_memcached: MemcachedServer, author: Author
    ) -> None:
        large = author.create(author.key(), fields_of(title="x" * 1_100_000))
        (miss,) = await cache.read([large.key])
        assert isinstance(miss, Miss)
        await cache.fill([(Record(large.key, large.version, large.born, large.fields), miss)])
        assert isinstance(await find(cache, large.key), Miss)
        assert await stat(private_memcached.port, "store_too_large") == 0

    async def test_the_largest_record_allowed_is_stored(self, cache: MemcacheAdapter, author: Author) -> None:
        key = Key(author.model, "k" * 200)
        empty = author.create(key, {"title": ""})
        cell = Cell(empty.version, empty.born, empty.payload)
        room = DEFAULT_ITEM_LIMIT - len(wire_of(key)) - len(encode_cell(cell, key, ""))
        for length in (room, room + 1):
            operation = author.update(key, {"title": "x" * length}, born=author.clock.next())
            assert await cache.apply([operation], Mode.MIRROR) == [APPLIED]
            stored = await find(cache, key)
            assert stored == operation.fields if length == room else isinstance(stored, Miss)

    async def test_a_server_with_a_smaller_limit_has_the_record_invalidated(self, author: Author) -> None:
        async with MemcachedServer(options=("--max-item-size=512k",)) as server:
            async for adapter in opened(MemcacheAdapter([(LOOPBACK, server.port)])):
                small = author.create(author.key(), fields_of(title="small"))
                large = author.update(small.key, fields_of(title="x" * 700_000))
                new = author.create(author.key(), fields_of(title="x" * 700_000))
                assert await adapter.apply([small], Mode.MIRROR) == [APPLIED]
                assert await adapter.apply([large, new], Mode.MIRROR) == [APPLIED] * 2
                assert isinstance(await find(adapter, small.key), Miss)
                assert isinstance(await find(adapter, new.key), Miss)
                old = Outcome(Status.SUPERSEDED, stored=large.version)
                assert await adapter.apply([small], Mode.MIRROR) == [old]

    @pytest.mark.parametrize("days", [29, 30, 31, 400])
    async def test_an_expiry_of_any_length_is_kept(
        self, private_memcached: MemcachedServer, author: Author, days: int
    ) -> None:
        adapter = MemcacheAdapter([(LOOPBACK, private_memcached.port)], ttl=days * 86_400.0)
        async for _ in opened(adapter):
            created = author.create(author.key(), fields_of(count=days))
            await adapter.apply([created], Mode.MIRROR)
            assert await find(adapter, created.key) == created.fields
            reply = await raw(private_memcached.port, b"mg %b t\r\n" % wire_of(created.key))
            assert abs(int(reply.split(b"t")[1]) - days * 86_400) < 60

    async def test_a_value_is_forgotten_after_its_time(
        self, private_memcached: MemcachedServer, author: Author
    ) -> None:
        async for adapter in opened(MemcacheAdapter([(LOOPBACK, private_memcached.port)], ttl=1)):
            created = author.create(author.key(), fields_of())
            await adapter.apply([created], Mode.MIRROR)
            assert await find(adapter, created.key) == created.fields
            await asyncio.sleep(2.1)  # the server's clock has a tick of a second
            assert isinstance(await find(adapter, created.key), Miss)

    async def test_a_full_server_is_unavailable_and_the_records_are_not_at_fault(
        self, author: Author
    ) -> None:
        async with MemcachedServer(memory_mb=4, options=("--disable-evictions",)) as server:
            async for adapter in opened(MemcacheAdapter([(LOOPBACK, server.port)])):
                batches = [
                    [author.create(author.key(), fields_of(title="x" * 400_000)) for _ in range(2)]
                    for _ in range(60)
                ]
                assert await adapter.apply(batches[0], Mode.MIRROR) == [APPLIED] * 2
                with pytest.raises(BackendFailed, match="out of memory") as caught:  # noqa: PT012 - one of many
                    for batch in batches:
                        await adapter.apply(batch, Mode.MIRROR)
                assert not caught.value.sent
                assert await find(adapter, batches[0][0].key) == batches[0][0].fields


class TestHazard6NoCommandStoresOnlyWhatIsNewer:
    """Rule: `add` for a create, `gets` and `cas` for anything else, repeated when somebody was first."""

    async def test_of_racing_writers_the_newest_wins(
        self, cache: MemcacheAdapter, private_memcached: MemcachedServer, author: Author
    ) -> None:
        other = MemcacheAdapter([(LOOPBACK, private_memcached.port)])
        async for _ in opened(other):
            for _ in range(20):
                key = author.key()
                born = author.clock.next()
                writes = [author.update(key, fields_of(count=n), born=born) for n in range(12)]
                writes[0] = author.create(key, fields_of(count=0), version=born)
                await asyncio.gather(
                    *[
                        (cache, other)[number % 2].apply([write], Mode.MIRROR)
                        for number, write in enumerate(reversed(writes))
                    ]
                )
                assert await find(cache, key) == writes[-1].fields

    async def test_a_create_of_a_new_key_asks_nothing_first(
        self, cache: MemcacheAdapter, private_memcached: MemcachedServer, author: Author
    ) -> None:
        for _ in range(10):
            await cache.apply([author.create(author.key(), fields_of())], Mode.MIRROR)
        assert await stat(private_memcached.port, "cmd_get") == 0
        assert await stat(private_memcached.port, "cmd_set") == 10

    async def test_a_write_that_is_overtaken_again_and_again_gives_up_and_did_not_happen(
        self, scripted: ScriptedServer, author: Author
    ) -> None:
        async def always_changed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                if line.startswith(b"gets"):
                    writer.write(b"VALUE %b 0 1 7\r\nx\r\nEND\r\n" % line.split()[1])
                else:
                    await reader.readline()
                    await reader.readline()
                    writer.write(b"EXISTS\r\n")

        adapter = scripted_cache(await scripted(always_changed))
        with pytest.raises(BackendFailed) as caught:
            await adapter.apply([author.update(author.key(), fields_of())], Mode.MIRROR)
        assert not caught.value.sent
        await adapter.close()

    async def test_a_key_evicted_between_look_and_store_is_stored(
        self, scripted: ScriptedServer, author: Author
    ) -> None:
        said = []

        async def evicting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                verb, wire = line.split()[:2]
                said.append(verb)
                if verb == b"gets":
                    held = b"VALUE %b 0 1 7\r\nx\r\n" % wire if len(said) == 1 else b""
                    writer.write(held + b"END\r\n")
                    continue
                await reader.readline()
                await reader.readline()
                writer.write(b"NOT_FOUND\r\n" if verb == b"cas" else b"STORED\r\n")

        adapter = scripted_cache(await scripted(evicting))
        assert await adapter.apply([author.update(author.key(), {"n": 1})], Mode.MIRROR) == [APPLIED]
        assert said == [b"gets", b"cas", b"gets", b"add"]
        await adapter.close()


class TestHazard7ThereIsNoMultiSet:
    """Rule: a batch is written at once on one connection, and its replies are read in order."""

    async def test_a_batch_is_sent_before_its_first_reply(
        self, scripted: ScriptedServer, author: Author
    ) -> None:
        async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = b""
            while request.count(b"\r\nadd ") < 99 or not request.endswith(b"}\r\n"):
                request += await reader.read(65536)
            writer.write(b"STORED\r\n" * 100)
            await reader.read()

        adapter = scripted_cache(await scripted(answer_at_the_end))
        creates = [author.create(author.key(), {"n": number}) for number in range(100)]
        async with asyncio.timeout(10):
            assert await adapter.apply(creates, Mode.MIRROR) == [APPLIED] * 100
        await adapter.close()

    async def test_replies_go_to_the_operations_in_their_order(
        self, cache: MemcacheAdapter, author: Author
    ) -> None:
        creates = [author.create(author.key(), fields_of(count=number)) for number in range(100)]
        await cache.apply(creates[::2], Mode.MIRROR)
        late = [create._replace(version="0" * 26) for create in creates]
        outcomes = await cache.apply(late, Mode.MIRROR)
        assert [outcome.status for outcome in outcomes] == [Status.SUPERSEDED, Status.APPLIED] * 50
