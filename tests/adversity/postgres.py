"""Helpers of the tests of the Postgres adapter."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace

from octopus_async.adapters._postgres_pool import Connection
from octopus_async.adapters._sql.pool import Pool
from octopus_async.adapters.postgres import PostgresAdapter
from octopus_async.testing.servers import Installation, PostgresServer
from octopus_async.url import BackendURL
from tests.adversity.certificate import write_certificate
from tests.contract.sql import Books, PostgresDatabase, Rows


def pool_of(books: Books) -> Pool[Connection]:
    assert isinstance(books.adapter, PostgresAdapter)
    assert books.adapter._pool is not None
    return books.adapter._pool


async def talk(books: Books, query: str) -> Rows:
    """The rows of a query on a connection of the adapter's pool."""

    async def run(connection: Connection) -> Rows:
        return [tuple(row) for row in await connection.fetch(query, ())]

    return await pool_of(books).run(run)


async def session_of(books: Books) -> int:
    """Which process of the server answers."""
    ((pid,),) = await talk(books, "SELECT pg_backend_pid()")
    return int(pid)


def database_of(server: PostgresServer, **options: str) -> PostgresDatabase:
    return PostgresDatabase(replace(BackendURL.parse(server.url), options=options))


async def admin(server: PostgresServer, *statements: str) -> Rows:
    return await PostgresDatabase(BackendURL.parse(server.admin_url)).run(*statements)


async def set_defaults(server: PostgresServer, settings: dict[str, str]) -> None:
    """Have sessions that begin from now on start with these."""
    await admin(server, *(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in settings.items()))
    await admin(server, "SELECT pg_reload_conf()", "SELECT pg_sleep(0.2)")


def through(database: PostgresDatabase, url: str, **options: str) -> PostgresAdapter:
    """An adapter for the same database, by another way."""
    return PostgresAdapter.from_url(replace(database.url, hosts=BackendURL.parse(url).hosts, options=options))


def text_of(database: PostgresDatabase) -> str:
    ((host, port),) = database.url.hosts
    return f"postgres://{database.url.user}:{database.url.password}@{host}:{port}/{database.url.path}"


class TLSServer(PostgresServer):
    """Has a certificate for 127.0.0.1 that it has signed itself."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        super().__init__(durable=False, options=[*options, "--ssl=on"])

    @property
    def certificate(self) -> str:
        return str(self.folder / "certificate.pem")

    def _prepare(self, installation: Installation) -> None:
        super()._prepare(installation)
        write_certificate(self.folder)
        for name, file in (("server.crt", "certificate.pem"), ("server.key", "key.pem")):
            shutil.copy(self.folder / file, self.folder / "data" / name)
        (self.folder / "data" / "server.key").chmod(0o600)
