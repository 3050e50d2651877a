"""What was seen to go wrong between aiomysql and MariaDB, each by name, and the rule that helps.

What is the driver's doing is tried with asyncmy as well.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from octopus_async.adapters._mysql_session import Session
from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.errors import (
    BackendFailed,
    BackendTimeout,
    ConstraintViolated,
    Unavailable,
)
from octopus_async.record import APPLIED, Key, Mode, Record, Status
from octopus_async.schema import Column, Type
from octopus_async.testing.contract.subject import descriptors, eventually
from octopus_async.testing.proxy import FaultyProxy
from octopus_async.testing.servers import MariaDBServer
from octopus_async.url import BackendURL
from tests.adversity.memcache import ScriptedServer
from tests.adversity.mysql import (
    admin,
    connection_of,
    get_their_own_answers,
    pool_of,
    roomy,
    str_of,
    talk,
)
from tests.contract.sql import BOOK, Books, MySQLDatabase, book, opened


@pytest.mark.parametrize("scheme", ["mysql", "mysql+asyncmy"])
class TestHazard1ACancelledInsertStillCommits:
    """Rule: what was cancelled may land later; its connection is broken off, and nobody reads its reply."""

    @pytest.mark.parametrize("size", [1, 3])
    async def test_50_calls_after_one_cancelled_before_its_reply_get_their_own_answers(
        self, private: Books, private_mariadb: MariaDBServer, size: int
    ) -> None:
        pool, before = pool_of(private), descriptors()
        await get_their_own_answers(private)
        await private_mariadb.pause()
        created = [private.new() for _ in range(size)]
        calls = [
            asyncio.ensure_future(call) for call in (private.apply(*created), private.find(created[0].key))
        ]
        await asyncio.sleep(0.05)  # until both are sent
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await private_mariadb.resume()
        await get_their_own_answers(private)
        assert not pool._busy
        await eventually(lambda: descriptors() <= before + 8)
        await eventually(lambda: len(pool._idle) <= 8)

    async def test_a_create_that_was_cancelled_may_be_there_later(
        self, books: Books, database: MySQLDatabase
    ) -> None:
        await database.run(
            f"CREATE TRIGGER slow BEFORE INSERT ON {database.schema.table} FOR EACH ROW DO SLEEP(0.3)"
        )
        created = books.new()
        call = asyncio.ensure_future(books.apply(created))
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        async with asyncio.timeout(5):
            while await books.find(created.key) is None:  # noqa: ASYNC110 - the server sets no event
                await asyncio.sleep(0.05)

    @pytest.mark.parametrize("after", [1, 5, 40])
    async def test_a_reply_that_was_cut_in_the_middle_is_nobodys(
        self, database: MySQLDatabase, after: int
    ) -> None:
        async with FaultyProxy(str_of(database.url)) as proxy:
            adapter = MySQLAdapter.from_url(BackendURL.parse(proxy.url))
            async with opened(database, adapter) as books:
                created = [books.new(title="x" * after) for _ in range(3)]
                await books.apply(*created)
                await proxy.slow(200)
                call = asyncio.ensure_future(books.adapter.read([operation.key for operation in created]))
                await asyncio.sleep(0.2)
                assert not call.done()
                call.cancel()
                await asyncio.wait([call])
                await proxy.heal()
                await get_their_own_answers(books)

    async def test_a_reply_that_the_driver_stumbles_over_is_nobodys_either(
        self, books: Books, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        created = books.new()
        await books.apply(created)
        first = (await connection_of(books)).raw.thread_id()

        def stumble(*_: object) -> None:
            raise IndexError

        class Stumbling(dict[int, object]):
            def get(self, *_: object) -> object:
                return stumble

        with monkeypatch.context() as patch:
            for session in pool_of(books)._idle:
                name = "decoders" if hasattr(session.raw, "decoders") else "_decoders"
                patch.setattr(session.raw, name, Stumbling())
            with pytest.raises(BackendFailed, match="IndexError"):
                await books.find(created.key)
        assert (await connection_of(books)).raw.thread_id() != first
        await get_their_own_answers(books)


@pytest.mark.parametrize("scheme", ["mysql", "mysql+asyncmy"])
class TestHazard2AStoppedServerHoldsUpWhoConnects:
    """Rule: connecting has a deadline of its own, and nobody holds a lock meanwhile."""

    async def test_connecting_to_a_stopped_server_times_out_and_sends_nothing(
        self, private_mariadb: MariaDBServer, private_url: BackendURL
    ) -> None:
        url = replace(private_url, options={"timeout": "0.3"})
        before = descriptors()
        await private_mariadb.pause()
        adapter = MySQLAdapter.from_url(url)
        start = time.monotonic()
        with pytest.raises(BackendTimeout) as caught:
            await adapter.open()
        assert not caught.value.sent
        assert 0.2 < time.monotonic() - start < 1
        await eventually(lambda: descriptors() <= before)
        await private_mariadb.resume()
        await adapter.open()
        await adapter.ping()
        await adapter.close()

    async def test_a_free_connection_is_had_while_another_is_being_made(
        self, database: MySQLDatabase, scripted: ScriptedServer
    ) -> None:
        ((host, port),) = database.url.hosts
        made = 0

        async def relay_the_first_alone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal made
            made += 1
            if made > 1:
                await reader.read()
                return
            server_reader, server_writer = await asyncio.open_connection(host, port)
            try:
                await asyncio.gather(relay(reader, server_writer), relay(server_reader, writer))
            finally:
                server_writer.close()

        url = replace(database.url, hosts=(("127.0.0.1", await scripted(relay_the_first_alone)),))
        async with opened(database, MySQLAdapter.from_url(url)) as books:
            created = books.new()
            await books.apply(created)
            stay = asyncio.ensure_future(talk(books, "SELECT SLEEP(0.3)"))
            await asyncio.sleep(0.05)
            connecting = [asyncio.ensure_future(books.find(created.key)) for _ in range(3)]
            await stay
            async with asyncio.timeout(0.5):
                assert await books.find(created.key) is not None
            assert not any(call.done() for call in connecting)
            for call in connecting:
                call.cancel()
            await asyncio.wait(connecting)
            assert await books.find(created.key) is not None

    @pytest.mark.parametrize("moment", [0, 0.001, 0.003, 0.01, 0.05])
    async def test_a_cancelled_connect_leaves_no_descriptor(
        self, private_mariadb: MariaDBServer, private_url: BackendURL, moment: float
    ) -> None:
        before = descriptors()
        if moment > 0.01:
            await private_mariadb.pause()
        for _ in range(5):
            adapter = MySQLAdapter.from_url(private_url)
            opening = asyncio.ensure_future(adapter.open())
            await asyncio.sleep(moment)
            opening.cancel()
            await asyncio.wait([opening])
            await adapter.close()
        await eventually(lambda: descriptors() <= before)

    async def test_close_does_not_wait_for_a_server_that_has_stopped(
        self, private_mariadb: MariaDBServer, private_url: BackendURL
    ) -> None:
        before = descriptors()
        async with opened(roomy(private_url)) as books:
            await get_their_own_answers(books)
            await private_mariadb.pause()
            created = books.new(title="more than the sockets hold" * 400_000)
            call = asyncio.ensure_future(books.apply(created))
            await asyncio.sleep(0.1)
            start = time.monotonic()
            await books.adapter.close()
            assert time.monotonic() - start < 2
            with pytest.raises(Unavailable):
                await call
        await eventually(lambda: descriptors() <= before)


@pytest.mark.parametrize("scheme", ["mysql", "mysql+asyncmy"])
class TestHazard3ReleasingAClosedConnectionWakesNobody:
    """Rule: our own semaphore."""

    async def test_whoever_waits_for_a_connection_gets_one_when_those_in_use_die(
        self, database: MySQLDatabase
    ) -> None:
        url = replace(database.url, options={"connections": "2"})
        async with opened(database, MySQLAdapter.from_url(url)) as books:
            created = books.new()
            await books.apply(created)
            dying = [asyncio.ensure_future(talk(books, "SELECT SLEEP(5)")) for _ in range(2)]
            await asyncio.sleep(0.1)
            waiting = [asyncio.ensure_future(books.find(created.key)) for _ in range(20)]
            await asyncio.sleep(0.05)
            for connection in list(pool_of(books)._busy):
                await database.run(f"KILL {connection.raw.thread_id()}")
            async with asyncio.timeout(3):
                found = await asyncio.gather(*waiting)
            assert all(found)
            await asyncio.wait(dying)
            assert all(call.exception() for call in dying)

    async def test_a_connection_left_in_a_transaction_is_not_handed_on(self, books: Books) -> None:
        first = (await connection_of(books)).raw.thread_id()
        await talk(books, "START TRANSACTION", "SELECT 1")
        assert (await connection_of(books)).raw.thread_id() != first
        assert await talk(books, "SELECT @@in_transaction") == [(0,)]

    async def test_never_more_connections_than_were_asked_for(self, database: MySQLDatabase) -> None:
        url = replace(database.url, options={"connections": "3"})
        async with opened(database, MySQLAdapter.from_url(url)) as books:
            await get_their_own_answers(books)
            assert len(pool_of(books)._idle) <= 3


@pytest.mark.parametrize("scheme", ["mysql", "mysql+asyncmy"])
class TestHazard4SessionsLeakAndPacketsKill:
    """Rule: every setting that we rely on is made at connect; statements are measured beforehand."""

    async def test_no_default_of_the_server_changes_what_is_stored(
        self, private_mariadb: MariaDBServer, private_url: BackendURL
    ) -> None:
        await admin(
            private_mariadb,
            "SET GLOBAL sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,NO_ZERO_DATE'",
            "SET GLOBAL time_zone = '+05:30'",
            "SET GLOBAL tx_isolation = 'SERIALIZABLE'",
            "SET GLOBAL autocommit = 0",
            "SET GLOBAL innodb_lock_wait_timeout = 1000",
        )
        title = "\\ ' \" \\' \\\\ '' %s {0} ? \x1a \n"
        async with opened(MySQLDatabase(private_url)) as books:
            for batch in ([books.new(title=title)], [books.new(title=title), books.new(title="--';")]):
                assert await books.apply(*batch) == [APPLIED] * len(batch)
                for operation in batch:
                    found = await books.find(operation.key)
                    assert found is not None
                    assert found.fields == operation.fields
            assert await talk(
                books,
                "SELECT @@sql_mode, @@time_zone, @@tx_isolation, @@autocommit, @@innodb_lock_wait_timeout",
            ) == [("STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION", "+00:00", "READ-COMMITTED", 1, 1)]
        async with opened(MySQLDatabase(private_url)) as others:
            assert await others.find(batch[0].key) is not None

    async def test_affected_rows_count_what_was_found(self, books: Books, database: MySQLDatabase) -> None:
        created = books.new()
        await books.apply(created)

        async def change_nothing(connection: Session) -> int:
            ((_, affected),) = await connection.run([f"UPDATE {database.schema.table} SET title = title"])
            return affected

        assert await pool_of(books).run(change_nothing) == 1

    async def test_a_record_over_the_packet_limit_is_refused_alone_and_its_connection_lives(
        self, private_mariadb: MariaDBServer, private_url: BackendURL
    ) -> None:
        await admin(private_mariadb, "SET GLOBAL max_allowed_packet = 1048576")
        async with opened(roomy(private_url)) as books:
            before = {connection.raw.thread_id() for connection in pool_of(books)._idle}
            huge = books.new(title="x" * 1100000)
            (alone,) = await books.apply(huge)
            first, batched, last = await books.apply(books.new(), huge, books.new())
            for outcome in (alone, batched):
                assert outcome.status is Status.REJECTED
                assert isinstance(outcome.error, ConstraintViolated)
                assert "max_allowed_packet" in str(outcome.error)
            assert first is last is APPLIED
            large = [books.new(title="y" * 600000) for _ in range(5)]
            assert await books.apply(*large) == [APPLIED] * 5
            updates = [books.update(operation.key, book("z" * 600000)) for operation in large]
            assert await books.apply(*updates, mode=Mode.REPLAY) == [APPLIED] * 5
            found = await books.adapter.read([operation.key for operation in large])
            assert [answer.fields for answer in found if isinstance(answer, Record)] == [
                book("z" * 600000)
            ] * 5
            assert {connection.raw.thread_id() for connection in pool_of(books)._idle} == before

    async def test_bytes_reach_the_server_as_bytes(self, database: MySQLDatabase) -> None:
        # The driver's own way of writing them ends in a TypeError since PyMySQL 1.2.
        async with opened(database) as books:
            assert await talk(books, "SELECT 1") == [(1,)]
            created = books.new(Key(books.model, "bytes \u00e9"))
            await books.apply(created)
            assert [record.key async for record in books.adapter.scan(books.model, batch=1)] == [created.key]

    async def test_files_of_ours_are_not_for_the_server(self, books: Books, database: MySQLDatabase) -> None:
        with pytest.raises(Exception, match=r"not allowed|local_infile"):
            await talk(books, f"LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE {database.schema.table}")
        await get_their_own_answers(books)


class TestHazard5CollationsTakeDifferentKeysForOne:
    """Rule: ids are bytes in tables of ours; in mapped tables each condition compares bytes as well."""

    async def test_key_KEY_key_with_a_blank_and_kéy_are_four_keys(  # noqa: N802, PLC2401 - the names of the hazard
        self, books: Books
    ) -> None:
        keys = [Key(books.model, id_) for id_ in ("key", "KEY", "key ", "k\u00e9y")]
        created = [books.new(key, f"{number}") for number, key in enumerate(keys)]
        assert await books.apply(*created[:2]) == [APPLIED] * 2
        for operation in created[2:]:
            assert await books.apply(operation) == [APPLIED]
        assert await books.apply(books.delete(keys[0])) == [APPLIED]
        answers = await books.adapter.read(keys)
        assert [answer.fields if isinstance(answer, Record) else None for answer in answers] == [
            None, book("1"), book("2"), book("3"),
        ]  # fmt: skip

    async def test_trailing_blanks_of_a_text_are_kept(self, books: Books) -> None:
        created = books.new(title="  two before, two after  ")
        await books.apply(created)
        found = await books.find(created.key)
        assert found is not None
        assert found.fields == created.fields


class TestHazard6DeadlocksAndRowsThatCanNotBeToldApart:
    """Rule: batches in one order, collisions tried again, versions selected under the locks."""

    async def test_a_deadlock_is_tried_again(self, books: Books, database: MySQLDatabase) -> None:
        first, second = (books.new(Key(books.model, id_)) for id_ in ("a", "b"))
        await books.apply(first, second)
        table = database.schema.table
        async with database.connection() as other:
            await other.query("START TRANSACTION")
            await other.query(f"UPDATE {table} SET pages = 7 WHERE id = 'b'")
            await other.query(f"INSERT INTO {table} (id, title) VALUES ('c', ''), ('d', ''), ('e', '')")
            updates = [books.update(operation.key, book("again")) for operation in (first, second)]
            batch = asyncio.ensure_future(books.apply(*updates))
            _, held_up = await asyncio.wait([batch], timeout=0.2)
            assert held_up
            # Each holds what the other wants: the one that has written less is rolled back.
            await other.query(f"UPDATE {table} SET pages = 7 WHERE id = 'a'")
            await other.query("COMMIT")
            assert await batch == [APPLIED] * 2

    async def test_a_lock_that_is_held_for_long_is_unavailability_and_no_rejection(
        self, books: Books, database: MySQLDatabase
    ) -> None:
        created = books.new()
        await books.apply(created)
        async with database.connection() as other:
            await other.query("START TRANSACTION")
            await other.query(f"SELECT * FROM {database.schema.table} FOR UPDATE")
            start = time.monotonic()
            with pytest.raises(BackendFailed, match="Lock wait timeout") as caught:
                await books.apply(books.update(created.key, book()))
            assert 1 < time.monotonic() - start < 6
            assert not caught.value.sent
            await other.query("ROLLBACK")
        await get_their_own_answers(books)

    async def test_batches_that_share_keys_and_unique_values_all_succeed(
        self, books: Books, database: MySQLDatabase
    ) -> None:
        await database.run(f"CREATE UNIQUE INDEX unique_pages ON {database.schema.table} (pages)")
        keys = [books.key() for _ in range(20)]
        batches = []
        for number in range(24):
            chosen = [keys[(number * 7 + step * 3) % 20] for step in range(8)]
            updates = [books.update(key, book(pages=number * 100 + step)) for step, key in enumerate(chosen)]
            batches.append(books.apply(*updates, mode=Mode.REPLAY))
        async with asyncio.timeout(30):
            outcomes = [outcome for batch in await asyncio.gather(*batches) for outcome in batch]
        assert {outcome.status for outcome in outcomes} <= {Status.APPLIED, Status.SUPERSEDED}

    @pytest.mark.parametrize("mode", [Mode.LIVE, Mode.REPLAY], ids=lambda mode: mode.value)
    async def test_each_of_a_batch_has_its_own_outcome(self, books: Books, mode: Mode) -> None:
        older = [books.update(books.key(), book("old"), born="0" * 26) for _ in range(10)]
        created = [books.new(operation.key) for operation in older[::2]]
        await books.apply(*created)
        newer = [books.update(operation.key, book("new")) for operation in older[::2]]
        outcomes = await books.apply(*older, *newer, mode=mode)
        applied, rest = outcomes[10:], outcomes[:10]
        assert applied == [APPLIED] * 5
        absent = Status.REJECTED if mode is Mode.LIVE else Status.APPLIED
        present = Status.SUPERSEDED if mode is Mode.LIVE else Status.REJECTED
        assert [outcome.status for outcome in rest] == [present, absent] * 5


class TestHazard7MariaDBIsNotMySQL:
    """Rule: only what both take."""

    async def test_a_batch_over_rows_that_are_there_needs_no_alias_for_the_new_ones(
        self, books: Books
    ) -> None:
        created = [books.new() for _ in range(3)]
        await books.apply(*created)
        updates = [books.update(operation.key, book("newer")) for operation in created]
        assert await books.apply(*updates) == [APPLIED] * 3
        answers = await books.adapter.read([operation.key for operation in created])
        assert [answer.fields for answer in answers if isinstance(answer, Record)] == [book("newer")] * 3

    async def test_json_is_kept_as_it_is_however_deep(self, books: Books) -> None:
        deep: object = "bottom"
        for _ in range(64):
            deep = {"down": [deep]}
        tree = Column("tree", "tree", Type.JSON, nullable=True)
        schema = replace(BOOK, model="Deep", table="deep", columns=(tree,))
        await books.adapter.prepare(schema, create=True)
        author = Books(books.adapter, schema)
        created = author.create(author.key(), {"tree": deep})  # type: ignore[dict-item]
        assert await books.apply(created) == [APPLIED]
        found = await author.find(created.key)
        assert found is not None
        assert found.fields == {"tree": deep}


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()
