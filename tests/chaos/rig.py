"""Real servers with everything that can be done to them, run by a process of their own.

The process under test is left to the library and its load: what starts servers, and what passes bytes
through proxies, must not be what blocks its event loop.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, NamedTuple

import aiomysql

from octopus_async.cli.drill import stage
from octopus_async.cli.drill.workload import TABLE
from octopus_async.testing.proxy import FaultyProxy
from octopus_async.testing.servers import MariaDBServer, MemcachedServer, PrivateServer
from octopus_async.testing.servers.find import Installation
from octopus_async.url import BackendURL
from tests.chaos.disks import MountedDisk

Act = Callable[[], Awaitable[Any]]
_CONNECTIONS = 10  # MariaDB has no lower limit
_CACHE_CONNECTIONS = 24
_TOO_MANY = 1040
_PATIENCE = 20.0
_SMALL = 128 * 1024 * 1024  # its logs and system tables need most of it


class Fault(NamedTuple):
    """One way of taking a backend away, or both.

    Attributes:
        strike: takes it away.
        heal: brings it back; may be called again, or without a strike.
        seconds: how long it is away.
        middle: what happens in the middle of that time, if anything does.
    """

    strike: Act
    heal: Act
    seconds: float = 1.5
    middle: Act | None = None


class SmallMariaDB(MariaDBServer):
    """A MariaDB whose data lie on a disk of their own, which can be filled."""

    disk: MountedDisk | None = None

    def _prepare(self, installation: Installation) -> None:
        super()._prepare(installation)
        data, made = self.folder / "data", self.folder / "made"
        data.rename(made)
        data.mkdir()
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


class Rig:
    """MariaDB and memcached, each behind a proxy.

    Parameters:
        stack: ends what is started.
        small: whether MariaDB has a disk that can be filled.
    """

    def __init__(self, stack: AsyncExitStack, *, small: bool) -> None:
        self._stack = stack
        self._small = small
        self._held: list[Any] = []
        self._busy: list[asyncio.StreamWriter] = []

    async def open(self) -> None:
        """Start all of it."""
        enter = self._stack.enter_async_context
        self.mariadb = await enter(SmallMariaDB() if self._small else MariaDBServer())
        self.memcached = await enter(MemcachedServer(max_connections=_CACHE_CONNECTIONS))
        self.primary = await enter(FaultyProxy(self.mariadb.url))
        self.cache = await enter(FaultyProxy(self.memcached.url))

    async def clear(self) -> None:
        """An empty database."""
        await self.order("DROP DATABASE octopus", "CREATE DATABASE octopus")

    async def order(self, *statements: str) -> list[Any]:
        """Have the administrator run statements; the rows of the last one."""
        connection = await self._administrator()
        try:
            async with connection.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
                return list(await cursor.fetchall())
        finally:
            connection.close()

    async def _administrator(self) -> Any:  # noqa: ANN401 - the driver is not typed
        """A connection of the administrator, for whom one is kept; who had it before may not be gone yet."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                try:
                    return await _connection(self.mariadb.admin_url)
                except aiomysql.OperationalError as error:
                    if error.args[0] != _TOO_MANY:
                        raise
                    await asyncio.sleep(0.05)

    async def held(self, seed: int) -> list[stage.Held]:
        """What the primary holds in the end."""
        return [stage.held(seed, row) for row in await stage._mysql_rows(self.mariadb.url)]

    # -- faults ----------------------------------------------------------------------------------

    def faults(self) -> dict[str, Fault]:
        """All faults by their names."""
        return {
            **self._server_faults("mariadb", self.mariadb),
            **self._server_faults("memcached", self.memcached),
            **self._proxy_faults("mariadb", self.primary),
            **self._proxy_faults("memcached", self.cache),
            "mariadb at its limit": Fault(self._fill_mariadb, self._leave_mariadb),
            "memcached at its limit": Fault(self._fill_memcached, self._leave_memcached),
            "mariadb disk full": Fault(self._fill_disk, self._empty_disk, 3.0),
            "mariadb read-only": Fault(
                lambda: self.order("SET GLOBAL read_only = 1"), lambda: self.order("SET GLOBAL read_only = 0")
            ),
            "column renamed": Fault(self._rename, self._rename_back),
            "both killed": Fault(self._kill_both, self._start_both),
            "mariadb killed, memcached emptied": Fault(
                self.mariadb.kill, lambda: _start(self.mariadb), 2.0, self.memcached.restart
            ),
        }

    def _server_faults(self, name: str, server: PrivateServer) -> dict[str, Fault]:
        return {
            f"{name} killed": Fault(server.kill, lambda: _start(server)),
            **{
                f"{name} stopped {seconds:g} s": Fault(server.pause, lambda: _resume(server), seconds)
                for seconds in (0.5, 5.0, 60.0)
            },
        }

    def _proxy_faults(self, name: str, proxy: FaultyProxy) -> dict[str, Fault]:
        strikes: dict[str, Act] = {
            "cut": proxy.cut,
            "reset": proxy.reset,
            "slow": lambda: proxy.slow(2000),
            "half-closed": proxy.half_close,
            "swallowed": proxy.swallow,
        }
        return {f"{name} {what}": Fault(strike, proxy.heal) for what, strike in strikes.items()}

    async def _fill_mariadb(self) -> None:
        """Others have all connections, and those of the library are gone."""
        await self.order(f"SET GLOBAL max_connections = {_CONNECTIONS}")
        await self.primary.reset()
        with suppress(aiomysql.OperationalError):
            while True:
                self._held.append(await _connection(self.mariadb.url))
        await self.primary.heal()

    async def _fill_disk(self) -> None:
        assert isinstance(self.mariadb, SmallMariaDB)
        assert self.mariadb.disk is not None
        await asyncio.to_thread(self.mariadb.disk.fill)

    async def _empty_disk(self) -> None:
        if isinstance(self.mariadb, SmallMariaDB) and self.mariadb.disk is not None:
            self.mariadb.disk.empty()
            await _start(self.mariadb)  # InnoDB was seen to end itself when it could not undo a statement

    async def _leave_mariadb(self) -> None:
        for connection in self._held:
            connection.close()
        self._held.clear()
        await self.order("SET GLOBAL max_connections = 151")

    async def _fill_memcached(self) -> None:
        await self.cache.reset()
        host, port = BackendURL.parse(self.memcached.url).hosts[0]
        for _ in range(_CACHE_CONNECTIONS + 8):
            _, writer = await asyncio.open_connection(host, port or 11211)
            self._busy.append(writer)
        await self.cache.heal()

    async def _leave_memcached(self) -> None:
        for writer in self._busy:
            writer.close()
        self._busy.clear()

    async def _rename(self) -> None:
        await self.order(f"ALTER TABLE octopus.{TABLE} RENAME COLUMN title TO away")

    async def _rename_back(self) -> None:
        with suppress(aiomysql.OperationalError):  # it has its name already
            await self.order(f"ALTER TABLE octopus.{TABLE} RENAME COLUMN away TO title")

    async def _kill_both(self) -> None:
        await asyncio.gather(self.mariadb.kill(), self.memcached.kill())

    async def _start_both(self) -> None:
        await asyncio.gather(_start(self.mariadb), _start(self.memcached))


