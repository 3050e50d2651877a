"""What a manager promises: names and routes, opening and closing, and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from octopus_async import (
    Acknowledge,
    BackendRefused,
    Cascade,
    ConfigurationError,
    DaoManager,
    GuardPolicy,
    Hedge,
    JournalLocked,
    KeyedModel,
    ManagerClosed,
    Model,
    Order,
    Race,
    ReadUnavailable,
    Routing,
    SchemaMismatch,
    State,
    WriteUnavailable,
)
from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.adapters.sqlite import SQLiteAdapter
from octopus_async.events import BreakerChanged, Event
from octopus_async.testing.contract.subject import descriptors, eventually
from octopus_async.testing.faulty import Fault, FaultyAdapter
from octopus_async.testing.servers import MemcachedServer
from tests.unit.stage import POLICY, Book, Country, stage


def durable(name: str) -> MemoryAdapter:
    return MemoryAdapter(durable=True, name=name)


class Title(Model, name="Book"):
    """Another class that claims the name of the first."""


# -- names and routes ------------------------------------------------------------------------------


def test_two_backends_of_one_name_are_refused_and_told_apart_by_a_name() -> None:
    with pytest.raises(ConfigurationError, match=r"two backends are called 'memory'.*\?name="):
        DaoManager([durable("db"), "memory://", "memory://"])
    manager = DaoManager([durable("db"), "memory://?name=near", "memory://?name=far"])
    assert list(manager.backends) == ["db", "near", "far"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"write": []}, "at least one backend"),
        ({"write": "memory://"}, "lists"),
        ({"write": ["memory://"]}, "primary has to be durable, and memory is a cache"),
        ({"write": ["nosuch://"]}, "no backend has the scheme"),
        ({"read": Cascade("nobody")}, "no backend is called 'nobody'"),
        (
            {"read": Cascade("db", "near"), "backends": ["memory://?name=near"]},
            "near is read but not written",
        ),
        ({"read": Cascade("near"), "write": [durable("db"), "memory://?name=near"]}, "near.* may forget"),
        ({"routings": {Book: Routing(write=("nobody",))}}, "no backend is called 'nobody'"),
        ({"routings": {int: Routing()}}, "is no model"),
        ({"guards": {"nobody": GuardPolicy()}}, "guards names 'nobody'"),
        ({"nonsense": 1}, "nonsense"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_opened(options: dict[str, Any], problem: str) -> None:
    settings: dict[str, Any] = {"write": [durable("db")], **options}
    with pytest.raises(ConfigurationError, match=problem):
        DaoManager(**settings)


def test_two_models_of_one_name_are_refused() -> None:
    manager = DaoManager([durable("db")])
    manager.dao(Book)
    with pytest.raises(ConfigurationError, match="two models are called 'Book'"):
        manager.dao(Title)


@pytest.mark.parametrize("thing", [int, "Book", None, Book(title="one")])
def test_what_is_no_model_has_no_dao(thing: Any) -> None:  # noqa: ANN401 - whatever a caller gives
    with pytest.raises(ConfigurationError):
        DaoManager([durable("db")]).dao(thing)


async def test_models_go_their_own_ways() -> None:
    adapters = [durable("one"), durable("two"), MemoryAdapter(name="cache")]
    race = Race("two")
    routing = Routing(write=("two",), read=race, order=Order.PRIMARY_FIRST, acknowledge=Acknowledge.ALL)
    async with DaoManager(adapters, routings={Country: routing}) as octopus:
        book, country = Book(title="one"), Country(id="at", name="Austria")
        await octopus.dao(Book).create(book)
        await octopus.dao(Country).create(country)
        await asyncio.sleep(0.01)
        assert [len(adapter) for adapter in adapters] == [1, 2, 1]
        assert await octopus.dao(Country).read("at") == country
        plan, default = octopus.plan_of("Country"), octopus.plan_of("Book")
        assert (plan.primary.name, plan.caches, plan.replicas) == ("two", (), ())
        assert (plan.read, plan.order, plan.acknowledge) == (race, Order.PRIMARY_FIRST, Acknowledge.ALL)
        assert [reader.name for reader in default.readers] == ["cache", "one"]
        assert (default.order, default.acknowledge) == (Order.AUTO, Acknowledge.PRIMARY)


async def test_a_manager_from_a_file_is_the_same_manager(tmp_path: Path) -> None:
    config = tmp_path / "octopus.toml"
    config.write_text(
        f"""
        write = ["sqlite:///{tmp_path}/shop.db", "memory://"]
        journal = "{tmp_path}/journal"
        create_tables = true
        timeout = 2.5
        [models.Book]
        read = {{ strategy = "hedge", backends = ["memory", "sqlite"], delay = 0.2 }}
        """
    )
    async with DaoManager.from_config(config) as octopus:
        book = Book(title="one")
        await octopus.dao(Book).create(book)
        assert await octopus.dao(Book).read(book.id) == book
        read = octopus.plan_of("Book").read
        assert isinstance(read, Hedge)
        assert (read.delay, octopus.settings.timeout) == (0.2, 2.5)


async def test_create_tables_makes_what_is_missing_and_names_what_does_not_fit(tmp_path: Path) -> None:
    class Books(KeyedModel, name="Other", table="book"):
        id: str
        pages: int

    database = f"sqlite:///{tmp_path}/shop.db"
    async with DaoManager([database]) as octopus:
        with pytest.raises(WriteUnavailable):
            await octopus.dao(Book).create(Book(title="one"))
        await octopus.create_tables()
        await octopus.dao(Book).create(Book(title="one"))
        await octopus.create_tables(Country)
        await octopus.dao(Country).create(Country(id="at", name="Austria"))
        with pytest.raises(SchemaMismatch, match="pages"):
            await octopus.create_tables(Books)


# -- opening ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
async def test_nothing_can_be_done_while_it_is_not_open(tmp_path: Path, when: str) -> None:
    octopus = DaoManager([durable("db")], journal=tmp_path)
    books = octopus.dao(Book)
    if when == "after":
        async with octopus:
            pass
    calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: books.create(Book(title="one")),
        lambda: books.read(Book(title="one").id),
        lambda: octopus.create_tables(Book),
    ]
    for call in calls:
        with pytest.raises(ManagerClosed, match="not open yet" if when == "before" else "closed"):
            await call()


async def test_it_is_opened_once(tmp_path: Path) -> None:
    octopus = DaoManager([durable("db")], journal=tmp_path)
    results = await asyncio.gather(octopus.open(), octopus.open(), return_exceptions=True)
    assert [type(result) for result in results] == [DaoManager, ManagerClosed]
    with pytest.raises(ManagerClosed, match="make a new one"):
        await octopus.open()
    await octopus.close()
    await octopus.close()
    with pytest.raises(ManagerClosed, match="make a new one"):
        await octopus.open()


async def test_a_backend_that_is_away_at_the_start_opens_its_breaker_and_recovers(tmp_path: Path) -> None:
    primary = FaultyAdapter(durable("db"))
    primary.break_down(Fault.REFUSE)
    async with DaoManager([primary], journal=tmp_path, guard=POLICY) as octopus:
        guard = octopus.backends["db"]
        assert not guard.reads.passes
        assert not guard.writes.passes
        book = Book(title="one")
        receipt = await octopus.dao(Book).create(book)
        assert receipt.journalled
        primary.heal()
        await asyncio.wait_for(receipt.settled(), 5)
        await eventually(lambda: guard.reads.passes)


async def test_a_server_that_appears_later_is_used(tmp_path: Path) -> None:
    server = MemcachedServer()
    async with server:
        port = server.port
        await server.kill()
        cache = MemcacheAdapter([("127.0.0.1", port)])
        moves: list[Event] = []
        async with DaoManager(
            [durable("db"), cache], journal=tmp_path, guard=POLICY, listeners=[moves.append]
        ) as octopus:
            book = Book(title="one")
            receipt = await octopus.dao(Book).create(book)
            assert not receipt.journalled
            await server.restart()
            guard = octopus.backends["memcache"]
            await eventually(lambda: guard.reads.passes and guard.writes.passes)
            await octopus.drained()
            book.title = "two"
            receipt = await octopus.dao(Book).update(book)
            await eventually(lambda: "memcache" in receipt.outcomes)
            assert receipt.outcomes["memcache"].error is None
            assert {move.backend for move in moves if isinstance(move, BreakerChanged)} == {"memcache"}


async def test_strict_raises_and_leaves_nothing_behind(tmp_path: Path) -> None:
    away = FaultyAdapter(MemoryAdapter(name="cache"))
    away.opens = Fault.REFUSE
    before = Remains()
    octopus = DaoManager(
        [f"sqlite:///{tmp_path}/shop.db", away], journal=tmp_path / "journal", strict=True, guard=POLICY
    )
    with pytest.raises(BackendRefused, match="cache"):
        await octopus.open()
    await before.are_all()
    with pytest.raises(ManagerClosed):
        await octopus.open()
    async with DaoManager([f"sqlite:///{tmp_path}/shop.db"], journal=tmp_path / "journal", strict=True):
        pass


async def test_a_journal_that_cannot_be_used_raises_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file where a folder should be")
    before = Remains()
    with pytest.raises(Exception, match="journal"):
        await DaoManager([f"sqlite:///{tmp_path}/shop.db"], journal=tmp_path / "journal").open()
    await before.are_all()


# -- closing ---------------------------------------------------------------------------------------


class Remains:
    """Tasks, threads and descriptors at one moment, to which a manager adds nothing for good."""

    def __init__(self) -> None:
        self.tasks = asyncio.all_tasks()
        self.threads = set(threading.enumerate())
        self.descriptors = descriptors()

    async def are_all(self) -> None:
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= self.tasks
        await eventually(lambda: set(threading.enumerate()) <= self.threads)
        assert descriptors() <= self.descriptors


async def test_closing_leaves_no_task_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    before = Remains()
    for _ in range(3):
        async with DaoManager(
            [f"sqlite:///{tmp_path}/shop.db", "memory://"], journal=tmp_path / "journal", create_tables=True
        ) as octopus:
            books = octopus.dao(Book)
            (await books.create_many([Book(title=str(number)) for number in range(50)])).unwrap()
            octopus.backends["sqlite"].writes.force(State.FORCED_OPEN)
            (await books.create_many([Book(title=str(number)) for number in range(50)])).unwrap()
            await books.read(Book(title="none").id)
    await before.are_all()


async def test_closing_waits_for_writes_under_way(tmp_path: Path) -> None:
    primary = FaultyAdapter(durable("db"), delay=0.2)
    async with DaoManager([primary], journal=tmp_path, guard=GuardPolicy(timeout=5)) as octopus:
        primary.writes = Fault.SLOW
        writing = asyncio.create_task(octopus.dao(Book).create(Book(title="one")))
        await asyncio.sleep(0.01)
        assert octopus.statistics().writing == 1
    receipt = await writing
    assert not receipt.journalled
    assert len(primary.adapter) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("journal", [True, False])
async def test_closing_is_bounded_while_a_backend_hangs(tmp_path: Path, *, journal: bool) -> None:
    primary = FaultyAdapter(durable("db"))
    before = Remains()
    octopus = DaoManager(
        [primary, "memory://"],
        journal=tmp_path if journal else None,
        guard=GuardPolicy(timeout=0.2, open_timeout=0.2),
        close_timeout=0.3,
    )
    await octopus.open()
    primary.break_down(Fault.HANG)
    books = octopus.dao(Book)
    writing = [asyncio.create_task(books.create(Book(title="one"))) for _ in range(5)]
    reading = asyncio.create_task(books.read(Book(title="none").id))
    await asyncio.sleep(0.01)
    start = asyncio.get_running_loop().time()
    await octopus.close()
    assert asyncio.get_running_loop().time() - start < 2
    await asyncio.wait([*writing, reading], timeout=1)
    assert isinstance(reading.exception(), ReadUnavailable)
    kinds = {type(task.exception()) for task in writing}
    assert kinds == ({type(None)} if journal else {WriteUnavailable})
    await before.are_all()


async def test_who_waits_for_a_receipt_is_told_of_the_closing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.primary.break_down(Fault.REFUSE)
        receipt = await it.books.create(Book(title="one"))
        waiting = asyncio.create_task(receipt.settled())
        await asyncio.sleep(0.01)
        it.manager.backends["primary"].writes.force(State.FORCED_OPEN)
    with pytest.raises(ManagerClosed):
        await asyncio.wait_for(waiting, 1)


async def test_a_body_that_is_cancelled_still_closes(tmp_path: Path) -> None:
    before = Remains()
    opened = asyncio.Event()

    async def body() -> None:
        async with DaoManager([f"sqlite:///{tmp_path}/shop.db"], journal=tmp_path / "journal"):
            opened.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await opened.wait()
    task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await before.are_all()


async def test_an_opening_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    before = Remains()
    slow = FaultyAdapter(MemoryAdapter(name="cache"))
    slow.opens = Fault.HANG
    for turns in (0, 1, 2, 3, 5, 8, 20):
        octopus = DaoManager([f"sqlite:///{tmp_path}/shop.db", slow], journal=tmp_path / "journal")
        task = asyncio.create_task(octopus.open())
        for _ in range(turns):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ManagerClosed):
            await octopus.dao(Book).read(Book(title="one").id)
    del task
    await before.are_all()


async def test_an_adapter_that_raises_as_it_closes_keeps_nothing_else_open(tmp_path: Path) -> None:
    class Broken(MemoryAdapter):
        async def close(self) -> None:
            raise RuntimeError("broken")

    before = Remains()
    async with DaoManager(
        [f"sqlite:///{tmp_path}/shop.db", Broken(name="cache")], journal=tmp_path / "journal"
    ):
        pass
    await before.are_all()


def test_one_that_was_never_closed_warns_by_name(tmp_path: Path) -> None:
    async def forget() -> None:
        octopus = await DaoManager([durable("db")]).open()
        await octopus.dao(Book).create(Book(title="one"))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(forget())
        gc.collect()
    assert any("a DaoManager on db was never closed" in str(warning.message) for warning in caught)
    assert tmp_path.is_dir()


def test_a_program_that_forgets_to_close_ends_all_the_same(tmp_path: Path) -> None:
    program = f"""
