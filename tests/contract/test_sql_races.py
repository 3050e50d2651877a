"""Two connections to a server, one paused between or within its statements: nothing comes back to life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self, TypeVar

import pytest

from octopus_async.adapters import _postgres_statements
from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.adapters.postgres import PostgresAdapter
from octopus_async.errors import BackendFailed, DuplicateRecord, RecordNotFound
from octopus_async.record import APPLIED, Key, Mode, Operation, Outcome, Status
from octopus_async.testing.contract.subject import record_by
from octopus_async.testing.operations import Author
from tests.contract.sql import (
    Books,
    MySQLDatabase,
    PostgresDatabase,
    ServerDatabase,
    SQLAlchemyOnMySQL,
    SQLAlchemyOnPostgres,
    book,
    opened,
)

T = TypeVar("T")
_A_MOMENT = 0.15  # long enough for a statement that nothing holds up


@pytest.fixture
def sqlalchemy_on_mysql(mysql_database: MySQLDatabase) -> ServerDatabase:
    return SQLAlchemyOnMySQL(mysql_database.url)


@pytest.fixture
def sqlalchemy_on_postgres(postgres_database: PostgresDatabase) -> ServerDatabase:
    return SQLAlchemyOnPostgres(postgres_database.url)


NATIVE = ["mysql_database", "postgres_database"]


@pytest.fixture(params=[*NATIVE, "sqlalchemy_on_mysql", "sqlalchemy_on_postgres"])
def database(request: pytest.FixtureRequest) -> ServerDatabase:
    found: ServerDatabase = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def books(database: ServerDatabase) -> AsyncGenerator[Books]:
    async with opened(database) as books:
        yield books


@pytest.fixture
async def gated(database: ServerDatabase, books: Books) -> AsyncGenerator[Gate]:  # noqa: ARG001 - makes the table
    """Inserts stand still within their statement, after its look at the tombstones, until it opens."""
    await database.put_gate("INSERT")
    async with Gate(database) as gate:
        yield gate


class Gate:
    """A lock of the server, which the trigger waits for."""

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._connection = await self._stack.enter_async_context(self._database.shut_gate())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def open(self) -> None:
        await self._database.open_gate(self._connection)

    async def waiting(self) -> None:
        """Wait until somebody stands before it."""
        async with asyncio.timeout(5):
            while not await self._database.somebody_waits():  # noqa: ASYNC110 - the server sets no event
                await asyncio.sleep(0.01)


@asynccontextmanager
async def paused(
    database: ServerDatabase,
) -> AsyncGenerator[tuple[Books, Any]]:
    adapter = database.paused()
    adapter.pause()
    async with opened(database, adapter) as books:
        yield books, adapter


def started(call: Coroutine[object, object, T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(call)


async def is_held_up(task: asyncio.Task[T]) -> bool:
    done, _ = await asyncio.wait([task], timeout=_A_MOMENT)
    return not done


async def side_of(database: ServerDatabase, key: Key) -> list[tuple[str, bool]]:
    rows = await database.run(
        f"SELECT version, deleted FROM octopus_versions WHERE model = '{key.model}' AND id = '{key.id}'"
    )
    return [(version, bool(deleted)) for version, deleted in rows]


def create_and_later_delete(author: Author, key: Key | None = None) -> tuple[Operation, Operation]:
    created = author.create(key or author.key(), book("older"))
    return created, author.delete(created.key, born=created.born)


class TestALiveCreateAgainstADelete:
    @pytest.mark.parametrize("mode", [Mode.LIVE, Mode.MIRROR, Mode.REPLAY], ids=lambda mode: mode.value)
    @pytest.mark.parametrize("size", [1, 5])
    async def test_a_create_that_has_looked_for_tombstones_holds_up_the_delete_which_then_finds_it(
        self, books: Books, database: ServerDatabase, gated: Gate, mode: Mode, size: int
    ) -> None:
        created, deleted = create_and_later_delete(books)
        others = [books.new() for _ in range(size - 1)]
        create = started(books.apply(*others, created, mode=mode))
        await gated.waiting()
        async with opened(database) as other:
            delete = started(other.apply(deleted))
            assert await is_held_up(delete)
            await gated.open()
            assert await create == [APPLIED] * size
            assert await delete == [APPLIED]
        assert await books.find(created.key) is None
        assert await side_of(database, created.key) == [(deleted.version, True)]

    @pytest.mark.parametrize("mode", [Mode.LIVE, Mode.MIRROR, Mode.REPLAY], ids=lambda mode: mode.value)
    @pytest.mark.parametrize("size", [1, 5])
    async def test_a_delete_that_has_found_nothing_holds_up_the_create_which_then_finds_its_tombstone(
        self, books: Books, database: ServerDatabase, mode: Mode, size: int
    ) -> None:
        created, deleted = create_and_later_delete(books)
        others = [books.new() for _ in range(size - 1)]
        async with paused(database) as (other, pause):
            delete = started(other.apply(deleted))
            await pause.reached.wait()
            create = started(books.apply(*others, created, mode=mode))
            assert await is_held_up(create)
            pause.go_on.set()
            assert await delete == [APPLIED]
            *rest, outcome = await create
        assert rest == [APPLIED] * (size - 1)
        assert outcome == Outcome(Status.SUPERSEDED, stored=deleted.version)
        assert await books.find(created.key) is None

    async def test_a_create_newer_than_the_delete_lives(self, books: Books, database: ServerDatabase) -> None:
        deleted = books.delete(books.key())
        created = books.new(deleted.key)
        async with paused(database) as (other, pause):
            delete = started(other.apply(deleted))
            await pause.reached.wait()
            create = started(books.apply(created))
            assert await is_held_up(create)
            pause.go_on.set()
            assert await delete == [APPLIED]
            assert await create == [APPLIED]
        assert await books.find(created.key) == record_by(created)

    async def test_a_create_whose_caller_has_gone_may_land_but_not_over_the_delete(
        self, books: Books, database: ServerDatabase, gated: Gate
    ) -> None:
        created, deleted = create_and_later_delete(books)
        create = started(books.apply(created))
        await gated.waiting()
        create.cancel()
        await asyncio.wait([create])
        async with opened(database) as other:
            delete = started(other.apply(deleted))
            assert await is_held_up(delete)
            await gated.open()
            assert await delete == [APPLIED]
        await asyncio.sleep(_A_MOMENT)
        assert await books.find(created.key) is None
        assert await database.run(f"SELECT id FROM {database.schema.table}") == []

    async def test_deletes_of_other_keys_go_on_beside_a_create(
        self, books: Books, database: ServerDatabase, gated: Gate
    ) -> None:
        create = started(books.apply(books.new()))
        await gated.waiting()
        async with opened(database) as other:
            for _ in range(5):
                deletes = [other.delete(other.key()) for _ in range(2)]
                async with asyncio.timeout(5):
                    assert await other.apply(*deletes) == [APPLIED] * 2
        await gated.open()
        assert await create == [APPLIED]

    async def test_no_delete_starves_beside_creates_that_never_pause(
        self, books: Books, database: ServerDatabase
    ) -> None:
        await database.put_brake(0.02)
        done = asyncio.Event()

        async def go_on_creating() -> None:
            while not done.is_set():
                assert await books.apply(books.new()) == [APPLIED]

        creators = [started(go_on_creating()) for _ in range(7)]
        waits = []
        async with opened(database) as other:
            for _ in range(20):
                start = time.monotonic()
                assert await other.apply(other.delete(other.key())) == [APPLIED]
                waits.append(time.monotonic() - start)
        done.set()
        await asyncio.gather(*creators)
        # With locks on the gap of the absent tombstone half of them waited longer, and some for seconds.
        # SQLAlchemy takes some 25 ms, and more on a busy machine: each of its exchanges stands in line.
        native = isinstance(books.adapter, MySQLAdapter | PostgresAdapter)
        assert sorted(waits)[10] < (0.05 if native else 0.25)
        assert max(waits) < 1


@pytest.mark.parametrize("database", ["postgres_database"], indirect=True)
class TestADeleteInOneExchange:
    @pytest.mark.parametrize("mode", [Mode.LIVE, Mode.MIRROR, Mode.REPLAY], ids=lambda mode: mode.value)
    async def test_it_holds_up_a_create_which_then_finds_its_tombstone(
        self, books: Books, database: PostgresDatabase, mode: Mode
    ) -> None:
        created, deleted = create_and_later_delete(books)
        await database.put_gate_before_tombstones()
        async with Gate(database) as gate, opened(database) as other:
            delete = started(other.apply(deleted))
            await gate.waiting()
            create = started(books.apply(created, mode=mode))
            assert await is_held_up(create)
            await gate.open()
            assert await delete == [APPLIED]
            assert await create == [Outcome(Status.SUPERSEDED, stored=deleted.version)]
        assert await books.find(created.key) is None

    async def test_it_finds_the_newer_update_that_it_waited_for(
        self, books: Books, database: PostgresDatabase
    ) -> None:
        created, deleted = create_and_later_delete(books)
        update = books.update(created.key, book("newest"))
        await books.apply(created)
        async with database.connection() as other:
            await other.execute(f"BEGIN; UPDATE books SET octopus_version = '{update.version}'")
            delete = started(books.apply(deleted))
            assert await is_held_up(delete)
            await other.execute("COMMIT")
        assert await delete == [Outcome(Status.SUPERSEDED, stored=update.version)]
        assert await side_of(database, created.key) == []


class TestALiveUpdateAgainstADelete:
    async def test_an_update_that_lands_after_the_delete_changes_nothing(
        self, books: Books, database: ServerDatabase
    ) -> None:
        created, deleted = create_and_later_delete(books)
        await books.apply(created)
        update = books.update(created.key, book("between"), version=created.version[:-1] + "~")
        async with paused(database) as (other, pause):
            delete = started(other.apply(deleted))
            await pause.reached.wait()
            updating = started(books.apply(update))
            assert await is_held_up(updating)
            pause.go_on.set()
            assert await delete == [APPLIED]
            (outcome,) = await updating
        assert isinstance(outcome.error, RecordNotFound)
        assert await books.find(created.key) is None

    async def test_a_newer_update_that_came_first_supersedes_the_delete(
        self, books: Books, database: ServerDatabase
    ) -> None:
        created, deleted = create_and_later_delete(books)
        update = books.update(created.key, book("newest"))
        await books.apply(created)
        await database.put_gate("UPDATE")
        async with Gate(database) as gate, opened(database) as other:
            updating = started(books.apply(update))
            await gate.waiting()
            delete = started(other.apply(deleted))
            assert await is_held_up(delete)
            await gate.open()
            assert await updating == [APPLIED]
            assert await delete == [Outcome(Status.SUPERSEDED, stored=update.version)]
        assert await books.find(created.key) is not None


class TestAReplayAgainstLiveOperations:
    async def test_a_replayed_create_that_holds_its_key_is_deleted_by_the_delete_that_waits(
        self, books: Books, database: ServerDatabase
    ) -> None:
        created, deleted = create_and_later_delete(books)
        async with paused(database) as (other, pause):
            replay = started(other.apply(created, mode=Mode.REPLAY))
            await pause.reached.wait()
            delete = started(books.apply(deleted))
            assert await is_held_up(delete)
            pause.go_on.set()
            assert await replay == [APPLIED]
            assert await delete == [APPLIED]
        assert await books.find(created.key) is None

    @pytest.mark.parametrize("kind", ["create", "update"])
    async def test_a_live_create_waits_for_the_replay_of_its_key(
        self, books: Books, database: ServerDatabase, kind: str
    ) -> None:
        key = books.key()
        replayed = books.new(key, "replayed")
        if kind == "update":
            replayed = books.update(key, book("replayed"), born=replayed.born)
        async with paused(database) as (other, pause):
            replay = started(other.apply(replayed, mode=Mode.REPLAY))
            await pause.reached.wait()
            create = started(books.apply(books.new(key, "live")))
            assert await is_held_up(create)
            pause.go_on.set()
            assert await replay == [APPLIED]
            (outcome,) = await create
        assert isinstance(outcome.error, DuplicateRecord)
        found = await books.find(key)
        assert found is not None
        assert found.version == replayed.version

    async def test_a_replay_finds_the_live_create_that_it_waited_for(
        self, books: Books, database: ServerDatabase, gated: Gate
    ) -> None:
        key = books.key()
        replayed = books.update(key, book("replayed"), born="0" * 26)
        live = started(books.apply(books.new(key, "live")))
        await gated.waiting()
        async with opened(database) as other:
            replay = started(other.apply(replayed, mode=Mode.REPLAY))
            assert await is_held_up(replay)
            await gated.open()
            assert await live == [APPLIED]
            (outcome,) = await replay
        assert isinstance(outcome.error, DuplicateRecord)

    async def test_a_live_update_waits_for_the_replay_and_is_not_undone_by_it(
        self, books: Books, database: ServerDatabase
    ) -> None:
        created = books.new()
        replayed = books.update(created.key, book("replayed"), born=created.born)
        newest = books.update(created.key, book("newest"))
        await books.apply(created)
        async with paused(database) as (other, pause):
            replay = started(other.apply(replayed, mode=Mode.REPLAY))
            await pause.reached.wait()
            update = started(books.apply(newest))
            assert await is_held_up(update)
            pause.go_on.set()
            assert await replay == [APPLIED]
            assert await update == [APPLIED]
        found = await books.find(created.key)
        assert found is not None
        assert (found.version, found.born) == (newest.version, created.born)

    @pytest.mark.parametrize("size", [1, 3])
    async def test_of_two_live_creates_of_one_key_one_is_a_duplicate(
        self, books: Books, database: ServerDatabase, gated: Gate, size: int
    ) -> None:
        key = books.key()
        async with opened(database) as other:
            creates = [
                started(author.apply(author.new(key), *[author.new() for _ in range(size - 1)]))
                for author in (books, other)
            ]
            await gated.waiting()
            assert all([await is_held_up(create) for create in creates])
            await gated.open()
            outcomes = [outcome for create in creates for outcome in await create]
        assert outcomes.count(APPLIED) == 2 * size - 1
        assert [type(outcome.error) for outcome in outcomes if outcome is not APPLIED] == [DuplicateRecord]


class TestMappedTables:
    async def test_writers_of_a_table_without_versions_contend_for_the_key(
        self, database: ServerDatabase
    ) -> None:
        await database.run(
            f"CREATE TABLE {database.schema.table} (id {database.id_type} PRIMARY KEY, title TEXT, pages INT)"
        )
        async with opened(database) as books, paused(database) as (other, pause):
            created = books.new()
            await books.apply(created)
            older = books.update(created.key, book("older"))
            newer = books.update(created.key, book("newer"))
            pausing = started(other.apply(newer))
            await pause.reached.wait()
            late = started(books.apply(older))
            assert await is_held_up(late)
            pause.go_on.set()
            assert await pausing == [APPLIED]
            assert await late == [Outcome(Status.SUPERSEDED, stored=newer.version)]
            found = await books.find(created.key)
        assert found is not None
        assert found.fields == book("newer")


class TestHistories:
    @pytest.mark.parametrize("own_table", [True, False], ids=["ours", "mapped"])
    async def test_whatever_the_order_the_newest_operation_of_each_key_is_what_stays(
        self, database: ServerDatabase, *, own_table: bool
    ) -> None:
        if not own_table:
            await database.run(
                f"CREATE TABLE {database.schema.table} (id {database.id_type} PRIMARY KEY, "
                "title TEXT, pages INT)"
            )
        async with AsyncExitStack() as stack:
            authors = [await stack.enter_async_context(opened(database)) for _ in range(4)]
            first = authors[0]
            keys = [first.key() for _ in range(12)]
            newest: dict[Key, Operation] = {}
            operations: list[Operation] = []
            for number in range(400):
                key = keys[number % len(keys)]
                operation = first.delete(key) if number % 7 == 0 else first.update(key, book(str(number)))
                newest[key] = operation
                operations.append(operation)
            parts = [operations[start::16] for start in range(16)]

            async def work(number: int) -> None:
                part = parts[number]
                while part:
                    size = 1 + number % 5
                    batch, part = part[-size:], part[:-size]
                    await authors[number % 4].apply(*batch, mode=Mode.MIRROR)

            await asyncio.gather(*[work(number) for number in range(16)])
            for key, operation in newest.items():
                found = await first.find(key)
                assert (found and found.fields) == operation.fields
                assert found is None or found.version == operation.version
            versions = {record.key: record.version for record in await first.scan()}
        assert versions == {key: operation.version for key, operation in newest.items()}


class TestWithoutItsRule:
    """The tests above would notice: here the rule is broken on purpose."""

    @pytest.mark.parametrize("database", NATIVE, indirect=True)
    async def test_a_create_that_takes_no_lock_brings_the_record_back(
        self, books: Books, database: ServerDatabase, gated: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table: Any = books.adapter._tables[books.model]
        table.create = table.create.replace(" LOCK IN SHARE MODE", "")
        with monkeypatch.context() as patch:
            patch.setattr(_postgres_statements, "lock", lambda _keys, exclusive: f"SELECT {exclusive}")
            created, deleted = create_and_later_delete(books)
            create = started(books.apply(created))
            await gated.waiting()
        async with opened(database) as other:
            assert await other.apply(deleted) == [APPLIED]
        await gated.open()
        assert await create == [APPLIED]
        assert await books.find(created.key) is not None

    @pytest.mark.parametrize("database", ["postgres_database"], indirect=True)
    async def test_a_create_that_takes_its_lock_and_looks_in_one_statement_brings_the_record_back(
        self, books: Books, database: ServerDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        created, deleted = create_and_later_delete(books)
        lock = _postgres_statements.lock([created.key], exclusive=False)
        table: Any = books.adapter._tables[books.model]
        looking = table.create.replace(" WHERE NOT EXISTS", " FROM l WHERE NOT EXISTS")
        table.create = f"WITH l AS MATERIALIZED ({lock}) {looking}"
        async with paused(database) as (other, pause):
            delete = started(other.apply(deleted))
            await pause.reached.wait()
            monkeypatch.setattr(_postgres_statements, "lock", lambda _keys, exclusive: f"SELECT {exclusive}")
            create = started(books.apply(created))
            assert await is_held_up(create)
            pause.go_on.set()
            assert await delete == [APPLIED]
            assert await create == [APPLIED]
        assert await books.find(created.key) is not None


@pytest.mark.parametrize("database", NATIVE, indirect=True)
class TestLostConnections:
    async def test_a_batch_whose_connection_breaks_with_its_commit_is_unknown_and_all_or_nothing(
        self, database: ServerDatabase
    ) -> None:
        async with paused(database) as (books, pause):
            created = books.new()
            batch = started(books.apply(created, books.new(), mode=Mode.REPLAY))
            await pause.reached.wait()
            assert pause._pool is not None
            (connection,) = pause._pool._busy
            await database.cut(connection)
            pause.go_on.set()
            with pytest.raises(BackendFailed) as caught:
                await batch
            assert await books.find(created.key) is None
        assert caught.value.sent  # the commit was in the packet that found the connection closed
