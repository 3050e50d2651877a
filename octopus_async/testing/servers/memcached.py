"""A private memcached."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from octopus_async.testing.servers.find import ServerKind
from octopus_async.testing.servers.ports import LOOPBACK
from octopus_async.testing.servers.private import PrivateServer


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"version\r\n")
    return (await reader.readline()).startswith(b"VERSION ")


MEMCACHED = ServerKind(
    name="memcached",
    program="memcached",
    package="memcached",
    variable="OCTOPUS_TEST_MEMCACHED_URL",
    port=11211,
    tells_version=("--version",),
    greet=_greet,
)


class MemcachedServer(PrivateServer):
    """A private memcached; a kill or a restart loses what it holds.

    Args:
        memory_mb: megabytes it may keep items in; beyond, it evicts.
        max_connections: connections it takes at the same time.
        options: further arguments for its command line.
    """

    kind: ClassVar[ServerKind] = MEMCACHED

    def __init__(
        self, *, memory_mb: int = 64, max_connections: int = 1024, options: Sequence[str] = ()
    ) -> None:
        super().__init__(options=options)
        self._limits = (f"--memory-limit={memory_mb}", f"--conn-limit={max_connections}")

    @property
    def url(self) -> str:
        """``memcache://127.0.0.1:PORT``."""
        return f"memcache://{LOOPBACK}:{self.port}"

    def _command(self, program: Path) -> list[str]:
        return [str(program), f"--listen={LOOPBACK}", f"--port={self.port}", "--threads=2", *self._limits]
