"""What goes wrong between asyncpg and Postgres, each by name, and the rule that helps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from octopus_async.adapters import _postgres_statements
from octopus_async.adapters.postgres import PostgresAdapter
from octopus_async.errors import BackendFailed, BackendTimeout, InvalidRecord, SchemaMismatch, Unavailable
from octopus_async.record import APPLIED, Key, Mode, Operation, Record, Status, Value
from octopus_async.schema import Column, Schema, Type
from octopus_async.testing.contract.subject import descriptors, eventually
from octopus_async.testing.operations import ALL_TYPES, fields_of
from octopus_async.testing.proxy import FaultyProxy
from octopus_async.testing.servers import PostgresServer
from tests.adversity.mysql import get_their_own_answers
from tests.adversity.postgres import database_of, pool_of, session_of, set_defaults, talk, text_of, through
from tests.contract.sql import BOOK, Books, PostgresDatabase, book, connect_postgres, opened

TREE = Schema("Tree", "trees", "id", Type.TEXT, (Column("tree", "tree", Type.JSON, nullable=True),))


@pytest.fixture
async def books(postgres_database: PostgresDatabase) -> AsyncGenerator[Books]:
    async with opened(postgres_database) as books:
        yield books


@pytest.fixture
async def private(private_postgres: PostgresServer) -> AsyncGenerator[Books]:
    async with opened(database_of(private_postgres)) as books:
        yield books


class TestACancelledCallsReplyIsNobodys:
    """Rule: it may land later; its connection is broken off, and the driver's request to cancel it."""

    @pytest.mark.parametrize("size", [1, 3])
    async def test_50_calls_after_one_cancelled_before_its_reply_get_their_own_answers(
        self, private: Books, private_postgres: PostgresServer, size: int
    ) -> None:
        pool, before = pool_of(private), descriptors()
        await get_their_own_answers(private)
        await private_postgres.pause()
        created = [private.new() for _ in range(size)]
        calls = [
            asyncio.ensure_future(call) for call in (private.apply(*created), private.find(created[0].key))
        ]
        await asyncio.sleep(0.05)  # until both are sent
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await private_postgres.resume()
        await get_their_own_answers(private)
        assert not pool._busy
        await eventually(lambda: descriptors() <= before + 8)
        assert len(pool._idle) <= 8

    async def test_no_request_for_cancellation_is_left_that_could_hit_another_statement(
        self, postgres_database: PostgresDatabase
    ) -> None:
        async with (
            FaultyProxy(text_of(postgres_database)) as proxy,
            opened(postgres_database, through(postgres_database, proxy.url)) as books,
        ):
            tasks = asyncio.all_tasks()
            for _ in range(5):
                call = asyncio.ensure_future(talk(books, "SELECT pg_sleep(0.3)"))
                await asyncio.sleep(0.05)
                call.cancel()
                await asyncio.wait([call])
            await eventually(lambda: asyncio.all_tasks() <= tasks)
            assert proxy.open_connections <= 8
            await get_their_own_answers(books)

    async def test_a_create_that_was_cancelled_may_be_there_later(
        self, books: Books, postgres_database: PostgresDatabase
    ) -> None:
        await postgres_database.put_brake(0.3)
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
        self, postgres_database: PostgresDatabase, after: int
    ) -> None:
        async with FaultyProxy(text_of(postgres_database)) as proxy:
            adapter = through(postgres_database, proxy.url)
            async with opened(postgres_database, adapter) as books:
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

    async def test_a_call_with_a_time_limit_of_the_drivers_own_is_nobodys_either(self, books: Books) -> None:
        first = await session_of(books)

        async def late(connection: object) -> None:
            await connection._exchange(connection.raw.fetch("SELECT pg_sleep(1)", timeout=0.05))  # type: ignore[attr-defined]

        with pytest.raises(TimeoutError):
            await pool_of(books).run(late)
        assert await session_of(books) != first
        await get_their_own_answers(books)


