"""What applications await is cancelled at each of its awaits in turn: no wrong reply, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from octopus_async import Dao, DaoManager, Model
from octopus_async.events import Events
from octopus_async.journal import FileJournal
from octopus_async.testing.cancellation import Holdings, Moment, cancel_at
from octopus_async.testing.servers import Server
from tests.crash.journals import PRIMARY, clock, crash, create, pending

PROBES = 50
_MOST_AWAITS = 60


class Novel(Model):
    title: str


Call = Callable[[DaoManager, Novel], Awaitable[object]]


def novels(octopus: DaoManager) -> Dao[Novel]:
    return octopus.dao(Novel)


async def _settled(octopus: DaoManager, novel: Novel) -> None:
    receipt = await novels(octopus).update(novel)
    await receipt.settled()


CALLS: dict[str, Call] = {
    "create": lambda octopus, _: novels(octopus).create(Novel(title="new")),
    "read": lambda octopus, novel: novels(octopus).read(novel.id),
    "read what is not there": lambda octopus, _: novels(octopus).read(uuid4()),
    "update": lambda octopus, novel: novels(octopus).update(novel),
    "conditional update": lambda octopus, novel: novels(octopus).update(novel, if_version=novel.version),
    "delete": lambda octopus, novel: novels(octopus).delete(novel),
    "create many": lambda octopus, _: novels(octopus).create_many(Novel(title=str(n)) for n in range(5)),
    "read many": lambda octopus, novel: novels(octopus).read_many([novel.id, uuid4(), novel.id]),
    "update many": lambda octopus, novel: novels(octopus).update_many([novel]),
    "delete many": lambda octopus, novel: novels(octopus).delete_many([novel]),
    "create tables": lambda octopus, _: octopus.create_tables(Novel),
    "drained": lambda octopus, _: octopus.drained(),
    "settled": _settled,
}


@pytest.fixture(params=["embedded", "servers"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    if request.param == "embedded":
        return [f"sqlite:///{tmp_path}/primary.db", "memory://"]
    servers: list[Server] = [request.getfixturevalue(name) for name in ("mariadb_server", "memcached_server")]
    return [f"{server.url}?connections=2" for server in servers]


def manager(urls: list[str], tmp_path: Path) -> DaoManager:
    return DaoManager(urls, journal=tmp_path / "journal", create_tables=True, timeout=20.0)


async def get_their_own_answers(octopus: DaoManager, kept: list[Novel]) -> None:
    async with asyncio.timeout(20):
        found = await asyncio.gather(*[novels(octopus).read(novel.id) for novel in kept])
    assert [novel and novel.title for novel in found] == [novel.title for novel in kept]


async def warm(octopus: DaoManager) -> list[Novel]:
    kept = [Novel(title=str(number)) for number in range(PROBES)]
    (await novels(octopus).create_many(kept)).unwrap()
    for _ in range(5):  # reads and writes at once, until the pools have grown to what they may have
        writes = novels(octopus).update_many(kept)
        await asyncio.gather(get_their_own_answers(octopus, kept), writes)
        for guard in octopus.backends.values():
            await asyncio.gather(guard.ping(), guard.probe(), guard.ping(), guard.probe())
    await octopus.drained()
    return kept


def is_idle(octopus: DaoManager) -> bool:
    now = octopus.statistics()
    return not now.writing and not any(
        guard.queued_reads or guard.queued_writes or guard.reads_under_way or guard.writes_under_way
        for guard in now.backends.values()
    )


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_cancelled_at_any_await_leaves_nothing_behind(
    urls: list[str], tmp_path: Path, call: str
) -> None:
    async with manager(urls, tmp_path) as octopus:
        kept = await warm(octopus)
        held = Holdings.now()
        for step in range(1, _MOST_AWAITS):
            novel = Novel(title="whole")
            await novels(octopus).create(novel)
            novel.title = "changed"
            moment = [*Moment][step % 2]
            if not await cancel_at(awaited(CALLS[call](octopus, novel)), step, moment):
                break
            await get_their_own_answers(octopus, kept)
            await octopus.drained()
            found = await novels(octopus).read(novel.id)
            assert (found is None and "delete" in call) or (found and found.title in ("whole", "changed"))
        else:
            pytest.fail(f"more than {_MOST_AWAITS} awaits")
        assert held.covers(await held.are_back())
        assert is_idle(octopus)


@pytest.mark.parametrize("call", ["open", "close"])
async def test_opening_and_closing_cancelled_at_any_await_leave_nothing_behind(
    urls: list[str], tmp_path: Path, call: str
) -> None:
    async with manager(urls, tmp_path) as octopus:
        kept = await warm(octopus)
    held = Holdings.now()
    for step in range(1, _MOST_AWAITS):
        octopus = manager(urls, tmp_path)
        if call == "close":
            await octopus.open()
            await get_their_own_answers(octopus, kept)
        enter_or_exit = octopus.__aenter__() if call == "open" else octopus.__aexit__(None, None, None)
        reached = await cancel_at(awaited(enter_or_exit), step, [*Moment][step % 2])
        await octopus.close()
        async with manager(urls, tmp_path) as another:
            await get_their_own_answers(another, kept)
        if not reached:
            break
    else:
        pytest.fail(f"more than {_MOST_AWAITS} awaits")
    assert held.covers(await held.are_back())


async def _awaited_letter(journal: FileJournal, call: str) -> None:
    """Retry or drop a dead letter."""
    await journal.append(create("dead"), [PRIMARY])
    (run,) = [run for run in pending(journal) if run.operation.key.id == "dead"]
    await journal.bury(PRIMARY, run, "it exists already", "DuplicateRecord")
    await getattr(journal, call)(run.sequences[0])


JOURNAL_CALLS: dict[str, Callable[[FileJournal], Awaitable[object]]] = {
    "append": lambda journal: journal.append(create("victim"), [PRIMARY]),
    "append a unit": lambda journal: journal.append_unit([create("victim"), create("other")], [PRIMARY]),
    "reserve": lambda journal: journal.reserve(2_000_000_000_000),
    "adopt": lambda journal: journal.adopt(),
    "retry": lambda journal: _awaited_letter(journal, "retry"),
    "drop": lambda journal: _awaited_letter(journal, "drop"),
}


@pytest.mark.parametrize("call", JOURNAL_CALLS)
async def test_a_call_of_the_journal_cancelled_at_any_await_loses_and_holds_nothing(
    tmp_path: Path, call: str
) -> None:
    held, path = Holdings.now(), tmp_path / "j"
    for step in range(1, _MOST_AWAITS):
        if call == "adopt":
            dying = FileJournal(path)
            await dying.open(Events())
            await dying.append(create(f"orphan{step}"), [PRIMARY])
            await crash(dying)
        journal = FileJournal(path)
        await journal.open(Events())
        reached = await cancel_at(awaited(JOURNAL_CALLS[call](journal)), step, [*Moment][step % 2])
        probes = [create(f"{step}-{number}", version=clock.next()) for number in range(PROBES)]
        await asyncio.gather(*[journal.append(operation, [PRIMARY]) for operation in probes])
        for operation in probes:
            assert journal.newest(operation.key, PRIMARY) == operation
        await journal.close()
        journal = FileJournal(path)
        await journal.open(Events())
        assert all(journal.newest(operation.key, PRIMARY) == operation for operation in probes)
        if call == "adopt":
            assert journal.newest(create(f"orphan{step}").key, PRIMARY) is not None
        await journal.close()
        if not reached:
            break
    else:
        pytest.fail(f"more than {_MOST_AWAITS} awaits")
    assert held.covers(await held.are_back())


async def awaited(call: Awaitable[object]) -> None:
    await call
