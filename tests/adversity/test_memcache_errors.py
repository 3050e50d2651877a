"""No exception of the driver passes the adapter, and no option that cannot work is taken."""

from __future__ import annotations

import asyncio
import builtins
import socket
import ssl
from collections.abc import Callable
from types import ModuleType
from typing import Any

import aiomcache.exceptions
import pytest

from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.errors import BackendFailed, ConfigurationError, Unavailable
from octopus_async.record import APPLIED, Miss, Mode, Record
from octopus_async.testing.contract.subject import descriptors, eventually
from octopus_async.testing.operations import Author, fields_of
from octopus_async.testing.servers import MemcachedServer
from octopus_async.url import BackendURL
from tests.adversity.memcache import (
    LOOPBACK,
    ScriptedServer,
    find,
    scripted_cache,
    server_of,
)


def errors_of(base: type[Exception], *modules: ModuleType) -> list[type[Exception]]:
    """A class and all that derive from it, in these modules."""
    names = {module.__name__ for module in modules} | {"_socket", "_ssl"}
    found, left = [], [base]
    while left:
        error = left.pop()
        left += error.__subclasses__()
        if error.__module__ in names:
            found.append(error)
    return sorted(found, key=lambda error: error.__name__)


DRIVER_ERRORS = [
    *errors_of(aiomcache.exceptions.ClientException, aiomcache.exceptions),
    *errors_of(OSError, builtins, socket, ssl),
    EOFError,
    asyncio.IncompleteReadError,
]


class TestErrors:
    """No exception of the driver passes the adapter."""

    def test_the_list_of_errors_is_a_real_one(self) -> None:
        names = {error.__name__ for error in DRIVER_ERRORS}
        assert {"ClientException", "ValidationException", "ConnectionResetError", "gaierror"} <= names
        assert len(names) > 15

    @pytest.mark.parametrize("error", DRIVER_ERRORS, ids=lambda error: error.__name__)
    async def test_an_error_in_a_conversation_is_unavailability(
        self, scripted: ScriptedServer, author: Author, error: type[Exception]
    ) -> None:
        async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()

        adapter = scripted_cache(await scripted(silent), connections=2)
        calls = [
            asyncio.ensure_future(adapter.read([author.key()])),
            asyncio.ensure_future(adapter.apply([author.create(author.key(), {})], Mode.MIRROR)),
        ]
        pool = server_of(adapter)._pool
        await eventually(lambda: len(pool._in_use) == 2)
        await asyncio.sleep(0.01)  # until both wait for replies
        for connection in list(pool._in_use):
            connection.reader.set_exception(made(error))
        for call in calls:
            with pytest.raises(BackendFailed) as caught:
                await call
            assert caught.value.sent
        assert pool.size() == 0
        await adapter.close()

    @pytest.mark.parametrize("error", DRIVER_ERRORS, ids=lambda error: error.__name__)
    async def test_an_error_while_connecting_means_that_nothing_was_sent(
        self, monkeypatch: pytest.MonkeyPatch, author: Author, error: type[Exception]
    ) -> None:
        async def fail(*_: object, **__: object) -> None:
            raise made(error)

        monkeypatch.setattr(asyncio, "open_connection", fail)
        adapter = MemcacheAdapter([("cache.example", 1)])
        calls: list[Callable[[], Any]] = [
            adapter.open,
            lambda: adapter.read([author.key()]),
            lambda: adapter.apply([author.create(author.key(), {})], Mode.MIRROR),
        ]
        for call in calls:
            with pytest.raises(Unavailable, match=r"cache\.example:1") as caught:
                await call()
            assert not caught.value.sent

    async def test_a_server_that_takes_no_connection_is_given_up_in_time(self) -> None:
        with socket.socket() as full:
            full.bind((LOOPBACK, 0))
            full.listen(0)
            port = full.getsockname()[1]
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)  # noqa: FBT003 - the socket's own signature
                filler.connect_ex((LOOPBACK, port))
            adapter = MemcacheAdapter([(LOOPBACK, port)], connect_timeout=0.1)
            async with asyncio.timeout(5):
                with pytest.raises(Unavailable) as caught:
                    await adapter.open()
            assert not caught.value.sent
            for filler in fillers:
                filler.close()


