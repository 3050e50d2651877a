"""No exception of the driver passes the adapter, and no option that cannot work is taken."""

from __future__ import annotations

import asyncio
import builtins
import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiomcache.exceptions
import pytest

from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.errors import BackendFailed, ConfigurationError, Unavailable
from octopus_async.record import Miss, Mode
from octopus_async.testing.contract.subject import eventually
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


def errors_of(base: type[Exception], *modules: object) -> list[type[Exception]]:
    """A class and all that derive from it, in these modules."""
    names = {module.__name__ for module in modules if hasattr(module, "__name__")} | {"_socket", "_ssl"}
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
