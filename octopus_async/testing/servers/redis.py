"""A private Redis, or Valkey where its program is the one at hand; and a cluster of three."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ClassVar, Self

from octopus_async.errors import BackendFailed
from octopus_async.testing.servers.find import ServerKind
from octopus_async.testing.servers.ports import LOOPBACK, HeldPort
from octopus_async.testing.servers.private import PrivateServer

_SLOTS = 16384
_CLUSTER_SECONDS = 20.0


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether it takes commands, be it after a login; one that loads its data says so."""
    writer.write(b"PING\r\n")
    return (await reader.readline()).startswith((b"+PONG", b"-NOAUTH"))


REDIS = ServerKind(
    name="redis",
    program="redis-server",
    package="redis-(server|tools)",
    variable="OCTOPUS_TEST_REDIS_URL",
    port=6379,
    tells_version=("--version",),
    greet=_greet,
)


class RedisServer(PrivateServer):
    """A private Redis that asks for a password and keeps nothing on disk: a kill loses what it holds.

    Args:
        memory_mb: megabytes it may take; None for no limit.
        evicts: whether it evicts what was not used lately when that is not enough, or else refuses.
        options: further arguments for its command line.
    """

    kind: ClassVar[ServerKind] = REDIS

    def __init__(
        self, *, memory_mb: int | None = None, evicts: bool = True, options: Sequence[str] = ()
    ) -> None:
        super().__init__(options=options)
        self._settings = {
            "bind": LOOPBACK,
            "save": "",
            "repl-diskless-sync-delay": "0",  # seconds; a replica is up the sooner
            "maxmemory": f"{memory_mb or 0}mb",
            "maxmemory-policy": "allkeys-lru" if evicts else "noeviction",
        }
        self.password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        """``redis://:PASSWORD@127.0.0.1:PORT``."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}"

    async def command(self, *parts: str | int) -> str:
        """What it says to a command, as a line, a text or an error; of an array, its first line."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        try:
            for line in (("AUTH", self.password), parts):
                writer.write(b"*%d\r\n" % len(line))
                for part in line:
                    encoded = str(part).encode()
                    writer.write(b"$%d\r\n%b\r\n" % (len(encoded), encoded))
                reply = (await reader.readuntil(b"\r\n"))[:-2]
            if reply.startswith(b"$") and reply != b"$-1":
                reply = (await reader.readexactly(int(reply[1:]) + 2))[:-2]
            return reply.decode(errors="replace")
        finally:
            writer.close()
            await writer.wait_closed()

    def _command(self, program: Path) -> list[str]:
        # Not on the command line, which anybody on the machine may read.
        secret = self.folder / "secret.conf"
        secret.write_text(f"requirepass {self.password}\nmasterauth {self.password}\n", encoding="utf-8")
        self._hand_over()
        settings = self._settings | {"port": str(self.port)}
        return [
            str(program),
            str(secret),
            *(part for name, value in settings.items() for part in (f"--{name}", value)),
        ]


class _ClusterNode(RedisServer):
    def __init__(self, options: Sequence[str] = ()) -> None:
        super().__init__(options=options)
        self._settings |= {
            "cluster-enabled": "yes",
            "cluster-node-timeout": "1000",  # milliseconds
            "cluster-require-full-coverage": "no",  # a node that is down takes no others along
        }
        self._bus = HeldPort()

    def _command(self, program: Path) -> list[str]:
        self._settings["cluster-port"] = str(self._bus.number)
        return super()._command(program)

    async def stop(self) -> None:
        await super().stop()
        self._bus.release()


class RedisCluster:
    """Three private Redis that share the keys between them, and replicas where they are asked for.

    Use it with ``async with``.

    Args:
        replicas: how many nodes beyond three, each a replica of one of them.

    Attributes:
        nodes: the servers, the three first.
    """

    def __init__(self, *, replicas: int = 0) -> None:
        self.nodes: list[RedisServer] = [_ClusterNode() for _ in range(3 + replicas)]
        for node in self.nodes:
            node.password = self.nodes[0].password
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """``redis://:PASSWORD@127.0.0.1:PORT,...?cluster=true``."""
        hosts = ",".join(f"{LOOPBACK}:{node.port}" for node in self.nodes)
        return f"redis://:{self.nodes[0].password}@{hosts}?cluster=true"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for node in self.nodes:
                await stack.enter_async_context(node)
            await self._form()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _form(self) -> None:
        first = self.nodes[0]
        for number, node in enumerate(self.nodes[:3]):
            begin, end = number * _SLOTS // 3, (number + 1) * _SLOTS // 3 - 1
            await node.command("CLUSTER", "ADDSLOTSRANGE", begin, end)
            await node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            bus = node._bus.number if isinstance(node, _ClusterNode) else 0  # noqa: SLF001 - of this module
            await first.command("CLUSTER", "MEET", LOOPBACK, node.port, bus)
        await self._until_all("cluster_state:ok", f"cluster_known_nodes:{len(self.nodes)}")
        for number, node in enumerate(self.nodes[3:]):
            master = await self.nodes[number % 3].command("CLUSTER", "MYID")
            await node.command("CLUSTER", "REPLICATE", master)

    async def _until_all(self, *signs: str) -> None:
        try:
            async with asyncio.timeout(_CLUSTER_SECONDS):
                for node in self.nodes:
                    while not _all_in(signs, await node.command("CLUSTER", "INFO")):  # noqa: ASYNC110 - they announce nothing
                        await asyncio.sleep(0.05)
        except TimeoutError:
            raise BackendFailed("the nodes did not become a cluster", backend=REDIS.name) from None


def _all_in(signs: Sequence[str], text: str) -> bool:
    return all(sign in text for sign in signs)
