"""After a crash, or a write that nobody can account for, replicas are brought up to their primary."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from octopus_async import DuplicateRecord, WriteUnavailable
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.backend import Capabilities
from octopus_async.clock import Clock, version_at
from octopus_async.events import CatchUpFinished, CatchUpStarted, DeadLettered, Events
from octopus_async.journal import FileJournal
from octopus_async.record import Key, Kind, Mode, Operation, Outcome, Record, rejected
from octopus_async.testing.faulty import Fault
from tests.unit.stage import Book, Country, Stage, stage

LATE = 0.05


async def die_with_a_mark(path: Path, marks: dict[str, str]) -> None:
    """What a process leaves that was killed."""
    journal = FileJournal(path)
    await journal.open(Events())
    await journal.mark(marks)
    await journal._runner.stop(5.0)
    journal._is_open = False
    journal._disk.forget()


def country(name: str, title: str = "x", *, version: str | None = None) -> Operation:
    version = version or Clock().next()
    payload = b'{"name":"%s"}' % title.encode()
    return Operation(Kind.CREATE, Key("Country", name), version, version, {"name": title}, payload)


async def put(it: Stage, backend: str, *operations: Operation) -> None:
    """Write past the library, as a process that died had done."""
    await it.backends[backend].adapter.apply(operations, Mode.MIRROR)


async def stored(it: Stage, backend: str, name: str) -> Record | None:
    (answer,) = await it.backends[backend].adapter.read([Key("Country", name)])
    return answer if isinstance(answer, Record) else None


async def compared(it: Stage, model: str = "Country") -> None:
    """Wait until a model was compared, also for what came late."""
    await it.until(lambda: model not in it.manager.statistics().comparing and it.seen(CatchUpFinished))


def refuse(it: Stage, backend: str, name: str) -> None:
    """Have a backend refuse one record."""
    adapter = it.backends[backend].adapter
    apply = adapter.apply

    async def refusing(operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        outcomes = list(await apply([each for each in operations if each.key.id != name], mode))
        for place, operation in enumerate(operations):
            if operation.key.id == name:
                outcomes.insert(place, rejected(DuplicateRecord("taken")))
        return outcomes

    adapter.apply = refusing  # type: ignore[method-assign]


def files_in(path: Path, pattern: str) -> list[Path]:
    return sorted(path.glob(pattern))


# -- after a crash ---------------------------------------------------------------------------------


async def test_after_a_crash_a_replica_gets_what_its_primary_has_above_the_mark(tmp_path: Path) -> None:
    clock = Clock()
    old, mark, new = country("old"), clock.next(), country("new", version=clock.next())
    await die_with_a_mark(tmp_path, {"Country": mark})
    async with stage(tmp_path, replica=True, late_writes=LATE) as it:
        # They were there before, and nobody has compared yet: the model's tasks have not run.
        await put(it, "primary", old._replace(version=version_at(1), born=version_at(1)), new)
        await compared(it)
        record = await stored(it, "replica", "new")
        assert record is not None
        assert record == await stored(it, "primary", "new")
        assert await stored(it, "replica", "old") is None


async def test_a_deletion_that_a_crash_has_cut_off_reaches_the_replica(tmp_path: Path) -> None:
    clock = Clock()
    mark = clock.next()
    create = country("a", version=mark)
    delete = Operation(Kind.DELETE, create.key, clock.next(), create.born)
    await die_with_a_mark(tmp_path, {"Country": mark})
    async with stage(tmp_path, replica=True, late_writes=LATE) as it:
        await put(it, "replica", create)
        await put(it, "primary", create, delete)
        await compared(it)
        assert await stored(it, "replica", "a") == await stored(it, "primary", "a")


async def test_what_the_replica_has_newer_is_left_alone(tmp_path: Path) -> None:
    clock = Clock()
    mark, older, newer = clock.next(), country("a"), country("a", "newer", version=clock.next())
    await die_with_a_mark(tmp_path, {"Country": mark})
    async with stage(tmp_path, replica=True, late_writes=LATE) as it:
        await put(it, "primary", older)
        await put(it, "replica", newer)
        await compared(it)
        record = await stored(it, "replica", "a")
        assert record is not None
        assert record.version == newer.version


async def test_what_lands_late_in_the_primary_is_found_by_the_second_look(tmp_path: Path) -> None:
    clock = Clock()
    mark, late = clock.next(), country("late", version=clock.next())
    await die_with_a_mark(tmp_path, {"Country": mark})
    async with stage(tmp_path, replica=True, late_writes=0.2) as it:
        await it.until(lambda: it.seen(CatchUpFinished))
        await put(it, "primary", late)
        assert "Country" in it.manager.statistics().comparing
        await it.until(lambda: "Country" not in it.manager.statistics().comparing)
        assert await stored(it, "replica", "late") is not None


async def test_it_waits_for_a_primary_and_for_a_replica_that_are_away(tmp_path: Path) -> None:
    clock = Clock()
    mark, new = clock.next(), country("new", version=clock.next())
    await die_with_a_mark(tmp_path, {"Country": mark})
    async with stage(tmp_path, replica=True, late_writes=LATE) as it:
        await put(it, "primary", new)
        it.primary.break_down(Fault.REFUSE)
        it.backends["replica"].break_down(Fault.REFUSE)
        await asyncio.sleep(0.1)
        it.primary.heal()
        await asyncio.sleep(0.1)
        assert "Country" in it.manager.statistics().comparing
        it.backends["replica"].heal()
        await compared(it)
        assert await stored(it, "replica", "new") is not None


async def test_a_model_that_nobody_asked_for_waits_for_its_dao_and_holds_up_no_other(tmp_path: Path) -> None:
    mark = Clock().next()
    await die_with_a_mark(tmp_path, {"Country": mark, "Forgotten": mark})
    async with stage(tmp_path, replica=True, late_writes=LATE) as it:
        await it.until(lambda: it.seen(CatchUpFinished))
        await it.drained()
        await it.until(lambda: it.manager.statistics().comparing == frozenset({"Forgotten"}))
        assert {event.model for event in it.seen(CatchUpStarted)} == {"Country"}
    async with stage(tmp_path, replica=True, late_writes=LATE) as it:
        assert it.manager.statistics().comparing == frozenset({"Forgotten"})


async def test_drained_waits_for_the_first_look(tmp_path: Path) -> None:
    clock = Clock()
    mark, new = clock.next(), country("new", version=clock.next())
    await die_with_a_mark(tmp_path, {"Country": mark})
    async with stage(tmp_path, replica=True) as it:
        await put(it, "primary", new)
        await it.drained()
        assert len(it.seen(CatchUpFinished)) == 1
        assert await stored(it, "replica", "new") is not None


async def test_after_a_clean_stop_nobody_looks(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True) as it:
        for number in range(10):
            await it.books.create(Book(title=str(number)))
    assert not files_in(tmp_path, "writer-*")
    async with stage(tmp_path, replica=True) as it:
        await it.books.create(Book(title="more"))
        await it.drained()
        assert not it.seen(CatchUpStarted)


async def test_without_replicas_nothing_is_marked(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.books.create(Book(title="Emma"))
        assert not files_in(tmp_path, "writer-*/mark")


async def test_the_mark_lies_on_the_disk_before_the_first_write_is_sent(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True) as it:
        apply, marked = it.primary.adapter.apply, list[bool]()

        async def look(operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
            marked.append(any(b"Book" in file.read_bytes() for file in files_in(tmp_path, "writer-*/mark")))
            return await apply(operations, mode)

        it.primary.adapter.apply = look  # type: ignore[method-assign]
        await it.books.create(Book(title="Emma"))
        assert marked == [True]


async def test_a_large_table_is_read_in_pages_and_nothing_is_missed(tmp_path: Path) -> None:
    clock = Clock()
    mark = clock.next()
    countries = [country(f"c{number}", version=clock.next()) for number in range(1_234)]
    await die_with_a_mark(tmp_path, {"Country": mark})
    async with stage(tmp_path, replica=True, late_writes=LATE) as it:
        await put(it, "primary", *countries)
        await compared(it)
        for operation in countries:
            assert await stored(it, "replica", operation.key.id) is not None
        assert it.seen(CatchUpFinished)[-1].compared == 1_234


# -- what a replica refuses, and what cannot be read ---------------------------------------------------


async def test_what_a_replica_refuses_for_good_becomes_a_dead_letter(tmp_path: Path) -> None:
    clock = Clock()
    mark = clock.next()
    good, bad = country("good", version=clock.next()), country("bad", version=clock.next())
    await die_with_a_mark(tmp_path, {"Country": mark})
    async with stage(tmp_path, replica=True, late_writes=LATE) as it:
        refuse(it, "replica", "bad")
        await put(it, "primary", good, bad)
        await it.until(lambda: it.seen(DeadLettered))
        (letter,) = it.seen(DeadLettered)
        assert (letter.backend, letter.key.id) == ("replica", "bad")
        assert await stored(it, "replica", "good") is not None


async def test_what_a_replica_refuses_in_a_live_write_becomes_a_dead_letter(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True) as it:
        refuse(it, "replica", "bad")
        await it.countries.create(Country(id="good", name="x"))
        await it.countries.create(Country(id="bad", name="x"))
        await it.until(lambda: it.seen(DeadLettered))
        assert [(each.backend, each.key.id) for each in it.seen(DeadLettered)] == [("replica", "bad")]


async def test_a_primary_that_cannot_list_its_records_is_not_asked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await die_with_a_mark(tmp_path, {"Country": Clock().next()})
    monkeypatch.setattr(MemoryAdapter, "capabilities", Capabilities(durable=True))
    async with stage(tmp_path, replica=True, cache=False, late_writes=LATE) as it:
        await it.until(lambda: not it.manager.statistics().comparing)
        assert not it.seen(CatchUpFinished)


# -- writes that nobody can account for ----------------------------------------------------------------


async def test_a_write_that_nobody_kept_reaches_the_replica_when_it_lands_late() -> None:
    async with stage(None, replica=True, cache=False, late_writes=0.5) as it:
        await it.countries.create(Country(id="first", name="x"))
        it.primary.delay = 0.4
        it.primary.writes = Fault.LATE
        with pytest.raises(WriteUnavailable, match="may still be applied"):
            await it.countries.create(Country(id="late", name="x"), timeout=0.2)
        assert "Country" in it.manager.statistics().comparing
        await it.primary.landed()
        it.primary.heal()
        assert await stored(it, "replica", "late") is None
        await compared(it)
        record = await stored(it, "replica", "late")
        assert record is not None
        assert record == await stored(it, "primary", "late")


async def test_a_conditional_update_that_lands_late_reaches_the_replica(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True, cache=False, late_writes=0.5) as it:
        book = Book(title="Emma")
        await it.books.create(book)
        it.primary.delay = 0.4
        it.primary.writes = Fault.LATE
        book.title = "Persuasion"
        with pytest.raises(WriteUnavailable):
            await it.books.update(book, if_version=book.version, timeout=0.2)
        await it.primary.landed()
        it.primary.heal()
        await compared(it, "Book")
        assert await it.title("primary", book) == await it.title("replica", book) == "Persuasion"


async def test_what_a_replica_missed_and_no_journal_kept_is_brought_up_when_it_is_back() -> None:
    async with stage(None, replica=True, cache=False, late_writes=LATE) as it:
        it.backends["replica"].break_down(Fault.REFUSE)
        book = Book(title="Emma")
        await it.books.create(book)
        it.backends["replica"].heal()
        await compared(it, "Book")
        assert await it.title("replica", book) == "Emma"


async def test_a_write_that_was_certainly_not_sent_leaves_no_doubt() -> None:
    async with stage(None, replica=True, cache=False) as it:
        it.primary.break_down(Fault.REFUSE)
        with pytest.raises(WriteUnavailable):
            await it.books.create(Book(title="Emma"))
        assert not it.manager.statistics().comparing


async def test_a_dead_letter_that_is_sent_again_reaches_the_replica_too(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True, cache=False, late_writes=LATE) as it:
        it.primary.break_down(Fault.REFUSE)
        await it.countries.create(Country(id="a", name="waits"))
        rival = country("a", "rival", version=version_at(1))
        await put(it, "primary", rival)
        it.primary.heal()
        await it.until(lambda: it.seen(DeadLettered))
        assert it.manager.journal is not None
        (letter,) = it.manager.journal.dead_letters()
        await put(it, "primary", Operation(Kind.DELETE, rival.key, version_at(2), rival.born))
        await it.manager.journal.retry(letter.sequence)
        it.manager.resume_replay()
        await it.drained()
        await compared(it)
        record = await stored(it, "replica", "a")
        assert record is not None
        assert record.fields is not None
        assert record.fields["name"] == "waits"
