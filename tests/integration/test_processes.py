"""Several processes on one host, each with its own journal below one folder, killed with SIGKILL."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pytest

from octopus_async.cli.drill import stage
from octopus_async.cli.drill.judge import compare
from octopus_async.cli.drill.ledger import Deed, Fate, History, Ledger, Name
from octopus_async.testing.servers import MARIADB, MariaDBServer, MemcachedServer, find
from tests.integration.books import LOAD, caught_up, found_over_http, service, titles

PROCESS = Path(__file__).with_name("process.py")
SEED = 7
PATIENCE = 30.0


class Process:
    """A process that uses the library; what it was promised goes into the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.said: list[list[Any]] = []
        self._ledger = ledger
        self._news = asyncio.Event()

    async def start(self, journal: Path, *urls: str) -> Self:
        pipe = asyncio.subprocess.PIPE
        arguments = (str(PROCESS), str(journal), *urls)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=pipe, stdout=pipe, cwd=PROCESS.parents[2], limit=1 << 20
        )
        self._listening = asyncio.create_task(self._listen())
        await self.hears("open")
        return self

    def order(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words).encode() + b"\n")

    async def hears(self, word: str) -> list[Any]:
        """The first line that begins with the word, at the latest after a while."""
        await self.until(lambda: bool(self.all(word)))
        return self.all(word)[0]

    def all(self, word: str) -> list[list[Any]]:
        return [words for first, *words in self.said if first == word]

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not reached():
                self._news.clear()
                await self._news.wait()

    async def reads(self, *ids: str) -> list[list[Any]]:
        """Have it read records: what it says of each, but for the reasons where it cannot know."""
        heard = len(self.said)
        self.order("read", *ids)

        def answers() -> list[list[Any]]:
            news = [words for words in self.said[heard:] if words[0] in ("read", "unread")]
            return [words[:2] if words[0] == "unread" else words for words in news]

        await self.until(lambda: len(answers()) == len(ids))
        return answers()

    async def promised(self, count: int) -> None:
        """Wait until so many further writes were acknowledged."""
        count += self.acknowledged
        await self.until(lambda: self.acknowledged >= count)

    @property
    def acknowledged(self) -> int:
        return sum(words[3] == Fate.ACKNOWLEDGED for words in self.all("end"))

    async def kill(self) -> None:
        """SIGKILL; what it had said before is heard to the end."""
        if self.process.returncode is None:
            self.process.kill()
        await self._ended()

    async def close(self) -> int:
        """Let it close its manager and end; its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self._ended()

    async def _ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            await self._listening
            return await self.process.wait()

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        begun: dict[Name, History] = {}
        async for line in self.process.stdout:
            words = json.loads(line)
            self.said.append(words)
            if words[0] == "begin":
                history = self._begin(*words[1:])
                begun[history.name] = history
            elif words[0] == "end":
                _, shelf, place, _, fate, journalled, _ = words
                self._ledger.end(begun.pop(Name(shelf, place)), Fate(fate), journalled=journalled)
            self._news.set()
        for history in begun.values():
            self._ledger.end(history, Fate.UNKNOWN)

    def _begin(self, shelf: int, place: int, step: int, deed: int, id_: str) -> History:
        name = Name(shelf, place)
        history = self._ledger.by_name.get(name) or self._ledger.open(name, id_)  # type: ignore[arg-type]
        assert history.begin(Deed(deed)) == step
        return history


class Host:
    """A primary, one journal folder for all processes, and one ledger of what they were promised."""

    def __init__(self, place: stage.Place, folder: Path) -> None:
        self.place = place
        self.journal = folder / "journal"
        self.ledger = Ledger()
        self.outage = place.blows[0]
        self._stack = AsyncExitStack()

    async def start(self, cache: str = "memory://") -> Process:
        process = Process(self.ledger)
        self._stack.push_async_callback(process.kill)
        return await process.start(self.journal, self.place.url, cache)

    async def held(self) -> list[stage.Held]:
        assert self.place.rows is not None
        return [stage.held(SEED, row) for row in await self.place.rows()]

    async def assert_nothing_lost(self, *dead: str) -> None:
        compare(self.ledger, await self.held(), dead)
        assert not self.ledger.faults, self.ledger.examples

    async def is_down_to_one_writer(self) -> None:
        """Wait until the folders of all writers but one are gone from the journal."""
        async with asyncio.timeout(PATIENCE):
            while sum(1 for _ in self.journal.glob("writer-*")) != 1:  # noqa: ASYNC110 - others remove them
                await asyncio.sleep(0.05)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


@pytest.fixture(params=["sqlite", "mysql"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Host]:
    if request.param == "mysql":
        await asyncio.to_thread(find, MARIADB)
    async with stage.PRIMARIES[request.param](tmp_path) as place, Host(place, tmp_path) as made:
        yield made


@asynccontextmanager
async def outage(host: Host) -> AsyncGenerator[None]:
    await host.outage.strike()
    try:
        yield
    finally:
        await host.outage.heal()


async def test_the_journal_of_a_killed_process_is_adopted_and_replayed_by_one_other(host: Host) -> None:
    doomed, *living = await asyncio.gather(*(host.start() for _ in range(3)))
    doomed.order("load", 1, 2, 3, 4)
    living[0].order("load", 5)
    await doomed.promised(20)
    async with outage(host):
        await doomed.promised(200)
        await doomed.kill()
        died = time.monotonic()
    adoptions = [asyncio.create_task(process.hears("adopted")) for process in living]
    (first,), waiting = await asyncio.wait(adoptions, return_when=asyncio.FIRST_COMPLETED)
    _, entries = await first
    taken_over = time.monotonic() - died
    for process in living:
        process.order("drain")
        await process.hears("drained")
    seconds = time.monotonic() - died

    print(f"adopted after {taken_over:.2f} s, {entries} entries, replayed after {seconds:.2f} s")
    await host.assert_nothing_lost()
    assert host.ledger.journalled > 100
    assert entries > 0
    assert taken_over < 10
    assert sum(len(process.all("adopted")) for process in living) == 1
    for adoption in waiting:
        adoption.cancel()


async def test_a_restarted_process_answers_what_it_had_promised_while_the_primary_is_still_away(
    host: Host,
) -> None:
    process = await host.start()
    async with outage(host):
        process.order("load", 1, 2, 3)
        await process.promised(150)
        await process.kill()
        again = await host.start()
        histories = {str(history.id): history for history in host.ledger.histories}
        again.order("read", *histories)
        await again.until(lambda: len(again.all("read")) + len(again.all("unread")) == len(histories))
        for id_, step in again.all("read"):
            history = histories[id_]
            assert history.read(history.floor, step) is None
    again.order("drain")
    await again.hears("drained")
    # Of what was begun and never promised nobody can know anything while the primary is away.
    assert [words for words in again.all("unread") if histories[words[0]].acknowledged] == []
    assert not again.all("error"), again.all("error")[0]
    await host.assert_nothing_lost()


async def test_killed_at_random_moments_a_process_has_kept_all_that_it_promised(host: Host) -> None:
    chance = random.Random(host.place.label)
    shelf = 0
    for round_ in range(3):
        process = await host.start()
        shelves = range(shelf, shelf + 4)
        shelf += 4
        process.order("load", *shelves)
        if round_ % 3 == 0:
            await host.outage.strike()
        await process.promised(40)
        await asyncio.sleep(chance.uniform(0.05, 0.6))
        if round_ % 3 == 2:
            await host.outage.heal()
            await asyncio.sleep(chance.uniform(0.0, 0.3))
        await process.kill()
    survivor = await host.start()
    survivor.order("drain")
    assert await survivor.hears("drained") == [{}]

    print(f"{host.ledger.fates[Fate.ACKNOWLEDGED]} promised, {host.ledger.journalled} of them journalled")
    await host.assert_nothing_lost()
    assert host.ledger.journalled > 100
    await host.is_down_to_one_writer()


async def test_of_two_processes_that_create_the_same_id_offline_one_wins_and_one_is_told(host: Host) -> None:
    ids = [str(uuid4()) for _ in range(10)]
    both = await asyncio.gather(host.start(), host.start())
    async with outage(host):
        for shelf, process in enumerate(both):
            for place, id_ in enumerate(ids, 1):
                process.order("create", shelf, place, id_)
        for process in both:
            await process.until(lambda process=process: len(process.all("end")) == len(ids))  # type: ignore[misc]
            assert [words[3:] for words in process.all("end")] == [[Fate.ACKNOWLEDGED, True, True]] * len(ids)
    for process in both:
        await process.until(lambda process=process: len(process.all("settled")) == len(ids))  # type: ignore[misc]

    told: list[dict[str, Any]] = [dict(process.all("settled")) for process in both]
    for id_ in ids:
        assert {told[0][id_], told[1][id_]} == {None, "DuplicateRecord"}
    assert {
        id_: shelf for shelf in (0, 1) for id_, refusal in told[shelf].items() if refusal is None
    } == await owners(host, ids)
    for shelf, process in enumerate(both):
        refused = {id_ for id_, refusal in told[shelf].items() if refusal is not None}
        assert {id_ for id_, _ in process.all("dead")} == refused
        process.order("drain")
        assert set((await process.hears("drained"))[0]) == refused
        process.order("read", *ids)
        await process.until(lambda process=process: len(process.all("read")) == len(ids))  # type: ignore[misc]


async def owners(host: Host, ids: list[str]) -> dict[str, int]:
    """Whose record the primary holds under each id: each shelf has one record for each place."""
    held = await host.held()
    assert all(record.intact for record in held)
    assert len(held) == len(ids)
    return {ids[record.name.place - 1]: record.name.shelf for record in held}


async def test_what_another_process_has_pending_is_unread_until_its_journal_is_adopted(host: Host) -> None:
    writer, reader = await asyncio.gather(host.start(), host.start())
    id_ = str(uuid4())
    async with outage(host):
        writer.order("create", 1, 1, id_)
        await writer.promised(1)
        # SQLite that is locked answers reads, and does not have it; of a MariaDB that is gone nobody can say.
        assert await reader.reads(id_) in ([["read", id_, None]], [["unread", id_]])
        assert await writer.reads(id_) == [["read", id_, 1]]
        await writer.kill()
        await reader.hears("adopted")
        assert await reader.reads(id_) == [["read", id_, 1]]  # the primary is still away
    reader.order("drain")
    assert await reader.hears("drained") == [{}]
    await host.assert_nothing_lost()


async def test_what_another_process_has_pending_is_read_from_the_cache_that_they_share(
    host: Host, private_memcached: MemcachedServer
) -> None:
    writer, reader = await asyncio.gather(*(host.start(private_memcached.url) for _ in range(2)))
    ids = [str(uuid4()) for _ in range(20)]
    async with outage(host):
        for place, id_ in enumerate(ids, 1):
            writer.order("create", 1, place, id_)
        await writer.promised(len(ids))
        async with asyncio.timeout(PATIENCE):
            while await reader.reads(*ids) != [["read", id_, 1] for id_ in ids]:  # noqa: ASYNC110 - soon, not at once
                await asyncio.sleep(0.05)
    for process in (writer, reader):
        process.order("drain")
        assert await process.hears("drained") == [{}]
    await host.assert_nothing_lost()


async def test_closed_with_work_pending_it_is_all_there_when_opened_again(host: Host) -> None:
    process = await host.start()
    async with outage(host):
        process.order("load", 1, 2, 3)
        await process.promised(150)
        began = time.monotonic()
        assert await process.close() == 0
        assert time.monotonic() - began < 10
        again = await host.start()
        assert (await again.hears("open"))[0] > 0
    again.order("drain")
    assert await again.hears("drained") == [{}]
    await host.assert_nothing_lost()
    assert host.ledger.journalled > 100
    await host.is_down_to_one_writer()


# What a worker has written, others see when the cache has it or the replay is through: soon, not at once.
# Of a worker that was killed they see it at the latest when its journal is adopted.
async def test_a_service_whose_worker_is_killed_in_an_outage_keeps_all_that_it_promised(
    private_mariadb: MariaDBServer, private_memcached: MemcachedServer, tmp_path: Path
) -> None:
    write = f"{private_mariadb.url} {private_memcached.url}"
    async with service(write, tmp_path / "journal", "--workers=4") as (url, master):
        load = await asyncio.create_subprocess_exec(
            *(sys.executable, str(LOAD), url, "10", "8", "10"), stdout=asyncio.subprocess.PIPE
        )
        await asyncio.sleep(3)
        await private_mariadb.kill()
        await asyncio.sleep(2)
        os.kill(
            max(workers_of(master), key=journalled_by), signal.SIGKILL
        )  # of a host's workers some may idle
        await asyncio.sleep(2)
        await private_mariadb.start()
        async with asyncio.timeout(PATIENCE):
            output, _ = await load.communicate()
        ledger = json.loads(output)
        print(ledger["statuses"], "seconds behind:", sorted(ledger["behind"])[-5:])
        uncertain = ledger["uncertain"]
        expected = {path: title for path, title in ledger["books"].items() if path not in uncertain}
        await caught_up(
            private_mariadb.url, {path: title for path, title in expected.items() if title is not None}
        )

        log = (tmp_path / "service.log").read_text()
        assert log.count("took over") == 1, log
        held = await titles(private_mariadb.url)
        assert {path: held.get(path) for path in expected} == expected
        assert ledger["mismatches"] == []
        assert not any(" 5" in status for status in ledger["statuses"]), ledger["statuses"]
        assert len(expected) > 50
        assert len(uncertain) <= 8
        async with asyncio.timeout(PATIENCE):  # the one in the killed one's place may still be starting
            while len(workers_of(master)) != 4:  # noqa: ASYNC110 - of other processes
                await asyncio.sleep(0.1)
        await found_over_http(url, expected)


def workers_of(master: int) -> list[int]:
    """The processes that serve under uvicorn: those of its children that have opened the journal."""
    tasks = Path(f"/proc/{master}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [pid for pid in children if any("/writer-" in name for name in open_files(pid))]


def journalled_by(pid: int) -> int:
    """How many bytes a worker has in its journal."""
    names = {Path(name) for name in open_files(pid) if "/writer-" in name}
    return sum(name.stat().st_size for name in names if name.exists())


def open_files(pid: int) -> list[str]:
    names: list[str] = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            names.append(str(descriptor.readlink()))
    return names
