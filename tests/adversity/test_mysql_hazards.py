"""What was seen to go wrong between aiomysql and MariaDB, each by name, and the rule that helps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

import pytest

from octopus_async.adapters._mysql_pool import Connection, Pool
from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    ConstraintViolated,
    SchemaMismatch,
    Unavailable,
)
from octopus_async.record import APPLIED, Key, Mode, Record, Status
from octopus_async.schema import Column, Type
from octopus_async.testing.contract.subject import descriptors, eventually
from octopus_async.testing.proxy import FaultyProxy
from octopus_async.testing.servers import MariaDBServer, Server
from octopus_async.url import BackendURL
from tests.adversity.memcache import ScriptedServer
from tests.contract.sql import BOOK, Books, MySQLDatabase, book, connect, mysql_database, opened

SECRET = "s3cret"  # noqa: S105 - of no server at all
PASSWORD = "s3cret p@ss/word:\u20ac"  # noqa: S105 - of a server that lives as long as its test


@pytest.fixture
async def database(mariadb_server: Server) -> AsyncGenerator[MySQLDatabase]:
    async with mysql_database(mariadb_server.url) as database:
        yield database


@pytest.fixture
async def books(database: MySQLDatabase) -> AsyncGenerator[Books]:
    async with opened(database) as books:
        yield books


@pytest.fixture
async def private(private_mariadb: MariaDBServer) -> AsyncGenerator[Books]:
    async with opened(MySQLDatabase(BackendURL.parse(private_mariadb.url))) as books:
        yield books


def pool_of(books: Books) -> Pool:
    assert isinstance(books.adapter, MySQLAdapter)
    assert books.adapter._pool is not None
    return books.adapter._pool


async def talk(books: Books, *statements: str) -> list[tuple[object, ...]]:
    """Statements on a connection of the adapter's pool; the rows of the last."""

    async def run(connection: Connection) -> list[tuple[object, ...]]:
        *_, (rows, _) = await connection.run(statements)
        return [tuple(row) for row in rows]

    return await pool_of(books).run(run)


async def connection_of(books: Books) -> Connection:
    async def itself(connection: Connection) -> Connection:
        await connection.run(["SELECT 1"])
        return connection

    return await pool_of(books).run(itself)


async def get_their_own_answers(books: Books, count: int = 50) -> None:
    """Further calls are well, and none gets another's answer."""
    created = [books.new(title=str(number)) for number in range(count)]
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(*[books.apply(operation) for operation in created])
        found = await asyncio.gather(*[books.find(operation.key) for operation in created])
    assert outcomes == [[APPLIED]] * count
    assert [record and record.fields for record in found] == [operation.fields for operation in created]


async def admin(server: MariaDBServer, *statements: str) -> list[tuple[object, ...]]:
    return await MySQLDatabase(BackendURL.parse(server.admin_url)).run(*statements)


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


class TestHazard2AStoppedServerHoldsUpWhoConnects:
    """Rule: connecting has a deadline of its own, and nobody holds a lock meanwhile."""

    async def test_connecting_to_a_stopped_server_times_out_and_sends_nothing(
        self, private_mariadb: MariaDBServer
    ) -> None:
        url = replace(BackendURL.parse(private_mariadb.url), options={"timeout": "0.3"})
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
        self, private_mariadb: MariaDBServer, moment: float
    ) -> None:
        before = descriptors()
        if moment > 0.01:
            await private_mariadb.pause()
        for _ in range(5):
            adapter = MySQLAdapter.from_url(BackendURL.parse(private_mariadb.url))
            opening = asyncio.ensure_future(adapter.open())
            await asyncio.sleep(moment)
            opening.cancel()
            await asyncio.wait([opening])
            await adapter.close()
        await eventually(lambda: descriptors() <= before)

    async def test_close_does_not_wait_for_a_server_that_has_stopped(
        self, private_mariadb: MariaDBServer
    ) -> None:
        before = descriptors()
        async with opened(MySQLDatabase(BackendURL.parse(private_mariadb.url))) as books:
            await get_their_own_answers(books)
            await private_mariadb.pause()
            created = [books.create(books.key(), book("x" * 40)) for _ in range(500)]
            call = asyncio.ensure_future(books.apply(*created))
            await asyncio.sleep(0.1)
            start = time.monotonic()
            await books.adapter.close()
            assert time.monotonic() - start < 2
            with pytest.raises(Unavailable):
                await call
        await eventually(lambda: descriptors() <= before)


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
                await database.run(f"KILL {connection.thread_id()}")
            async with asyncio.timeout(3):
                found = await asyncio.gather(*waiting)
            assert all(found)
            await asyncio.wait(dying)
            assert all(call.exception() for call in dying)

    async def test_a_connection_left_in_a_transaction_is_not_handed_on(self, books: Books) -> None:
        first = (await connection_of(books)).thread_id()
        await talk(books, "START TRANSACTION", "SELECT 1")
        assert (await connection_of(books)).thread_id() != first
        assert await talk(books, "SELECT @@in_transaction") == [(0,)]

    async def test_never_more_connections_than_were_asked_for(self, database: MySQLDatabase) -> None:
        url = replace(database.url, options={"connections": "3"})
        async with opened(database, MySQLAdapter.from_url(url)) as books:
            await get_their_own_answers(books)
            assert len(pool_of(books)._idle) <= 3


