"""A memcached that hangs among others, one that comes back with what it held, and encryption."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from octopus_async import Dao, DaoManager, Model
from octopus_async.adapters import _memcache_pool
from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.config import adapter_for
from octopus_async.errors import BackendRefused, ConfigurationError, Unavailable
from octopus_async.record import APPLIED, Key, Miss, Mode, Record, Status
from octopus_async.testing.operations import Author, fields_of
from octopus_async.testing.servers import MemcachedServer
from tests.adversity.certificate import write_certificate
from tests.adversity.memcache import LOOPBACK, TLSServer, find, opened


class Book(Model):
    title: str


@pytest.fixture
async def pair() -> AsyncGenerator[list[MemcachedServer]]:
    async with MemcachedServer() as first, MemcachedServer() as second:
        yield [first, second]


def url_of(servers: list[MemcachedServer], timeout: float = 0.1) -> str:
    hosts = ",".join(f"{LOOPBACK}:{server.port}" for server in servers)
    return f"memcache://{hosts}?timeout={timeout}"


def on_the_first(adapter: MemcacheAdapter, keys: list[Key]) -> list[bool]:
    return [adapter._locate(key) is adapter._shards[0] for key in keys]


class TestAServerThatHangs:
    """Rule: among others it is down after a moment, and left alone for a while."""

    async def test_the_others_answer_and_its_keys_are_misses(
        self, pair: list[MemcachedServer], author: Author
    ) -> None:
        adapter = MemcacheAdapter([(LOOPBACK, server.port) for server in pair], timeout=0.1)
        async for _ in opened(adapter):
            created = [author.create(author.key(), fields_of(count=number)) for number in range(40)]
            assert await adapter.apply(created, Mode.MIRROR) == [APPLIED] * 40
            keys = [operation.key for operation in created]
            hangs = on_the_first(adapter, keys)
            await pair[0].pause()
            answers = await adapter.read(keys)
            assert [answer is None for answer in answers] == hangs
            updates = [author.update(key, fields_of(title="missed")) for key in keys]
            outcomes = await adapter.apply(updates, Mode.MIRROR)
            assert [outcome.status is Status.APPLIED for outcome in outcomes] == [not it for it in hangs]
            assert {
                outcome.error.alive for outcome in outcomes if isinstance(outcome.error, Unavailable)
            } == {True}
            await pair[0].resume()

    async def test_it_is_asked_once_in_a_while_and_taken_back(
        self, pair: list[MemcachedServer], author: Author, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        adapter = MemcacheAdapter([(LOOPBACK, server.port) for server in pair], timeout=0.1)
        async for _ in opened(adapter):
            keys = [author.key() for _ in range(20)]
            key = keys[on_the_first(adapter, keys).index(True)]
            loop = asyncio.get_running_loop()
            await pair[0].pause()
            monkeypatch.setattr(_memcache_pool, "REST", 3600.0)
            assert await adapter.read([key]) == [None]
            began = loop.time()
            for _ in range(50):
                assert await adapter.read([key]) == [None]
            assert loop.time() - began < 50 * 0.1, "it was asked each time"
            await pair[0].resume()
            assert await adapter.read([key]) == [None]
            adapter._shards[0]._server._rests_until = loop.time()
            assert isinstance(await find(adapter, key), Miss)
            assert not adapter._shards[0].failing

    async def test_a_single_server_is_timed_by_its_guard_alone(self) -> None:
        adapter = MemcacheAdapter([(LOOPBACK, 1)], timeout=0.1)
        assert adapter._connecting.timeout is None


class TestAServerThatComesBack:
    """Rule: what it missed it is told before it is read again, so nobody is served what it held."""

    @pytest.mark.parametrize("away", ["hanging", "killed"])
    async def test_no_old_value_is_served_while_or_after_it_was_away(
        self, pair: list[MemcachedServer], tmp_path: Path, away: str
    ) -> None:
        sqlite = f"sqlite:///{tmp_path}/books.db"
        async with DaoManager(
            [sqlite, url_of(pair)], journal=tmp_path / "journal", create_tables=True
        ) as octopus:
            dao = octopus.dao(Book)
            books = [Book(title="old") for _ in range(30)]
            for book in books:
                await dao.create(book)
            await (pair[0].pause() if away == "hanging" else pair[0].kill())
            for book in books:
                book.title = "new"
                await dao.update(book)
            assert await titles(octopus, books) == ["new"] * 30
            await (pair[0].resume() if away == "hanging" else pair[0].start())
            assert await titles(octopus, books) == ["new"] * 30
            async with asyncio.timeout(20):
                while octopus.statistics().behind["memcache"]:  # noqa: ASYNC110 - it is what operators look at
                    await asyncio.sleep(0.02)
            stored = await held(url_of(pair, timeout=10), octopus.dao(Book), books)
            assert {str(record.fields["title"]) for record in stored if record.fields} == {"new"}
            assert await titles(octopus, books) == ["new"] * 30


async def held(url: str, dao: Dao[Book], books: list[Book]) -> list[Record]:
    """What the servers hold of these books."""
    adapter = adapter_for(url)
    assert isinstance(adapter, MemcacheAdapter)
    await adapter.open()
    await adapter.prepare(dao._mapper.schema, create=False)
    stored = await adapter.peek([Key("Book", str(book.id)) for book in books])
    await adapter.close()
    return [record for record in stored if record is not None]


async def titles(octopus: DaoManager, books: list[Book]) -> list[str]:
    dao = octopus.dao(Book)
    return [(await dao.get_one(book.id)).title for book in books]


class TestEncryption:
    """Rule: a certificate is checked, name and all, and nothing goes on in clear."""

    @pytest.fixture
    async def secure(self) -> AsyncGenerator[TLSServer]:
        async with TLSServer() as server:
            yield server

    @pytest.mark.parametrize("how", ["verify", "insecure"])
    async def test_a_cluster_is_used_encrypted(self, secure: TLSServer, author: Author, how: str) -> None:
        """In batches of every size: memcached was seen to wait for what its TLS layer had read already."""
        async with TLSServer(like=secure) as second:
            hosts = ",".join(f"{host}:{port}" for host, port in (secure.secure, second.secure))
            authority = f"&tls_ca={secure.certificate}" if how == "verify" else ""
            adapter = adapter_for(f"memcache://{hosts}?timeout=10&tls={how}{authority}")
            await adapter.open()
            sizes = [10, 400, 5_000, 16_384, 20_000, 300_000, *range(100, 3_000, 100)] * 3
            created = [author.create(author.key(), fields_of(title="x" * size)) for size in sizes]
            assert await adapter.apply(created, Mode.MIRROR) == [APPLIED] * len(sizes)
            answers = await adapter.read([operation.key for operation in created])
            assert [answer.fields for answer in answers if isinstance(answer, Record)] == [
                operation.fields for operation in created
            ]
            await adapter.close()

    @pytest.mark.parametrize(
        ("options", "host", "said"),
        [
            ("tls=verify", LOOPBACK, "certificate verify failed"),
            ("tls=verify&tls_ca={other}", LOOPBACK, "certificate verify failed"),
            ("tls=verify&tls_ca={own}", "localhost", "certificate is not valid for 'localhost'"),
            ("tls=off", LOOPBACK, "closed|reset"),
        ],
        ids=["no authority", "another authority", "another name", "in clear"],
    )
    async def test_what_is_not_trusted_is_refused(
        self, secure: TLSServer, tmp_path: Path, options: str, host: str, said: str
    ) -> None:
        write_certificate(tmp_path)
        options = options.format(other=tmp_path / "certificate.pem", own=secure.certificate)
        adapter = adapter_for(f"memcache://{host}:{secure.secure[1]}?{options}")
        with pytest.raises(Unavailable, match=said) as caught:
            await adapter.open()
        assert isinstance(caught.value, BackendRefused) is ("certificate" in said)
        await adapter.close()

    async def test_a_server_that_speaks_plainly_is_refused(self, secure: TLSServer) -> None:
        adapter = adapter_for(f"memcache://{LOOPBACK}:{secure.port}?tls=insecure")
        with pytest.raises(BackendRefused):
            await adapter.open()
        await adapter.close()

    async def test_a_file_that_is_missing_is_named(self) -> None:
        with pytest.raises(ConfigurationError, match="the files for TLS can't be read"):
            adapter_for("memcache://cache?tls=verify&tls_ca=/missing.pem")
