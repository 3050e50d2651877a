"""A replay and a live writer on two connections, one paused between its statements, in both orders.

Whatever the order, what was deleted stays deleted, and what was created anew is not undone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.adapters.postgres import PostgresAdapter
from octopus_async.adapters.sqlite import SQLiteAdapter
from octopus_async.errors import DuplicateRecord
from octopus_async.record import APPLIED, Key, Mode, Operation, Outcome, Status
from octopus_async.testing.servers import Server
from tests.contract.sql import (
    Books,
    MySQLDatabase,
    PostgresDatabase,
    SQLiteDatabase,
    book,
    mysql_database,
    opened,
    postgres_database,
)

_A_MOMENT = 0.15  # long enough for a statement that nothing holds up


class Pause:
    """Where a writer stands still, until it may go on: in a thread, or in the event loop."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._go_on = threading.Event()

    def stand_still(self) -> None:
        self._reached.set()
        self._go_on.wait(10)

    def go_on(self) -> None:
        self._go_on.set()

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 10)


class PausedSQLite(SQLiteAdapter):
    """Stands still in its transaction, when it has read and not yet written."""

    pause: Pause

    def _settle(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - passed on
        self.pause.stand_still()
        super()._settle(*arguments, **options)


class PausedMySQL(MySQLAdapter):
    """Stands still in its transaction, when it has taken its locks and not yet written."""

    pause: Pause

    async def _write(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - passed on
        await asyncio.to_thread(self.pause.stand_still)
        await super()._write(*arguments, **options)


class PausedPostgres(PostgresAdapter):
    """The same."""

    pause: Pause

    def _single(self, operation: Operation, mode: Mode) -> None:
        """None goes in one exchange, which could not be paused."""

    async def _write(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - passed on
        await asyncio.to_thread(self.pause.stand_still)
        await super()._write(*arguments, **options)


class Two:
    """Two writers on one database, the first of whom stands still between its statements."""

    def __init__(self, paused: Books, other: Books, pause: Pause) -> None:
        self.paused = paused
        self.other = other
        self._pause = pause

    async def meet(
        self, first: Coroutine[Any, Any, list[Outcome]], second: Coroutine[Any, Any, list[Outcome]]
    ) -> tuple[list[Outcome], list[Outcome]]:
        """The first stands still, the second has to wait for it, and both end."""
        began = asyncio.ensure_future(first)
        await self._pause.reached()
        waiting = asyncio.ensure_future(second)
        done, _ = await asyncio.wait([waiting], timeout=_A_MOMENT)
        assert not done
        self._pause.go_on()
        async with asyncio.timeout(10):
            return await began, await waiting


@asynccontextmanager
async def writers(database: SQLiteDatabase | MySQLDatabase | PostgresDatabase) -> AsyncGenerator[Two]:
    pause = Pause()
    adapter: PausedSQLite | PausedMySQL | PausedPostgres
    if isinstance(database, SQLiteDatabase):
        adapter = PausedSQLite(database.path, synchronous="NORMAL", busy_timeout=5.0)
    elif isinstance(database, MySQLDatabase):
        adapter = PausedMySQL.from_url(database.url)
    else:
        adapter = PausedPostgres.from_url(database.url)
    adapter.pause = pause
    async with opened(database) as other, opened(database, adapter) as paused:
        try:
            yield Two(paused, other, pause)
        finally:
            pause.go_on()


def replayed(author: Books, kind: str, key: Key | None = None) -> Operation:
    """A create, or an update of what was created before the outage, that the journal has kept."""
    created = author.new(key, "before")
    return created if kind == "create" else author.update(created.key, book("offline"), born=created.born)


KINDS = pytest.mark.parametrize("kind", ["create", "update"])


class Races:
    """The races; whose, their fixture says."""

    @KINDS
    async def test_a_delete_that_waited_for_a_replay_deletes_what_it_has_brought(
        self, two: Two, kind: str
    ) -> None:
        operation = replayed(two.paused, kind)
        delete = two.paused.delete(operation.key, born=operation.born)
        replay, deleted = await two.meet(
            two.paused.apply(operation, mode=Mode.REPLAY), two.other.apply(delete)
        )
        assert replay == deleted == [APPLIED]
        assert await two.other.find(operation.key) is None

    @KINDS
    async def test_a_replay_that_waited_for_a_delete_brings_nothing_back(self, two: Two, kind: str) -> None:
        operation = replayed(two.paused, kind)
        delete = two.paused.delete(operation.key, born=operation.born)
        deleted, replay = await two.meet(
            two.paused.apply(delete), two.other.apply(operation, mode=Mode.REPLAY)
        )
        assert deleted == [APPLIED]
        assert replay == [Outcome(Status.SUPERSEDED, stored=delete.version)]
        assert await two.other.find(operation.key) is None

    @KINDS
    async def test_a_record_created_anew_while_its_predecessor_is_replayed_is_not_mixed_with_it(
        self, two: Two, kind: str
    ) -> None:
        operation = replayed(two.paused, kind)
        anew = two.paused.new(operation.key, "anew")
        replay, (live,) = await two.meet(two.paused.apply(operation, mode=Mode.REPLAY), two.other.apply(anew))
        assert replay == [APPLIED]
        assert isinstance(live.error, DuplicateRecord)
        found = await two.other.find(operation.key)
        assert found is not None
        assert (found.version, found.born) == (operation.version, operation.born)

    @KINDS
    async def test_a_replay_that_waited_for_a_delete_and_found_a_new_record_is_told_so(
        self, two: Two, kind: str
    ) -> None:
        operation = replayed(two.paused, kind)
        delete = two.paused.delete(operation.key, born=operation.born)

        async def delete_and_create() -> list[Outcome]:
            assert await two.paused.apply(delete) == [APPLIED]
            return await two.paused.apply(two.paused.new(operation.key, "anew"))

        created, _ = await two.meet(delete_and_create(), two.other.apply(operation, mode=Mode.REPLAY))
        assert created == [APPLIED]
        found = await two.other.find(operation.key)
        assert found is not None
        assert found.fields == book("anew")
        (again,) = await two.other.apply(operation, mode=Mode.REPLAY)
        assert isinstance(again.error, DuplicateRecord)
        assert await two.other.find(operation.key) == found

    async def test_a_replayed_delete_that_waited_for_a_live_update_leaves_what_is_newer(
        self, two: Two
    ) -> None:
        created = two.paused.new()
        await two.other.apply(created)
        delete = two.paused.delete(created.key, born=created.born)
        update = two.paused.update(created.key, book("newer"), born=created.born)
        other = two.paused.new()  # a batch of two is a transaction, which can be paused
        live, replay = await two.meet(
            two.paused.apply(update, other), two.other.apply(delete, mode=Mode.REPLAY)
        )
        assert live == [APPLIED, APPLIED]
        assert replay == [Outcome(Status.SUPERSEDED, stored=update.version)]
        found = await two.other.find(created.key)
        assert found is not None
        assert found.fields == book("newer")


class TestOnSQLite(Races):
    """In one file, whose writers take turns by transactions."""

    @pytest.fixture
    async def two(self, tmp_path: Path) -> AsyncGenerator[Two]:
        async with writers(SQLiteDatabase(tmp_path)) as made:
            yield made


class TestOnMySQL(Races):
    """On a server, whose writers contend for the key's row in the side table."""

    @pytest.fixture
    async def two(self, mariadb_server: Server) -> AsyncGenerator[Two]:
        async with mysql_database(mariadb_server.url) as database, writers(database) as made:
            yield made


class TestOnPostgres(Races):
    """On a server, whose writers contend for an advisory lock on the key."""

    @pytest.fixture
    async def two(self, postgres_server: Server) -> AsyncGenerator[Two]:
        async with postgres_database(postgres_server.url) as database, writers(database) as made:
            yield made
