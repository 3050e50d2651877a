"""MariaDB read-only, full, killed, restarted or dropped, tables that do not fit, and secrets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

import pytest

from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    SchemaMismatch,
)
from octopus_async.record import APPLIED
from octopus_async.testing.contract.subject import descriptors, eventually
from octopus_async.testing.proxy import FaultyProxy
from octopus_async.testing.servers import MariaDBServer, Server
from octopus_async.url import BackendURL
from tests.adversity.memcache import ScriptedServer
from tests.adversity.mysql import (
    GREETING,
    TLSServer,
    admin,
    connection_of,
    get_their_own_answers,
    packet,
    str_of,
    talk,
)
from tests.contract.sql import BOOK, Books, MySQLDatabase, connect, opened

SECRET = "s3cret"  # noqa: S105 - of no server at all
PASSWORD = "s3cret p@ss/word:\u20ac"  # noqa: S105 - of a server that lives as long as its test


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

    async def test_idle_connections_that_were_reset_are_not_used_again(self, database: MySQLDatabase) -> None:
        async with FaultyProxy(str_of(database.url)) as proxy:
            adapter = MySQLAdapter.from_url(BackendURL.parse(proxy.url))
            async with opened(database, adapter) as books:
                await get_their_own_answers(books)
                await proxy.reset()
                await proxy.heal()
                assert await books.apply(books.new()) == [APPLIED]

    async def test_an_idle_connection_is_given_up_before_the_server_closes_it(self, books: Books) -> None:
        first = await connection_of(books)
        assert await talk(books, "SELECT @@wait_timeout") == [(60,)]
        first.last_used -= 31
        assert (await connection_of(books)).raw.thread_id() != first.raw.thread_id()

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


class TestTLS:
    @pytest.fixture
    async def server(self) -> AsyncGenerator[TLSServer]:
        async with TLSServer() as server:
            yield server

    async def test_a_server_whose_certificate_is_signed_by_whom_we_trust_is_used(
        self, server: TLSServer
    ) -> None:
        async with opened(server.database(tls="verify", tls_ca=server.certificate)) as books:
            await get_their_own_answers(books)
            ((_, cipher),) = await talk(books, "SHOW STATUS LIKE 'Ssl_cipher'")
            assert cipher

    async def test_any_other_is_refused_unless_told_not_to_look(self, server: TLSServer) -> None:
        with pytest.raises(BackendFailed, match="certificate verify failed") as caught:
            async with opened(server.database(tls="verify")):
                pass
        assert not caught.value.sent
        async with opened(server.database(tls="insecure")) as books:
            assert await books.apply(books.new()) == [APPLIED]

    async def test_a_cancelled_handshake_leaves_no_descriptor(self, server: TLSServer) -> None:
        before = descriptors()
        for step in range(12):
            adapter = server.database(tls="insecure").adapter()
            opening = asyncio.ensure_future(adapter.open())
            await asyncio.sleep(step * 0.001)
            opening.cancel()
            await asyncio.wait([opening])
            await adapter.close()
        await eventually(lambda: descriptors() <= before)