import asyncio
from octopus_async import DaoManager

async def main():
    await DaoManager(["sqlite:///{tmp_path}/shop.db"], journal="{tmp_path}/journal").open()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0
    assert "never closed" in done.stderr


# -- forks -----------------------------------------------------------------------------------------


async def test_a_forked_childs_manager_raises_and_holds_nobodys_lock(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.manager.backends["primary"].writes.force(State.FORCED_OPEN)
        await it.books.create(Book(title="before"))
        ready, done = os.pipe(), os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            said = b"no error"
            try:
                it.manager.check_open()
            except ManagerClosed as error:
                said = str(error).encode()
            os.write(ready[1], said)
            os.close(done[1])
            os.read(done[0], 1)  # lives on until the parent has closed its end
            os._exit(0)
        try:
            os.close(done[0])
            assert b"parent" in await asyncio.to_thread(os.read, ready[0], 1000)
            assert (await it.books.create(Book(title="after"))).journalled
            await it.manager.close()
            async with stage(tmp_path) as other:
                await other.drained()
                assert other.manager.statistics().journal.pending == 0  # type: ignore[union-attr]
                assert len(other.primary.adapter) == 2  # type: ignore[arg-type]
        finally:
            os.close(done[1])
            os.close(ready[0])
            os.close(ready[1])
            await asyncio.to_thread(os.waitpid, child, 0)


# -- listeners and figures -------------------------------------------------------------------------


async def test_a_listener_that_raises_stops_nobody(tmp_path: Path) -> None:
    told: list[Event] = []

    def raise_always(event: Event) -> None:
        raise ZeroDivisionError(event)

    async with stage(tmp_path) as it:
        it.manager.events.subscribe(raise_always)
        it.manager.events.subscribe(told.append)
        it.primary.break_down(Fault.REFUSE)
        receipt = await it.books.create(Book(title="one"))
        it.primary.heal()
        await asyncio.wait_for(receipt.settled(), 5)
    assert any(isinstance(event, BreakerChanged) for event in told)


async def test_statistics_say_where_everything_stands(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        before = it.manager.statistics()
        assert (before.behind, before.paused, before.writing) == ({"cache": 0}, {}, 0)
        it.primary.break_down(Fault.REFUSE)
        it.cache.writes = Fault.FAIL
        await it.books.create(Book(title="one"))
        await asyncio.sleep(0.01)
        now = it.manager.statistics()
        assert now.backends["primary"].writes.state is not State.CLOSED
        assert now.backends["cache"].writes.state is State.CLOSED
        assert now.journal is not None
        assert now.journal.pending_by_target == {"primary": 1}
        assert now.behind == {"cache": 1}


async def test_resuming_the_replay_of_an_unknown_backend_names_the_known_ones(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True) as it:
        for name in ("nobody", "cache"):
            with pytest.raises(ConfigurationError, match=f"{name}.*primary, replica"):
                it.manager.resume_replay(name)
        it.manager.resume_replay("primary", "replica")
        it.manager.resume_replay()


async def test_a_second_process_on_the_same_folder_has_a_journal_of_its_own(tmp_path: Path) -> None:
    async with stage(tmp_path) as first, stage(tmp_path) as second:
        for it in (first, second):
            it.manager.backends["primary"].writes.force(State.FORCED_OPEN)
            await it.books.create(Book(title="one"))
            assert it.manager.statistics().journal.pending == 1  # type: ignore[union-attr]


def test_a_journal_object_serves_one_manager_at_a_time(tmp_path: Path) -> None:
    async def open_both() -> None:
        async with DaoManager([durable("db")], journal=tmp_path) as octopus:
            with pytest.raises(JournalLocked):
                await DaoManager([durable("db")], journal=octopus.journal).open()

    asyncio.run(open_both())


async def test_a_sqlite_adapter_object_serves_as_its_url_does(tmp_path: Path) -> None:
    adapter = SQLiteAdapter(str(tmp_path / "shop.db"), name="shop")
    async with DaoManager([adapter], create_tables=True) as octopus:
        await octopus.dao(Book).create(book := Book(title="one"))
        assert await octopus.dao(Book).get_one(book.id) == book
