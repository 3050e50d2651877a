"""No exception of redis-py passes the adapter, and a server that refuses makes nobody's record guilty."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import redis
from redis import exceptions

from octopus_async.adapters import _redis_node
from octopus_async.adapters._redis_errors import Answered, is_answer
from octopus_async.adapters.redis import RedisAdapter
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    ConfigurationError,
    Unavailable,
)
from octopus_async.record import APPLIED, Miss, Mode, Operation
from octopus_async.testing.operations import Author, fields_of
from octopus_async.testing.servers import RedisServer, Server
from octopus_async.url import BackendURL
from tests.adversity.memcache import ScriptedServer
from tests.adversity.redis import LOOPBACK, TLSRedis, find, opened


def _classes() -> list[type[Exception]]:
    """Every class of exception that redis-py has, wherever it keeps it."""
    modules = [redis, exceptions]
    for module in pkgutil.walk_packages(redis.__path__, "redis."):
        if not module.name.startswith(("redis.commands", "redis.observability")):
            try:
                modules.append(importlib.import_module(module.name))
            except ImportError:
                continue  # of an extra that nobody has asked for
    found = {
        thing
        for module in modules
        for thing in vars(module).values()
        if inspect.isclass(thing) and issubclass(thing, Exception) and thing.__module__.startswith("redis")
    }
    return sorted(found, key=lambda thing: thing.__name__)


def driver_errors() -> list[type[Exception]]:
    return [*_classes(), ConnectionResetError, TimeoutError, EOFError, ValueError, UnicodeDecodeError]


ANSWERS = [
    "ERR unknown command",
    "ERR max number of clients reached",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair",
    "NOPERM this user has no permissions",
    "MISCONF Redis is configured to save RDB snapshots",
    "NOREPLICAS Not enough good replicas to write.",
    "BUSY Redis is busy running a script.",
    "CLUSTERDOWN Hash slot not served",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "UNKNOWNCODE whatever comes next",
]


def made(error: type[Exception]) -> Exception:
    if issubclass(error, exceptions.AskError):
        return error("1 127.0.0.1:1")
    if error is UnicodeDecodeError:
        return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "hush-hush")
    wanted = [
        parameter
        for parameter in list(inspect.signature(error.__init__).parameters.values())[2:]
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    return error("hush-hush" if error is ValueError else "message", *[None for _ in wanted])


def _raising(error: type[Exception]) -> Callable[..., Awaitable[None]]:
    async def fail(*_: object, **__: object) -> None:
        raise made(error)

    return fail


class TestMapping:
    def test_the_list_of_classes_is_a_real_one(self) -> None:
        names = {error.__name__ for error in driver_errors()}
        assert {"RedisError", "ReadOnlyError", "ClusterDownError", "MaxConnectionsError"} <= names
        assert len(names) > 35

    async def test_every_error_in_a_conversation_is_unavailability(
        self, redis_server: Server, author: Author, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for error in driver_errors():
            async with opened(redis_server.url) as adapter:
                with monkeypatch.context() as patch:
                    patch.setattr(_redis_node._Connection, "read_response", _raising(error))
                    with pytest.raises(BackendFailed) as caught:
                        await adapter.apply([author.create(author.key(), {})], Mode.MIRROR)
                    with pytest.raises(Unavailable):
                        await adapter.read([author.key()])
                assert caught.value.sent is not is_answer(made(error))
                assert "hush" not in str(caught.value)

    async def test_every_error_while_connecting_means_that_nothing_was_sent(
        self, author: Author, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for error in driver_errors():
            monkeypatch.setattr(_redis_node._Connection, "connect", _raising(error))
            adapter = RedisAdapter([("cache.example", 1)])
            with pytest.raises(Unavailable, match=r"cache\.example:1"):
                await adapter.open()
            with pytest.raises(Unavailable) as caught:
                await adapter.apply([author.create(author.key(), {})], Mode.MIRROR)
            assert not caught.value.sent
            assert "hush" not in str(caught.value)

    @pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.split(maxsplit=1)[0] + answer[-9:])
    async def test_what_a_server_refuses_was_not_done(
        self, scripted: ScriptedServer, author: Author, answer: str
    ) -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readuntil(b"\r\n"):
                if line == b"PING\r\n":
                    writer.write(b"+PONG\r\n")
                elif line == b"EVALSHA\r\n":
                    writer.write(f"-{answer}\r\n".encode())

        adapter = RedisAdapter([(LOOPBACK, await scripted(refuse))])
        await adapter.open()
        with pytest.raises(Answered, match=answer.split(maxsplit=1)[0]) as caught:
            await adapter.apply([author.create(author.key(), {}), author.delete(author.key())], Mode.MIRROR)
        assert not caught.value.sent
        await adapter.close()

    @pytest.mark.parametrize(
        "reply",
        [b"!3\r\nabc\r\n", b"$x\r\n", b":x\r\n", b"+" + b"x" * 100_000 + b"\r\n", b"", b"*1\r\n$3\r\n"],
    )
    async def test_what_is_no_reply_at_all_is_unavailability(
        self, scripted: ScriptedServer, author: Author, reply: bytes
    ) -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"PING\r\n")
            writer.write(b"+PONG\r\n")
            await reader.readuntil(b"PING\r\n")
            writer.write(b"+PONG\r\n")
            await reader.readline()
            writer.write(reply)
            writer.write_eof()

        adapter = RedisAdapter([(LOOPBACK, await scripted(babble))])
        await adapter.open()
        with pytest.raises(BackendFailed) as caught:
            await adapter.apply([author.create(author.key(), {})], Mode.MIRROR)
        assert caught.value.sent
        await adapter.close()


class TestServersThatRefuse:
    @pytest.mark.parametrize("password", ["", "hush-hush"])
    async def test_a_wrong_password_is_unavailability_and_is_not_shown(
        self, private_redis: RedisServer, password: str
    ) -> None:
        adapter = RedisAdapter([(LOOPBACK, private_redis.port)], password=password)
        with pytest.raises(BackendFailed, match=r"NOAUTH|WRONGPASS") as caught:
            await adapter.open()
        assert not caught.value.sent
        assert "hush" not in f"{caught.value} {caught.value!r} {adapter!r} {adapter._login!r}"
        await adapter.close()

    async def test_a_full_server_is_unavailable_for_writes_and_still_read(self, author: Author) -> None:
        async with RedisServer(memory_mb=8, evicts=False) as server, opened(server.url) as adapter:
            first = author.create(author.key(), fields_of(title="x" * 400_000))
            assert await adapter.apply([first], Mode.MIRROR) == [APPLIED]
            with pytest.raises(BackendFailed, match="OOM") as caught:  # noqa: PT012 - one of many
                for _ in range(60):
                    batch = [author.create(author.key(), fields_of(title="x" * 400_000)) for _ in range(2)]
                    await adapter.apply(batch, Mode.MIRROR)
            assert not caught.value.sent
            assert await find(adapter, first.key) == first.fields
            assert await find(adapter, author.key()) == Miss(None)  # no room for a lease

    async def test_a_replica_can_be_read_and_not_written(
        self, private_redis: RedisServer, author: Author
    ) -> None:
        async with RedisServer() as replica, opened(private_redis.url) as primary:
            created = author.create(author.key(), fields_of(title="replicated"))
            await primary.apply([created], Mode.MIRROR)
            await replica.command("CONFIG", "SET", "masterauth", private_redis.password)
            await replica.command("REPLICAOF", LOOPBACK, private_redis.port)
            async with opened(replica.url) as adapter, asyncio.timeout(20):
                while isinstance(await _tried(adapter, created), Miss | Unavailable):  # noqa: ASYNC110 - it announces nothing
                    await asyncio.sleep(0.05)
                assert await find(adapter, created.key) == created.fields
                assert await find(adapter, author.key()) == Miss(None)
                with pytest.raises(BackendFailed, match="READONLY") as caught:
                    await adapter.apply([author.delete(created.key)], Mode.MIRROR)
                assert not caught.value.sent
                with pytest.raises(BackendFailed, match="READONLY"):
                    await adapter.probe()
                await adapter.ping()

    async def test_a_server_that_loads_its_data_has_done_nothing(
        self, private_redis: RedisServer, author: Author
    ) -> None:
        async with opened(private_redis.url) as adapter:
            await adapter.apply([author.create(author.key(), fields_of()) for _ in range(400)], Mode.MIRROR)
            await private_redis.command("SAVE")
            await private_redis.kill()
        slow = ["--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024"]
        private_redis._options = tuple(slow)
        starting = asyncio.ensure_future(private_redis.start())
        fresh = RedisAdapter([(LOOPBACK, private_redis.port)], password=private_redis.password)
        async with asyncio.timeout(20):
            while True:
                try:
                    await fresh.open()
                except BackendRefused as error:
                    if "LOADING" in str(error):
                        break
                await asyncio.sleep(0.01)
            await starting
            while not await _is_up(fresh):  # noqa: ASYNC110 - it announces nothing
                await asyncio.sleep(0.01)
        await fresh.close()

    async def test_a_server_with_too_many_clients_has_done_nothing(self, author: Author) -> None:
        async with RedisServer(options=["--maxclients", "2"]) as server, opened(server.url) as adapter:
            calls = [adapter.apply([author.create(author.key(), {})], Mode.MIRROR) for _ in range(8)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            refusals = [result for result in results if isinstance(result, BaseException)]
            assert 0 < len(refusals) < 8
            for refusal in refusals:
                assert isinstance(refusal, Unavailable)
                assert not refusal.sent
                assert "max number of clients" in str(refusal)

    async def test_a_server_that_takes_no_connection_is_given_up_in_time(
        self, private_redis: RedisServer
    ) -> None:
        await private_redis.pause()
        adapter = RedisAdapter(
            [(LOOPBACK, private_redis.port)], password=private_redis.password, connect_timeout=0.1
        )
        async with asyncio.timeout(5):
            with pytest.raises(BackendTimeout) as caught:
                await adapter.open()
        assert not caught.value.sent
        await adapter.close()
        await private_redis.resume()


class TestTLS:
    async def test_a_certificate_is_checked(self, author: Author) -> None:
        async with TLSRedis() as server:
            url = BackendURL.parse(server.url)
            trusting = RedisAdapter.from_url(
                replace(url, options={"tls_ca": str(server.folder / "certificate.pem")})
            )
            created = author.create(author.key(), fields_of(title="secret"))
            async with asyncio.timeout(20):
                while True:
                    try:
                        await trusting.open()
                        break
                    except BackendRefused:
                        await asyncio.sleep(0.02)
            assert await trusting.apply([created], Mode.MIRROR) == [APPLIED]
            assert await find(trusting, created.key) == created.fields
            await trusting.close()
            for scheme in ("rediss", "redis"):
                doubting = RedisAdapter.from_url(replace(url, scheme=scheme))
                with pytest.raises(Unavailable) as caught:
                    await doubting.open()
                assert not caught.value.sent
                await doubting.close()

    def test_a_url_that_contradicts_itself_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="tls=off"):
            RedisAdapter.from_url(BackendURL.parse("rediss://cache?tls=off"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://a:1,b:2",
        "redis://a/x",
        "redis://a/99999",
        "redis://a/1?cluster=true",
        "redis://a?ttl=0.001",
        "redis://a?connections=0",
        "redis://a?item_limit=100",
        "redis://a?prefix=with%20blank",
        "redis://a?db=1",
        "redis://a?tls=yes",
    ],
)
def test_what_cannot_work_is_refused_beforehand(url: str) -> None:
    with pytest.raises(ConfigurationError):
        RedisAdapter.from_url(BackendURL.parse(url))


def test_a_url_says_it_all() -> None:
    adapter = RedisAdapter.from_url(
        BackendURL.parse("valkey://app:hush@cache:7000/3?ttl=60&connections=6&item_limit=64KB&prefix=shop:"),
        name="sessions",
    )
    assert adapter.name == "sessions"
    assert adapter.capabilities.ttl == 60
    assert adapter.capabilities.read_concurrency == 3
    assert (adapter._login.user, adapter._login.database, adapter._login.value_limit) == ("app", 3, 64 * 1024)


async def _is_up(adapter: RedisAdapter) -> bool:
    try:
        await adapter.ping()
    except BackendRefused:
        return False
    return True


async def _tried(adapter: RedisAdapter, operation: Operation) -> object:
    try:
        return await find(adapter, operation.key)
    except Unavailable as error:
        return error
