"""Helpers of the tests of the REST adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

from octopus_async.adapters.rest import RestAdapter
from octopus_async.testing.contract import Subject
from octopus_async.testing.operations import ALL_TYPES
from octopus_async.url import BackendURL
from tests.adversity.memcache import Conversation

VERSION = "01M8550EEB00095ACJ4X4BCAPQ"
HEAD = b"HTTP/1.1 200 OK\r\nOctopus-Protocol: 1\r\nContent-Type: application/json\r\n"
DOCUMENT = HEAD + b'Content-Length: 40\r\n\r\n{"octopus":1,"features":["bulk","scan"]}'
RECORD = HEAD + f'ETag: "{VERSION}"\r\n'.encode()


def adapter_at(text: str, **options: str) -> RestAdapter:
    """An adapter for a URL with further options."""
    url = BackendURL.parse(text)
    return RestAdapter.from_url(replace(url, options={**url.options, **options}))


def to_port(port: int, **options: str) -> RestAdapter:
    """An adapter for a server of a test's own."""
    return adapter_at(f"rest+http://127.0.0.1:{port}/records", **{"allow": "127.0.0.1", **options})


@asynccontextmanager
async def opened(adapter: RestAdapter, *, prepared: bool = True) -> AsyncGenerator[Subject]:
    """The adapter, open, with an author of operations for it."""
    await adapter.open()
    try:
        if prepared:
            await adapter.prepare(ALL_TYPES, create=True)
        yield Subject(adapter)
    finally:
        await adapter.close()


async def request_of(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The next request on a connection: its first line, and all of it up to its body's end."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [
        line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    ]
    body = await reader.readexactly(int(lengths[0])) if lengths else b""
    return head.split(b"\r\n", 1)[0].decode(), head + body


def answering(reply: bytes, seen: list[str] | None = None) -> Conversation:
    """A service that describes itself, and to anything else gives one reply."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line, _ = await request_of(reader)
            if seen is not None:
                seen.append(line)
            writer.write(DOCUMENT if line.startswith("GET /records HTTP") else reply)
            await writer.drain()

    return converse
