"""What was seen to go wrong between aiosqlite and SQLite, each by name, and the rule that helps."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from octopus_async.adapters._sqlite_lanes import Job, Lanes
from octopus_async.adapters.sqlite import SQLiteAdapter
from octopus_async.errors import BackendFailed, BackendRefused, SchemaMismatch
from octopus_async.record import APPLIED, Mode, Operation, Record, Status
from octopus_async.testing.contract.subject import descriptors, eventually
from tests.contract.sql import BOOK, Books, SQLiteDatabase, book, opened

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"

HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@pytest.fixture
def database(tmp_path: Path) -> SQLiteDatabase:
    return SQLiteDatabase(tmp_path)


@pytest.fixture
async def books(database: SQLiteDatabase) -> AsyncGenerator[Books]:
    async with opened(database) as books:
        yield books


@asynccontextmanager
async def locked(database: SQLiteDatabase) -> AsyncGenerator[None]:
    """Another process holds an exclusive lock."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD_LOCK, database.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"locked\n"
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def get_their_own_answers(books: Books, count: int = 50) -> None:
    """Further calls are well, and none gets another's answer."""
    created = [books.new(title=str(number)) for number in range(count)]
    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*[books.apply(operation) for operation in created])
        found = await asyncio.gather(*[books.find(operation.key) for operation in created])
    assert outcomes == [[APPLIED]] * count
    assert [record and record.fields for record in found] == [operation.fields for operation in created]


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


class TestHazard1AConnectionLeftOpenHangsTheInterpretersExit:
    """Rule: always close, also after a failed open; and no thread keeps the interpreter from ending."""

    @pytest.mark.parametrize(
        "leave",
        [
            "pass",
            "raise SystemExit(0)",
            "task = asyncio.ensure_future(books.apply([], None)); await asyncio.sleep(0)",
            "await adapter.read([])",
        ],
    )
    def test_a_process_that_forgets_to_close_ends_all_the_same(self, tmp_path: Path, leave: str) -> None:
        script = f"""
import asyncio, warnings
from octopus_async.adapters.sqlite import SQLiteAdapter
warnings.simplefilter("ignore")
async def main():
    global adapter
    adapter = books = SQLiteAdapter({str(tmp_path / "left.db")!r})
    await adapter.open()
    await adapter.probe() if False else await adapter.ping()
    {leave}
asyncio.run(main())
"""
        done = subprocess.run(
            [sys.executable, "-c", script], timeout=20, check=False, capture_output=True, cwd=Path.cwd()
        )
        assert done.returncode == 0, done.stderr.decode()

    async def test_a_failed_open_leaves_no_thread(self, tmp_path: Path) -> None:
        before = threading.active_count()
        garbage = tmp_path / "garbage.db"
        garbage.write_bytes(b"this is no database" * 100)
        for path, expected in (
            (str(tmp_path / "missing" / "x.db"), BackendRefused),
            (str(garbage), BackendFailed),
        ):
            adapter = SQLiteAdapter(path)
            for _ in range(3):
                with pytest.raises(expected) as caught:
                    await adapter.open()
                assert not caught.value.sent
        await eventually(lambda: threading.active_count() == before)