class TestAStoppedServerHoldsUpNobodyForLong:
    """Rule: connecting has a deadline of its own; closing breaks off what does not end."""

    async def test_connecting_to_a_stopped_server_times_out_and_sends_nothing(
        self, private_postgres: PostgresServer
    ) -> None:
        adapter = PostgresAdapter.from_url(database_of(private_postgres, timeout="0.3").url)
        before = descriptors()
        await private_postgres.pause()
        start = time.monotonic()
        with pytest.raises(BackendTimeout) as caught:
            await adapter.open()
        assert not caught.value.sent
        assert 0.2 < time.monotonic() - start < 2
        await eventually(lambda: descriptors() <= before)
        await private_postgres.resume()
        async with opened(database_of(private_postgres)) as books:
            assert await books.apply(books.new()) == [APPLIED]

    @pytest.mark.parametrize("moment", [0, 0.001, 0.003, 0.01, 0.05])
    async def test_a_cancelled_connect_leaves_no_descriptor(
        self, postgres_database: PostgresDatabase, moment: float
    ) -> None:
        before = descriptors()
        for _ in range(5):
            adapter = postgres_database.adapter()
            opening = asyncio.ensure_future(adapter.open())
            await asyncio.sleep(moment)
            opening.cancel()
            await asyncio.wait([opening])
            await adapter.close()
        await eventually(lambda: descriptors() <= before)

    async def test_close_does_not_wait_for_a_server_that_has_stopped(
        self, private_postgres: PostgresServer
    ) -> None:
        before = descriptors()
        database = database_of(private_postgres)
        database.schema = replace(BOOK, columns=(replace(BOOK.columns[0], max_length=None), BOOK.columns[1]))
        async with opened(database) as books:
            await get_their_own_answers(books)
            await private_postgres.pause()
            created = books.new(title="more than the sockets hold" * 400_000)
            call = asyncio.ensure_future(books.apply(created))
            await asyncio.sleep(0.1)
            start = time.monotonic()
            await books.adapter.close()
            assert time.monotonic() - start < 3
            with pytest.raises(Unavailable):
                await call
        await eventually(lambda: descriptors() <= before)

    async def test_whoever_waits_for_a_connection_gets_one_when_those_in_use_die(
        self, postgres_database: PostgresDatabase
    ) -> None:
        url = replace(postgres_database.url, options={"connections": "2"})
        async with opened(postgres_database, PostgresAdapter.from_url(url)) as books:
            created = books.new()
            await books.apply(created)
            dying = [asyncio.ensure_future(talk(books, "SELECT pg_sleep(9)")) for _ in range(2)]
            await asyncio.sleep(0.1)
            waiting = [asyncio.ensure_future(books.find(created.key)) for _ in range(20)]
            await asyncio.sleep(0.05)
            for connection in list(pool_of(books)._busy):
                await postgres_database.cut(connection)
            async with asyncio.timeout(5):
                assert all(await asyncio.gather(*waiting))
            await asyncio.wait(dying)
            assert all(call.exception() for call in dying)
            assert len(pool_of(books)._idle) <= 2

    async def test_a_connection_left_in_a_transaction_is_not_handed_on(self, books: Books) -> None:
        first = await session_of(books)
        await talk(books, "BEGIN")
        assert await session_of(books) != first


class TestTextAndJsonThatPostgresRefuses:
    """Rule: NUL and lone surrogates are refused before anything is sent; their connection lives on."""

    @pytest.mark.parametrize("title", ["a\0b", "lone \ud800"])
    async def test_it_is_the_records_fault_alone_and_in_a_batch(self, books: Books, title: str) -> None:
        first = await session_of(books)
        bad = books.new()._replace(fields=book(title))
        (alone,) = await books.apply(bad)
        before, batched, after = await books.apply(books.new(), bad, books.new())
        assert isinstance(alone.error, InvalidRecord)
        assert isinstance(batched.error, InvalidRecord)
        assert before is after is APPLIED
        assert await session_of(books) == first

    async def test_an_id_with_a_nul_is_not_found(self, books: Books) -> None:
        key = Key(books.model, "a\0b")
        assert await books.find(key) is None
        (outcome,) = await books.apply(books.new(key))
        assert isinstance(outcome.error, InvalidRecord)

    async def test_a_nul_that_is_written_as_an_escape_in_json_is_refused_by_the_server(
        self, books: Books
    ) -> None:
        await books.adapter.prepare(TREE, create=True)
        author = Books(books.adapter, TREE)
        (outcome,) = await author.apply(author.create(author.key(), {"tree": {"a": "b\0"}}))
        assert outcome.status is Status.REJECTED


