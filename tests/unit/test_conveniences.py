"""upsert, get_or_create, update of some fields, refresh."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import Field

from octopus_async import (
    InvalidRecord,
    KeyedModel,
    ReadUnavailable,
    RecordNotFound,
    StaleRecord,
    State,
    WriteUnavailable,
)
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.manager import DaoManager
from octopus_async.testing.faulty import Fault, FaultyAdapter
from tests.unit.stage import Book, Country, stage


class Page(KeyedModel):
    id: str
    text: str = ""
    hits: int = 0
    tags: list[str] = Field(default_factory=list)


# -- upsert and get_or_create ----------------------------------------------------------------------


async def test_an_upsert_creates_what_is_not_there_and_replaces_what_is(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.countries.upsert(first := Country(id="at", name="Austria"))
        second = Country(id="at", name="Österreich")
        await it.countries.upsert(second)
        found = await it.countries.get_one("at")
        assert found.name == "Österreich"
        assert found == second
        assert found.version == second.version
        assert found.created_at == first.created_at, "it is still the record that was created first"
        assert found.updated_at > first.updated_at
        assert isinstance(
            (await it.countries.upsert_many([second, Country(id="ch", name="Schweiz")])).unwrap(), list
        )
        assert await it.countries.exists("ch")


async def test_an_upsert_stores_the_moment_of_creation_that_it_is_given(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.countries.create(Country(id="at", name="Austria"))
        long_ago = datetime(1955, 5, 15, tzinfo=UTC)
        await it.countries.upsert(Country(id="at", name="Österreich", created_at=long_ago))
        assert (await it.countries.get_one("at")).created_at == long_ago


async def test_upserts_of_one_record_at_the_same_time_all_succeed(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        many = [Country(id="at", name=str(number)) for number in range(20)]
        (await it.countries.upsert_many(many)).unwrap()
        assert (await it.countries.get_one("at")).name in {country.name for country in many}
        assert len({country.created_at for country in many}) <= 2


async def test_an_upsert_in_an_outage_is_journalled_whether_or_not_there_is_a_record(tmp_path: Path) -> None:
    async with stage(tmp_path, cache=False) as it:
        await it.countries.create(Country(id="at", name="Austria"))
        it.primary.break_down(Fault.REFUSE)
        there = await it.countries.upsert(Country(id="at", name="Österreich"))
        new = await it.countries.upsert(Country(id="ch", name="Schweiz"))
        assert there.journalled
        assert new.journalled
        it.primary.heal()
        await it.drained()
        await there.settled()
        await new.settled()
        await it.until(lambda: it.manager.backends["primary"].reads.passes)
        assert (await it.countries.get_one("at")).name == "Österreich"
        assert (await it.countries.get_one("ch")).name == "Schweiz"


async def test_get_or_create_gives_what_is_there_and_a_receipt_for_what_was_not(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        mine, receipt = await it.countries.get_or_create(country := Country(id="at", name="Austria"))
        assert mine is country
        assert receipt is not None
        assert mine.version == receipt.version
        theirs, nothing = await it.countries.get_or_create(Country(id="at", name="Österreich"))
        assert (theirs, nothing) == (country, None)
        assert theirs.name == "Austria"


async def test_of_many_who_get_or_create_one_creates(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        made = await asyncio.gather(
            *(it.countries.get_or_create(Country(id="at", name=str(number))) for number in range(20))
        )
        assert sum(receipt is not None for _, receipt in made) == 1
        assert len({country.name for country, _ in made}) == 1


async def test_get_or_create_does_not_guess(tmp_path: Path) -> None:
    async with stage(tmp_path, cache=False) as it:
        it.primary.break_down(Fault.REFUSE)
        with pytest.raises(ReadUnavailable):
            await it.countries.get_or_create(Country(id="at", name="Austria"))


# -- some fields -----------------------------------------------------------------------------------


async def test_only_the_named_fields_change_and_the_model_becomes_what_is_stored(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        pages = it.manager.dao(Page)
        await pages.create(page := Page(id="a", text="old", tags=["x"]))
        other = await pages.get_one("a")
        other.text, other.hits = "theirs", 5
        await pages.update(other)

        page.tags.append("y")
        page.text = "not to be stored"
        receipt = await pages.update(page, only={"tags"})
        stored = await pages.get_one("a")
        assert (stored.text, stored.hits, stored.tags) == ("theirs", 5, ["x", "y"])
        assert page == stored
        assert page.version == stored.version == receipt.version
        assert (await it.held("primary", page) or {})["text"] == "theirs", "the full state is written"


async def test_changes_of_different_fields_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        pages = it.manager.dao(Page)
        await pages.create(Page(id="a"))
        mine = [await pages.get_one("a") for _ in range(3)]
        mine[0].text, mine[1].hits, mine[2].tags = "text", 7, ["tag"]
        await asyncio.gather(
            *(
                pages.update(page, only=[field])
                for page, field in zip(mine, ("text", "hits", "tags"), strict=True)
            )
        )
        found = await pages.get_one("a")
        assert (found.text, found.hits, found.tags) == ("text", 7, ["tag"])
        results = await pages.update_many(mine[:2], only={"hits"})
        assert results.errors == []


async def test_what_is_no_field_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.books.create(book := Book(title="one"))
        asked = it.primary.calls["read"]
        for wrong in ("titel", "id", "version"):
            with pytest.raises(InvalidRecord, match=f"Book.{wrong} is no field"):
                await it.books.update(book, only={wrong})
        assert it.primary.calls["read"] == asked


async def test_some_fields_of_what_is_not_there_are_not_found(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        with pytest.raises(RecordNotFound):
            await it.books.update(Book(title="one"), only={"title"})


async def test_some_fields_over_another_version_are_stale(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        pages = it.manager.dao(Page)
        await pages.create(page := Page(id="a"))
        first = page.version
        await pages.update(page, only={"text"}, if_version=first)
        page.text = "mine"
        with pytest.raises(StaleRecord):
            await pages.update(page, only={"text"}, if_version=first)
        assert page.text == "mine"
        await pages.update(page, only={"text"}, if_version=page.version)
        results = await pages.update_many([page, Page(id="a")], only={"text"}, optimistic=True)
        assert [type(result.error) for result in results] == [type(None), StaleRecord]


async def test_some_fields_cannot_be_changed_while_nobody_can_compare_versions(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.books.create(book := Book(title="one"))
        it.manager.backends["primary"].writes.force(State.FORCED_OPEN)
        book.title = "two"
        with pytest.raises(WriteUnavailable):
            await it.books.update(book, only={"title"})
        assert (await it.books.get_one(book.id)).title == "one"


# -- past the caches -------------------------------------------------------------------------------


async def test_who_was_told_that_a_record_is_stale_reads_what_is_stored() -> None:
    """A cache of this process knows nothing of what another process has written."""
    shared = MemoryAdapter(durable=True, name="db")
    async with (
        DaoManager([FaultyAdapter(shared), "memory://"]) as here,
        DaoManager([FaultyAdapter(shared)]) as there,
    ):
        await here.dao(Page).create(page := Page(id="a", text="one"))
        await here.dao(Page).read("a")
        other = Page(id="a", text="two")
        await there.dao(Page).update(other)
        assert (await here.dao(Page).get_one("a")).text == "one", "from the cache"

        with pytest.raises(StaleRecord):
            await here.dao(Page).update(page, if_version=page.version)
        assert (await here.dao(Page).get_one("a")).text == "two"


async def test_a_refresh_asks_the_primary_and_nobody_else(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.books.create(book := Book(title="one"))
        seen, asked = await it.books.get_one(book.id), it.primary.calls["read"]
        book.title = "two"
        await it.books.update(book)
        await it.books.refresh(seen)
        assert (seen.title, seen.version) == ("two", book.version)
        assert it.primary.calls["read"] == asked + 1
        it.primary.reads = Fault.REFUSE
        with pytest.raises(ReadUnavailable):
            await it.books.refresh(seen)
        it.primary.heal()
        await it.until(lambda: it.manager.backends["primary"].reads.passes)
        await it.books.delete(book)
        with pytest.raises(RecordNotFound):
            await it.books.refresh(seen)
        assert seen.title == "two"


async def test_a_refresh_in_an_outage_gives_what_the_journal_holds(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.books.create(book := Book(title="one"))
        seen = await it.books.get_one(book.id)
        it.primary.break_down(Fault.REFUSE)
        book.title = "two"
        assert (await it.books.update(book)).journalled
        await it.books.refresh(seen)
        assert seen.title == "two"