async def _start(server: PrivateServer) -> None:
    if not server.running:
        await server.start()


async def _resume(server: PrivateServer) -> None:
    if server.running:
        await server.resume()


async def _connection(url: str) -> Any:  # noqa: ANN401 - the driver is not typed
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


async def serve(*, small: bool) -> None:
    """Do what the input says, one line after the other, and answer each with a line."""
    async with AsyncExitStack() as stack:
        rig = Rig(stack, small=small)
        await rig.open()
        faults = rig.faults()
        hello = {name: (fault.seconds, fault.middle is not None) for name, fault in faults.items()}
        print(json.dumps([rig.primary.url, rig.cache.url, hello]), flush=True)
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            verb, *arguments = json.loads(line)
            acts = faults[arguments[0]] if verb in Fault._fields else rig
            answer = await getattr(acts, verb)(*([] if acts is not rig else arguments))
            print(json.dumps(answer if verb == "held" else None), flush=True)


class Room:
    """The process that has the rig, seen from the process under test.

    Parameters:
        small: whether MariaDB has a disk that can be filled.

    Attributes:
        urls: the primary and the cache, by way of their proxies.
        faults: for each, how many seconds it lasts, and whether anything happens in the middle of it.
    """

    def __init__(self, *, small: bool = False) -> None:
        command = (sys.executable, "-m", "tests.chaos.rig", *(["--small"] if small else []))
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=Path(__file__).parents[2])
        primary, cache, faults = self._answer()
        self.urls: list[str] = [primary, cache]
        self.faults: dict[str, tuple[float, bool]] = faults

    async def do(self, *words: object) -> Any:  # noqa: ANN401 - whatever it answers
        """Have something done, and wait for it."""
        return await asyncio.to_thread(self._ask, words)

    def close(self) -> None:
        """End servers and process."""
        self._process.communicate(timeout=30)  # the end of its input is what it waits for

    def _ask(self, words: Sequence[object]) -> Any:  # noqa: ANN401 - as above
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:  # noqa: ANN401 - as above
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the rig has failed, and says above why"
        return json.loads(line)


if __name__ == "__main__":
    asyncio.run(serve(small="--small" in sys.argv))
