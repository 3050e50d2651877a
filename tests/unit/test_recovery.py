"""The contract's "Recovery", sentence by sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from octopus_async import BackendFailed, DuplicateRecord, JournalError, Model, SchemaMismatch, State
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.backend import Capabilities, Run
from octopus_async.events import DeadLettered, ReplayFinished, ReplayPaused, ReplayProgressed
from octopus_async.journal.overlay import Overlay
from octopus_async.record import Key, Mode, Operation, Outcome, failed, rejected
from octopus_async.testing.contract.subject import eventually
from octopus_async.testing.faulty import Fault
from tests.unit.stage import Book, Country, Stage, stage


class Author(Model):
    name: str


class Applied:
    """What a backend was given in each call of `apply`, and what it is to answer."""

    def __init__(self, it: Stage, backend: str = "primary") -> None:
        self._adapter = it.backends[backend].adapter
        self._apply = self._adapter.apply
        self.batches: list[list[Operation]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.refuse: set[str] = set()
        self.mismatch: set[str] = set()
        self._adapter.apply = self._record  # type: ignore[method-assign]

    @property
    def operations(self) -> list[Operation]:
        return [operation for batch in self.batches for operation in batch]

    async def _record(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        self.batches.append(list(operations))
        await self.hold.wait()
        outcomes = await self._apply(
            [operation for operation in operations if not self._answer(operation)], mode
        )
        applied = iter(outcomes)
        return [self._answer(operation) or next(applied) for operation in operations]

    def _answer(self, operation: Operation) -> Outcome | None:
        if operation.key.id in self.refuse:
            return rejected(DuplicateRecord(f"{operation.key} is refused"))
        if operation.key.model in self.mismatch:
            return failed(SchemaMismatch(f"the table of {operation.key.model} lacks a column"))
        return None


def away(it: Stage, backend: str = "primary") -> None:
    """Take a backend away for writes, until `back`."""
    it.manager.backends[backend].writes.force(State.FORCED_OPEN)


def back(it: Stage, backend: str = "primary") -> None:
    """Let a backend recover."""
    it.manager.backends[backend].writes.release()


def countries(count: int, *, first: int = 0) -> list[Country]:
    return [Country(id=f"c{number:05}", name="x") for number in range(first, first + count)]


# -- order, runs and batches -----------------------------------------------------------------------


async def test_replay_starts_when_the_breaker_closes_and_says_how_it_goes(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.primary.break_down(Fault.REFUSE)
        books = [Book(title=str(number)) for number in range(200)]
        await it.books.create_many(books)
        assert it.manager.statistics().journal is not None
        it.primary.heal()
        await it.drained()
        await eventually(lambda: bool(it.seen(ReplayFinished)))
        assert [await it.title("primary", book) for book in books] == [book.title for book in books]
        progress = [event.applied for event in it.seen(ReplayProgressed)]
        assert progress == sorted(progress)
        assert progress[-1] == it.seen(ReplayFinished)[-1].applied == 200


async def test_the_oldest_leaves_first_coalesced_and_sorted_by_key_in_a_batch(tmp_path: Path) -> None:
    async with stage(tmp_path, cache=False) as it:
        away(it)
        every = countries(600)
        every.reverse()
        for start in range(0, 600, 100):
            await it.countries.create_many(every[start : start + 100])
        for country in every[:10]:
            country.name = "changed"
            await it.countries.update(country)
        applied = Applied(it)
        back(it)
        await it.drained()
        order = [operation.key.id for operation in applied.operations]
        assert len(order) == len(set(order)) == 600, "a key left in more than one run"
        assert all([op.key for op in batch] == sorted(op.key for op in batch) for batch in applied.batches)
        oldest = [country.id for country in every]
        position = 0
        for batch in applied.batches:
            assert {op.key.id for op in batch} == set(oldest[position : position + len(batch)])
            position += len(batch)
        assert await it.held("primary", every[0]) is not None
        assert (await it.held("primary", every[0]) or {})["name"] == "changed"


async def test_batches_keep_to_what_the_backend_takes(tmp_path: Path) -> None:
    async with stage(tmp_path, cache=False) as it:
        limits = Capabilities(durable=True, write_batch=7, batch_bytes=1000)
        it.primary.adapter._capabilities = limits  # type: ignore[attr-defined]
        away(it)
        await it.countries.create_many(countries(50))
        large = [Country(id=f"d{number}", name="y" * 400) for number in range(10)]
        await it.countries.create_many(large)
        applied = Applied(it)
        back(it)
        await it.drained()
        assert len(applied.operations) == 60
        assert max(len(batch) for batch in applied.batches) == 7
        sizes = [sum(len(op.payload or b"") for op in batch) for batch in applied.batches]
        assert max(sizes) <= limits.batch_bytes


async def test_batches_shrink_while_the_backend_does_not_answer_in_time(tmp_path: Path) -> None:
    async with stage(tmp_path, cache=False) as it:
        await it.countries.create_many(countries(1, first=300))
        away(it)
        await it.countries.create_many(countries(300))
        applied = Applied(it)
        it.primary.delay = 0.4  # longer than the guard waits
        tried: list[int] = []

        def slow_when_large() -> Fault | None:
            return Fault.SLOW if len(tried) < 2 else None

        apply = it.primary.apply

        async def measure(operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
            try:
                return await apply(operations, mode)
            finally:
                tried.append(len(operations))

        it.primary.apply = measure  # type: ignore[method-assign]
        it.primary.writes = slow_when_large
        it.manager.backends["primary"].writes.force(State.FORCED_CLOSED)
        it.manager.resume_replay("primary")
        await it.drained()
        assert tried[:3] == [64, 32, 16]
        assert len(applied.operations) == 300


async def test_a_hot_key_that_is_written_all_the_time_still_leaves_the_journal(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="0")
        await it.books.create(book)
        away(it)
        await it.books.update(book)
        stop = False

        async def write(title: str) -> None:
            while not stop:
                await it.books.update(book.model_copy(update={"title": title}))

        writers = [asyncio.create_task(write(str(number))) for number in range(5)]
        await asyncio.sleep(0.02)
        back(it)
        try:
            await eventually(lambda: not it.manager.statistics().journal.pending)  # type: ignore[union-attr]
        finally:
            stop = True
            await asyncio.gather(*writers)
        await it.drained()


async def test_caches_are_told_before_the_overlay_forgets(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="old")
        await it.books.create(book)
        away(it)
        away(it, "cache")
        book.title = "new"
        await it.books.update(book)
        back(it, "cache")
        it.cache.writes = Fault.FAIL
        applied = Applied(it)
        back(it)
        await eventually(lambda: bool(applied.batches))
        journal = it.manager.journal
        assert journal is not None
        key = Key("Book", str(book.id))
        while journal.newest(key, "primary") is not None:
            assert await it.books.read(book.id) == book
            await asyncio.sleep(0)
        assert it.manager.statistics().behind == {"cache": 1}
        assert await it.books.read(book.id) == book
        it.cache.heal()
        await it.drained()
        assert await it.title("cache", book) in (None, "new")


# -- what is refused -------------------------------------------------------------------------------


async def test_a_dead_letter_blocks_no_other_key(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        away(it)
        receipts = (await it.countries.create_many(countries(20))).unwrap()
        Applied(it).refuse = {"c00003"}
        back(it)
        await it.drained()
        with pytest.raises(DuplicateRecord):
            await receipts[3].settled()
        await asyncio.gather(*(receipt.settled() for receipt in receipts if receipt.key.id != "c00003"))
        assert [event.key.id for event in it.seen(DeadLettered)] == ["c00003"]
        assert it.manager.statistics().journal.dead_letters == 1  # type: ignore[union-attr]


async def test_ten_rejections_in_a_row_pause_the_replay_until_it_is_resumed(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        away(it)
        await it.countries.create_many(countries(30))
        applied = Applied(it)
        applied.refuse = {country.id for country in countries(30)}
        back(it)
        await eventually(lambda: bool(it.seen(ReplayPaused)))
        await asyncio.sleep(0.05)
        assert len(it.seen(DeadLettered)) == 10
        assert list(it.manager.statistics().paused) == ["primary"]
        assert it.manager.statistics().journal.pending == 20  # type: ignore[union-attr]
        applied.refuse = set()
        it.manager.resume_replay("primary")
        await it.drained()
        assert it.manager.statistics().paused == {}
        assert len(it.seen(DeadLettered)) == 10
        assert await it.held("primary", countries(1, first=29)[0]) is not None


async def test_what_is_older_than_tombstones_are_kept_becomes_a_dead_letter(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    async with stage(tmp_path, retention=100.0, wall=lambda: now[0]) as it:
        journal = it.manager.journal
        journal._wall = lambda: now[0]  # type: ignore[union-attr]
        away(it)
        old = await it.books.create(Book(title="old"))
        now[0] += 101
        young = await it.books.create(Book(title="young"))
        applied = Applied(it)
        back(it)
        await it.drained()
        await young.settled()
        with pytest.raises(JournalError, match="tombstones"):
            await old.settled()
        assert [operation.version for operation in applied.operations] == [young.version]


# -- what has to wait ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 150])
async def test_a_model_that_nobody_asked_for_yet_waits_and_blocks_no_other(
    tmp_path: Path, count: int
) -> None:
    async with stage(tmp_path) as it:
        away(it)
        authors = it.manager.dao(Author)
        (await authors.create_many([Author(name=str(number)) for number in range(count)])).unwrap()
        book = Book(title="one")
        await it.books.create(book)
    async with stage(tmp_path) as it:
        await eventually(lambda: it.manager.statistics().journal.pending == count)  # type: ignore[union-attr]
        assert await it.title("primary", book) == "one"
        it.manager.dao(Author)
        await it.drained()


async def test_what_has_to_wait_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(tmp_path, cache=False) as it:
        away(it)
        await it.manager.dao(Author).create_many(Author(name=str(number)) for number in range(5000))
        await it.countries.create_many(countries(300))
        looked: list[int] = []
        runs = Overlay.runs

        def count(overlay: Overlay, target: str, limit: int) -> list[Run]:
            found = runs(overlay, target, limit)
            looked.extend(1 for run in found if run.operation.key.model == "Author")
            return found

        monkeypatch.setattr(Overlay, "runs", count)
        plan_of = it.manager._replayers["primary"]._plan_of
        known = False
        it.manager._replayers["primary"]._plan_of = lambda model: (
            plan_of(model) if known or model != "Author" else None
        )
        back(it)
        await it.until(lambda: it.manager.statistics().journal.pending == 5000)  # type: ignore[union-attr]
        assert len(looked) <= 2 * 5000
        known = True
        await it.drained()


@pytest.mark.parametrize("count", [1, 150])
async def test_a_table_that_does_not_fit_blocks_no_other_model(tmp_path: Path, count: int) -> None:
    async with stage(tmp_path) as it:
        away(it)
        authors = it.manager.dao(Author)
        (await authors.create_many([Author(name=str(number)) for number in range(count)])).unwrap()
        book = Book(title="one")
        receipt = await it.books.create(book)
        applied = Applied(it)
        applied.mismatch = {"Author"}
        back(it)
        async with asyncio.timeout(3):
            await receipt.settled()
        assert it.manager.statistics().journal.pending == count  # type: ignore[union-attr]
        assert it.seen(DeadLettered) == []
        applied.mismatch = set()
        await it.drained()


async def test_a_replica_waits_for_its_primary_key_by_key(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True) as it:
        away(it)
        away(it, "replica")
        first, second = Book(title="one"), Book(title="two")
        await it.books.create(first)
        replica = Applied(it, "replica")
        back(it, "replica")
        await asyncio.sleep(0.1)
        assert replica.batches == []
        applied = Applied(it)
        applied.refuse = {str(second.id)}
        await it.books.create(second)
        back(it)
        await it.drained()
        assert await it.title("replica", first) == "one"
        assert await it.title("replica", second) is None
        assert {operation.key.id for operation in replica.operations} == {str(first.id)}


# -- crashes ---------------------------------------------------------------------------------------


async def test_a_crash_after_any_batch_repeats_harmlessly(tmp_path: Path) -> None:
    """The first run ends without marking what it applied; the second applies it all again."""
    store = MemoryAdapter(durable=True, name="primary")
    every = countries(30)
    async with stage(tmp_path) as it:
        await store.open()
        it.primary.adapter = store
        away(it)
        await it.countries.create_many(every)
        for country in every[:10]:
            country.name = "changed"
            await it.countries.update(country)
        await it.countries.delete(every[29])
        journal = it.manager.journal
        assert journal is not None
        journal.settle = lambda *_: None  # type: ignore[method-assign]
        back(it)
        await eventually(lambda: len(store) == 30)
    async with stage(tmp_path) as it:
        await store.open()
        it.primary.adapter = store
        await it.drained()
        assert [(await it.held("primary", country) or {})["name"] for country in every[:29]] == [
            *["changed"] * 10,
            *["x"] * 19,
        ]
        assert await it.held("primary", every[29]) is None
        assert it.seen(DeadLettered) == []


async def test_recovery_goes_on_after_an_error_that_nobody_thought_of(tmp_path: Path) -> None:
    async with stage(tmp_path, adopt_every=0.1) as it:
        away(it)
        receipt = await it.books.create(Book(title="one"))
        journal = it.manager.journal
        assert journal is not None
        settle, failures = journal.settle, [ZeroDivisionError()]

        def fail_once(target: str, runs: Any) -> None:  # noqa: ANN401 - what the journal is given
            if failures:
                raise failures.pop()
            settle(target, runs)

        journal.settle = fail_once  # type: ignore[method-assign]
        back(it)
        async with asyncio.timeout(5):
            await receipt.settled()


# -- caches' debts ---------------------------------------------------------------------------------


async def test_debts_that_cannot_be_paid_do_not_keep_others_waiting(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        every = [Book(title=str(number)) for number in range(700)]
        (await it.books.create_many(every)).unwrap()
        it.cache.writes = Fault.FAIL
        (await it.books.update_many(every)).unwrap()
        await eventually(lambda: it.manager.statistics().behind == {"cache": 700})
        apply = it.cache.adapter.apply
        dead = {str(book.id) for book in every[:600]}

        async def one_node_is_down(operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
            outcomes = await apply(operations, mode)
            down = failed(BackendFailed("its node is down", sent=False))
            return [
                down if operation.key.id in dead else outcome
                for operation, outcome in zip(operations, outcomes, strict=True)
            ]

        it.cache.adapter.apply = one_node_is_down  # type: ignore[method-assign]
        it.cache.heal()
        await eventually(lambda: it.manager.statistics().behind == {"cache": 600})
        it.cache.adapter.apply = apply  # type: ignore[method-assign]
        await it.drained()