class TestJsonbRewritesWhatItIsGiven:
    """It orders keys and keeps decimals. Rule: what comes back equals what was given, in its type."""

    @pytest.mark.parametrize(
        "tree",
        [
            {"b": 1, "a": 2, "ccc": 3, "": 4},
            [1e16, 1e22, 1.5e300, -1e16, 1.7976931348623157e308, 5e-324, 1e-7, 100.0, 0.1 + 0.2],
            [2**63 - 1, -(2**63), 10**16],
            ["1e+16", 'a "quoted" 1e+16', "back\\slash\\", {"1e+20": 1e20}],
            [True, 1, 1.0, None, "null"],
        ],
        ids=["order", "floats", "integers", "texts that look like numbers", "kinds"],
    )
    async def test_a_nested_value_comes_back(self, books: Books, tree: Value) -> None:
        await books.adapter.prepare(TREE, create=True)
        author = Books(books.adapter, TREE)
        created = author.create(author.key(), {"tree": tree})
        assert await author.apply(created) == [APPLIED]
        found = await author.find(created.key)
        assert found is not None
        assert found.fields == {"tree": tree}
        assert repr(_sorted((found.fields or {})["tree"])) == repr(_sorted(tree))

    async def test_it_can_be_asked_by_its_operators(
        self, books: Books, postgres_database: PostgresDatabase
    ) -> None:
        await books.adapter.prepare(TREE, create=True)
        author = Books(books.adapter, TREE)
        await author.apply(author.create(Key("Tree", "oak"), {"tree": {"leaves": [1, 2]}}))
        assert await postgres_database.run("SELECT id FROM trees WHERE tree @> '{\"leaves\": [2]}'") == [
            ("oak",)
        ]


class TestCollationsOrderAsAPersonWould:
    """Rule: keys and versions are compared as bytes, whatever the database's own collation."""

    @pytest.fixture
    async def natural(self, postgres_database: PostgresDatabase) -> PostgresDatabase:
        version = await postgres_database.run("SHOW server_version_num")
        assert int(version[0][0]) >= 150000, "Postgres 15 is the first whose databases may have such an order"
        await postgres_database.run(
            "DROP DATABASE IF EXISTS octopus_natural WITH (FORCE)",
            "CREATE DATABASE octopus_natural TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C' "
            "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'",
        )
        return PostgresDatabase(replace(postgres_database.url, path="octopus_natural"))

    async def test_ids_are_scanned_in_the_order_of_their_bytes(self, natural: PostgresDatabase) -> None:
        assert await natural.run("SELECT 'a' < 'B'") == [(True,)]
        async with opened(natural) as books:
            created = [books.new(Key(books.model, id_)) for id_ in ("a", "B", "b", "A", "é", "_")]
            await books.apply(*created)
            found = await books.scan(batch=1)
        assert [record.key.id for record in found] == ["A", "B", "_", "a", "b", "é"]

    async def test_a_version_in_another_order_is_refused_with_what_to_run(
        self, natural: PostgresDatabase
    ) -> None:
        await natural.run(
            "CREATE TABLE books (id TEXT PRIMARY KEY, title TEXT, pages INT, octopus_version TEXT, "
            "octopus_born TEXT)"
        )
        for _ in range(2):
            with pytest.raises(SchemaMismatch, match='COLLATE "C"') as caught:
                async with opened(natural):
                    pass
            await natural.run(str(caught.value).partition("run: ")[2])
        async with opened(natural) as books:
            assert await books.apply(books.new(), books.new()) == [APPLIED] * 2


class TestDefaultsOfOthers:
    """Rule: whatever changes what a statement means is set for each session, or does not matter."""

    async def test_no_default_of_the_server_changes_what_is_stored(
        self, private_postgres: PostgresServer
    ) -> None:
        await set_defaults(
            private_postgres,
            {
                "default_transaction_isolation": "serializable",
                "standard_conforming_strings": "off",
                "DateStyle": "German, DMY",
                "TimeZone": "Asia/Kolkata",
                "bytea_output": "escape",
                "extra_float_digits": "-15",
                "IntervalStyle": "iso_8601",
                "lock_timeout": "0",
                "default_transaction_deferrable": "on",
            },
        )
        title = "\\ ' \" \\' \\\\ '' %s $1 {0} ? \x1a \n"
        fields = fields_of(
            title=title, ratio=0.1 + 0.2, raw="AP8=", at="2026-01-02T03:04:05.000006Z",
            local="2026-01-02T03:04:05.000006", day="2026-01-02", hour="03:04:05.000006", tree=[title],
        )  # fmt: skip
        database = database_of(private_postgres)
        database.schema = ALL_TYPES
        async with opened(database) as books:
            for size in (1, 2):
                batch = [books.create(books.key(), fields) for _ in range(size)]
                assert await books.apply(*batch) == [APPLIED] * size
                assert [found.fields for found in await books.adapter.read([o.key for o in batch]) if
                        isinstance(found, Record)] == [fields] * size  # fmt: skip
            assert await talk(books, "SHOW default_transaction_isolation") == [("read committed",)]
            assert await talk(books, "SHOW lock_timeout") == [("1s",)]


