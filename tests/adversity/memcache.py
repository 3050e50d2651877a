"""Helpers of the tests of the memcached adapter."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from octopus_async.adapters._memcache_form import Form
from octopus_async.adapters._memcache_pool import Server
from octopus_async.adapters.memcache import DEFAULT_ITEM_LIMIT, MemcacheAdapter
from octopus_async.record import Key, Record
from octopus_async.testing.servers import MemcachedServer
from octopus_async.testing.servers.find import Installation
from octopus_async.testing.servers.ports import HeldPort
from tests.adversity.certificate import write_certificate

LOOPBACK = "127.0.0.1"

Conversation: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ScriptedServer: TypeAlias = Callable[[Conversation], Awaitable[int]]
"""Starts a server on a free port, for replies that no real one can be made to give."""


async def opened(adapter: MemcacheAdapter) -> AsyncGenerator[MemcacheAdapter]:
    await adapter.open()
    yield adapter
    await adapter.close()


def scripted_cache(port: int, *, connections: int = 4) -> MemcacheAdapter:
    """An adapter that is open although its server answers no ``version``."""
    adapter = MemcacheAdapter([(LOOPBACK, port)], connections=connections)
    adapter._shards = (adapter._make_shard(LOOPBACK, port),)
    return adapter


class TLSServer(MemcachedServer):
    """Has a certificate for 127.0.0.1, of its own or another's; on its own port it speaks plainly."""

    def __init__(self, like: TLSServer | None = None) -> None:
        super().__init__()
        self._like = like
        self._secure: HeldPort | None = None

    @property
    def certificate(self) -> str:
        return str(self.folder / "certificate.pem")

    @property
    def secure(self) -> tuple[str, int]:
        """Host and port where it speaks TLS."""
        assert self._secure is not None
        return LOOPBACK, self._secure.number

    async def stop(self) -> None:
        await super().stop()
        if self._secure is not None:
            self._secure.release()
            self._secure = None

    def _prepare(self, installation: Installation) -> None:
        super()._prepare(installation)
        self._secure = HeldPort()
        if self._like is None:
            write_certificate(self.folder)
        else:
            for name in ("certificate.pem", "key.pem"):
                shutil.copy(self._like.folder / name, self.folder)

    def _command(self, program: Path) -> list[str]:
        files = f"ssl_chain_cert={self.certificate},ssl_key={self.folder}/key.pem"
        listen = f"--listen=notls:{LOOPBACK}:{self.port},{LOOPBACK}:{self.secure[1]}"
        return [str(program), listen, "--threads=1", "--enable-ssl", f"--extended={files}"]


def server_of(adapter: MemcacheAdapter) -> Server:
    return adapter._shards[0]._server


def wire_of(key: Key) -> bytes:
    return Form("octopus:", 300, DEFAULT_ITEM_LIMIT).wire_key(key)


async def raw(port: int, request: bytes, end: bytes = b"\r\n") -> bytes:
    """Say something to a memcached by hand."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(request)
    reply = await reader.readuntil(end)
    writer.close()
    await writer.wait_closed()
    return reply


async def stat(port: int, name: str) -> int:
    lines = (await raw(port, b"stats\r\n", b"END\r\n")).split(b"\r\n")
    return int(dict(line.split()[1:] for line in lines if line.startswith(b"STAT"))[name.encode()])


async def find(adapter: MemcacheAdapter, key: Key) -> object:
    (answer,) = await adapter.read([key])
    return answer.fields if isinstance(answer, Record) else answer
