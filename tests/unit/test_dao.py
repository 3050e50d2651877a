"""What a Dao promises beyond single writes and reads: ids, many-forms, conditions, subclasses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Generic, TypeVar, assert_type
from uuid import UUID, uuid4

import pytest

from octopus_async import (
    ConfigurationError,
    Dao,
    DaoManager,
    InvalidRecord,
    KeyedModel,
    RecordNotFound,
    StaleRecord,
    State,
    WriteUnavailable,
)
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.testing.faulty import Fault
from tests.unit.stage import Book, Country, stage

M = TypeVar("M", bound=KeyedModel)


class Counter(KeyedModel):
    id: int
    value: int = 0


class Counting(Dao[Counter]):
    async def add(self, id_: int, amount: int) -> Counter:
        counter = await self.get_one(id_)
        counter.value += amount
        await self.update(counter, if_version=counter.version)
        return counter


class Further(Counting):
    pass


class Generally(Dao[M], Generic[M]):
    async def twice(self, first: M, second: M) -> None:
        (await self.create_many([first, second])).unwrap()


class Countries(Generally[Country]):
    pass


# -- subclasses ------------------------------------------------------------------------------------


async def test_a_subclass_has_methods_of_its_own_and_its_models_type(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        counters = it.manager.dao(Counting)
        assert_type(counters, Counting)
        assert_type(it.manager.dao(Counter), Dao[Counter])
        await counters.create(Counter(id=1))
        assert (await counters.add(1, 5)).value == 5
        found = await it.manager.dao(Counter).get_one(1)
        assert_type(found, Counter)
        assert found.value == 5
        assert it.manager.dao(Counting) is counters


async def test_a_subclass_of_a_subclass_and_of_a_generic_one_know_their_models(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        further = it.manager.dao(Further)
        await further.create(Counter(id=1))
        assert (await further.add(1, 1)).value == 1
        await it.manager.dao(Countries).twice(Country(id="at", name="A"), Country(id="ch", name="B"))
        assert await it.countries.exists("ch")


def test_a_dao_that_does_not_say_its_model_is_refused() -> None:
    manager = DaoManager([MemoryAdapter(durable=True, name="db")])
    for kind in (Dao, Generally):
        with pytest.raises(ConfigurationError, match="does not say its model"):
            manager.dao(kind)


# -- ids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, "", "a NUL \0", "\ud800", "x" * 1025, 7, b"at", 1.5, [], object()])
async def test_what_is_no_id_is_refused_before_anybody_is_asked(tmp_path: Path, wrong: Any) -> None:  # noqa: ANN401
    async with stage(tmp_path) as it:
        for call in (it.countries.read, it.countries.get_one, it.countries.exists, it.countries.delete):
            with pytest.raises(InvalidRecord, match=r"Country\.id"):
                await call(wrong)
        assert it.primary.calls["read"] == it.primary.calls["apply"] == it.cache.calls["read"] == 0


async def test_a_uuid_is_found_by_its_text_however_that_is_written(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.books.create(book := Book(title="one"))
        for text in (str(book.id), str(book.id).upper(), book.id.hex, f"{{{book.id}}}"):
            assert await it.books.read(text) == book
        with pytest.raises(InvalidRecord, match="no UUID"):
            await it.books.read("not a UUID")


async def test_ids_of_any_text_are_told_apart(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        ids = ["key", "KEY", "key ", " key", "kéy", "k\u0301ey", "a/b", "a:b", "\n", "𝒳", "x" * 255]
        (await it.countries.create_many([Country(id=id_, name=f"of {id_}") for id_ in ids])).unwrap()
        found = (await it.countries.get_many(ids)).unwrap()
        assert [country.name for country in found] == [f"of {id_}" for id_ in ids]


# -- deletes and conditions ------------------------------------------------------------------------


async def test_deleting_what_is_not_there_is_no_error_without_a_condition(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        assert not (await it.books.delete(uuid4())).journalled
        await it.books.create(book := Book(title="one"))
        stale = book.version
        await it.books.update(book)
        with pytest.raises(StaleRecord) as caught:
            await it.books.delete(book, if_version=stale)
        assert caught.value.stored_version == book.version
        await it.books.delete(book, if_version=book.version)
        with pytest.raises(RecordNotFound):
            await it.books.delete(book, if_version=book.version)
        with pytest.raises(LookupError):
            await it.books.get_one(book.id)


async def test_optimistic_updates_are_only_made_over_the_version_that_was_read(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        mine, changed = Book(title="mine"), Book(title="changed")
        await it.books.create_many([mine, changed])
        other = await it.books.get_one(changed.id)
        await it.books.update(other)
        results = await it.books.update_many([mine, changed], optimistic=True)
        assert [type(result.error) for result in results] == [type(None), StaleRecord]


async def test_an_optimistic_update_of_what_was_never_read_overwrites_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.books.create(book := Book(title="stored"))
        by_hand = Book(id=book.id, title="made by hand")
        (result,) = await it.books.update_many([by_hand], optimistic=True)
        assert isinstance(result.error, StaleRecord)
        assert (await it.books.get_one(book.id)).title == "stored"


@pytest.mark.parametrize("condition", ["", "nonsense", "\ud800", "a NUL \0", "x" * 100_000])
@pytest.mark.parametrize("primary", ["memory", "sqlite"])
async def test_a_condition_that_no_version_can_meet_is_stale_and_harms_nobody(
    tmp_path: Path, condition: str, primary: str
) -> None:
    store = MemoryAdapter(durable=True) if primary == "memory" else f"sqlite:///{tmp_path}/shop.db"
    async with DaoManager([store], create_tables=True) as octopus:
        books = octopus.dao(Book)
        await books.create(book := Book(title="one"))
        for _ in range(4):
            with pytest.raises(StaleRecord):
                await books.update(book, if_version=condition)
            with pytest.raises(StaleRecord):
                await books.delete(book, if_version=condition)
        assert octopus.backends[primary].writes.state is State.CLOSED
        assert await books.get_one(book.id) == book


# -- many-forms ------------------------------------------------------------------------------------


async def test_many_forms_keep_the_order_and_share_batches(tmp_path: Path) -> None:
    async with stage(tmp_path, cache=False) as it:
        every = [Country(id=f"c{number:05}", name=str(number)) for number in range(2500)]
        receipts = (await it.countries.create_many(every)).unwrap()
        assert [receipt.key.id for receipt in receipts] == [country.id for country in every]
        assert it.primary.calls["apply"] <= 12
        found = (await it.countries.read_many(country.id for country in reversed(every))).unwrap()
        assert found == every[::-1]
        assert (await it.countries.delete_many(iter(every[:3]))).errors == []


async def test_many_of_nothing_is_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        for call in (it.books.create_many, it.books.update_many, it.books.delete_many, it.books.read_many):
            assert (await call([])).unwrap() == []
        assert it.primary.calls["apply"] == it.primary.calls["read"] == 0


async def test_the_same_key_twice_in_one_call_is_judged_one_after_the_other(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.books.create(book := Book(title="one"))
        first, second = book.model_copy(update={"title": "a"}), book.model_copy(update={"title": "b"})
        receipts = (await it.books.update_many([first, second])).unwrap()
        assert receipts[0].version < receipts[1].version
        assert (await it.books.get_one(book.id)).title == "b"
        results = await it.books.delete_many([book.id, book.id])
        assert results.errors == []


async def test_an_outage_is_told_item_by_item(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        books = [Book(title=str(number)) for number in range(3)]
        await it.books.create_many(books)
        it.primary.break_down(Fault.REFUSE)
        results = await it.books.update_many(books, optimistic=True)
        assert [type(error) for error in results.errors] == [WriteUnavailable] * 3
        assert all(receipt.journalled for receipt in (await it.books.update_many(books)).unwrap())


async def test_a_cancelled_many_form_loses_no_write_that_was_begun(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.primary.writes = Fault.SLOW
        books = [Book(title=str(number)) for number in range(5)]
        writing = asyncio.create_task(it.books.create_many(books))
        await asyncio.sleep(0.01)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert all(book.version is None for book in books), "only an acknowledged write changes its model"
        await it.drained()
        assert [await it.title("primary", book) for book in books] == [book.title for book in books]


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
async def test_a_timeout_is_a_number_of_seconds_above_zero(tmp_path: Path, timeout: float) -> None:
    async with stage(tmp_path) as it:
        for call in (
            lambda: it.books.read(uuid4(), timeout=timeout),
            lambda: it.books.create(Book(title="one"), timeout=timeout),
        ):
            with pytest.raises(ConfigurationError, match="timeout"):
                await call()


async def test_moments_are_those_of_the_managers_clock(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    async with stage(tmp_path, wall=lambda: now[0]) as it:
        await it.books.create(book := Book(title="one"))
        assert book.created_at.timestamp() == book.updated_at.timestamp() == now[0]
        now[0] += 60
        await it.books.update(book)
        found = await it.books.get_one(book.id)
        assert (found.created_at.timestamp(), found.updated_at.timestamp()) == (now[0] - 60, now[0])
        assert isinstance(found.id, UUID)
