"""Comparing stores: what is a divergence and what is none, what is said of it, and what a repair does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from octopus_async import Key
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.cachevalue import encode_fields
from octopus_async.clock import Clock
from octopus_async.errors import ConfigurationError, JournalError, Unavailable
from octopus_async.guard import State as Breaker
from octopus_async.mapper import schema_of
from octopus_async.record import APPLIED, NO_VERSION, Kind, Miss, Mode, Operation, Outcome, Record
from octopus_async.schema import Column, Schema, Type
from octopus_async.testing.faulty import Fault
from octopus_async.verification import Difference, JournalFolder, Options, Report, State, Verifier, stores
from octopus_async.verification.difference import Pair, difference
from octopus_async.verification.mending import LEFT_ALONE
from tests.unit.stage import Book, Country, Stage, stage

AT_ONCE = Options(settle=0)
MEND = Options(settle=0, repair=True)
FORCE = Options(settle=0, repair=True, primary_wins=True)


class Library:
    """A stage whose backends can be written to one by one, behind the library's back."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._clock = Clock()

    def new(self) -> Book:
        return Book(title="first")

    async def put(  # noqa: PLR0913 - whatever a backend may hold
        self,
        book: Book,
        *backends: str,
        kind: Kind = Kind.UPDATE,
        version: str | None = None,
        title: str = "first",
        born: str = "",
        over: str | None = None,
    ) -> str:
        """Write a book into some backends alone; gives its version."""
        version = self._clock.next() if version is None else version
        fields = None if kind is Kind.DELETE else {**book.model_dump(mode="json"), "title": title}
        if fields is not None:
            del fields["id"]
        payload = None if fields is None else encode_fields(fields)
        operation = Operation(kind, self.key(book), version, born or version, fields, payload, over)
        for backend in backends:
            adapter = self.stage.backends[backend].adapter
            assert await adapter.apply([operation], Mode.MIRROR if over is None else Mode.MEND) == [APPLIED]
        return version

    def key(self, book: Book) -> Key:
        return Key("Book", str(book.id))

    async def compared(self, options: Options = AT_ONCE) -> Report:
        return await self.verifier(options).run()

    def verifier(self, options: Options = AT_ONCE) -> Verifier:
        return self.stage.manager.verifier(options)

    async def replica(self, book: Book) -> Record | None:
        adapter = self.stage.backends["replica"].adapter
        assert isinstance(adapter, MemoryAdapter)
        (record,) = await adapter.peek([self.key(book)])
        return record


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot be asked is given up soon."""
    monkeypatch.setattr(stores, "_PAUSES", (0.01,))


@pytest.fixture
async def library(tmp_path: Path) -> AsyncGenerator[Library]:
    async with stage(tmp_path / "journal", replica=True) as it:
        yield Library(it)


async def missing(library: Library, book: Book) -> None:
    await library.put(book, "primary")


async def undelivered(library: Library, book: Book) -> None:
    await library.put(book, "primary", kind=Kind.DELETE)


async def behind(library: Library, book: Book) -> None:
    born = await library.put(book, "primary", "replica")
    await library.put(book, "primary", title="second", born=born)


async def undeleted(library: Library, book: Book) -> None:
    born = await library.put(book, "primary", "replica")
    await library.put(book, "primary", kind=Kind.DELETE, born=born)


async def ahead(library: Library, book: Book) -> None:
    born = await library.put(book, "primary", "replica")
    await library.put(book, "replica", title="unheard of", born=born)


async def deleted_there(library: Library, book: Book) -> None:
    born = await library.put(book, "primary", "replica")
    await library.put(book, "replica", kind=Kind.DELETE, born=born)


async def surplus(library: Library, book: Book) -> None:
    await library.put(book, "replica")


async def contents(library: Library, book: Book) -> None:
    version = await library.put(book, "primary", "replica")
    await library.put(book, "replica", title="by hand", version=version, over=version)


async def born(library: Library, book: Book) -> None:
    await library.put(book, "primary", "replica")
    later = await library.put(book, "replica", kind=Kind.DELETE)
    version = await library.put(book, "primary", title="again")
    await library.put(book, "replica", title="again", version=version, born=later)


Plant = Callable[[Library, Book], Any]
REPLICAS: list[tuple[Plant, str, str]] = [
    (missing, "missing", "was lost"),
    (undelivered, "missing", "was lost"),
    (behind, "behind", "was lost"),
    (undeleted, "undeleted", "a delete"),
    (contents, "contents", "outside the library"),
    (born, "born", "created again"),
]
BEYOND: list[tuple[Plant, str, str]] = [
    (ahead, "ahead", "restored from a backup"),
    (deleted_there, "ahead", "restored from a backup"),
    (surplus, "surplus", "deleted on the primary"),
]


class TestReplicas:
    async def test_that_are_equal_show_no_divergence(self, library: Library) -> None:
        books = library.stage.books
        written = [Book(title=str(number)) for number in range(20)]
        for book in written:
            await books.create(book)
        await books.delete(written[0])
        written[1].title = "changed"
        await books.update(written[1])
        report = await library.compared()
        assert (report.ok, report.compared, report.found) == (True, 20, {})

    @pytest.mark.parametrize(("plant", "kind", "cause"), [*REPLICAS, *BEYOND])
    async def test_that_differ_are_told_with_key_versions_and_likely_cause(
        self, library: Library, plant: Plant, kind: str, cause: str
    ) -> None:
        await library.stage.books.create(Book(title="well"))
        book = library.new()
        await plant(library, book)
        report = await library.compared()
        (found,) = report.divergences
        assert (found.backend, found.role, found.kind) == ("replica", "replica", kind)
        assert (found.model, found.id) == ("Book", str(book.id))
        assert cause in found.cause
        here = await library.replica(book)
        assert found.there.version == ("" if here is None else here.version)
        assert (report.ok, report.found, report.left) == (False, {kind: 1}, 1)

    @pytest.mark.parametrize(("plant", "kind"), [(plant, kind) for plant, kind, _ in REPLICAS])
    async def test_are_mended_by_what_the_primary_holds(
        self, library: Library, plant: Plant, kind: str
    ) -> None:
        book = library.new()
        await plant(library, book)
        report = await library.compared(MEND)
        assert (report.ok, report.found, report.mended) == (True, {kind: 1}, 1)
        assert report.divergences[0].mended
        assert (await library.compared()).found == {}

    @pytest.mark.parametrize(("plant", "kind"), [(plant, kind) for plant, kind, _ in BEYOND])
    async def test_forget_what_the_primary_does_not_have_only_when_told_so(
        self, library: Library, plant: Plant, kind: str
    ) -> None:
        book = library.new()
        await plant(library, book)
        before = await library.replica(book)
        report = await library.compared(MEND)
        assert (report.ok, report.mended, report.divergences[0].problem) == (False, 0, LEFT_ALONE)
        assert await library.replica(book) == before
        report = await library.compared(FORCE)
        assert (report.ok, report.found, report.mended) == (True, {kind: 1}, 1)
        assert (await library.compared()).found == {}

    async def test_what_was_mended_takes_later_writes(self, library: Library) -> None:
        books, kept = library.stage.books, []
        for plant, *_ in [*REPLICAS, *BEYOND]:
            book = library.new()
            await plant(library, book)
            kept.append(book)
        await library.compared(FORCE)
        for book in kept:
            if await books.read(book.id) is None:
                await books.create(book)
            else:
                await books.update(book)
        assert (await library.compared()).found == {}

    async def test_a_row_of_others_without_a_version_is_told_and_mended(self, library: Library) -> None:
        book = library.new()
        await library.put(book, "primary", version=NO_VERSION)
        report = await library.compared()
        assert (report.unversioned, report.found) == (1, {"missing": 1})
        assert "outside the library" in report.divergences[0].cause
        assert (await library.compared(MEND)).ok
        await library.put(book, "replica", title="by hand", version=NO_VERSION, over=NO_VERSION)
        assert (await library.compared(MEND)).found == {"contents": 1}
        assert (await library.compared()).ok

    async def test_a_repair_leaves_a_write_alone_that_came_meanwhile(self, library: Library) -> None:
        book = library.new()
        version = await library.put(book, "primary", "replica")
        await library.put(book, "replica", title="by hand", version=version, over=version)
        newer = ""
        replica = library.stage.backends["replica"]
        apply = replica.adapter.apply

        async def late(operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
            nonlocal newer
            replica.adapter.apply = apply  # type: ignore[method-assign]
            newer = await library.put(book, "primary", "replica", title="newer", born=version)
            return await apply(operations, mode)

        replica.adapter.apply = late  # type: ignore[method-assign]
        report = await library.compared(MEND)
        here = await library.replica(book)
        assert here is not None
        assert (here.version, here.fields and here.fields["title"]) == (newer, "newer")
        assert report.ok


class TestCaches:
    @pytest.mark.parametrize("how", ["behind", "undeleted", "ahead", "contents"])
    async def test_that_differ_are_told_and_made_to_forget(self, library: Library, how: str) -> None:
        book = library.new()
        version = await library.put(book, "primary", "replica", "cache")
        if how == "behind":
            await library.put(book, "primary", "replica", title="second", born=version)
        elif how == "undeleted":
            await library.put(book, "primary", "replica", kind=Kind.DELETE, born=version)
        elif how == "ahead":
            await library.put(book, "cache", title="unheard of", born=version)
        else:
            for backend in ("primary", "replica"):
                await library.put(book, backend, title="by hand", version=version, over=version)
        report = await library.compared()
        (found,) = report.divergences
        assert (found.backend, found.role, found.kind) == ("cache", "cache", how)
        assert "time to live of 300 s" in found.cause
        assert not report.ok
        assert (await library.compared(MEND)).ok
        assert isinstance(await self.held(library, book), Miss)
        assert (await library.compared()).found == {}

    async def test_may_have_nothing_or_a_tombstone_of_any_version(self, library: Library) -> None:
        absent, deleted = library.new(), library.new()
        await library.put(absent, "primary", "replica")
        born = await library.put(deleted, "primary", "replica", "cache")
        await library.put(deleted, "cache", kind=Kind.DELETE, born=born)
        await library.put(deleted, "primary", "replica", kind=Kind.DELETE, born=born)
        assert (await library.compared()).found == {}

    async def test_are_looked_into_without_a_trace(self, library: Library) -> None:
        book = library.new()
        await library.put(book, "primary", "replica")
        cache = library.stage.cache.adapter
        assert isinstance(cache, MemoryAdapter)
        assert (await library.compared()).ok
        assert len(cache) == 0

    async def test_what_is_beside_a_surplus_record_goes_with_it(self, library: Library) -> None:
        book = library.new()
        await library.put(book, "replica", "cache")
        report = await library.compared(FORCE)
        assert (report.found, report.mended) == ({"surplus": 2}, 2)
        assert isinstance(await self.held(library, book), Miss)

    @pytest.mark.usefixtures("quickly")
    async def test_that_cannot_be_asked_are_told(self, library: Library) -> None:
        await library.put(library.new(), "primary", "replica")
        library.stage.cache.break_down(Fault.REFUSE)
        report = await library.compared()
        assert (report.ok, report.found, list(report.unasked)) == (False, {}, ["cache"])

    async def held(self, library: Library, book: Book) -> object:
        (answer,) = await library.stage.cache.adapter.read([library.key(book)])
        return answer


class TestWhatIsOwed:
    async def test_is_no_divergence(self, library: Library) -> None:
        it = library.stage
        it.backends["replica"].break_down(Fault.REFUSE)
        await it.books.create(Book(title="owed to the replica"))
        it.backends["replica"].heal()
        it.manager.backends["replica"].writes.force(Breaker.FORCED_OPEN)
        report = await library.compared()
        assert (report.ok, report.found) == (True, {})
        assert (report.owed, report.pending) == ({"replica": 1}, {"replica": 1})

    async def test_is_found_in_the_journal_of_another_process(self, library: Library, tmp_path: Path) -> None:
        it = library.stage
        it.manager.backends["replica"].writes.force(Breaker.FORCED_OPEN)
        await it.books.create(Book(title="owed to the replica"))
        verifier = it.manager.verifier(AT_ONCE, owed=JournalFolder(tmp_path / "journal"))
        report = await verifier.run()
        assert (report.found, report.owed, report.pending) == ({}, {"replica": 1}, {"replica": 1})

    async def test_a_cache_that_the_primary_lags_behind_is_well(self, library: Library) -> None:
        it = library.stage
        book = Book(title="before")
        await it.books.create(book)
        it.manager.backends["primary"].writes.force(Breaker.FORCED_OPEN)
        book.title = "meanwhile"
        assert (await it.books.update(book)).journalled
        report = await library.compared()
        assert (report.ok, report.found, report.owed) == (True, {}, {"cache": 1})

    async def test_what_was_refused_explains_a_difference(self, library: Library) -> None:
        it = library.stage
        countries, writes = it.countries, it.manager.backends["primary"].writes
        await countries.create(Country(id="ee", name="first"))
        writes.force(Breaker.FORCED_OPEN)
        receipt = await countries.create(Country(id="ee", name="second"))
        writes.release()
        with pytest.raises(Exception, match="exists already"):
            await asyncio.wait_for(receipt.settled(), 5)
        adapter = it.backends["replica"].adapter
        (record,) = await adapter.read([Key("Country", "ee")])
        assert isinstance(record, Record)
        wrong = {"name": "by hand"}
        operation = Operation(
            Kind.UPDATE, record.key, record.version, record.born, wrong, encode_fields(wrong)
        )
        await adapter.apply([operation._replace(if_version=record.version)], Mode.MEND)
        (found,) = (await library.compared()).divergences
        assert "dead letter" in found.cause
        assert "DuplicateRecord" in found.cause


class TestAWriteUnderWay:
    async def test_is_waited_for(self, library: Library) -> None:
        book = library.new()
        version = await library.put(book, "primary")

        async def arrive() -> None:
            await asyncio.sleep(0.15)
            await library.put(book, "replica", version=version)

        arriving = asyncio.create_task(arrive())
        report = await library.compared(Options(settle=30))
        await arriving
        assert (report.ok, report.found) == (True, {})

    async def test_has_ended_after_the_time_to_settle(self, library: Library) -> None:
        await library.put(library.new(), "primary")
        began = asyncio.get_running_loop().time()
        report = await library.compared(Options(settle=0.4))
        assert report.found == {"missing": 1}
        assert asyncio.get_running_loop().time() - began >= 0.35

    async def test_writers_who_go_on_make_no_divergence(self, library: Library) -> None:
        books, written = library.stage.books, [Book(title=str(number)) for number in range(50)]
        for book in written:
            await books.create(book)
        stop = False

        async def write(part: list[Book]) -> int:
            rounds = 0
            while not stop:
                for book in part:
                    book.title += "."
                    await books.update(book)
                    fresh = Book(title="comes and goes")
                    await books.create(fresh)
                    await books.delete(fresh)
                rounds += 1
            return rounds

        writers = [asyncio.create_task(write(written[start::5])) for start in range(5)]
        for _ in range(5):
            report = await library.compared(Options(settle=2, batch=10))
            assert (report.ok, report.found) == (True, {})
        stop = True
        assert all(await asyncio.gather(*writers))


class TestAsked:
    async def test_for_a_share_it_compares_about_as_many(self, library: Library) -> None:
        for _ in range(400):
            await library.put(library.new(), "primary")
        report = await library.compared(Options(settle=0, fraction=0.25))
        assert 50 < report.compared < 160
        assert report.found == {"missing": report.compared}

    async def test_since_a_version_it_leaves_out_what_is_older(self, library: Library) -> None:
        await library.put(library.new(), "primary")
        hidden = library.new()
        since = await library.put(hidden, "primary", "replica")
        await library.put(library.new(), "primary")
        await library.put(hidden, "replica", title="ahead", born=since)
        report = await library.compared(Options(settle=0, since=since))
        assert (report.compared, report.found) == (1, {"missing": 1, "ahead": 1})

    async def test_it_counts_all_divergences_and_describes_the_first(self, library: Library) -> None:
        for _ in range(30):
            await library.put(library.new(), "primary")
        report = await library.compared(Options(settle=0, described=7))
        assert (report.found, len(report.divergences)) == ({"missing": 30}, 7)

    async def test_for_a_model_that_nobody_knows_it_says_so(self, library: Library) -> None:
        with pytest.raises(ConfigurationError, match="Newspaper"):
            library.stage.manager.verifier(models=["Newspaper"])

    @pytest.mark.parametrize(
        "wrong", [{"fraction": 0}, {"fraction": 2}, {"since": "x"}, {"primary_wins": True}, {"settle": -1}]
    )
    def test_for_what_makes_no_sense_it_says_so(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            Options(**wrong)


class TestStopped:
    async def test_it_goes_on_from_where_it_came_to(self, library: Library, tmp_path: Path) -> None:
        for _ in range(700):
            await library.put(library.new(), "primary")
        path = tmp_path / "position"
        verifier = library.verifier(Options(settle=0, batch=100))

        def keep_once(state: State) -> None:
            if path.exists():
                raise KeyboardInterrupt
            state.save(path)

        with pytest.raises(KeyboardInterrupt):
            await verifier.run(keep=keep_once)
        state = State.load(path)
        assert state is not None
        assert 0 < state.report.compared < 700
        seen: list[int] = []
        report = await verifier.run(state, tell=lambda _model, _backend, done, _total: seen.append(done))
        assert (report.compared, report.found) == (700, {"missing": 700})
        assert max(seen) < 700

    @pytest.mark.usefixtures("quickly")
    async def test_by_a_replica_that_is_away_it_can_go_on_later(self, library: Library) -> None:
        await library.put(library.new(), "primary")
        replica = library.stage.backends["replica"]
        replica.break_down(Fault.REFUSE)
        state = library.verifier().state()
        with pytest.raises(Unavailable):
            await library.verifier().run(state)
        replica.heal()
        await library.stage.until(lambda: library.stage.manager.backends["replica"].reads.passes)
        assert (await library.verifier().run(state)).found == {"missing": 1}

    def test_a_position_of_another_run_is_refused(self) -> None:
        one = State([("Book", "primary")], 1.0, 1, "")
        with pytest.raises(ConfigurationError, match="steps"):
            one.check_same(State([("Book", "other")], 1.0, 2, ""))
        one.check_same(State([("Book", "primary")], 1.0, 2, ""))

    @pytest.mark.parametrize(
        "text", ["", "{}", "[1]", '{"format": 7}', "\0" * 100, "[" * 100_000, '{"step": -1}']
    )
    def test_a_file_that_holds_no_position_is_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "position"
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="position"):
            State.load(path)

    def test_the_file_is_private_and_no_link_is_followed(self, tmp_path: Path) -> None:
        path, elsewhere = tmp_path / "position", tmp_path / "elsewhere"
        state = State([("Book", "primary")], 0.5, 2**62, "")
        state.save(path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert State.load(path) == state
        assert json.loads(path.read_text())["fraction"] == 0.5
        (tmp_path / "position.new").symlink_to(elsewhere)
        with pytest.raises(ConfigurationError):
            state.save(path)
        assert not elsewhere.exists()

    async def test_by_a_journal_that_cannot_be_read_it_says_so(
        self, library: Library, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("no folder")
        verifier = library.stage.manager.verifier(owed=JournalFolder(tmp_path / "file"))
        with pytest.raises(JournalError):
            await verifier.run()


class TestContents:
    SCHEMA = Schema(
        "Price", "price", "id", Type.TEXT, (Column("amount", "amount", Type.DECIMAL, nullable=True),)
    )

    @pytest.mark.parametrize(
        ("first", "second", "same"),
        [
            ("1.5", "1.50", True),
            ("1.5", "1.51", False),
            ("1.5", None, False),
            (None, None, True),
            ("x", "y", False),
        ],
    )
    def test_of_decimals_are_compared_by_their_values(
        self, first: object, second: object, *, same: bool
    ) -> None:
        key = Key("Price", "1")
        pair = Pair(*(Record(key, "v", "v", {"amount": amount}) for amount in (first, second)))  # type: ignore[dict-item]
        assert difference(pair, self.SCHEMA, cache=False) is (None if same else Difference.CONTENTS)

    def test_a_caches_birth_need_not_be_known(self) -> None:
        key = Key("Book", "1")
        pair = Pair(Record(key, "v", "b", {}), Record(key, "v", NO_VERSION, {}))
        assert difference(pair, schema_of(Book), cache=True) is None
        assert difference(pair, schema_of(Book), cache=False) is Difference.BORN
