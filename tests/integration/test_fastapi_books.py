"""The books service under load, while its database is killed and comes back."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomysql
import httpx

from octopus_async.testing.servers import MariaDBServer, MemcachedServer
from octopus_async.url import BackendURL

ROOT = Path(__file__).parents[2]
LOAD = Path(__file__).with_name("books_load.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def service(write: str, journal: Path) -> AsyncIterator[str]:
    """The example under uvicorn, as a process of its own."""
    port = free_port()
    environment = {
        **os.environ,
        "BOOKS_WRITE": write,
        "BOOKS_JOURNAL": str(journal),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "examples"), str(ROOT)]),
    }
    uvicorn = (sys.executable, "-m", "uvicorn", "fastapi_books:app", "--log-level", "warning")
    with (journal.parent / "uvicorn.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *uvicorn, "--port", str(port), env=environment, stderr=asyncio.subprocess.STDOUT, stdout=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        await answers(url)
        yield url
    finally:
        process.terminate()
        async with asyncio.timeout(20):
            assert await process.wait() in (0, -15)


async def answers(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(20):
        while True:
            try:
                await client.get(f"{url}/openapi.json")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return


async def titles(url: str) -> dict[str, str]:
    """What the database itself holds, asked without the library."""
    parsed = BackendURL.parse(url)
    host, port = parsed.hosts[0]
    connection = await aiomysql.connect(
        host=host, port=port, user=parsed.user, password=parsed.password, db=parsed.path, autocommit=True
    )
    try:
        async with connection.cursor() as cursor:
            await cursor.execute("SELECT id, title FROM book")
            return {f"/books/{as_text(id_)}": title for id_, title in await cursor.fetchall()}
    finally:
        connection.close()


def as_text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


async def test_every_book_that_got_a_2xx_is_found_after_the_database_was_killed(tmp_path: Path) -> None:
    async with (
        MariaDBServer() as primary,
        MemcachedServer() as cache,
        service(f"{primary.url} {cache.url}", tmp_path / "journal") as url,
    ):
        load = await asyncio.create_subprocess_exec(
            *(sys.executable, str(LOAD), url, "10", "8"), stdout=asyncio.subprocess.PIPE
        )
        await asyncio.sleep(2.5)
        await primary.kill()
        await asyncio.sleep(4)
        await primary.start()
        async with asyncio.timeout(60):
            output, _ = await load.communicate()
        ledger = json.loads(output)
        print(ledger["statuses"])
        promised = ledger["books"].items()
        expected = {path: title for path, title in promised if path not in ledger["uncertain"]}
        await caught_up(primary.url, {path: title for path, title in expected.items() if title is not None})

        held = await titles(primary.url)
        assert {path: held.get(path) for path in expected} == expected
        assert ledger["mismatches"] == []
        assert not any(" 5" in status for status in ledger["statuses"]), ledger["statuses"]
        assert ledger["uncertain"] == []
        assert len(expected) > 100
        await found_over_http(url, expected)


async def caught_up(url: str, alive: dict[str, str]) -> None:
    """Wait until the replay is through: the database holds at least every living book."""
    async with asyncio.timeout(20):
        while True:
            held = await titles(url)
            if all(held.get(path) == title for path, title in alive.items()):
                return
            await asyncio.sleep(0.2)


async def found_over_http(url: str, expected: dict[str, str | None]) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for path, title in expected.items():
            response = await client.get(path)
            assert (response.json()["title"] if response.status_code == 200 else None) == title


async def test_errors_speak_http(tmp_path: Path) -> None:
    async with (
        service(f"sqlite:///{tmp_path / 'books.db'} memory://", tmp_path / "journal") as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        created = await client.post("/books", json={"title": "A Tale of Two Cities"})
        path, etag = created.headers["Location"], created.headers["ETag"]
        assert created.status_code == 201
        assert (await client.get("/books/00000000-0000-7000-8000-000000000000")).status_code == 404
        assert (
            await client.put(path, json={"title": "Bleak House"}, headers={"If-Match": etag})
        ).status_code == 200
        late = await client.put(path, json={"title": "Hard Times"}, headers={"If-Match": etag})
        assert (late.status_code, late.json()["title"]) == (409, "StaleRecord")
        assert late.headers["Content-Type"] == "application/problem+json"
        refused = await client.post("/books", json={"title": "with a NUL \0"})
        assert (refused.status_code, refused.json()["title"]) == (422, "InvalidRecord")
        assert (await client.get(path)).json()["title"] == "Bleak House"
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(path)).status_code == 404


async def test_without_any_database_it_answers_503_and_when_to_come_back(tmp_path: Path) -> None:
    nowhere = f"mysql://app:secret@127.0.0.1:{free_port()}/shop"
    async with (
        service(nowhere, tmp_path / "journal") as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        response = await client.get("/books/00000000-0000-7000-8000-000000000000")
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert "secret" not in response.text
        created = await client.post("/books", json={"title": "kept in the journal"})
        assert created.status_code == 201
        assert (await client.get(created.headers["Location"])).json()["title"] == "kept in the journal"