class TestLife:
    """What closing, restarting and probing come to when the server is not well."""

    async def test_closing_ends_calls_under_way_although_the_server_has_stopped(
        self, cache: MemcacheAdapter, private_memcached: MemcachedServer, author: Author
    ) -> None:
        before = descriptors()
        await private_memcached.pause()
        large = [author.create(author.key(), fields_of(title="x" * 900_000)) for _ in range(20)]
        calls: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(cache.apply(large, Mode.MIRROR)),
            asyncio.ensure_future(cache.read([author.key()])),
        ]
        await eventually(lambda: len(server_of(cache)._pool._in_use) == 2)
        await asyncio.sleep(0.05)  # until the first has filled every buffer on the way
        async with asyncio.timeout(2):
            await cache.close()
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [BackendFailed] * 2
        await eventually(lambda: descriptors() < before)
        await private_memcached.resume()

    async def test_closing_leaves_no_connection_to_a_call_that_was_connecting(
        self, private_memcached: MemcachedServer, author: Author
    ) -> None:
        before = descriptors()
        for steps in range(8):
            adapter = scripted_cache(private_memcached.port)
            call = asyncio.ensure_future(adapter.read([author.key()]))
            for _ in range(steps):
                await asyncio.sleep(0)
            await adapter.close()
            await asyncio.wait([call])
            assert call.exception() is None or isinstance(call.exception(), Unavailable)
            await eventually(lambda: descriptors() <= before)

    async def test_a_connection_that_died_while_idle_is_replaced_and_nobody_notices(
        self, cache: MemcacheAdapter, private_memcached: MemcachedServer, author: Author
    ) -> None:
        for _ in range(3):
            await asyncio.gather(*[cache.read([author.key()]) for _ in range(8)])
            await private_memcached.restart()
            created = author.create(author.key(), fields_of())
            assert await cache.apply([created], Mode.MIRROR) == [APPLIED]

    @pytest.mark.parametrize(
        "reply", [b"STORED\r\nEND\r\n", b"STORED\r\nVALUE %b 0 1 7\r\nx\r\nEND\r\n", b"NOT_STORED\r\nEND\r\n"]
    )
    async def test_a_probe_whose_value_cannot_be_read_back_fails(
        self, scripted: ScriptedServer, reply: bytes
    ) -> None:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            command = await reader.readline()
            writer.write(reply.replace(b"%b", command.split()[1]))
            await reader.read()

        adapter = scripted_cache(await scripted(converse))
        with pytest.raises(BackendFailed):
            await adapter.probe()
        await adapter.close()

    async def test_a_lease_from_before_a_reopening_fills_nothing(
        self, cache: MemcacheAdapter, author: Author
    ) -> None:
        created = author.create(author.key(), fields_of())
        (miss,) = await cache.read([created.key])
        assert isinstance(miss, Miss)
        await cache.close()
        await cache.open()
        await cache.fill([(Record(created.key, created.version, created.born, created.fields), miss)])
        assert isinstance(await find(cache, created.key), Miss)


def made(error: type[Exception]) -> Exception:
    return asyncio.IncompleteReadError(b"", 1) if error is asyncio.IncompleteReadError else error("boom")


class TestOptions:
    @pytest.mark.parametrize(
        "text",
        [
            "memcache://",
            "memcache://a,a",
            "memcache://a?ttl=0.5",
            "memcache://a?connections=0",
            "memcache://a?prefix=with%20blank",
            "memcache://a?unknown=1",
        ],
    )
    def test_a_url_that_cannot_work_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError):
            MemcacheAdapter.from_url(BackendURL.parse(text))

    def test_a_url_gives_every_option(self) -> None:
        text = "memcache://a,b:2?ttl=60&connections=8&connect_timeout=0.5&item_limit=2MB&prefix=shop:"
        adapter = MemcacheAdapter.from_url(BackendURL.parse(text), name="near")
        assert adapter.name == "near"
        assert adapter.capabilities.ttl == 60
        assert adapter._servers == [("a", 11211), ("b", 2)]
        assert adapter._form.item_limit == 2 * 1024**2
        assert adapter._form.prefix == "shop:"

    async def test_prefixes_keep_applications_apart(
        self, private_memcached: MemcachedServer, author: Author
    ) -> None:
        servers = [(LOOPBACK, private_memcached.port)]
        first, second = (MemcacheAdapter(servers, prefix=prefix) for prefix in ("one:", "two:"))
        created = author.create(author.key(), fields_of())
        for adapter in (first, second):
            await adapter.open()
        await first.apply([created], Mode.MIRROR)
        assert isinstance(await find(second, created.key), Miss)
        for adapter in (first, second):
            await adapter.close()