class TestHazard2ACancelledStatementGoesOnAndCommits:
    """Rule: a transaction is one call on the writer's thread; on cancellation interrupt, then roll back."""

    async def test_a_cancelled_statement_is_interrupted(self, books: Books) -> None:
        assert isinstance(books.adapter, SQLiteAdapter)
        lanes = books.adapter._writer
        assert lanes is not None
        call = asyncio.ensure_future(lanes.run(lambda raw, _: raw.execute(ENDLESS).fetchall(), Job()))
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.wait([call])
        await get_their_own_answers(books)

    async def test_a_cancelled_transaction_is_rolled_back(self, books: Books) -> None:
        adapter = books.adapter
        assert isinstance(adapter, SQLiteAdapter)

        def write_and_stay(raw: sqlite3.Connection, _: Job) -> None:
            raw.execute("INSERT INTO books (id, title) VALUES ('ghost', 'x')")
            raw.execute(ENDLESS).fetchall()

        call = asyncio.ensure_future(adapter._write(write_and_stay))
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.wait([call])
        await get_their_own_answers(books)
        assert await books.find(books.key()._replace(id="ghost")) is None

    async def test_a_transaction_cancelled_between_its_statements_is_rolled_back(self, books: Books) -> None:
        adapter = books.adapter
        assert isinstance(adapter, SQLiteAdapter)
        reached, go_on = threading.Event(), threading.Event()

        def write_and_wait(raw: sqlite3.Connection, _: Job) -> None:
            raw.execute("INSERT INTO books (id, title) VALUES ('ghost', 'x')")
            reached.set()
            go_on.wait(5)

        call = asyncio.ensure_future(adapter._write(write_and_wait))
        await asyncio.to_thread(reached.wait, 5)
        call.cancel()
        await asyncio.wait([call])
        go_on.set()
        await get_their_own_answers(books)
        assert await books.find(books.key()._replace(id="ghost")) is None

    async def test_what_waits_behind_a_slow_call_never_runs_once_it_is_cancelled(self, books: Books) -> None:
        adapter = books.adapter
        assert isinstance(adapter, SQLiteAdapter)
        go_on = threading.Event()
        slow = asyncio.ensure_future(adapter._write(lambda _raw, _job: go_on.wait(5)))
        await asyncio.sleep(0.05)
        waiting = [books.new() for _ in range(10)]
        calls = [asyncio.ensure_future(books.apply(operation)) for operation in waiting]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        go_on.set()
        assert await slow
        await get_their_own_answers(books)
        assert [await books.find(operation.key) for operation in waiting] == [None] * 10

    async def test_what_waits_for_a_connection_to_be_made_never_runs_once_it_is_cancelled(
        self, tmp_path: Path
    ) -> None:
        ran: list[int] = []
        lanes = Lanes(str(tmp_path / "slow.db"), lambda _raw, _job: time.sleep(0.2), 1)
        call = asyncio.ensure_future(lanes.run(lambda _raw, _job: ran.append(1), Job()))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait([call])
        await lanes.run(lambda _raw, _job: ran.append(2), Job())
        assert ran == [2]
        await lanes.close(5)

    async def test_a_call_that_waits_for_a_lock_ends_when_it_is_cancelled_and_lands_nowhere(
        self, books: Books, database: SQLiteDatabase
    ) -> None:
        created = [books.new(), books.new()]
        async with locked(database):
            call = asyncio.ensure_future(books.apply(*created, mode=Mode.REPLAY))
            await asyncio.sleep(0.1)
            start = time.monotonic()
            call.cancel()
            await asyncio.wait([call])
            assert time.monotonic() - start < 0.1
        await get_their_own_answers(books)
        assert [await books.find(operation.key) for operation in created] == [None, None]

    async def test_a_thread_that_hangs_holds_up_neither_the_event_loop_nor_close(self, books: Books) -> None:
        adapter = books.adapter
        assert isinstance(adapter, SQLiteAdapter)
        go_on = threading.Event()
        hung = asyncio.ensure_future(adapter._write(lambda _raw, _job: go_on.wait(20)))
        await asyncio.sleep(0.05)
        start = time.monotonic()
        await adapter.close()
        assert time.monotonic() - start < 3
        go_on.set()
        with pytest.raises(BackendFailed):
            await hung
        with pytest.raises(BackendRefused):
            await adapter.ping()


