"""The same service on every primary: nothing changes but its URL."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from octopus_async.testing.servers import Server
from tests.integration.books import service


@dataclass(frozen=True)
class Primary:
    """A primary's scheme, and the fixture of the server behind it; without one, a file."""

    scheme: str
    server: str | None = None


PRIMARIES = [
    Primary("sqlite"),
    Primary("mysql", "mariadb_server"),
    Primary("mysql+asyncmy", "mariadb_server"),
    Primary("postgres", "postgres_server"),
    Primary("sqlalchemy+sqlite+aiosqlite"),
    Primary("sqlalchemy+mysql+aiomysql", "mariadb_server"),
    Primary("sqlalchemy+postgresql+asyncpg", "postgres_server"),
]
"""A further kind of primary is a line here."""


@pytest.fixture(params=PRIMARIES, ids=lambda primary: primary.scheme)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    primary: Primary = request.param
    if primary.server is None:
        return f"{primary.scheme}:///{tmp_path}/books.db"
    server: Server = request.getfixturevalue(primary.server)
    return f"{primary.scheme}:{server.url.partition(':')[2]}"


async def patiently(client: httpx.AsyncClient, path: str, title: str, etag: str) -> httpx.Response:
    """Change a book, and come back as long as a busy machine has the service ask for that."""
    async with asyncio.timeout(20):
        while True:
            response = await client.put(path, json={"title": title}, headers={"If-Match": etag})
            if response.status_code != 503:
                return response
            await asyncio.sleep(0.2)


async def test_the_books_service_runs_unchanged(url: str, tmp_path: Path) -> None:
    async with (
        service(url, tmp_path / "journal") as (address, _),
        httpx.AsyncClient(base_url=address, trust_env=False, timeout=20) as client,
    ):
        created = await client.post("/books", json={"title": "A Tale of Two Cities"})
        assert created.status_code == 201
        path, etag = created.headers["Location"], created.headers["ETag"]
        assert (await client.get(path)).json()["title"] == "A Tale of Two Cities"
        updated = await patiently(client, path, "Bleak House", etag)
        assert updated.status_code == 200
        late = await patiently(client, path, "Hard Times", etag)
        assert late.status_code == 409
        assert (await client.get(path)).json()["title"] == "Bleak House"
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(path)).status_code == 404
    async with (
        service(url, tmp_path / "journal") as (address, _),
        httpx.AsyncClient(base_url=address, trust_env=False, timeout=20) as client,
    ):
        assert (await client.get(path)).status_code == 404
