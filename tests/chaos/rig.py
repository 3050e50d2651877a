"""Real servers with everything that can be done to them, run by a process of their own.

The process under test is left to the library and its load: what starts servers, and what passes bytes
through proxies, must not be what blocks its event loop.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, NamedTuple

from octopus_async.cli.drill import stage
from octopus_async.testing.proxy import FaultyProxy
from octopus_async.testing.servers import MemcachedServer, PrivateServer
from octopus_async.url import BackendURL
from tests.chaos.databases import DATABASES, Database, start

Act = Callable[[], Awaitable[Any]]
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
    """A database and memcached, each behind a proxy.

    Parameters:
        stack: ends what is started.
        database: which one.
        small: whether it has a disk that can be filled.
    """

    def __init__(self, stack: AsyncExitStack, database: str, *, small: bool) -> None:
        self._stack = stack
        self.database: Database = DATABASES[database](small=small)
        self._busy: list[asyncio.StreamWriter] = []

    async def open(self) -> None:
        """Start all of it."""
        enter = self._stack.enter_async_context
        self.server = await enter(self.database.server)
        self.memcached = await enter(MemcachedServer(max_connections=_CACHE_CONNECTIONS))
        self.primary = await enter(FaultyProxy(self.server.url))
        self.cache = await enter(FaultyProxy(self.memcached.url))

    async def clear(self) -> None:
        """An empty database."""
        await self.database.clear()

    async def held(self, seed: int) -> list[stage.Held]:
        """What the primary holds in the end."""
        return [stage.held(seed, row) for row in await self.database.rows()]

    # -- faults ----------------------------------------------------------------------------------

    def faults(self) -> dict[str, Fault]:
        """All faults by their names."""
        database, name = self.database, self.database.name
        return {
            **self._server_faults(name, self.server),
            **self._server_faults("memcached", self.memcached),
            **self._proxy_faults(name, self.primary),
            **self._proxy_faults("memcached", self.cache),
            f"{name} at its limit": Fault(self._fill_database, database.leave),
            "memcached at its limit": Fault(self._fill_memcached, self._leave_memcached),
            f"{name} disk full": Fault(database.fill_disk, database.empty_disk, 3.0),
            f"{name} read-only": Fault(
                lambda: database.set_read_only(True), lambda: database.set_read_only(False)
            ),
            f"{name} column renamed": Fault(
                lambda: database.rename("title", "away"), lambda: database.rename("away", "title")
            ),
            f"{name} and memcached killed": Fault(self._kill_both, self._start_both),
            f"{name} killed, memcached emptied": Fault(
                self.server.kill, lambda: start(self.server), 2.0, self.memcached.restart
            ),
        }

    def _server_faults(self, name: str, server: PrivateServer) -> dict[str, Fault]:
        return {
            f"{name} killed": Fault(server.kill, lambda: start(server)),
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

    async def _fill_database(self) -> None:
        """Others have all connections, and those of the library are gone."""
        await self.database.limit()
        await self.primary.reset()
        await self.database.fill()
        await self.primary.heal()

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

    async def _kill_both(self) -> None:
        await asyncio.gather(self.server.kill(), self.memcached.kill())

    async def _start_both(self) -> None:
        await asyncio.gather(start(self.server), start(self.memcached))


async def _resume(server: PrivateServer) -> None:
    if server.running:
        await server.resume()


async def serve(database: str, *, small: bool) -> None:
    """Do what the input says, one line after the other, and answer each with a line."""
    async with AsyncExitStack() as stack:
        rig = Rig(stack, database, small=small)
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
        database: which one it has.
        small: whether that has a disk that can be filled.

    Attributes:
        urls: the primary and the cache, by way of their proxies.
        faults: for each, how many seconds it lasts, and whether anything happens in the middle of it.
    """

    def __init__(self, database: str = "mariadb", *, small: bool = False) -> None:
        command = (sys.executable, "-m", "tests.chaos.rig", database, *(["--small"] if small else []))
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
    asyncio.run(serve(sys.argv[1], small="--small" in sys.argv))