class TestStatementsOutliveTheirTable:
    """Rule: what was prepared for the table's earlier form is prepared again."""

    @pytest.mark.parametrize(
        "change",
        [
            "ALTER TABLE books ALTER COLUMN pages TYPE integer",
            "ALTER TABLE books ADD COLUMN shelf text DEFAULT 'A'",
            "ALTER TABLE books ALTER COLUMN title TYPE text",
        ],
    )
    async def test_reads_and_writes_go_on_after_a_change(
        self, books: Books, postgres_database: PostgresDatabase, change: str
    ) -> None:
        created = [books.new() for _ in range(3)]
        await books.apply(*created)
        await get_their_own_answers(books)
        await postgres_database.run(change)
        await get_their_own_answers(books)
        updates = [books.update(operation.key, book("changed")) for operation in created]
        assert await books.apply(*updates, mode=Mode.REPLAY) == [APPLIED] * 3


class TestLocks:
    """Rule: in their order, of a bounded number, and nobody waits longer than his caller."""

    async def test_batches_that_share_keys_and_unique_values_all_succeed(
        self, books: Books, postgres_database: PostgresDatabase
    ) -> None:
        await postgres_database.run("CREATE UNIQUE INDEX unique_pages ON books (pages)")
        keys = [books.key() for _ in range(20)]
        batches = []
        for number in range(24):
            chosen = [keys[(number * 7 + step * 3) % 20] for step in range(8)]
            updates = [books.update(key, book(pages=number * 100 + step)) for step, key in enumerate(chosen)]
            batches.append(books.apply(*updates, mode=Mode.REPLAY))
        async with asyncio.timeout(30):
            outcomes = [outcome for batch in await asyncio.gather(*batches) for outcome in batch]
        assert {outcome.status for outcome in outcomes} <= {Status.APPLIED, Status.SUPERSEDED}

    async def test_who_meets_a_row_that_another_holds_gives_up_and_nothing_was_sent(
        self, books: Books, postgres_database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("octopus_async.adapters._sql.writing._PAUSES", ())
        created = books.new()
        await books.apply(created)
        async with postgres_database.connection() as other:
            await other.execute("BEGIN; SELECT * FROM books FOR UPDATE")
            for call in (
                books.apply(books.update(created.key, book("late"))),
                books.apply(books.delete(created.key)),
            ):
                with pytest.raises(BackendFailed, match="lock timeout") as caught:
                    await call
                assert not caught.value.sent
        await get_their_own_answers(books)

    async def test_a_server_has_room_for_a_full_batch_on_every_connection(
        self, postgres_database: PostgresDatabase
    ) -> None:
        keys = [Key("Book", str(number)) for number in range(60 * _postgres_statements.BATCH)]
        sessions = [await connect_postgres(postgres_database.url) for _ in range(60)]
        try:
            for number, session in enumerate(sessions):
                part = keys[number * _postgres_statements.BATCH :][: _postgres_statements.BATCH]
                await session.execute("BEGIN; " + _postgres_statements.lock(part, exclusive=False))
            ((held,),) = await postgres_database.run(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            )
            assert held > 7000
        finally:
            for session in sessions:
                session.terminate()


class TestAPoolerInBetween:
    """Rule with pgbouncer=true: no statement under a name, nothing that outlives its transaction."""

    @pytest.fixture
    async def pooled(self, postgres_database: PostgresDatabase) -> AsyncGenerator[Books]:
        url = replace(postgres_database.url, options={"pgbouncer": "true"})
        async with opened(postgres_database, PostgresAdapter.from_url(url)) as books:
            yield books

    async def _use(self, books: Books) -> Operation:
        created = books.new()
        await books.apply(created)
        await books.apply(books.new(), books.new(), mode=Mode.REPLAY)
        await books.apply(books.update(created.key, book("newer")))
        await books.apply(books.delete(books.key()))
        assert await books.find(created.key) is not None
        assert await books.scan()
        await books.adapter.probe()
        return created

    async def test_no_statement_is_prepared_under_a_name(self, pooled: Books) -> None:
        await self._use(pooled)
        assert await talk(pooled, "SELECT name FROM pg_prepared_statements") == []

    async def test_nothing_of_a_session_is_changed(self, pooled: Books) -> None:
        await self._use(pooled)
        query = "SELECT name FROM pg_settings WHERE source = 'session' AND name <> 'transaction_isolation'"
        assert await talk(pooled, query) == []
        assert await talk(pooled, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'") == []

    async def test_each_transaction_has_the_settings_it_needs(self, pooled: Books) -> None:
        async def inside(connection: object) -> list[str]:
            await connection.execute(["BEGIN"])  # type: ignore[attr-defined]
            names = ("transaction_isolation", "lock_timeout", "idle_in_transaction_session_timeout")
            found = [await connection.fetch(f"SHOW {name}", ()) for name in names]  # type: ignore[attr-defined]
            return [str(rows[0][0]) for rows in found]

        assert await pool_of(pooled).run(inside) == ["read committed", "1s", "1min"]


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