class TestHazard3AnExclusiveLockElsewhereLetsReadsThrough:
    """Rule: writes are proved by a write; a ping proves nothing about them."""

    async def test_reads_and_pings_work_and_writes_and_probes_do_not(
        self, books: Books, database: SQLiteDatabase
    ) -> None:
        created = books.new()
        await books.apply(created)
        adapter = SQLiteAdapter(database.path, busy_timeout=0.2)
        async with opened(database, adapter) as others, locked(database):
            await adapter.ping()
            assert isinstance(await others.find(created.key), Record)
            writes: list[Callable[[], Any]] = [
                adapter.probe,
                lambda: others.apply(others.new()),
                lambda: others.apply(others.new(), others.new(), mode=Mode.REPLAY),
                lambda: others.apply(others.delete(created.key)),
            ]
            for write in writes:
                start = time.monotonic()
                with pytest.raises(BackendFailed, match="locked") as caught:
                    await write()
                assert 0.1 < time.monotonic() - start < 1
                assert not caught.value.sent
        await books.adapter.probe()
        assert await books.find(created.key) is not None

    async def test_it_can_be_opened_and_read_while_another_holds_the_lock(
        self, books: Books, database: SQLiteDatabase
    ) -> None:
        created = books.new()
        await books.apply(created)
        async with (
            locked(database),
            opened(database, SQLiteAdapter(database.path, busy_timeout=0.1)) as others,
        ):
            assert await others.find(created.key) is not None

    async def test_a_write_waits_for_a_lock_that_is_soon_released(
        self, books: Books, database: SQLiteDatabase
    ) -> None:
        async with locked(database):
            call = asyncio.ensure_future(books.apply(books.new()))
            done, _ = await asyncio.wait([call], timeout=0.1)
            assert not done
        assert await call == [APPLIED]

    async def test_a_probe_really_writes(self, books: Books, database: SQLiteDatabase) -> None:
        query = "SELECT version FROM octopus_versions WHERE model = ''"
        await books.adapter.probe()
        first = await database.run(query)
        await books.adapter.probe()
        second = await database.run(query)
        assert len(first) == len(second) == 1
        assert first != second


class TestHazard4ACancelledConnectLeaksADescriptor:
    """Rule: who connects is never called back, only left; readers have connections of their own."""

    @pytest.mark.parametrize("moment", [0, 0.02, 0.1])
    async def test_an_open_that_is_cancelled_leaves_nothing_behind(
        self, database: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch, moment: float
    ) -> None:
        really = sqlite3.connect

        def slowly(path: str, **options: Any) -> sqlite3.Connection:  # noqa: ANN401 - the driver's
            time.sleep(0.05)
            connection: sqlite3.Connection = really(path, **options)
            return connection

        before, threads = descriptors(), threading.active_count()
        monkeypatch.setattr(sqlite3, "connect", slowly)
        for _ in range(5):
            adapter = database.adapter()
            opening = asyncio.ensure_future(adapter.open())
            await asyncio.sleep(moment)
            opening.cancel()
            await asyncio.wait([opening])
            await adapter.close()
        await eventually(lambda: descriptors() <= before and threading.active_count() <= threads)

    async def test_a_close_leaves_no_thread_and_no_descriptor(self, database: SQLiteDatabase) -> None:
        before, threads = descriptors(), threading.active_count()
        async with opened(database) as books:
            await get_their_own_answers(books)
        await eventually(lambda: descriptors() <= before and threading.active_count() <= threads)

    async def test_readers_answer_while_the_writer_is_in_a_transaction(self, books: Books) -> None:
        adapter = books.adapter
        assert isinstance(adapter, SQLiteAdapter)
        created = books.new()
        await books.apply(created)
        go_on = threading.Event()

        def write_and_wait(raw: sqlite3.Connection, _: Job) -> None:
            raw.execute("UPDATE books SET title = 'uncommitted'")
            go_on.wait(5)

        writing = asyncio.ensure_future(adapter._write(write_and_wait))
        await asyncio.sleep(0.05)
        found = await asyncio.gather(*[books.find(created.key) for _ in range(8)])
        assert [record and record.fields for record in found] == [created.fields] * 8
        assert not writing.done()
        go_on.set()
        await writing

    async def test_reads_run_beside_each_other(self, books: Books) -> None:
        adapter = books.adapter
        assert isinstance(adapter, SQLiteAdapter)
        together = threading.Barrier(adapter.capabilities.read_concurrency, timeout=5)
        places = await asyncio.gather(*[adapter._read(lambda _raw, _job: together.wait()) for _ in range(4)])
        assert sorted(places) == [0, 1, 2, 3]