class TestHazard4SessionsLeakAndPacketsKill:
    """Rule: every setting that we rely on is made at connect; statements are measured before they are sent."""

    async def test_no_default_of_the_server_changes_what_is_stored(
        self, private_mariadb: MariaDBServer
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
        async with opened(MySQLDatabase(BackendURL.parse(private_mariadb.url))) as books:
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
        async with opened(MySQLDatabase(BackendURL.parse(private_mariadb.url))) as others:
            assert await others.find(batch[0].key) is not None

    async def test_affected_rows_count_what_was_found(self, books: Books, database: MySQLDatabase) -> None:
        created = books.new()
        await books.apply(created)

        async def change_nothing(connection: Connection) -> int:
            ((_, affected),) = await connection.run([f"UPDATE {database.schema.table} SET title = title"])
            return affected

        assert await pool_of(books).run(change_nothing) == 1

    async def test_a_record_over_the_packet_limit_is_refused_alone_and_its_connection_lives(
        self, private_mariadb: MariaDBServer
    ) -> None:
        await admin(private_mariadb, "SET GLOBAL max_allowed_packet = 1048576")
        database = MySQLDatabase(BackendURL.parse(private_mariadb.url))
        database.schema = replace(BOOK, columns=(replace(BOOK.columns[0], max_length=None), BOOK.columns[1]))
        async with opened(database) as books:
            before = {connection.thread_id() for connection in pool_of(books)._idle}
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
            assert {connection.thread_id() for connection in pool_of(books)._idle} == before

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


class TestServersThatFail:
    async def test_a_read_only_server_answers_reads_and_refuses_no_record(
        self, private: Books, private_mariadb: MariaDBServer
    ) -> None:
        created = private.new()
        await private.apply(created)
        await admin(private_mariadb, "SET GLOBAL read_only = 1")
        await private.adapter.ping()
        assert await private.find(created.key) is not None
        calls: list[Callable[[], Awaitable[object]]] = [
            private.adapter.probe,
            lambda: private.apply(private.new()),
            lambda: private.apply(private.new(), private.new()),
            lambda: private.apply(private.delete(created.key)),
        ]
        for call in calls:
            with pytest.raises(BackendFailed, match="read-only") as caught:
                await call()
            assert not caught.value.sent
        await admin(private_mariadb, "SET GLOBAL read_only = 0")
        await private.adapter.probe()
        await get_their_own_answers(private)

    async def test_too_many_connections_are_unavailability(self, private_mariadb: MariaDBServer) -> None:
        url = BackendURL.parse(private_mariadb.url)
        await admin(private_mariadb, "SET GLOBAL max_connections = 10")
        taken = [await connect(url) for _ in range(10)]
        adapter = MySQLAdapter.from_url(url)
        with pytest.raises(BackendFailed, match="Too many connections") as caught:
            await adapter.open()
        assert not caught.value.sent
        for connection in taken:
            connection.close()
        async with asyncio.timeout(5):
            while True:
                try:
                    await adapter.open()
                    break
                except BackendFailed:
                    await asyncio.sleep(0.05)
        await adapter.close()

    async def test_a_server_killed_under_calls_fails_them_and_is_back_after_its_restart(
        self, private: Books, private_mariadb: MariaDBServer
    ) -> None:
        await get_their_own_answers(private)
        reading = asyncio.ensure_future(talk(private, "SELECT SLEEP(5)"))
        await asyncio.sleep(0.05)
        await private_mariadb.kill()
        with pytest.raises(Exception, match="Lost connection"):
            await reading
        await asyncio.sleep(0.05)  # until the loop has heard that the others are closed
        with pytest.raises(BackendRefused) as caught:
            await private.apply(private.new())
        assert not caught.value.sent
        await private_mariadb.start()
        await get_their_own_answers(private)

    async def test_connections_that_a_restart_has_closed_are_not_used_again(
        self, private: Books, private_mariadb: MariaDBServer
    ) -> None:
        await get_their_own_answers(private)
        await private_mariadb.restart()
        assert await private.apply(private.new()) == [APPLIED]

    async def test_an_idle_connection_is_given_up_before_the_server_closes_it(self, books: Books) -> None:
        first = await connection_of(books)
        assert await talk(books, "SELECT @@wait_timeout") == [(60,)]
        first.last_used -= 31
        assert (await connection_of(books)).thread_id() != first.thread_id()

    async def test_a_write_whose_connection_breaks_is_unknown_and_a_read_is_not(
        self, database: MySQLDatabase
    ) -> None:
        async with FaultyProxy(str_of(database.url)) as proxy:
            adapter = MySQLAdapter.from_url(BackendURL.parse(proxy.url))
            async with opened(database, adapter) as books:
                for sent, call in ((True, books.apply(books.new())), (False, books.find(books.key()))):
                    await proxy.swallow()
                    task = asyncio.ensure_future(call)
                    await asyncio.sleep(0.05)
                    await proxy.reset()
                    with pytest.raises(BackendFailed) as caught:
                        await task
                    assert caught.value.sent is sent
                    await proxy.heal()

    async def test_a_table_whose_engine_knows_no_transactions_is_a_schema_mismatch(
        self, database: MySQLDatabase
    ) -> None:
        await database.run(
            "CREATE TABLE books (id VARBINARY(99) PRIMARY KEY, title TEXT, pages INT) ENGINE=MyISAM"
        )
        with pytest.raises(SchemaMismatch, match="MyISAM") as caught:
            async with opened(database):
                pass
        await database.run(str(caught.value).partition("run: ")[2])
        async with opened(database) as books:
            assert await books.apply(books.new(), books.new()) == [APPLIED] * 2

    async def test_a_model_with_more_columns_than_a_row_holds_is_a_schema_mismatch(
        self, database: MySQLDatabase
    ) -> None:
        columns = tuple(
            replace(BOOK.columns[0], field=f"f{n}", name=f"f{n}", max_length=500) for n in range(60)
        )
        database.schema = replace(BOOK, columns=columns)
        with pytest.raises(SchemaMismatch, match="Row size too large"):
            async with opened(database):
                pass

    async def test_a_column_that_the_model_does_not_know_and_that_has_no_default_is_a_schema_mismatch(
        self, books: Books, database: MySQLDatabase
    ) -> None:
        await database.run("ALTER TABLE books ADD COLUMN isbn CHAR(13) NOT NULL")
        for batch in ([books.new()], [books.new(), books.new()]):
            with pytest.raises(SchemaMismatch, match="isbn"):
                await books.apply(*batch)

    async def test_lock_rows_that_somebody_removed_are_missed_and_made_again(
        self, books: Books, database: MySQLDatabase
    ) -> None:
        await database.run("DELETE FROM octopus_versions")
        for call in (books.apply(books.new()), books.apply(books.delete(books.key()))):
            with pytest.raises(SchemaMismatch, match="reserved rows"):
                await call
        await books.adapter.prepare(database.schema, create=False)
        assert await books.apply(books.new()) == [APPLIED]


class TestSecrets:
    async def test_a_password_is_in_no_message_whatever_it_holds(
        self, private_mariadb: MariaDBServer
    ) -> None:
        await admin(
            private_mariadb,
            f"CREATE USER 'app'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
            "GRANT ALL ON octopus.* TO 'app'@'127.0.0.1'",
        )
        url = replace(BackendURL.parse(private_mariadb.url), user="app", password=PASSWORD)
        async with opened(MySQLDatabase(url)) as books:
            assert await books.apply(books.new()) == [APPLIED]
        wrong = MySQLAdapter.from_url(replace(url, password=PASSWORD + "!"))
        with pytest.raises(BackendFailed, match="Access denied") as caught:
            await wrong.open()
        assert not caught.value.sent
        error: BaseException | None = caught.value
        while error is not None:
            assert PASSWORD not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__

    async def test_without_tls_no_server_is_told_the_password_in_clear(
        self, scripted: ScriptedServer
    ) -> None:
        told = bytearray()

        async def ask_for_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(packet(0, GREETING))
            told.extend(await reader.readexactly(4))
            told.extend(await reader.readexactly(int.from_bytes(told[:3], "little")))
            writer.write(packet(2, b"\xfemysql_clear_password\0"))
            told.extend(await reader.read())

        adapter = MySQLAdapter(
            host="127.0.0.1", port=await scripted(ask_for_it), user="app", password=SECRET, database="shop"
        )
        with pytest.raises(BackendFailed, match="without TLS"):
            await adapter.open()
        assert told
        assert SECRET.encode() not in told

    @pytest.mark.parametrize("how", ["verify", "insecure"])
    async def test_with_tls_asked_for_nobody_logs_in_without(
        self, mariadb_server: Server, scripted: ScriptedServer, how: str
    ) -> None:
        told = bytearray()

        async def offer_none(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(packet(0, GREETING))
            told.extend(await reader.read())

        url = replace(
            BackendURL.parse(mariadb_server.url),
            hosts=(("127.0.0.1", await scripted(offer_none)),),
            options={"tls": how},
        )
        with pytest.raises(BackendFailed, match="TLS is asked for"):
            await MySQLAdapter.from_url(url).open()
        assert not told


GREETING = (
    b"\x0a10.11.0-MariaDB\0" + b"\1\0\0\0" + b"12345678\0" + b"\xff\xf7" + b"\x2d" + b"\2\0"
    + b"\x0f\x80" + b"\x15" + b"\0" * 10 + b"123456789012\0" + b"mysql_native_password\0"
)  # fmt: skip
"""Of a server that does all but TLS."""


def packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


def str_of(url: BackendURL) -> str:
    ((host, port),) = url.hosts
    return f"mysql://{url.user}:{url.password}@{host}:{port}/{url.path}"
