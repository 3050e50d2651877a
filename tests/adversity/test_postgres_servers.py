"""Postgres read-only, full, killed, restarted or dropped, tables that do not fit, and secrets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

import pytest

from octopus_async.adapters.postgres import PostgresAdapter
from octopus_async.errors import BackendFailed, BackendRefused, ConstraintViolated, SchemaMismatch
from octopus_async.record import APPLIED, Key, Mode
from octopus_async.schema import Column, Schema, Type
from octopus_async.testing.contract.subject import descriptors, eventually
from octopus_async.testing.operations import ALL_TYPES
from octopus_async.testing.proxy import FaultyProxy
from octopus_async.testing.servers import PostgresServer
from octopus_async.url import BackendURL
from tests.adversity.memcache import ScriptedServer
from tests.adversity.mysql import get_their_own_answers
from tests.adversity.postgres import (
    TLSServer,
    admin,
    database_of,
    pool_of,
    session_of,
    set_defaults,
    talk,
    text_of,
    through,
)
from tests.contract.sql import BOOK, Books, PostgresDatabase, book, connect_postgres, opened

PASSWORD = "s3cret p@ss/word:\u20ac"  # noqa: S105 - of a server that lives as long as its test


@pytest.fixture
async def private(private_postgres: PostgresServer) -> AsyncGenerator[Books]:
    async with opened(database_of(private_postgres)) as books:
        yield books


@pytest.fixture
async def proxied(postgres_database: PostgresDatabase) -> AsyncGenerator[tuple[FaultyProxy, Books]]:
    async with (
        FaultyProxy(text_of(postgres_database)) as proxy,
        opened(postgres_database, through(postgres_database, proxy.url)) as books,
    ):
        yield proxy, books


class TestServersThatFail:
    async def test_a_read_only_server_answers_reads_and_refuses_no_record(
        self, private: Books, private_postgres: PostgresServer
    ) -> None:
        created = private.new()
        await private.apply(created)
        await set_defaults(private_postgres, {"default_transaction_read_only": "on"})
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
        await set_defaults(private_postgres, {"default_transaction_read_only": "off"})
        await private.adapter.probe()
        await get_their_own_answers(private)

    async def test_too_many_connections_are_unavailability(self) -> None:
        async with PostgresServer(durable=False, max_connections=10) as server:
            database = database_of(server)
            taken = [await connect_postgres(database.url) for _ in range(7)]
            adapter = database.adapter()
            with pytest.raises(BackendFailed, match=r"remaining connection slots|too many clients") as caught:
                await adapter.open()
            assert not caught.value.sent
            for connection in taken:
                await connection.close()
            async with asyncio.timeout(10):
                while True:
                    try:
                        await adapter.open()
                        break
                    except BackendFailed:
                        await asyncio.sleep(0.05)
            await adapter.close()

    async def test_a_server_killed_under_calls_fails_them_and_is_back_after_its_restart(
        self, private: Books, private_postgres: PostgresServer
    ) -> None:
        kept = private.new()
        await private.apply(kept)
        await get_their_own_answers(private)
        reading = asyncio.ensure_future(talk(private, "SELECT pg_sleep(5)"))
        await asyncio.sleep(0.05)
        await private_postgres.kill()
        with pytest.raises(Exception, match="connection was closed"):
            await reading
        await asyncio.sleep(0.05)  # until the loop has heard that the others are closed
        with pytest.raises(BackendRefused) as caught:
            await private.apply(private.new())
        assert not caught.value.sent
        await private_postgres.start()
        assert await private.find(kept.key) is not None
        await get_their_own_answers(private)

    async def test_connections_that_a_restart_has_closed_are_not_used_again(
        self, private: Books, private_postgres: PostgresServer
    ) -> None:
        await get_their_own_answers(private)
        await private_postgres.restart()
        assert await private.apply(private.new()) == [APPLIED]

    async def test_idle_connections_that_were_reset_are_not_used_again(
        self, proxied: tuple[FaultyProxy, Books]
    ) -> None:
        proxy, books = proxied
        await get_their_own_answers(books)
        await proxy.reset()
        await proxy.heal()
        assert await books.apply(books.new()) == [APPLIED]

    async def test_an_idle_connection_is_given_up_after_a_minute(
        self, postgres_database: PostgresDatabase
    ) -> None:
        async with opened(postgres_database) as books:
            first = await session_of(books)
            for connection in pool_of(books)._idle:
                connection.last_used -= 61
            assert await session_of(books) != first

    async def test_a_write_whose_connection_breaks_is_unknown_and_a_read_is_not(
        self, proxied: tuple[FaultyProxy, Books]
    ) -> None:
        proxy, books = proxied
        for sent, call in ((True, books.apply(books.new())), (False, books.find(books.key()))):
            await proxy.swallow()
            task = asyncio.ensure_future(call)
            await asyncio.sleep(0.05)
            await proxy.reset()
            with pytest.raises(BackendFailed) as caught:
                await task
            assert caught.value.sent is sent
            await proxy.heal()

    async def test_a_database_that_does_not_exist_is_named(self, private_postgres: PostgresServer) -> None:
        url = replace(BackendURL.parse(private_postgres.url), path="octopus_nowhere")
        with pytest.raises(BackendFailed, match="octopus_nowhere"):
            await PostgresAdapter.from_url(url).open()


class TestTablesThatDoNotFit:
    @pytest.fixture
    async def books(self, postgres_database: PostgresDatabase) -> AsyncGenerator[Books]:
        async with opened(postgres_database) as books:
            yield books

    async def test_a_column_that_the_model_does_not_know_and_that_has_no_default_is_a_schema_mismatch(
        self, books: Books, postgres_database: PostgresDatabase
    ) -> None:
        await postgres_database.run("ALTER TABLE books ADD COLUMN isbn CHAR(13) NOT NULL")
        for batch in ([books.new()], [books.new(), books.new()]):
            with pytest.raises(SchemaMismatch, match="isbn"):
                await books.apply(*batch)
        nothing = books.create(books.key(), {"title": None, "pages": 1})
        await postgres_database.run("ALTER TABLE books ALTER COLUMN isbn SET DEFAULT '-'")
        (outcome,) = await books.apply(nothing)
        assert isinstance(outcome.error, ConstraintViolated)

    async def test_a_model_with_more_columns_than_a_table_holds_is_a_schema_mismatch(
        self, postgres_database: PostgresDatabase
    ) -> None:
        columns = tuple(replace(BOOK.columns[0], field=f"f{n}", name=f"f{n}") for n in range(1600))
        postgres_database.schema = replace(BOOK, columns=columns)
        with pytest.raises(SchemaMismatch, match="1600"):
            async with opened(postgres_database):
                pass

    @pytest.mark.parametrize(
        ("id_type", "column"),
        [(Type.TEXT, "uuid"), (Type.TEXT, "bigint"), (Type.UUID, "bigint"), (Type.INTEGER, "text")],
        ids=lambda value: str(getattr(value, "value", value)),
    )
    async def test_an_id_of_another_type_is_a_schema_mismatch(
        self, postgres_database: PostgresDatabase, id_type: Type, column: str
    ) -> None:
        await postgres_database.run(f"CREATE TABLE books (id {column} PRIMARY KEY, title text, pages bigint)")
        postgres_database.schema = replace(BOOK, id_type=id_type)
        with pytest.raises(SchemaMismatch, match="column id of the table books has to be"):
            async with opened(postgres_database):
                pass

    async def test_columns_of_other_types_are_written_and_read_as_well_as_they_can(
        self, postgres_database: PostgresDatabase
    ) -> None:
        schema = replace(ALL_TYPES, table="odd", id_type=Type.INTEGER)
        await postgres_database.run(
            "CREATE TYPE mood AS ENUM ('sad', 'glad')",
            'CREATE TABLE odd (id int PRIMARY KEY, title mood, how_many numeric(20,0), "order" smallint, '
            "ratio numeric(10,2), flag boolean, raw bytea, at timestamp(3), local timestamptz, day date, "
            "hour timetz, amount numeric(9,2), tag text, tree json)",
        )
        postgres_database.schema = schema
        fields = {
            "title": "glad", "count": None, "order": 6, "ratio": 1.5, "flag": True, "raw": "YWJj",
            "at": "2026-01-31T12:00:00.500000Z", "local": "2026-01-31T12:00:00.000000", "day": "2026-01-31",
            "hour": "12:00:00.000000", "amount": "1.5", "tag": "0190b3b0-0000-7000-8000-000000000001",
            "tree": {"a": [1]},
        }  # fmt: skip
        async with opened(postgres_database) as books:
            for batch in ([books.create(Key(schema.model, "7"), fields)],
                          [books.create(Key(schema.model, str(n)), fields) for n in (8, 9)]):  # fmt: skip
                for mode in (Mode.LIVE, Mode.REPLAY):
                    outcomes = await books.apply(*batch, mode=mode)
                    assert outcomes == [APPLIED] * len(batch)
                for operation in batch:
                    found = await books.find(operation.key)
                    assert found is not None
                    assert found.fields == fields

    async def test_a_deferred_constraint_refuses_the_one_at_fault(
        self, books: Books, postgres_database: PostgresDatabase
    ) -> None:
        schema = Schema("Child", "children", "id", Type.TEXT, (Column("p", "p", Type.TEXT, nullable=True),))
        await postgres_database.run(
            "CREATE TABLE children (id TEXT PRIMARY KEY, p TEXT REFERENCES books (id) "
            "DEFERRABLE INITIALLY DEFERRED, octopus_version TEXT, octopus_born TEXT)"
        )
        await books.adapter.prepare(schema, create=False)
        heir = Books(books.adapter, schema)
        parent = books.new()
        child, orphan = (heir.create(heir.key(), {"p": id_}) for id_ in (parent.key.id, "nobody"))
        assert await books.apply(child, parent, mode=Mode.REPLAY) == [APPLIED] * 2
        good, bad = await books.apply(books.new(), orphan)
        assert good is APPLIED
        assert isinstance(bad.error, ConstraintViolated)
        (alone,) = await books.apply(orphan)
        assert isinstance(alone.error, ConstraintViolated)
        assert await heir.find(orphan.key) is None

    async def test_a_row_that_others_insert_is_read_and_changed(
        self, books: Books, postgres_database: PostgresDatabase
    ) -> None:
        await postgres_database.run("INSERT INTO books (id, title) VALUES ('theirs', 'Emma')")
        update = books.update(Key("Book", "theirs"), book("ours"))
        assert await books.apply(update, books.new()) == [APPLIED] * 2
        found = await books.find(update.key)
        assert found is not None
        assert found.version == update.version


class TestSecrets:
    async def test_a_password_is_in_no_message_whatever_it_holds(
        self, private_postgres: PostgresServer
    ) -> None:
        await admin(private_postgres, f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'", "GRANT octopus TO app")
        url = replace(BackendURL.parse(private_postgres.url), user="app", password=PASSWORD)
        adapter = PostgresAdapter.from_url(url)
        await adapter.open()
        await adapter.close()
        wrong = PostgresAdapter.from_url(replace(url, password=PASSWORD + "!"))
        with pytest.raises(BackendFailed, match="password authentication failed") as caught:
            await wrong.open()
        assert not caught.value.sent
        error: BaseException | None = caught.value
        while error is not None:
            assert PASSWORD not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__

    @pytest.mark.parametrize("how", ["verify", "insecure"])
    async def test_with_tls_asked_for_nobody_logs_in_without(
        self, postgres_database: PostgresDatabase, scripted: ScriptedServer, how: str
    ) -> None:
        told = bytearray()

        async def offer_none(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(8)  # the request for TLS
            writer.write(b"N")
            told.extend(await reader.read())

        hosts = (("127.0.0.1", await scripted(offer_none)),)
        url = replace(postgres_database.url, hosts=hosts, options={"tls": how})
        with pytest.raises(BackendFailed, match="SSL"):
            await PostgresAdapter.from_url(url).open()
        assert not told

    async def test_the_drivers_environment_is_not_asked(
        self, postgres_database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {
            "PGSSLMODE": "verify-full", "PGPASSWORD": "wrong", "PGUSER": "nobody", "PGDATABASE": "nothing",
            "PGTARGETSESSIONATTRS": "read-only", "PGHOST": "nowhere.invalid", "PGPORT": "1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        async with opened(postgres_database) as books:
            assert await books.apply(books.new()) == [APPLIED]


class TestTLS:
    @pytest.fixture
    async def server(self) -> AsyncGenerator[TLSServer]:
        async with TLSServer() as server:
            yield server

    async def test_a_certificate_is_checked_unless_told_not_to_look(self, server: TLSServer) -> None:
        async with opened(database_of(server, tls="verify", tls_ca=server.certificate)) as books:
            await get_their_own_answers(books)
            query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            assert await talk(books, query) == [(True,)]
        with pytest.raises(BackendFailed, match="certificate verify failed") as caught:
            async with opened(database_of(server, tls="verify")):
                pass
        assert not caught.value.sent
        async with opened(database_of(server, tls="insecure")) as books:
            assert await books.apply(books.new()) == [APPLIED]

    async def test_a_cancelled_handshake_leaves_no_descriptor(self, server: TLSServer) -> None:
        before = descriptors()
        for step in range(12):
            adapter = database_of(server, tls="insecure").adapter()
            opening = asyncio.ensure_future(adapter.open())
            await asyncio.sleep(step * 0.001)
            opening.cancel()
            await asyncio.wait([opening])
            await adapter.close()
        await eventually(lambda: descriptors() <= before)
