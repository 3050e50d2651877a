"""The contract's "A write", sentence by sentence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from octopus_async import (
    Acknowledge,
    ConstraintViolated,
    DuplicateRecord,
    GuardPolicy,
    InvalidRecord,
    OctopusError,
    Order,
    Outcome,
    RecordNotFound,
    StaleRecord,
    State,
    Status,
    WriteUnavailable,
)
from octopus_async.clock import Clock, encode_version
from octopus_async.errors import JournalFull
from octopus_async.events import DeadLettered, WriteJournalled
from octopus_async.mapper import Mapper
from octopus_async.record import Kind, Mode, Operation, rejected
from octopus_async.testing.faulty import Fault
from tests.unit.stage import Book, Country, Stage, Strict, stage

OUTAGES = [Fault.REFUSE, Fault.FAIL, Fault.HANG, Fault.LOSE, Fault.LATE]


async def test_what_cannot_be_stored_everywhere_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        with pytest.raises(InvalidRecord, match=r"Book\.title"):
            await it.books.create(Book(title="a NUL \0"))
        assert it.primary.calls["apply"] == it.cache.calls["apply"] == 0


async def test_the_callers_model_changes_only_on_acknowledgement(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="one")
        before = book.model_dump()
        it.manager.backends["primary"].writes.force(State.FORCED_OPEN)
        with pytest.raises(WriteUnavailable):
            await it.books.update(book, if_version="0" * 26)
        assert (book.version, book.model_dump()) == (None, before)
        receipt = await it.books.create(book)
        assert book.version == receipt.version
        assert book.updated_at > before["updated_at"]


async def test_a_generated_create_asks_all_at_the_same_time(tmp_path: Path) -> None:
    async with stage(tmp_path, guard=GuardPolicy(timeout=5)) as it:
        await it.books.create(Book(title="before"))
        it.primary.delay = 0.5
        it.primary.delay = 0.5  # half of it is long on a busy machine too
        it.primary.writes = Fault.SLOW
        book = Book(title="one")
        writing = asyncio.create_task(it.books.create(book))
        await asyncio.sleep(it.primary.delay / 2)
        assert await it.title("cache", book) == "one"
        assert await it.title("primary", book) is None
        await writing


@pytest.mark.parametrize("write", ["own id", "update", "if_version"])
async def test_where_the_primary_may_reject_it_is_asked_first(tmp_path: Path, write: str) -> None:
    async with stage(tmp_path, guard=GuardPolicy(timeout=5)) as it:
        book, country = Book(title="one"), Country(id="at", name="Austria")
        await it.books.create(book)
        it.primary.delay = 0.5
        it.primary.delay = 0.5  # half of it is long on a busy machine too
        it.primary.writes = Fault.SLOW
        book.title = "two"
        calls: dict[str, Callable[[], object]] = {
            "own id": lambda: it.countries.create(country),
            "update": lambda: it.books.update(book),
            "if_version": lambda: it.books.update(book, if_version=book.version),
        }
        writing = asyncio.ensure_future(calls[write]())  # type: ignore[call-overload]
        await asyncio.sleep(it.primary.delay / 2)
        assert await it.title("cache", book) == "one"
        assert await it.held("cache", country) is None
        await writing


async def test_the_receipt_says_what_each_backend_answered(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True, acknowledge=Acknowledge.ALL) as it:
        receipt = await it.books.create(Book(title="one"))
        assert {name: outcome.status for name, outcome in receipt.outcomes.items()} == {
            "primary": Status.APPLIED,
            "replica": Status.APPLIED,
            "cache": Status.APPLIED,
        }
        assert not receipt.journalled
        await receipt.settled()


@pytest.mark.parametrize("fault", OUTAGES)
async def test_what_the_primary_did_not_take_is_journalled_and_acknowledged(
    tmp_path: Path, fault: Fault
) -> None:
    async with stage(tmp_path) as it:
        it.primary.delay = 0.3  # longer than the guard waits
        it.primary.break_down(fault)
        book = Book(title="one")
        receipt = await it.books.create(book)
        assert receipt.journalled
        assert receipt.outcomes["primary"].status in (Status.UNAVAILABLE, Status.UNKNOWN)
        assert await it.books.read(book.id) == book
        assert [event.targets for event in it.seen(WriteJournalled)] == [("primary",)]
        it.primary.heal()
        async with asyncio.timeout(5):
            await receipt.settled()
        assert await it.title("primary", book) == "one"
        await it.drained()


@pytest.mark.parametrize("fault", OUTAGES)
async def test_what_was_sent_is_unknown_and_what_was_not_is_unavailable(tmp_path: Path, fault: Fault) -> None:
    async with stage(tmp_path) as it:
        await it.books.create(Book(title="before"))
        it.primary.delay = 0.3  # longer than the guard waits
        it.primary.break_down(fault)
        receipt = await it.books.create(Book(title="one"))
        sent = fault in (Fault.HANG, Fault.LOSE, Fault.LATE)
        assert receipt.outcomes["primary"].status is (Status.UNKNOWN if sent else Status.UNAVAILABLE)


async def test_a_rejected_write_leaves_no_trace_and_raises(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True) as it:
        apply = it.primary.adapter.apply

        async def refuse(operations: list[Operation], _: Mode) -> list[Outcome]:
            await asyncio.sleep(0.01)
            return [
                rejected(ConstraintViolated(f"{operation.key}: title is taken")) for operation in operations
            ]

        it.primary.adapter.apply = refuse  # type: ignore[assignment, method-assign]
        book = Book(title="one")
        with pytest.raises(ConstraintViolated):
            await it.books.create(book)
        await it.drained()
        await asyncio.sleep(0.05)
        assert [await it.title(name, book) for name in it.backends] == [None, None, None]
        it.primary.adapter.apply = apply  # type: ignore[method-assign]
        assert await it.books.read(book.id) is None


async def test_rejections_are_raised_by_their_names(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        country = Country(id="at", name="Austria")
        first = await it.countries.create(country)
        with pytest.raises(DuplicateRecord):
            await it.countries.create(Country(id="at", name="another"))
        await it.countries.update(country)
        with pytest.raises(StaleRecord) as caught:
            await it.countries.update(country, if_version=first.version)
        assert caught.value.stored_version == country.version
        await it.countries.delete("at")
        for call in (it.countries.update(country), it.countries.get_one("at")):
            with pytest.raises(RecordNotFound):
                await call
        await it.countries.create(Country(id="at", name="again"))
        assert (await it.countries.get_one("at")).name == "again"


async def test_when_the_journal_fails_as_well_nothing_is_claimed_and_caches_are_compensated(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        it.primary.break_down(Fault.REFUSE)
        assert it.manager.journal is not None

        def fail(*_: object, **__: object) -> asyncio.Future[int]:
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            future.set_exception(JournalFull("the disk is full"))
            return future

        it.manager.journal.append = fail  # type: ignore[method-assign]
        book = Book(title="one")
        with pytest.raises(WriteUnavailable, match="Nothing was written") as caught:
            await it.books.create(book)
        assert set(caught.value.causes) == {"primary", "journal"}
        await it.drained()
        assert await it.title("cache", book) is None
        assert book.version is None


async def test_without_a_journal_an_outage_refuses_and_says_whether_it_may_still_be_applied() -> None:
    async with stage(None) as it:
        it.primary.break_down(Fault.HANG)
        with pytest.raises(WriteUnavailable, match="may still be applied"):
            await it.books.create(Book(title="one"))
        it.primary.break_down(Fault.REFUSE)
        with pytest.raises(WriteUnavailable, match="Nothing was written"):
            await it.books.create(Book(title="two"))


async def test_a_condition_is_refused_while_the_primary_cannot_be_asked(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="one")
        await it.books.create(book)
        it.primary.break_down(Fault.REFUSE)
        book.title = "two"
        with pytest.raises(WriteUnavailable, match="if_version"):
            await it.books.update(book, if_version=book.version)
        assert not it.seen(WriteJournalled)
        assert (await it.books.get_one(book.id)).title == "one"


async def test_a_create_with_an_own_id_is_provisional_in_an_outage(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.primary.break_down(Fault.REFUSE)
        assert (await it.countries.create(Country(id="at", name="Austria"))).provisional
        assert not (await it.books.create(Book(title="one"))).provisional


async def test_a_model_may_rather_be_refused_than_provisional(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.primary.break_down(Fault.REFUSE)
        with pytest.raises(WriteUnavailable, match="provisional=False"):
            await it.manager.dao(Strict).create(Strict(id="one"))


async def test_a_blind_update_is_refused_with_what_a_model_would_not_have_provisional(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        stricts = it.manager.dao(Strict)
        known = Strict(id="one")
        await stricts.create(known)
        it.primary.break_down(Fault.REFUSE)
        with pytest.raises(WriteUnavailable, match="provisional=False"):
            await stricts.update(Strict(id="one"))
        assert (await stricts.update(known)).journalled


async def test_an_update_of_what_another_process_may_have_deleted_is_provisional(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="one")
        await it.books.create(book)
        await asyncio.sleep(0.002)
        deletion = Operation(Kind.DELETE, Mapper(Book).key_of(book), Clock().next(), "")
        await asyncio.sleep(0.002)
        it.primary.break_down(Fault.REFUSE)
        receipt = await it.books.update(book)
        assert receipt.provisional
        await it.primary.adapter.apply([deletion], Mode.LIVE)
        it.primary.heal()
        async with asyncio.timeout(5):
            with pytest.raises(RecordNotFound):
                await receipt.settled()


async def test_what_waits_behind_a_sure_write_is_sure_and_behind_a_doubtful_one_doubtful(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        it.primary.break_down(Fault.REFUSE)
        book, country = Book(title="one"), Country(id="at", name="Austria")
        sure = [await it.books.create(book), await it.books.update(book), await it.books.delete(book)]
        assert [receipt.provisional for receipt in sure] == [False] * 3
        doubtful = [await it.countries.create(country), await it.countries.delete(country)]
        assert [receipt.provisional for receipt in doubtful] == [True] * 2
        assert not (await it.countries.delete("de")).provisional


async def test_an_update_behind_a_new_record_in_the_journal_is_one_of_that_record(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        country = Country(id="at", name="first")
        await it.countries.create(country)
        late = country.model_copy()
        it.primary.break_down(Fault.REFUSE)
        await it.countries.delete(country)
        await it.countries.create(Country(id="at", name="second"))
        late.name = "late"
        receipt = await it.countries.update(late)
        it.primary.heal()
        async with asyncio.timeout(5):
            await receipt.settled()
        assert (await it.held("primary", late) or {})["name"] == "late"


async def test_a_new_record_that_another_process_saw_and_deleted_does_not_come_back(tmp_path: Path) -> None:
    """Simulation seeds 1048 and 4342: the cache had the create before the primary, and a reader with it."""
    async with stage(tmp_path) as it:
        book = Book(title="seen")
        later = Clock()
        later.observe(encode_version(int(time.time() * 1000) + 1000, 0, 0))
        deletion = Operation(Kind.DELETE, Mapper(Book).key_of(book), later.next(), "")
        await it.primary.adapter.apply([deletion], Mode.LIVE)
        receipt = await it.books.create(book)
        assert receipt.version < deletion.version
        assert await it.title("primary", book) is None


async def test_a_conflict_found_at_replay_is_a_dead_letter_an_event_and_raised_by_settled(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        it.primary.break_down(Fault.REFUSE)
        receipt = await it.countries.create(Country(id="at", name="ours"))
        theirs = await another_process_creates(it, Country(id="at", name="theirs"))
        it.primary.heal()
        async with asyncio.timeout(5):
            with pytest.raises(DuplicateRecord):
                await receipt.settled()
        await it.until(lambda: it.seen(DeadLettered))
        assert [event.key.id for event in it.seen(DeadLettered)] == ["at"]
        found = await it.countries.get_one("at")
        assert (found.name, found.version) == ("theirs", theirs)


async def test_writes_behind_pending_ones_are_judged_by_them(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.primary.break_down(Fault.REFUSE)
        country = Country(id="at", name="Austria")
        await it.countries.create(country)
        with pytest.raises(DuplicateRecord):
            await it.countries.create(Country(id="at", name="twice"))
        await it.countries.delete(country)
        with pytest.raises(RecordNotFound):
            await it.countries.update(country)
        assert await it.countries.read("at") is None


async def test_a_live_write_that_is_older_than_what_is_stored_is_issued_again(tmp_path: Path) -> None:
    now = [2_000_000_000.0]
    async with stage(tmp_path, wall=lambda: now[0]) as it:
        book = Book(title="one")
        await it.books.create(book)
        stamped = book.version
        it.manager._clock._milliseconds = it.manager._clock._counter = 0  # a process whose clock is behind
        now[0] -= 3600
        book.title = "two"
        await it.books.update(book)
        assert (book.version or "") > (stamped or "")
        assert await it.title("primary", book) == "two"


@pytest.mark.parametrize("fault", [None, *OUTAGES])
@pytest.mark.parametrize("ticks", range(0, 12, 2))
async def test_a_cancelled_caller_stops_waiting_and_nothing_else(
    tmp_path: Path, fault: Fault | None, ticks: int
) -> None:
    async with stage(tmp_path) as it:
        if fault is not None:
            it.primary.break_down(fault)
        book = Book(title="one")
        writing = asyncio.create_task(it.books.create(book))
        for _ in range(ticks):
            await asyncio.sleep(0)
        writing.cancel()
        cancelled = (await asyncio.gather(writing, return_exceptions=True))[0]
        it.primary.heal()
        await it.drained()
        begun = ticks > 0 or not isinstance(cancelled, asyncio.CancelledError)
        assert await it.title("primary", book) == ("one" if begun else None)


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.LATE, Fault.SLOW])
async def test_no_write_is_later_than_its_deadline(tmp_path: Path, fault: Fault) -> None:
    async with stage(tmp_path, guard=GuardPolicy(timeout=5)) as it:
        it.primary.delay = 10
        it.primary.break_down(fault)
        loop = asyncio.get_running_loop()
        start = loop.time()
        results = await it.books.create_many((Book(title=str(n)) for n in range(50)), timeout=1)
        assert loop.time() - start < 1.1
        assert all(receipt.journalled for receipt in results.unwrap())


async def test_a_cache_that_missed_a_write_is_not_read_for_it_until_it_has_been_told(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        book = Book(title="one")
        await it.books.create(book)
        it.cache.writes = Fault.FAIL
        book.title = "two"
        await it.books.update(book)
        await asyncio.sleep(0.01)
        assert await it.title("cache", book) == "one"
        assert (await it.books.get_one(book.id)).title == "two"
        it.cache.writes = None
        await it.drained()
        assert await it.title("cache", book) in (None, "two")


async def test_a_replica_that_missed_a_write_gets_it_from_the_journal(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True) as it:
        it.backends["replica"].break_down(Fault.REFUSE)
        book = Book(title="one")
        receipt = await it.books.create(book)
        assert not receipt.journalled
        await asyncio.sleep(0.02)
        it.backends["replica"].heal()
        await it.drained()
        assert await it.title("replica", book) == "one"


async def test_a_replica_is_never_given_what_the_primary_might_refuse(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True) as it:
        country = Country(id="at", name="Austria")
        it.primary.break_down(Fault.REFUSE)
        await it.countries.create(country)
        assert await it.held("replica", country) is None
        it.primary.heal()
        await it.drained()
        assert await it.held("replica", country) == await it.held("primary", country) != None  # noqa: E711


async def test_acknowledged_by_all_waits_for_every_durable_backend(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True, acknowledge=Acknowledge.ALL, order=Order.PRIMARY_FIRST) as it:
        it.backends["replica"].writes = Fault.SLOW
        book = Book(title="one")
        await it.books.create(book)
        assert await it.title("replica", book) == "one"


async def test_acknowledged_by_all_says_so_if_nobody_keeps_what_a_replica_missed() -> None:
    async with stage(None, replica=True, acknowledge=Acknowledge.ALL) as it:
        it.backends["replica"].break_down(Fault.REFUSE)
        with pytest.raises(WriteUnavailable, match="primary has it"):
            await it.books.create(Book(title="one"))


async def test_writes_to_one_key_leave_in_version_order(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.primary.writes = Fault.SLOW
        it.primary.delay = 0.002
        book = Book(title="0")
        await it.books.create(book)
        copies = [book.model_copy(update={"title": str(n)}) for n in range(1, 30)]
        receipts = (await it.books.update_many(copies)).unwrap()
        assert [receipt.version for receipt in receipts] == sorted(receipt.version for receipt in receipts)
        assert await it.title("primary", book) == "29"
        await it.drained()
        assert await it.title("cache", book) == "29"


async def test_many_forms_have_an_outcome_per_item(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        good, twice, bad = Country(id="at", name="A"), Country(id="at", name="B"), Country(id="ch", name="\0")
        results = await it.countries.create_many([good, twice, bad])
        assert [type(result.error) for result in results] == [type(None), DuplicateRecord, InvalidRecord]
        with pytest.raises(ExceptionGroup) as caught:
            results.unwrap()
        assert all(isinstance(error, OctopusError) for error in caught.value.exceptions)
        assert (await it.countries.read_many(["at", "ch"])).unwrap() == [good, None]
        assert (await it.countries.exists_many(["at", "ch"])).unwrap() == [True, False]
        assert [type(result.error) for result in await it.countries.get_many(["at", "ch"])] == [
            type(None),
            RecordNotFound,
        ]
        assert not (await it.countries.update_many([good], optimistic=True)).errors
        assert not (await it.countries.delete_many([good, "ch"])).errors
        assert await it.countries.read("at") is None


async def another_process_creates(it: Stage, country: Country) -> str:
    """Put a record into the primary, past this process's manager; gives its version."""
    version = Clock().next()
    mapper = Mapper(Country)
    fields, payload = mapper.encode(country, country.updated_at, create=True)
    operation = Operation(Kind.CREATE, mapper.key_of(country), version, version, fields, payload)
    (outcome,) = await it.primary.adapter.apply([operation], Mode.LIVE)
    assert outcome.status is Status.APPLIED
    return version
