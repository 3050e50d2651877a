"""The databases of the rig: what an administrator can do to each of them, in its own words."""

from __future__ import annotations

import asyncio
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import aiomysql
import asyncpg

from octopus_async.cli.drill import stage
from octopus_async.cli.drill.workload import TABLE
from octopus_async.testing.servers import MariaDBServer, PostgresServer, PrivateServer
from octopus_async.testing.servers.find import Installation
from octopus_async.url import BackendURL
from tests.chaos.disks import MountedDisk

_CONNECTIONS = 10  # MariaDB has no lower limit
_TOO_MANY = 1040
_SOME_CONNECTIONS = 20  # of Postgres, which changes its limit at a start alone; three are the administrator's
_PATIENCE = 20.0
_SMALL = 128 * 1024 * 1024  # logs and system tables need most of it


class SmallServer(PrivateServer):
    """A server whose data lie on a disk of their own, which can be filled."""

    disk: MountedDisk | None = None

    def _prepare(self, installation: Installation) -> None:
        super()._prepare(installation)
        data, made = self.folder / "data", self.folder / "made"
        data.rename(made)
        data.mkdir(mode=0o700)
        self.disk = MountedDisk(data, _SMALL)
        shutil.copytree(made, data, dirs_exist_ok=True)
        shutil.rmtree(made)

    async def stop(self) -> None:
        """End it, and take its disk away."""
        await self.kill()
        if self.disk is not None:
            self.disk.leave()
            self.disk = None
        await super().stop()


class SmallMariaDB(SmallServer, MariaDBServer):
    """A MariaDB whose disk can be filled."""


class SmallPostgres(SmallServer, PostgresServer):
    """A Postgres whose disk can be filled."""


