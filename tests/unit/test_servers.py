"""Private servers: found or downloaded, started, killed, paused, restarted, and gone when we are."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import sys
import tempfile
import textwrap
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import aiomysql
import pymysql
import pytest

from octopus_async.errors import BackendFailed, BackendTimeout, ConfigurationError, OperationNotSupported
from octopus_async.testing.servers import (
    MARIADB,
    MEMCACHED,
    ExternalServer,
    Installation,
    MariaDBServer,
    MemcachedServer,
    PostgresServer,
    PrivateServer,
    RedisServer,
    Server,
    find,
    open_server,
)
from octopus_async.testing.servers.find import locked_folder, tree_of
from octopus_async.testing.servers.ports import LOOPBACK
from octopus_async.url import BackendURL

AS_ROOT = os.geteuid() == 0
NOBODY = 65534


@pytest.fixture(
    params=[MemcachedServer, MariaDBServer, PostgresServer, RedisServer],
    ids=["memcached", "mariadb", "postgres", "redis"],
)
async def server(request: pytest.FixtureRequest) -> AsyncGenerator[PrivateServer]:
    async with request.param() as started:
        yield started


@pytest.fixture
def folder_for_all() -> Generator[str]:
    """A folder that other users may enter, and in which no other process makes folders for servers."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield folder


@pytest.fixture
def memcached_program() -> Installation:
    return find(MEMCACHED)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing was downloaded yet."""
    monkeypatch.setenv("OCTOPUS_SERVERS_DIR", str(tmp_path / "servers"))
    return tmp_path / "servers"


class Cursor(Protocol):
    async def execute(self, query: str) -> int: ...

    async def fetchall(self) -> Sequence[tuple[object, ...]]: ...


@asynccontextmanager
async def sql(url: str) -> AsyncGenerator[Cursor]:
    parts = BackendURL.parse(url)
    host, port = parts.hosts[0]
    connection = await aiomysql.connect(
        host=host, port=port or 3306, user=parts.user, password=parts.password, db=parts.path, autocommit=True
    )
    try:
        async with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


async def ask(cursor: Cursor, query: str) -> list[tuple[object, ...]]:
    await cursor.execute(query)
    return list(await cursor.fetchall())


async def ask_memcached(server: MemcachedServer, command: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
    writer.write(command)
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


def state_of(pid: int) -> str:
    """The state letter of a process that exists."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def command_line_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def program_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/exe").resolve()


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or state_of(pid) in "ZX"


def put_program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


# --- a life --------------------------------------------------------------------------------------


async def test_a_started_server_answers_at_its_url(server: PrivateServer) -> None:
    host, port = BackendURL.parse(server.url).hosts[0]
    assert (host, port) == (LOOPBACK, server.port)
    await ExternalServer(server.kind, server.url).wait_ready(1)


async def test_no_server_runs_as_root(server: PrivateServer) -> None:
    expected = NOBODY if AS_ROOT else os.geteuid()
    assert user_of(server.pid) == expected
    assert server.folder.stat().st_uid == expected
    assert server.folder.stat().st_mode & 0o077 == 0


async def test_a_killed_server_is_gone_and_its_port_refuses(server: PrivateServer) -> None:
    pid = server.pid
    await server.kill()
    assert is_gone(pid)
    assert not server.running
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(LOOPBACK, server.port)


async def test_after_a_kill_it_starts_on_the_same_port_as_another_process(server: PrivateServer) -> None:
    port, pid = server.port, server.pid
    await server.kill()
    await server.start()
    assert server.port == port
    assert server.pid != pid


async def test_a_restart_needs_no_kill_before_it(server: PrivateServer) -> None:
    port, pid = server.port, server.pid
    await server.restart()
    assert is_gone(pid)
    assert server.port == port
    await server.wait_ready(1)


async def test_while_it_is_down_nobody_else_gets_its_port(server: PrivateServer) -> None:
    await server.kill()
    with socket.socket() as other, pytest.raises(OSError) as caught:  # noqa: PT011 - its number is asserted
        other.bind((LOOPBACK, server.port))
    assert caught.value.errno == errno.EADDRINUSE


async def test_a_paused_server_takes_connections_and_answers_nothing(server: PrivateServer) -> None:
    await server.pause()
    assert state_of(server.pid) == "T"
    _, writer = await asyncio.open_connection(LOOPBACK, server.port)
    writer.close()
    with pytest.raises(BackendTimeout, match="did not answer within"):
        await server.wait_ready(0.3)


async def test_a_paused_server_may_be_paused_again_and_goes_on_when_resumed(server: PrivateServer) -> None:
    pid = server.pid
    await server.pause()
    await server.pause()
    await server.resume()
    assert state_of(pid) != "T"
    assert server.pid == pid


