"""Real servers with everything that can be done to them, run by a thread of their own.

The event loop under test is left to the library and its load: what starts and stops servers, and what
passes bytes through proxies, must not be what blocks it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple

import aiomysql

from octopus_async.cli.drill import stage
from octopus_async.cli.drill.workload import TABLE
from octopus_async.testing.proxy import FaultyProxy
from octopus_async.testing.servers import MariaDBServer, MemcachedServer, PrivateServer
from octopus_async.url import BackendURL

Act = Callable[[], Awaitable[Any]]
_CONNECTIONS = 10  # MariaDB has no lower limit
_CACHE_CONNECTIONS = 24


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


class Rig:
    """MariaDB and memcached, each behind a proxy; all methods belong to the thread's loop."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._held: list[Any] = []
        self._busy: list[asyncio.StreamWriter] = []

    async def open(self) -> None:
        """Start all of it."""
        enter = self._stack.enter_async_context
        self.mariadb = await enter(MariaDBServer())
        self.memcached = await enter(MemcachedServer(max_connections=_CACHE_CONNECTIONS))
        self.primary = await enter(FaultyProxy(self.mariadb.url))
        self.cache = await enter(FaultyProxy(self.memcached.url))

    async def clear(self) -> None:
        """An empty database."""
        await self.order("DROP DATABASE octopus", "CREATE DATABASE octopus")

    async def order(self, *statements: str) -> list[Any]:
        """Have the administrator run statements; the rows of the last one."""
        connection = await _connection(self.mariadb.admin_url)
        try:
            async with connection.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
                return list(await cursor.fetchall())
        finally:
            connection.close()

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
            "mariadb full": Fault(self._fill_mariadb, self._leave_mariadb),
            "memcached full": Fault(self._fill_memcached, self._leave_memcached),
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
            f"{name} stopped 0.5 s": Fault(server.pause, lambda: _resume(server), 0.5),
            f"{name} stopped 5 s": Fault(server.pause, lambda: _resume(server), 5.0),
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


class Room:
    """The thread that has the rig, and a way to have things done there."""

    def __init__(self) -> None:
        self._ready: Future[tuple[Rig, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._main, name="rig")
        self._thread.start()
        self.rig, self._loop, self._leave = self._ready.result()

    async def do(self, act: Act) -> Any:  # noqa: ANN401 - whatever it gives
        """Do something in the thread, and wait for it here."""

        async def done() -> Any:  # noqa: ANN401 - as above
            return await act()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(done(), self._loop))

    def close(self) -> None:
        """End servers and thread."""
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join()

    def _main(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        leave = asyncio.Event()
        async with AsyncExitStack() as stack:
            rig = Rig(stack)
            try:
                await rig.open()
            except BaseException as error:
                self._ready.set_exception(error)
                raise
            self._ready.set_result((rig, asyncio.get_running_loop(), leave))
            await leave.wait()