class Database(ABC):
    """A database server, and what its administrator does to it.

    Parameters:
        server: the server.

    Attributes:
        name: what its faults are called by.
    """

    name: ClassVar[str]

    def __init__(self, server: PrivateServer) -> None:
        self.server = server
        self._held: list[Any] = []

    @abstractmethod
    async def order(self, *statements: str) -> None:
        """Have the administrator run statements."""

    @abstractmethod
    async def clear(self) -> None:
        """An empty database."""

    @abstractmethod
    async def rows(self) -> Iterable[Sequence[Any]]:
        """What it holds in the end, read with its driver alone."""

    @abstractmethod
    async def set_read_only(self, on: bool) -> None:  # noqa: FBT001 - it is what is said
        """Take writes from nobody but the administrator, or from everybody again."""

    @abstractmethod
    async def rename(self, old: str, new: str) -> None:
        """Give a column another name, unless it has it already."""

    async def limit(self) -> None:  # noqa: B027 - some have had a limit from their start
        """Have the server take few connections."""

    async def fill(self) -> None:
        """Take all connections that are left."""
        with suppress(aiomysql.OperationalError, asyncpg.TooManyConnectionsError):
            while True:
                self._held.append(await self._connection(self.server.url))

    async def leave(self) -> None:
        """Give the connections back."""
        for connection in self._held:
            self._drop(connection)
        self._held.clear()

    async def fill_disk(self) -> None:
        """Fill its disk to the last byte."""
        assert isinstance(self.server, SmallServer)
        assert self.server.disk is not None
        await asyncio.to_thread(self.server.disk.fill)

    async def empty_disk(self) -> None:
        """Make room again. A server was seen to end itself when it could not write its log."""
        if isinstance(self.server, SmallServer) and self.server.disk is not None:
            self.server.disk.empty()
            async with asyncio.timeout(_PATIENCE):
                while not await self._answers():  # noqa: ASYNC110 - a server sets no event
                    await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        await start(self.server)
        try:
            await self.order("SELECT 1")
        except (OSError, aiomysql.MySQLError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False  # it is on its way up, or down
        return True

    @abstractmethod
    async def _connection(self, url: str) -> Any:  # noqa: ANN401 - the driver's
        """Log in."""

    @abstractmethod
    def _drop(self, connection: Any) -> None:  # noqa: ANN401 - the driver's
        """Close a connection at once."""


class MariaDB(Database):
    """MariaDB."""

    name = "mariadb"

    def __init__(self, *, small: bool) -> None:
        super().__init__(SmallMariaDB() if small else MariaDBServer())

    async def order(self, *statements: str) -> None:
        connection = await self._administrator()
        try:
            async with connection.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
        finally:
            connection.close()

    async def _administrator(self) -> Any:  # noqa: ANN401 - the driver is not typed
        """A connection of the administrator, for whom one is kept; who had it before may not be gone yet."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                try:
                    return await self._connection(self._admin_url)
                except aiomysql.OperationalError as error:
                    if error.args[0] != _TOO_MANY:
                        raise
                    await asyncio.sleep(0.05)

    @property
    def _admin_url(self) -> str:
        assert isinstance(self.server, MariaDBServer)
        return self.server.admin_url

    async def clear(self) -> None:
        await self.order("DROP DATABASE octopus", "CREATE DATABASE octopus")

    async def rows(self) -> Iterable[Sequence[Any]]:
        return await stage._mysql_rows(self.server.url)

    async def set_read_only(self, on: bool) -> None:  # noqa: FBT001 - as above
        await self.order(f"SET GLOBAL read_only = {int(on)}")

    async def rename(self, old: str, new: str) -> None:
        with suppress(aiomysql.OperationalError):  # it has its name already
            await self.order(f"ALTER TABLE octopus.{TABLE} RENAME COLUMN {old} TO {new}")

    async def limit(self) -> None:
        await self.order(f"SET GLOBAL max_connections = {_CONNECTIONS}")

    async def leave(self) -> None:
        await super().leave()
        await self.order("SET GLOBAL max_connections = 151")

    def _drop(self, connection: Any) -> None:  # noqa: ANN401 - as above
        connection.close()

    async def _connection(self, url: str) -> Any:  # noqa: ANN401 - as above
        parsed = BackendURL.parse(url)
        host, port = parsed.hosts[0]
        return await aiomysql.connect(
            host=host,
            port=port or 3306,
            user=parsed.user,
            password=parsed.password,
            charset="utf8mb4",
            autocommit=True,
        )


class Postgres(Database):
    """Postgres."""

    name = "postgres"

    def __init__(self, *, small: bool) -> None:
        super().__init__(
            SmallPostgres(max_connections=_SOME_CONNECTIONS, options=["--max_wal_size=32MB"])
            if small
            else PostgresServer(max_connections=_SOME_CONNECTIONS)
        )

    async def order(self, *statements: str) -> None:
        assert isinstance(self.server, PostgresServer)
        connection = await self._connection(self.server.admin_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            self._drop(connection)

    async def clear(self) -> None:
        await self.order(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'octopus'",
            "DROP SCHEMA public CASCADE",
            "CREATE SCHEMA public AUTHORIZATION octopus",
        )

    async def rows(self) -> Iterable[Sequence[Any]]:
        return await stage._postgres_rows(self.server.url)

    async def set_read_only(self, on: bool) -> None:  # noqa: FBT001 - as above
        await self.order(
            f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}",
            "SELECT pg_reload_conf()",
        )

    async def rename(self, old: str, new: str) -> None:
        with suppress(asyncpg.UndefinedColumnError):  # it has its name already
            await self.order(f"ALTER TABLE {TABLE} RENAME COLUMN {old} TO {new}")

    def _drop(self, connection: Any) -> None:  # noqa: ANN401 - as above
        connection.terminate()

    async def _connection(self, url: str) -> Any:  # noqa: ANN401 - as above
        return await asyncpg.connect(url, ssl=False, timeout=_PATIENCE)


async def start(server: PrivateServer) -> None:
    """Start a server unless it runs."""
    if not server.running:
        await server.start()


DATABASES: dict[str, type[MariaDB | Postgres]] = {kind.name: kind for kind in (MariaDB, Postgres)}
