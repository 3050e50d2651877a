"""Helpers of the tests of the MySQL adapter."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from octopus_async.adapters._mysql_session import Session
from octopus_async.adapters._sql.pool import Pool
from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.record import APPLIED
from octopus_async.testing.servers import Installation, MariaDBServer
from octopus_async.url import BackendURL
from tests.adversity.certificate import write_certificate
from tests.contract.sql import BOOK, Books, MySQLDatabase


def pool_of(books: Books) -> Pool[Any]:
    assert isinstance(books.adapter, MySQLAdapter)
    assert books.adapter._pool is not None
    return books.adapter._pool


async def talk(books: Books, *statements: str) -> list[tuple[object, ...]]:
    """Statements on a connection of the adapter's pool; the rows of the last."""

    async def run(connection: Session) -> list[tuple[object, ...]]:
        *_, (rows, _) = await connection.run(statements)
        return [tuple(row) for row in rows]

    return await pool_of(books).run(run)


async def connection_of(books: Books) -> Any:  # noqa: ANN401 - whichever driver's
    async def itself(connection: Session) -> Session:
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


def roomy(url: BackendURL) -> MySQLDatabase:
    """Its books have titles of any length."""
    database = MySQLDatabase(url)
    database.schema = replace(BOOK, columns=(replace(BOOK.columns[0], max_length=None), BOOK.columns[1]))
    return database


class TLSServer(MariaDBServer):
    """Has a certificate for 127.0.0.1 that it has signed itself."""

    @property
    def certificate(self) -> str:
        return str(self.folder / "certificate.pem")

    def database(self, **options: str) -> MySQLDatabase:
        return MySQLDatabase(replace(BackendURL.parse(self.url), options=options))

    def _prepare(self, installation: Installation) -> None:
        super()._prepare(installation)
        write_certificate(self.folder)

    def _command(self, program: Path) -> list[str]:
        files = [f"--ssl-cert={self.certificate}", f"--ssl-key={self.folder}/key.pem"]
        return [*super()._command(program), *files]


GREETING = (
    b"\x0a10.11.0-MariaDB\0" + b"\1\0\0\0" + b"12345678\0" + b"\xff\xf7" + b"\x2d" + b"\2\0"
    + b"\x0f\x80" + b"\x15" + b"\0" * 10 + b"123456789012\0" + b"mysql_native_password\0"
)  # fmt: skip
"""Of a server that does all but TLS."""


def packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def str_of(url: BackendURL) -> str:
    ((host, port),) = url.hosts
    return f"{url.scheme}://{url.user}:{url.password}@{host}:{port}/{url.path}"