@pytest.mark.parametrize("way", ["kill", "terminate", "restart", "stop"])
async def test_a_paused_server_can_be_ended(server: PrivateServer, way: str) -> None:
    pid = server.pid
    await server.pause()
    await getattr(server, way)()
    assert is_gone(pid)


async def test_a_paused_server_that_is_terminated_ends_in_an_orderly_way(
    private_mariadb: MariaDBServer,
) -> None:
    await private_mariadb.pause()
    await private_mariadb.terminate()
    assert "Shutdown complete" in private_mariadb.log_tail()


async def test_a_server_that_was_stopped_leaves_nothing_behind(server: PrivateServer) -> None:
    pid, folder, port = server.pid, server.folder, server.port
    await server.stop()
    await server.stop()
    assert is_gone(pid)
    assert not folder.exists()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((LOOPBACK, port))
        other.listen()


async def test_a_stopped_server_can_be_started_anew(server: PrivateServer) -> None:
    await server.stop()
    await server.start()
    await server.wait_ready(1)


async def test_what_it_cannot_do_it_says(server: PrivateServer) -> None:
    with pytest.raises(OperationNotSupported, match="runs already"):
        await server.start()
    await server.kill()
    for call in (server.terminate, server.pause, server.resume):
        with pytest.raises(OperationNotSupported, match="is not running"):
            await call()
    await server.stop()
    with pytest.raises(OperationNotSupported, match="was not started"):
        assert server.port


@pytest.mark.parametrize("kind", [MemcachedServer, MariaDBServer, PostgresServer, RedisServer])
async def test_a_server_that_ends_at_once_says_why_and_leaves_nothing(kind: type[PrivateServer]) -> None:
    broken = kind(options=["--no-such-option=1"])
    with pytest.raises(BackendFailed, match=r"no.such.option"):
        async with broken:
            pytest.fail("it started")
    with pytest.raises(OperationNotSupported, match="was not started"):
        _ = broken.folder


async def test_a_start_that_cannot_be_prepared_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOPUS_SERVERS_DIR", "/proc/servers")
    monkeypatch.delenv("CI", raising=False)
    server = MariaDBServer()
    with pytest.raises(ConfigurationError, match="/proc/servers cannot be written"):
        await server.start()
    with pytest.raises(OperationNotSupported, match="was not started"):
        _ = server.folder


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.1])
async def test_a_cancelled_start_leaves_nothing_behind(seconds: float) -> None:
    server = MariaDBServer()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds), server:
            await asyncio.sleep(60)
    assert not server.running
    with pytest.raises(OperationNotSupported, match="was not started"):
        _ = server.folder


def test_a_server_started_in_one_event_loop_is_used_in_another() -> None:
    server = MemcachedServer()
    asyncio.run(server.start())
    try:
        assert asyncio.run(ask_memcached(server, b"version\r\n")).startswith(b"VERSION")
    finally:
        asyncio.run(server.stop())


