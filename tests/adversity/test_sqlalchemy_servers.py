"""Servers behind a SQLAlchemy engine that are killed, stand still, or break a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from octopus_async.adapters.sqlalchemy import SQLAlchemyAdapter
from octopus_async.errors import BackendFailed, Unavailable
from octopus_async.record import APPLIED
from octopus_async.testing.contract.subject import eventually
from octopus_async.testing.proxy import FaultyProxy
from octopus_async.testing.servers import MariaDBServer, PostgresServer
from octopus_async.url import BackendURL
from tests.adversity.mysql import get_their_own_answers
from tests.contract.sql import BOOK, Books

Mortal = MariaDBServer | PostgresServer


@pytest.fixture(params=["private_mariadb", "private_postgres"])
def mortal(request: pytest.FixtureRequest) -> Mortal:
    found: Mortal = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def proxy(mortal: Mortal) -> AsyncGenerator[FaultyProxy]:
    async with FaultyProxy(mortal.url) as proxy:
        yield proxy


@pytest.fixture
async def books(mortal: Mortal, proxy: FaultyProxy) -> AsyncGenerator[Books]:
    driver = "mysql+aiomysql" if isinstance(mortal, MariaDBServer) else "postgresql+asyncpg"
    url = replace(BackendURL.parse(proxy.url), scheme=f"sqlalchemy+{driver}", options={"timeout": "1"})
    adapter = SQLAlchemyAdapter.from_url(url, name="shop")
    await adapter.open()
    await adapter.prepare(BOOK, create=True)
    yield Books(adapter, BOOK)
    await adapter.close()


async def is_back(books: Books) -> None:
    """Connections that were lost are noticed by who meets them, at most once each."""
    async with asyncio.timeout(20):
        while True:
            try:
                assert await books.apply(books.new()) == [APPLIED]
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_server_that_was_killed_is_unavailable_and_used_again_after_its_restart(
    books: Books, mortal: Mortal
) -> None:
    kept = books.new()
    assert await books.apply(kept) == [APPLIED]
    await get_their_own_answers(books)
    await mortal.kill()
    for call in (books.find(kept.key), books.apply(books.new()), books.adapter.probe(), books.adapter.ping()):
        with pytest.raises(Unavailable):
            await call
    await mortal.start()
    await is_back(books)
    assert await books.find(kept.key) is not None
    await get_their_own_answers(books)


async def test_calls_to_a_server_that_stands_still_end_with_their_deadline_and_it_is_used_again(
    books: Books, mortal: Mortal
) -> None:
    kept, late = books.new(), books.new()
    assert await books.apply(kept) == [APPLIED]
    await mortal.pause()
    for call in (books.find(kept.key), books.apply(late)):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await call
    await mortal.resume()
    await is_back(books)
    assert await books.find(kept.key) is not None
    found = await books.find(late.key)
    assert found is None or found.version == late.version


async def test_a_write_whose_connection_breaks_is_unknown_and_a_read_is_not(
    books: Books, proxy: FaultyProxy
) -> None:
    created = books.new()
    assert await books.apply(created) == [APPLIED]
    for sent, call in ((True, books.apply(books.update(created.key, {"title": "newer", "pages": 1}))),
                       (False, books.find(created.key))):  # fmt: skip
        await proxy.swallow()
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0.1)
        await proxy.reset()
        with pytest.raises(BackendFailed) as caught:
            await task
        assert caught.value.sent is sent
        await proxy.heal()
        await is_back(books)


async def test_calls_that_nobody_waits_for_end_though_the_server_stands_still(
    books: Books, mortal: Mortal
) -> None:
    assert isinstance(books.adapter, SQLAlchemyAdapter)
    calls = books.adapter._calls
    assert calls is not None
    await get_their_own_answers(books)
    await mortal.pause()
    waiting = [asyncio.ensure_future(books.apply(books.new())) for _ in range(8)]
    await asyncio.sleep(0.05)
    for call in waiting:
        call.cancel()
    await asyncio.wait(waiting)
    await eventually(lambda: not calls._under_way)
    await mortal.resume()
    await is_back(books)
    await get_their_own_answers(books)