class TestSettings:
    @pytest.mark.parametrize(("synchronous", "expected"), [("FULL", 2), ("NORMAL", 1)])
    async def test_the_writer_has_its_settings(
        self, database: SQLiteDatabase, synchronous: str, expected: int
    ) -> None:
        adapter = SQLiteAdapter(database.path, synchronous=synchronous)
        await adapter.open()
        names = ("synchronous", "journal_mode", "foreign_keys", "busy_timeout")

        def settings(raw: sqlite3.Connection, _: Job) -> list[Any]:
            return [raw.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

        assert adapter._writer is not None
        assert await adapter._writer.run(settings, Job()) == [expected, "wal", 1, 0]
        await adapter.close()

    async def test_a_reader_can_not_write(self, books: Books) -> None:
        adapter = books.adapter
        assert isinstance(adapter, SQLiteAdapter)
        with pytest.raises(BackendFailed, match="readonly"):
            await adapter._read(lambda raw, _: raw.execute("DELETE FROM books"))

    async def test_a_batch_with_a_bad_record_is_one_transaction_all_the_same(self, books: Books) -> None:
        adapter = books.adapter
        assert isinstance(adapter, SQLiteAdapter)
        assert adapter._writer is not None
        statements: list[str] = []
        await adapter._writer.run(lambda raw, _: raw.set_trace_callback(statements.append), Job())
        bad = books.create(books.key(), {"title": None, "pages": 1})
        first, refused, last = await books.apply(books.new(), bad, books.new())
        assert first is last is APPLIED
        assert refused.status is Status.REJECTED
        assert [text for text in statements if text in ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")] == [
            "BEGIN IMMEDIATE", "ROLLBACK", "BEGIN IMMEDIATE", "COMMIT",
        ]  # fmt: skip


class TestFilesThatFail:
    async def test_a_full_disk_is_not_the_records_fault_and_passes(self, books: Books) -> None:
        adapter = books.adapter
        assert isinstance(adapter, SQLiteAdapter)

        async def limit(pages: int) -> None:
            await adapter._run(
                adapter._writer, lambda raw, _: raw.execute(f"PRAGMA max_page_count = {pages}")
            )

        async def fill(operations: list[Operation]) -> None:
            for _ in range(20):
                again = [operation._replace(key=books.key()) for operation in operations]
                assert await books.apply(*again) == [APPLIED] * len(again)

        await limit(1)
        long = [books.create(books.key(), book("x" * 3000)) for _ in range(10)]
        for batch in (long[:1], long):
            with pytest.raises(BackendFailed, match="full") as caught:
                await fill(batch)
            assert not caught.value.sent
        await limit(1 << 30)
        assert await books.apply(*long) == [APPLIED] * 10

    async def test_a_file_that_was_replaced_is_opened_anew(
        self, books: Books, database: SQLiteDatabase
    ) -> None:
        await books.apply(books.new())
        await asyncio.to_thread(empty, Path(database.path).parent)
        for call in (books.apply(books.new()), books.adapter.ping()):
            with pytest.raises(BackendFailed, match="removed") as caught:
                await call
            assert not caught.value.sent
        with pytest.raises(SchemaMismatch):
            await books.apply(books.new())
        await books.adapter.prepare(BOOK, create=True)
        await get_their_own_answers(books)

    async def test_a_file_that_is_garbage_fails_until_it_is_mended(self, tmp_path: Path) -> None:
        database = SQLiteDatabase(tmp_path)
        async with opened(database) as books:
            created = books.new()
            await books.apply(created)
        file = Path(database.path)
        whole = await asyncio.to_thread(file.read_bytes)
        await asyncio.to_thread(file.write_bytes, os.urandom(len(whole)))
        adapter = database.adapter()
        with pytest.raises(BackendFailed, match="not a database"):
            await adapter.open()
        await asyncio.to_thread(file.write_bytes, whole)
        async with opened(database, adapter) as books:
            assert await books.find(created.key) is not None