async def test_servers_die_with_the_process_that_started_them(
    folder_for_all: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", folder_for_all)
    script = """
        import asyncio
        from octopus_async.testing.servers import MariaDBServer, MemcachedServer

        async def main():
            async with MariaDBServer() as primary, MemcachedServer() as cache:
                print(primary.pid, primary.folder, cache.pid, cache.folder, flush=True)
                await asyncio.sleep(60)

        asyncio.run(main())
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(script),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": folder_for_all},
    )
    assert child.stdout is not None
    line = (await child.stdout.readline()).decode().split()
    child.kill()
    await child.wait()
    pids, folders = map(int, line[0::2]), list(map(Path, line[1::2]))
    async with asyncio.timeout(5):
        for pid in pids:
            while not is_gone(pid):  # noqa: ASYNC110 - it is nobody's child
                await asyncio.sleep(0.01)
    assert all(folder.exists() for folder in folders)
    async with MemcachedServer():  # the next one tidies up after them
        assert not any(folder.exists() for folder in folders)


async def test_a_servers_folder_is_safe_from_the_tidying_of_others(
    private_memcached: MemcachedServer,
) -> None:
    async with MemcachedServer() as other:
        assert private_memcached.folder.exists()
        assert other.folder != private_memcached.folder


# --- memcached and MariaDB -----------------------------------------------------------------------


async def test_memcached_keeps_items_through_a_pause_and_loses_them_in_a_kill(
    private_memcached: MemcachedServer,
) -> None:
    assert await ask_memcached(private_memcached, b"set key 0 0 5\r\nvalue\r\n") == b"STORED\r\n"
    await private_memcached.pause()
    await private_memcached.resume()
    assert await ask_memcached(private_memcached, b"get key\r\n") == b"VALUE key 0 5\r\n"
    await private_memcached.kill()
    await private_memcached.start()
    assert await ask_memcached(private_memcached, b"get key\r\n") == b"END\r\n"


async def test_mariadb_keeps_what_was_committed_before_a_kill(private_mariadb: MariaDBServer) -> None:
    async with sql(private_mariadb.url) as cursor:
        await cursor.execute("CREATE TABLE books (title VARCHAR(80))")
        await cursor.execute("INSERT INTO books VALUES ('Bleak House 🏚')")
        await private_mariadb.kill()
    await private_mariadb.start()
    async with sql(private_mariadb.url) as cursor:
        assert await ask(cursor, "SELECT title FROM books") == [("Bleak House 🏚",)]


async def test_mariadb_flushes_each_commit(private_mariadb: MariaDBServer) -> None:
    async with sql(private_mariadb.url) as cursor:
        assert await ask(cursor, "SELECT @@innodb_flush_log_at_trx_commit") == [(1,)]


async def test_read_only_binds_the_user_and_not_the_administrator(private_mariadb: MariaDBServer) -> None:
    async with sql(private_mariadb.admin_url) as admin, sql(private_mariadb.url) as user:
        await user.execute("CREATE TABLE books (id INT)")
        await admin.execute("SET GLOBAL read_only = 1")
        with pytest.raises(pymysql.err.OperationalError, match="read-only"):
            await user.execute("INSERT INTO books VALUES (1)")
        await admin.execute("SET GLOBAL read_only = 0")
        await user.execute("INSERT INTO books VALUES (1)")
        assert await ask(user, "SELECT COUNT(*) FROM books") == [(1,)]


async def test_the_limit_on_connections_binds_the_user_and_lets_the_administrator_in() -> None:
    async with MariaDBServer(max_connections=10) as server, AsyncExitStack() as connections:
        for _ in range(10):
            await connections.enter_async_context(sql(server.url))
        with pytest.raises(pymysql.err.OperationalError, match="Too many connections"):
            await connections.enter_async_context(sql(server.url))
        admin = await connections.enter_async_context(sql(server.admin_url))
        assert await ask(admin, "SELECT @@max_connections") == [(10,)]


@pytest.mark.parametrize("user", ["root", "octopus", ""])
async def test_nobody_gets_into_mariadb_without_the_password(
    private_mariadb: MariaDBServer, user: str
) -> None:
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        await aiomysql.connect(host=LOOPBACK, port=private_mariadb.port, user=user, password="")
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        await aiomysql.connect(
            unix_socket=str(private_mariadb.folder / "data/mariadb.sock"), user=user, password=""
        )


async def test_users_made_by_a_test_outlive_a_restart(private_mariadb: MariaDBServer) -> None:
    async with sql(private_mariadb.admin_url) as admin:
        await admin.execute("CREATE USER guest@'127.0.0.1' IDENTIFIED BY 'guest'")
        await admin.execute("GRANT SELECT ON octopus.* TO guest@'127.0.0.1'")
    await private_mariadb.restart()
    async with sql(f"mysql://guest:guest@{LOOPBACK}:{private_mariadb.port}/octopus") as guest:
        assert await ask(guest, "SELECT 1") == [(1,)]


async def test_the_password_is_shown_in_no_repr_and_no_command_line(private_mariadb: MariaDBServer) -> None:
    password = BackendURL.parse(private_mariadb.url).password
    assert len(password) >= 20
    assert password not in repr(private_mariadb)
    assert password not in command_line_of(private_mariadb.pid)
    assert password not in private_mariadb.log_tail(1000)


# --- servers of others ---------------------------------------------------------------------------


async def test_a_url_in_the_environment_is_used_and_cannot_be_killed(
    private_memcached: MemcachedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOPUS_TEST_MEMCACHED_URL", private_memcached.url)
    async with open_server(MemcachedServer) as server:
        assert server.external
        assert server.url == private_memcached.url
        assert not hasattr(server, "kill")
    assert private_memcached.running


async def test_without_a_url_in_the_environment_a_private_server_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OCTOPUS_TEST_MEMCACHED_URL", raising=False)
    async with open_server(MemcachedServer) as server:
        assert isinstance(server, MemcachedServer)
        assert not server.external
    assert not server.running


async def test_an_external_server_that_does_not_answer_is_named_without_its_password() -> None:
    async with MemcachedServer() as held:
        await held.kill()
        dead = ExternalServer(MARIADB, f"mysql://octopus:hush-hush@{LOOPBACK}:{held.port}/octopus")
        with pytest.raises(BackendTimeout, match="OCTOPUS_TEST_MYSQL_URL") as caught:
            await dead.wait_ready(0.3)
    assert "hush" not in f"{caught.value!r} {dead!r}"


def test_a_url_without_a_host_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="OCTOPUS_TEST_MYSQL_URL names no host"):
        ExternalServer(MARIADB, "mysql:///octopus")


async def test_the_shared_servers_answer(memcached_server: Server, mariadb_server: Server) -> None:
    await memcached_server.wait_ready(1)
    async with sql(mariadb_server.url) as cursor:
        assert await ask(cursor, "SELECT 1") == [(1,)]


# --- where programs come from --------------------------------------------------------------------


@pytest.mark.usefixtures("empty_folder")
def test_what_was_downloaded_goes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path / "path", "memcached", "echo memcached of PATH")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")
    monkeypatch.delenv("CI", raising=False)
    assert find(MEMCACHED).version == "memcached of PATH"
    put_program(tree_of(MEMCACHED) / "usr/bin", "memcached", "echo memcached downloaded")
    found = find(MEMCACHED)
    assert (found.version, found.origin) == ("memcached downloaded", "downloaded")


@pytest.mark.usefixtures("empty_folder")
def test_what_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tree_of(MEMCACHED) / "usr/bin", "memcached", "echo lacks a library >&2; exit 127")
    put_program(tmp_path / "path", "memcached", "echo memcached of PATH")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")
    monkeypatch.delenv("CI", raising=False)
    assert find(MEMCACHED).origin == "PATH"


def test_a_server_that_is_not_to_be_had_is_one_line_that_says_what_to_install(
    empty_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_program(tmp_path / "path", "memcached", "echo memcached of PATH")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))  # no apt-get there either
    monkeypatch.setenv("CI", "true")
    with pytest.raises(ConfigurationError) as caught:
        find(MEMCACHED)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "memcached was not found",
        f"not in {empty_folder}",
        "PATH is not trusted with CI=true",
        "no apt-get here",
        "not in Homebrew",
        "apt-get install memcached",
        "brew install memcached",
        "OCTOPUS_TEST_MEMCACHED_URL",
    ):
        assert part in message


def test_a_folder_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOPUS_SERVERS_DIR", "/proc/servers")
    with (
        pytest.raises(ConfigurationError, match=r"/proc/servers cannot be written .*OCTOPUS_SERVERS_DIR"),
        locked_folder(),
    ):
        pytest.fail("it was written")


async def test_one_process_at_a_time_writes_to_the_folder(empty_folder: Path) -> None:
    script = "from octopus_async.testing.servers.find import locked_folder\nwith locked_folder(): print('in')"
    with locked_folder() as folder:
        assert folder == empty_folder
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
        )
        assert other.stdout is not None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(other.stdout.readline(), 1.5)
    assert await other.stdout.readline() == b"in\n"
    assert await other.wait() == 0


async def test_a_program_in_a_folder_that_only_root_may_enter_is_run_from_one_that_nobody_may(
    memcached_program: Installation, empty_folder: Path
) -> None:
    tree = tree_of(MEMCACHED)
    if memcached_program.tree is not None:
        shutil.copytree(memcached_program.tree, tree, symlinks=True)
    else:
        (tree / "usr/bin").mkdir(parents=True)
        shutil.copy2(memcached_program.program, tree / "usr/bin")
    empty_folder.chmod(0o700)  # noqa: ASYNC240 - it takes microseconds
    async with MemcachedServer() as server:
        assert server.origin == "downloaded"
        expected = server.folder if AS_ROOT else tree
        assert program_of(server.pid).is_relative_to(expected)


@pytest.mark.timeout(300)  # some 50 MB are downloaded
async def test_without_root_and_without_path_servers_are_downloaded_and_run() -> None:
    # Modules are loaded before rights are given up: an ordinary user may not read root's Python.
    script = f"""
        import asyncio, concurrent.futures.thread, os
        from octopus_async.testing.servers import MariaDBServer, MemcachedServer

        async def main():
            async with MariaDBServer() as primary, MemcachedServer() as cache:
                assert os.stat(f"/proc/{{primary.pid}}").st_uid == os.getuid() != 0
                print(primary.origin, cache.origin)

        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid({NOBODY})
            os.setuid({NOBODY})
        asyncio.run(main())
    """
    with tempfile.TemporaryDirectory() as folder:
        if AS_ROOT:
            os.chown(folder, NOBODY, NOBODY)
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            textwrap.dedent(script),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "CI": "true", "OCTOPUS_SERVERS_DIR": folder},
        )
        output, _ = await child.communicate()
    assert output.decode().split() == ["downloaded", "downloaded"]
