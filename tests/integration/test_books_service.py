"""The books service under load, while its database is killed and comes back."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import httpx
import pytest

from octopus_async.testing.servers import MariaDBServer, MemcachedServer
from tests.integration.books import FRAMEWORKS, LOAD, caught_up, found_over_http, free_port, service, titles

pytestmark = pytest.mark.parametrize("framework", FRAMEWORKS)


async def test_every_book_that_got_a_2xx_is_found_after_the_database_was_killed(
    tmp_path: Path, framework: str
) -> None:
    async with (
        MariaDBServer() as primary,
        MemcachedServer() as cache,
        service(f"{primary.url} {cache.url}", tmp_path / "journal", framework=framework) as (url, _),
    ):
        load = await asyncio.create_subprocess_exec(
            *(sys.executable, str(LOAD), url, "10", "8"), stdout=asyncio.subprocess.PIPE
        )
        await asyncio.sleep(2.5)
        await primary.kill()
        await becomes(url, "degraded")
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
        await becomes(url, "ready")


async def test_errors_speak_http(tmp_path: Path, framework: str) -> None:
    async with (
        service(
            f"sqlite:///{tmp_path / 'books.db'} memory://", tmp_path / "journal", framework=framework
        ) as (url, _),
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
        assert (await client.post("/books", json={"title": ""})).status_code == 422
        refused = await client.post("/books", json={"title": "with a NUL \0"})
        assert (refused.status_code, refused.json()["title"]) == (422, "InvalidRecord")
        assert (await client.get(path)).json()["title"] == "Bleak House"
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(path)).status_code == 404


async def test_without_any_database_it_answers_503_and_when_to_come_back(
    tmp_path: Path, framework: str
) -> None:
    nowhere = f"mysql://app:secret@127.0.0.1:{free_port()}/shop"
    async with (
        service(nowhere, tmp_path / "journal", framework=framework) as (url, _),
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        response = await client.get("/books/00000000-0000-7000-8000-000000000000")
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert "secret" not in response.text
        created = await client.post("/books", json={"title": "kept in the journal"})
        assert (created.status_code, created.headers["Octopus-Write"]) == (201, "journalled")
        assert (await client.get(created.headers["Location"])).json()["title"] == "kept in the journal"
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["readiness"]) == (503, "unavailable")  # nobody to read from
        assert "secret" not in ready.text
        assert (await client.get("/healthz")).status_code == 200


async def becomes(url: str, readiness: str) -> None:
    """Wait until the service says that of itself; with 200, as it can serve all the time."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client, asyncio.timeout(20):
        while True:
            answer = await client.get("/readyz")
            assert answer.status_code == 200
            if answer.json()["readiness"] == readiness:
                return
            await asyncio.sleep(0.1)
