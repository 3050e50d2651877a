"""The proxy that misbehaves, between a plain client and a real memcached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import aiomysql
import pytest

from octopus_async.errors import ConfigurationError
from octopus_async.testing.proxy import FaultyProxy, Mode
from octopus_async.testing.servers import MariaDBServer, MemcachedServer, Server
from octopus_async.testing.servers.ports import LOOPBACK
from octopus_async.url import BackendURL

PATIENCE = 5.0  # seconds until a hang is a failure
A_WHILE = 0.2  # seconds in which loopback would have answered long ago


class Client:
    """A connection that speaks just enough of memcached's protocol."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(LOOPBACK, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def ask(self, command: bytes = b"version\r\n") -> bytes:
        self.writer.write(command)
        return await self.answer()

    async def answer(self) -> bytes:
        return await asyncio.wait_for(self.reader.readline(), PATIENCE)

    async def hears_nothing(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.read(1), A_WHILE)
        except TimeoutError:
            return True
        return False


@pytest.fixture
async def front(memcached_server: Server) -> AsyncGenerator[FaultyProxy]:
    async with FaultyProxy(memcached_server.url) as proxy:
        yield proxy


@pytest.fixture
async def client(front: FaultyProxy) -> AsyncGenerator[Client]:
    async with Client(front.port) as connected:
        assert (await connected.ask()).startswith(b"VERSION")
        yield connected


def count_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def works(port: int) -> bool:
    async with Client(port) as client:
        return (await client.ask()).startswith(b"VERSION")


# --- passing on ----------------------------------------------------------------------------------


async def test_a_new_proxy_passes_everything_on(front: FaultyProxy) -> None:
    async with Client(front.port) as client:
        value = bytes(range(256)) * 2000
        answer = await client.ask(b"set proxied 0 0 %d\r\n%b\r\n" % (len(value), value))
        assert answer == b"STORED\r\n"
        assert (await client.ask(b"get proxied\r\n")).startswith(b"VALUE proxied")
        assert await client.reader.readexactly(len(value)) == value


async def test_it_counts_connections_and_the_bytes_of_each_direction(front: FaultyProxy) -> None:
    async with Client(front.port) as client:
        await client.ask(b"get no-such-key\r\n")
        assert (front.connections, front.open_connections) == (1, 1)
        assert (front.bytes_to_server, front.bytes_to_client) == (
            len(b"get no-such-key\r\n"),
            len(b"END\r\n"),
        )
    await works(front.port)
    assert front.connections == 2


async def test_a_client_that_leaves_is_counted_no_longer(front: FaultyProxy, client: Client) -> None:
    client.writer.close()
    async with asyncio.timeout(PATIENCE):
        while front.open_connections:  # noqa: ASYNC110 - the proxy sets no event
            await asyncio.sleep(0.01)


async def test_a_client_that_ends_its_stream_still_gets_its_answer(client: Client) -> None:
    client.writer.write(b"version\r\n")
    client.writer.write_eof()
    assert (await client.answer()).startswith(b"VERSION")
    assert await client.answer() == b""


async def test_its_url_leads_to_the_server_with_user_and_database(mariadb_server: Server) -> None:
    async with FaultyProxy(mariadb_server.url) as proxy:
        there, here = BackendURL.parse(mariadb_server.url), BackendURL.parse(proxy.url)
        assert here.hosts == ((LOOPBACK, proxy.port),)
        assert (here.scheme, here.user, here.password, here.path) == (
            there.scheme,
            there.user,
            there.password,
            there.path,
        )
        connection = await aiomysql.connect(
            host=LOOPBACK, port=proxy.port, user=here.user, password=here.password, db=here.path
        )
        async with connection.cursor() as cursor:
            await cursor.execute("SELECT 1")
            assert await cursor.fetchall() == ((1,),)
        await connection.ensure_closed()


def test_options_of_a_url_are_kept() -> None:
    async def url() -> str:
        async with FaultyProxy("memcache://u:p@cache:11211?ttl=5") as proxy:
            return proxy.url.replace(str(proxy.port), "PORT")

    assert asyncio.run(url()) == f"memcache://u:p@{LOOPBACK}:PORT?ttl=5"


@pytest.mark.parametrize("url", ["memcache://cache", "memcache://a:1,b:2", "sqlite:///shop.db"])
async def test_a_url_that_is_not_of_one_host_and_port_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="one host, with its port"):
        FaultyProxy(url)


async def test_a_proxy_that_is_not_open_has_no_port(memcached_server: Server) -> None:
    with pytest.raises(ConfigurationError, match="not open"):
        _ = FaultyProxy(memcached_server.url).port


# --- faults --------------------------------------------------------------------------------------


async def test_delay_holds_back_each_direction(front: FaultyProxy, client: Client) -> None:
    await front.delay(0.15)
    begun = time.monotonic()
    assert (await client.ask()).startswith(b"VERSION")
    assert time.monotonic() - begun >= 0.3


async def test_healing_lets_go_what_is_held_back(front: FaultyProxy, client: Client) -> None:
    await front.delay(3600)
    client.writer.write(b"version\r\n")
    assert await client.hears_nothing()
    await front.heal()
    assert (await client.answer()).startswith(b"VERSION")


async def test_slow_passes_on_so_many_bytes_a_second(front: FaultyProxy, client: Client) -> None:
    await client.ask(b"set slow 0 0 2000\r\n" + b"x" * 2000 + b"\r\n")
    await front.slow(10_000)
    begun = time.monotonic()
    await client.ask(b"get slow\r\n")
    assert await client.reader.readexactly(2000) == b"x" * 2000
    assert time.monotonic() - begun >= 0.2


