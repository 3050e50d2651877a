"""The books service as its tests run it: with either framework, in processes of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomysql
import httpx

from octopus_async.url import BackendURL

ROOT = Path(__file__).parents[2]
LOAD = Path(__file__).with_name("books_load.py")
_SERVERS = {
    "fastapi": ("uvicorn", "fastapi_books:app", "--log-level", "warning"),
    "aiohttp": ("aiohttp.web", "aiohttp_books:make_app", "--hostname", "127.0.0.1"),
}
FRAMEWORKS = tuple(_SERVERS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def service(
    write: str, journal: Path, *options: str, framework: str = "fastapi"
) -> AsyncGenerator[tuple[str, int]]:
    """The example of a framework under its server, as a process of its own: its URL and its process id."""
    port = free_port()
    environment = {
        **os.environ,
        "BOOKS_WRITE": write,
        "BOOKS_JOURNAL": str(journal),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "examples"), str(ROOT)]),
    }
    with (journal.parent / "service.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *_SERVERS[framework], *options, "--port", str(port)),
            env=environment,
            stderr=asyncio.subprocess.STDOUT,
            stdout=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        await answers(url)
        yield url, process.pid
    finally:
        process.terminate()
        async with asyncio.timeout(20):
            assert await process.wait() in (0, -15)


async def answers(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(60):
        while True:
            try:
                await client.get(f"{url}/healthz")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return


async def titles(url: str) -> dict[str, str]:
    """What the database itself holds, asked without the library."""
    parsed = BackendURL.parse(url)
    host, port = parsed.hosts[0]
    connection = await aiomysql.connect(
        host=host,
        port=port or 3306,
        user=parsed.user,
        password=parsed.password,
        db=parsed.path,
        autocommit=True,
    )
    try:
        async with connection.cursor() as cursor:
            await cursor.execute("SELECT id, title FROM book")
            return {f"/books/{as_text(id_)}": title for id_, title in await cursor.fetchall()}
    finally:
        connection.close()


def as_text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


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
