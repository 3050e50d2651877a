"""Helpers of the tests of the Redis adapter."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from octopus_async.adapters._redis_node import Command, Node
from octopus_async.adapters.redis import RedisAdapter
from octopus_async.backend import Answer
from octopus_async.record import Key, Operation, Record
from octopus_async.testing.servers import Installation, RedisServer
from octopus_async.url import BackendURL
from tests.adversity.certificate import write_certificate

LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def opened(url: str, **options: float) -> AsyncGenerator[RedisAdapter]:
    parsed = BackendURL.parse(url)
    chosen = {name: str(value) for name, value in options.items()}
    adapter = RedisAdapter.from_url(replace(parsed, options={**parsed.options, **chosen}))
    await adapter.open()
    try:
        yield adapter
    finally:
        await adapter.close()


def node_of(adapter: RedisAdapter) -> Node:
    assert adapter._servers is not None
    return adapter._servers.nodes[0]


async def raw(adapter: RedisAdapter, *command: bytes | str | int) -> object:
    """What the server says to a command, on a connection of the adapter's pool."""
    parts: Command = command
    (reply,) = await node_of(adapter).exchange([parts])
    return reply


def wire_of(key: Key) -> bytes:
    return f"octopus:{key.model}:{key.id}".encode()


async def find(adapter: RedisAdapter, key: Key) -> object:
    """The fields that are stored for a key, or what stands there instead."""
    (answer,) = await adapter.read([key])
    return answer.fields if isinstance(answer, Record) else answer


async def found(adapter: RedisAdapter, operations: list[Operation]) -> list[Answer]:
    return list(await adapter.read([operation.key for operation in operations]))


class TLSRedis(RedisServer):
    """Speaks TLS alone, with a certificate for 127.0.0.1 that it has signed itself."""

    @property
    def url(self) -> str:
        return f"rediss://:{self.password}@{LOOPBACK}:{self.port}"

    def _prepare(self, installation: Installation) -> None:
        super()._prepare(installation)
        write_certificate(self.folder)
        shutil.copy(self.folder / "certificate.pem", self.folder / "ca.pem")

    def _command(self, program: Path) -> list[str]:
        files = {"cert": "certificate.pem", "key": "key.pem", "ca-cert": "ca.pem"}
        options = [
            part for name, file in files.items() for part in (f"--tls-{name}-file", str(self.folder / file))
        ]
        encrypted = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
        return [*super()._command(program), *options, *encrypted]

    async def wait_ready(self, timeout: float = 30.0) -> None:
        """A greeting in plain text tells nothing here: who connects tries again."""