async def test_cut_ends_open_connections_and_new_ones(front: FaultyProxy, client: Client) -> None:
    await front.cut()
    assert await client.answer() == b""
    assert front.open_connections == 0
    async with Client(front.port) as newcomer:
        assert await newcomer.answer() == b""


async def test_reset_breaks_open_connections_and_new_ones(front: FaultyProxy, client: Client) -> None:
    await front.reset()
    with pytest.raises(ConnectionResetError):
        await client.answer()
    assert front.open_connections == 0
    with pytest.raises(ConnectionResetError):
        async with Client(front.port) as newcomer:
            await newcomer.answer()


async def test_swallow_takes_everything_and_answers_nothing(front: FaultyProxy, client: Client) -> None:
    await front.swallow()
    async with Client(front.port) as newcomer:
        for connected in (client, newcomer):
            connected.writer.write(b"version\r\n" * 100_000)
            await asyncio.wait_for(connected.writer.drain(), PATIENCE)
            assert await connected.hears_nothing()


async def test_swallow_hides_that_the_server_went(private_memcached: MemcachedServer) -> None:
    async with FaultyProxy(private_memcached.url) as front, Client(front.port) as client:
        await client.ask()
        await front.swallow()
        await private_memcached.kill()
        assert await client.hears_nothing()


async def test_a_connection_that_lost_bytes_does_not_survive_healing(
    front: FaultyProxy, client: Client
) -> None:
    await front.swallow()
    async with Client(front.port) as silent:
        client.writer.write(b"version\r\n")
        assert await client.hears_nothing()
        await front.heal()
        with pytest.raises(ConnectionResetError):
            await client.answer()
        assert (await silent.ask()).startswith(b"VERSION")  # it had lost nothing


async def test_half_close_ends_the_stream_to_the_client_and_still_hears_it(
    front: FaultyProxy, client: Client
) -> None:
    await front.half_close()
    async with Client(front.port) as newcomer:
        for connected, key in ((client, b"half-1"), (newcomer, b"half-2")):
            assert await connected.answer() == b""
            connected.writer.write(b"set %b 0 0 1\r\nx\r\n" % key)
        await front.heal()
        async with asyncio.timeout(PATIENCE), Client(front.port) as other:
            for key in (b"half-1", b"half-2"):
                while await other.ask(b"touch %b 0\r\n" % key) != b"TOUCHED\r\n":  # noqa: ASYNC110 - it is elsewhere
                    await asyncio.sleep(0.01)


async def test_refuse_refuses_new_connections_and_leaves_open_ones(
    front: FaultyProxy, client: Client
) -> None:
    await front.refuse()
    with pytest.raises(ConnectionRefusedError):
        async with Client(front.port):
            pytest.fail("it was taken")
    assert (await client.ask()).startswith(b"VERSION")


async def test_cut_and_refuse_together_look_like_a_dead_server(front: FaultyProxy, client: Client) -> None:
    await front.cut()
    await front.refuse()
    assert await client.answer() == b""
    with pytest.raises(ConnectionRefusedError):
        async with Client(front.port):
            pytest.fail("it was taken")


@pytest.mark.parametrize("mode", ["cut", "reset", "swallow", "half_close", "refuse"])
async def test_after_healing_new_connections_work_on_the_same_port(front: FaultyProxy, mode: str) -> None:
    port = front.port
    assert await works(port)
    await getattr(front, mode)()
    assert front.mode is Mode[mode.upper()]
    await front.heal()
    assert front.mode is Mode.PASS
    assert front.port == port
    assert await works(port)


# --- ends ----------------------------------------------------------------------------------------


async def test_a_server_that_is_down_resets_the_client(private_memcached: MemcachedServer) -> None:
    async with FaultyProxy(private_memcached.url) as front:
        await private_memcached.kill()
        with pytest.raises(ConnectionResetError):
            await works(front.port)
        await private_memcached.start()
        assert await works(front.port)


async def test_a_killed_server_ends_the_clients_connection(private_memcached: MemcachedServer) -> None:
    async with FaultyProxy(private_memcached.url) as front, Client(front.port) as client:
        await client.ask()
        await private_memcached.kill()
        assert await client.answer() == b""


@pytest.mark.parametrize("mode", ["heal", "swallow", "half_close", "refuse", "cut", "reset"])
async def test_closing_leaves_no_task_and_no_connection(memcached_server: Server, mode: str) -> None:
    before = asyncio.all_tasks()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with AsyncExitStack() as clients:
        async with FaultyProxy(memcached_server.url) as front:
            client = await clients.enter_async_context(Client(front.port))
            await client.ask()
            await clients.enter_async_context(Client(front.port))
            await getattr(front, mode)()
            port = front.port
        assert front.open_connections == 0
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LOOPBACK, port)
    assert not complaints


async def test_it_closes_at_once_though_the_server_takes_nothing_any_more(
    private_mariadb: MariaDBServer,
) -> None:
    descriptors = count_descriptors()
    async with FaultyProxy(private_mariadb.url) as front, Client(front.port) as client:
        await client.reader.readexactly(4)
        await private_mariadb.pause()
        client.writer.write(b"x" * 50_000_000)
        await asyncio.sleep(A_WHILE)
        assert count_descriptors() > descriptors
    async with asyncio.timeout(PATIENCE):
        while count_descriptors() > descriptors:  # noqa: ASYNC110 - the system sets no event
            await asyncio.sleep(0.01)
