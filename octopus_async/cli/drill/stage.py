"""Where the drill plays: real backends, and how each of them is taken away and brought back."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from octopus_async.cli.drill.ledger import Name
from octopus_async.cli.drill.workload import TABLE, contents
from octopus_async.errors import ConfigurationError
from octopus_async.url import BackendURL

_COLUMNS = ("shelf", "place", "step", "title", "note", "price", "lent", "tags")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM {TABLE}"  # noqa: S608 - constants of ours
_LOCKER = """\
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
connection.rollback()
"""


class Blow(NamedTuple):
    """One way of taking a backend away.

    Attributes:
        name: what it is then.
        strike: takes it away.
        heal: brings it back, and returns when it answers.
        deaf: whether it answers no reads either.
    """

    name: str
    strike: Callable[[], Awaitable[None]]
    heal: Callable[[], Awaitable[None]]
    deaf: bool = True


class Held(NamedTuple):
    """What the primary holds of a record; ``intact`` is whether all fields belong to its step."""

    name: Name
    step: int
    intact: bool


class Place(NamedTuple):
    """One backend of the drill.

    Attributes:
        label: what people call it.
        url: where the library finds it.
        blows: the ways of taking it away.
        rows: reads what it holds, past the library; None for a cache.
    """

    label: str
    url: str
    blows: tuple[Blow, ...] = ()
    rows: Callable[[], Awaitable[Iterable[Sequence[Any]]]] | None = None


class Stage(NamedTuple):
    """The places of one drill, and its folder."""

    primary: Place
    cache: Place
    folder: Path

    async def held(self, seed: int) -> list[Held]:
        """All that the primary holds, read with its driver alone."""
        rows = await self.primary.rows() if self.primary.rows is not None else ()
        return [held(seed, row) for row in rows]


class Phase(NamedTuple):
    """A stretch of the drill; with blows, something is away."""

    name: str
    blows: tuple[Blow, ...] = ()
    blind: bool = False


def phases(primary: Place, cache: Place) -> list[Phase]:
    """What a stage goes through: each blow by itself, then both killed; a recovery after each; the drain."""
    struck = [
        Phase(f"{role} {blow.name}", (blow,))
        for role, place in (("primary", primary), ("cache", cache))
        for blow in place.blows
    ]
    both = [blow for place in (primary, cache) for blow in place.blows if blow.name == "killed"]
    if len(both) == 2:  # noqa: PLR2004 - the two of them
        struck.append(Phase("both killed", tuple(both), blind=True))
    course = [Phase("healthy")]
    for number, phase in enumerate(struck, 1):
        course += [phase, Phase("recovery" if len(struck) == 1 else f"recovery {number}")]
    return [*course, Phase("drain")]


def held(seed: int, row: Sequence[Any]) -> Held:
    """Compare a row, as a driver gives it, with what was written to it."""
    found = dict(zip(_COLUMNS, row, strict=True))
    name, step = Name(found["shelf"], found["place"]), found["step"]
    expected = contents(seed, name, step)
    try:
        plain = {
            **found,
            "price": Decimal(str(found["price"])),
            "lent": bool(found["lent"]),
            "tags": json.loads(found["tags"]),
        }
    except (ArithmeticError, TypeError, ValueError):
        return Held(name, step, intact=False)
    return Held(name, step, intact=plain == expected)


# -- SQLite, locked by another process -------------------------------------------------------------


@asynccontextmanager
async def sqlite_primary(folder: Path) -> AsyncGenerator[Place]:
    """SQLite that another process locks: no write is possible, while reads and pings go on."""
    path = folder / "primary.db"
    locker = _Locker(path)
    try:
        yield Place(
            "SQLite",
            f"sqlite:///{quote(str(path))}",
            (Blow("locked", locker.lock, locker.unlock, deaf=False),),
            lambda: asyncio.to_thread(_sqlite_rows, path),
        )
    finally:
        await locker.unlock()


def _sqlite_rows(path: Path) -> list[Sequence[Any]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(_SELECT).fetchall()
    finally:
        connection.close()


class _Locker:
    """Another process that holds an exclusive lock on a database; it ends with us."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: asyncio.subprocess.Process | None = None

    async def lock(self) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _LOCKER, str(self._path), stdin=pipe, stdout=pipe
        )
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        if await self._process.stdout.readline() != b"locked\n":
            raise ConfigurationError(f"{self._path} could not be locked by another process")

    async def unlock(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            await process.communicate(b"")  # the end of its input is what it waits for


# -- private servers -------------------------------------------------------------------------------


@asynccontextmanager
async def mysql_primary(_: Path) -> AsyncGenerator[Place]:
    """A private MariaDB, killed and stopped."""
    from octopus_async.testing.servers import MariaDBServer

    async with MariaDBServer() as server:
        yield Place("MariaDB", server.url, _server_blows(server), lambda: _mysql_rows(server.url))


async def _mysql_rows(url: str) -> list[Sequence[Any]]:
    import aiomysql

    parsed = BackendURL.parse(url)
    host, port = parsed.hosts[0]
    connection = await aiomysql.connect(
        host=host,
        port=port or 3306,
        user=parsed.user,
        password=parsed.password,
        db=parsed.path,
        charset="utf8mb4",
    )
    try:
        async with connection.cursor() as cursor:
            await cursor.execute(_SELECT)
            return list(await cursor.fetchall())
    finally:
        connection.close()


@asynccontextmanager
async def postgres_primary(_: Path) -> AsyncGenerator[Place]:
    """A private Postgres, killed and stopped."""
    from octopus_async.testing.servers import PostgresServer

    async with PostgresServer() as server:
        yield Place("Postgres", server.url, _server_blows(server), lambda: _postgres_rows(server.url))


async def _postgres_rows(url: str) -> list[Sequence[Any]]:
    import asyncpg

    connection = await asyncpg.connect(url, ssl=False)
    try:
        return [tuple(row) for row in await connection.fetch(_SELECT)]
    finally:
        await connection.close()


@asynccontextmanager
async def memcached_cache(_: Path) -> AsyncGenerator[Place]:
    """A private memcached, killed and stopped."""
    from octopus_async.testing.servers import MemcachedServer

    async with MemcachedServer() as server:
        yield Place("memcached", server.url, _server_blows(server))


@asynccontextmanager
async def memory_cache(_: Path) -> AsyncGenerator[Place]:
    """The cache in this process, which nobody can take away."""
    yield Place("in-process cache", "memory://")


def _server_blows(server: Any) -> tuple[Blow, ...]:  # noqa: ANN401 - PrivateServer, which is imported when used
    return (Blow("killed", server.kill, server.start), Blow("stopped", server.pause, server.resume))


Opener = Callable[[Path], AbstractAsyncContextManager[Place]]
PRIMARIES: dict[str, Opener] = {
    "sqlite": sqlite_primary,
    "mysql": mysql_primary,
    "postgres": postgres_primary,
}
CACHES: dict[str, Opener] = {"memory": memory_cache, "memcached": memcached_cache}


@asynccontextmanager
async def open_stage(primary: str, cache: str, folder: Path) -> AsyncGenerator[Stage]:
    """Set up the backends of a drill, servers included.

    Raises:
        ConfigurationError: a server is not to be had, and what to install.
        Unavailable: one did not start.
    """
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(PRIMARIES[primary](folder))
        second = await stack.enter_async_context(CACHES[cache](folder))
        yield Stage(first, second, folder)
