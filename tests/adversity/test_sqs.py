"""The SQS sink on moto's server: what reached the queue outlives the machine, and is applied once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from octopus_async import DaoManager, KeyedModel, Model
from octopus_async.adapters._sqs_message import group_of
from octopus_async.clock import encode_version
from octopus_async.config import adapter_for
from octopus_async.errors import BackendFailed, BackendRefused, BackendTimeout, OperationNotSupported
from octopus_async.events import Event, NotShipped
from octopus_async.guard import Guard, GuardPolicy, State
from octopus_async.record import APPLIED, Fields, Key, Mode, Status
from octopus_async.shipping import Collected
from octopus_async.sink import SINK
from octopus_async.testing.contract.subject import descriptors, eventually
from octopus_async.testing.operations import Author, fields_of
from octopus_async.testing.servers import MotoServer
from tests.adversity.sqs import Queue, opened, queue_at


class Book(Model):
    title: str


class Country(KeyedModel):
    id: str
    name: str


@pytest.fixture
def author() -> Author:
    return Author("Book")


@pytest.fixture
async def queue(moto: MotoServer) -> AsyncGenerator[Queue]:
    async with queue_at(moto) as queue:
        yield queue


class Machine:
    """A machine with a disk of its own; its primary is elsewhere, and may be away for it."""

    def __init__(self, folder: Path, primary: Path, sink: str | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.heard: list[Event] = []
        self.manager = DaoManager(
            [f"sqlite:///{primary}"],
            journal=folder / "journal",
            sink=sink,
            create_tables=True,
            listeners=[self.heard.append],
        )

    async def __aenter__(self) -> DaoManager:
        await self.manager.open()
        self.manager.dao(Book)
        return self.manager

    async def __aexit__(self, *_: object) -> None:
        await self.manager.close()


def cut_off(manager: DaoManager, *names: str) -> None:
    """Let it not reach these backends."""
    for name in names or ("sqlite",):
        manager.backends[name].writes.force(State.FORCED_OPEN)


def unshipped(manager: DaoManager) -> int:
    assert manager.journal is not None
    return manager.journal.owes(SINK)


async def shipped(manager: DaoManager) -> None:
    async with asyncio.timeout(20):
        while unshipped(manager):  # noqa: ASYNC110 - the journal announces nothing
            await asyncio.sleep(0.01)


async def collected(manager: DaoManager, url: str, *, patience: float = 20.0, **options: str) -> Collected:
    async with opened(url, **options) as queue:
        return await manager.collector(queue).run(patience=patience)


class TestTheQueueItself:
    async def test_it_takes_batches_of_any_size_in_order_by_key(self, queue: Queue) -> None:
        author = Author("Book")
        keys = [author.key() for _ in range(7)]
        operations = [author.update(keys[step % 7], fields_of(count=step)) for step in range(35)]
        async with opened(queue.url) as adapter:
            assert await adapter.apply(operations, Mode.REPLAY) == [APPLIED] * 35
        found = await queue.bodies()
        assert len(found) == 35
        for key in keys:
            counts = [body["fields"]["count"] for body in found if body["id"] == key.id]
            assert counts == sorted(counts)
            assert len(counts) == 5

    async def test_what_is_sent_twice_is_one_message(self, queue: Queue, author: Author) -> None:
        created = author.create(author.key(), fields_of())
        async with opened(queue.url) as adapter:
            for _ in range(2):
                assert await adapter.apply([created], Mode.REPLAY) == [APPLIED]
        assert await queue.count() == 1

    async def test_large_messages_travel_apart_and_the_largest_not_at_all(
        self, queue: Queue, author: Author
    ) -> None:
        sizes = [100_000, 100_000, 100_000, 300_000, 10]
        operations = [author.create(author.key(), fields_of(title="x" * size)) for size in sizes]
        async with opened(queue.url) as adapter:
            outcomes = await adapter.apply(operations, Mode.REPLAY)
        assert [outcome.status for outcome in outcomes] == [Status.APPLIED] * 3 + [
            Status.REJECTED,
            Status.APPLIED,
        ]
        assert "256 KiB" in str(outcomes[3].error)
        assert await queue.count() == 4

    async def test_nothing_can_be_looked_up_in_it(self, queue: Queue, author: Author) -> None:
        async with opened(queue.url) as adapter:
            assert not adapter.capabilities.readable
            with pytest.raises(OperationNotSupported, match="queue"):
                await adapter.read([author.key()])
            (outcome,) = await adapter.apply(
                [author.invalidate(author.key(), author.clock.next())], Mode.MIRROR
            )
            assert isinstance(outcome.error, OperationNotSupported)

    async def test_a_queue_that_is_not_there_says_so(self, moto: MotoServer) -> None:
        before = descriptors()
        adapter = adapter_for(moto.sink("nobody.fifo"))
        with pytest.raises(BackendFailed, match="NonExistentQueue"):
            await adapter.open()
        with pytest.raises(BackendRefused):
            await adapter.ping()
        await eventually(lambda: descriptors() <= before)

    async def test_killed_it_is_unavailable_and_stopped_it_holds_up_nobody(
        self, moto: MotoServer, queue: Queue, author: Author
    ) -> None:
        async with opened(queue.url) as adapter:
            guard = Guard(adapter, policy=GuardPolicy(timeout=0.3))
            await guard.open()
            await moto.pause()
            with pytest.raises(BackendTimeout):
                await guard.ping()
            await moto.resume()
            await adapter.ping()
            await moto.kill()
            await asyncio.sleep(0.05)
            created = author.create(author.key(), fields_of())
            with pytest.raises((BackendFailed, BackendRefused)):
                await adapter.apply([created], Mode.REPLAY)
            with pytest.raises(BackendRefused) as caught:
                await adapter.apply([created], Mode.REPLAY)
            assert not caught.value.sent
            await guard.close()


class TestShipping:
    async def test_what_is_journalled_is_shipped_and_what_the_primary_takes_is_not(
        self, queue: Queue, tmp_path: Path
    ) -> None:
        async with Machine(tmp_path / "a", tmp_path / "shop.db", queue.url) as manager:
            books = manager.dao(Book)
            await books.create(Book(title="healthy"))
            cut_off(manager)
            receipt = await books.create(Book(title="outage"))
            assert receipt.journalled
            await shipped(manager)
            bodies = await queue.bodies()
            assert [body["fields"]["title"] for body in bodies] == ["outage"]
            manager.backends["sqlite"].writes.release()
            async with asyncio.timeout(20):
                await receipt.settled()

    async def test_while_the_queue_is_away_writes_are_acknowledged_and_the_lag_is_visible(
        self, queue: Queue, tmp_path: Path
    ) -> None:
        async with Machine(tmp_path / "a", tmp_path / "shop.db", queue.url) as manager:
            books = manager.dao(Book)
            cut_off(manager, "sqlite", "sqs")
            for number in range(3):
                assert (await books.create(Book(title=str(number)))).journalled
            statistics = manager.statistics().journal
            assert statistics is not None
            assert statistics.pending_by_target[SINK] == 3
            manager.backends["sqs"].writes.release()
            await shipped(manager)
            assert await queue.count() == 3

    async def test_what_was_not_shipped_is_shipped_after_a_restart(
        self, queue: Queue, tmp_path: Path
    ) -> None:
        async with Machine(tmp_path / "a", tmp_path / "shop.db", queue.url) as manager:
            cut_off(manager, "sqlite", "sqs")
            await manager.dao(Book).create(Book(title="late"))
        machine = Machine(tmp_path / "a", tmp_path / "shop.db", queue.url)
        machine.manager.dao(Book)
        cut_off(machine.manager)
        async with machine as manager:
            await shipped(manager)
            assert await queue.count() == 1

    async def test_what_was_replayed_meanwhile_is_not_shipped_any_more(
        self, queue: Queue, tmp_path: Path
    ) -> None:
        async with Machine(tmp_path / "a", tmp_path / "shop.db", queue.url) as manager:
            cut_off(manager, "sqlite", "sqs")
            receipt = await manager.dao(Book).create(Book(title="replayed"))
            manager.backends["sqlite"].writes.release()
            async with asyncio.timeout(20):
                await receipt.settled()
            await shipped(manager)
            assert await queue.count() == 0

    async def test_a_sink_that_was_taken_out_of_the_configuration_is_owed_nothing(
        self, queue: Queue, tmp_path: Path
    ) -> None:
        async with Machine(tmp_path / "a", tmp_path / "shop.db", queue.url) as manager:
            cut_off(manager, "sqlite", "sqs")
            await manager.dao(Book).create(Book(title="kept"))
        async with Machine(tmp_path / "a", tmp_path / "shop.db") as manager:
            async with asyncio.timeout(20):
                await manager.drained()
                await shipped(manager)
        assert await queue.count() == 0

    async def test_what_is_too_large_for_a_message_is_told_and_stays_in_the_journal(
        self, queue: Queue, tmp_path: Path
    ) -> None:
        machine = Machine(tmp_path / "a", tmp_path / "shop.db", queue.url)
        async with machine as manager:
            cut_off(manager)
            await manager.dao(Book).create(Book(title="x" * 300_000))
            await shipped(manager)
            assert [type(event) for event in machine.heard if isinstance(event, NotShipped)] == [NotShipped]
            assert manager.journal is not None
            assert manager.journal.owes("sqlite") == 1


class TestCollecting:
    async def test_a_message_is_deleted_when_the_primary_has_it_and_twice_is_once(
        self, queue: Queue, tmp_path: Path
    ) -> None:
        primary = tmp_path / "shop.db"
        async with Machine(tmp_path / "a", primary, queue.url) as manager:
            books = manager.dao(Book)
            kept = Book(title="first")
            await books.create(kept)
            cut_off(manager)
            kept.title = "second"
            gone = Book(title="gone")
            await books.update(kept)
            await books.create(gone)
            await books.delete(gone.id)
            await shipped(manager)
            # Both ways at once: its own replay, and the queue by way of another machine.
            manager.backends["sqlite"].writes.release()
            async with Machine(tmp_path / "b", primary) as other:
                result = await collected(other, queue.url)
                assert result.ok, result
                assert (await other.dao(Book).get_one(kept.id)).title == "second"
                assert await other.dao(Book).read(gone.id) is None
            async with asyncio.timeout(20):
                await manager.drained()
        assert await queue.count() == 0

    async def test_what_a_consumer_did_not_delete_comes_again(
        self, queue: Queue, tmp_path: Path, author: Author
    ) -> None:
        operations = [author.create(Key("Book", str(uuid4())), _fields(str(n))) for n in range(3)]
        async with opened(queue.url, visibility="1") as adapter:
            await adapter.apply(operations, Mode.REPLAY)
            taken = await adapter.receive(wait=1)
            assert len(taken) == 3  # and then it dies
            assert await adapter.receive(wait=0) == []
        await asyncio.sleep(1.2)
        async with Machine(tmp_path / "b", tmp_path / "shop.db") as manager:
            result = await collected(manager, queue.url)
            assert (result.applied, result.ok) == (3, True)
        assert await queue.count() == 0

    async def test_a_poisoned_message_goes_to_the_queues_dead_letters_and_its_key_goes_on(
        self, queue: Queue, tmp_path: Path, author: Author
    ) -> None:
        operation = author.create(Key("Book", str(uuid4())), _fields("behind"))
        group = group_of(operation.key)
        await queue.put('{"octopus":1,"op":"launch"}', group)
        async with opened(queue.url) as adapter:
            await adapter.apply([operation], Mode.REPLAY)
        async with Machine(tmp_path / "b", tmp_path / "shop.db") as manager:
            result = await collected(manager, queue.url)
            assert result.unreadable >= 1
            assert not result.ok
            assert result.applied == 1
        assert (await queue.count(), await queue.count("dead")) == (0, 1)

    async def test_what_the_primary_refuses_is_a_dead_letter_here_with_the_reason(
        self, queue: Queue, tmp_path: Path
    ) -> None:
        primary = tmp_path / "shop.db"
        machine = Machine(tmp_path / "a", primary, queue.url)
        async with machine as manager:
            countries = manager.dao(Country)
            cut_off(manager)
            await countries.create(Country(id="at", name="Austria"))
            await shipped(manager)
        shutil.rmtree(tmp_path / "a")
        async with Machine(tmp_path / "b", primary) as manager:
            await manager.dao(Country).create(Country(id="at", name="Österreich"))
            result = await collected(manager, queue.url)
            assert (result.dead_letters, result.applied, result.ok) == (1, 0, False)
            assert manager.journal is not None
            (letter,) = manager.journal.dead_letters()
            assert letter.operation.fields is not None
            assert letter.operation.fields["name"] == "Austria"
            assert "exists already" in letter.reason
        assert await queue.count() == 0

    async def test_what_nobody_knows_or_is_too_old_or_finds_no_primary_stays_in_the_queue(
        self, queue: Queue, tmp_path: Path, author: Author
    ) -> None:
        old = encode_version(int((time.time() - 31 * 86400) * 1000), 0, 7)
        unknown = Author("Planet")
        operations = [
            unknown.create(unknown.key(), fields_of()),
            author.create(Key("Book", str(uuid4())), _fields("old"), version=old),
        ]
        async with opened(queue.url) as adapter:
            await adapter.apply(operations, Mode.REPLAY)
        async with Machine(tmp_path / "b", tmp_path / "shop.db") as manager:
            result = await collected(manager, queue.url)
            assert (result.unknown, result.expired, result.applied) == (["Planet"], 1, 0)
            assert await queue.count() == 2
            async with opened(queue.url) as adapter:
                await adapter.apply([author.create(Key("Book", str(uuid4())), _fields("new"))], Mode.REPLAY)
            cut_off(manager)
            result = await collected(manager, queue.url)
            assert "sqlite cannot be written" in " ".join(result.reasons())
        assert await queue.count() == 3


SERVICE = """
import asyncio, sys
from models import Book
from octopus_async import DaoManager
from octopus_async.guard import State
from octopus_async.sink import SINK

async def main():
    async with DaoManager.from_config("octopus.toml") as octopus:
        books = octopus.dao(Book)
        octopus.backends["sqlite"].writes.force(State.FORCED_OPEN)
        for number in range(25):
            receipt = await books.create(Book(title=str(number)))
            assert receipt.journalled
        while octopus.journal.owes(SINK):
            await asyncio.sleep(0.01)
        print("shipped", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


class TestAMachineThatNeverComesBack:
    async def test_all_that_reached_the_queue_comes_into_the_primary(
        self, queue: Queue, tmp_path: Path, environment: Callable[[Path], dict[str, str]]
    ) -> None:
        for name in ("lost", "new"):
            folder = tmp_path / name
            folder.mkdir()
            model = "from octopus_async import Model\n\nclass Book(Model):\n    title: str\n"
            (folder / "models.py").write_text(model)
            write = f'write = ["sqlite:///{tmp_path}/shop.db"]'
            lines = [write, 'journal = "journal"', "create_tables = true"]
            sink = [f'sink = "{queue.url}"'] if name == "lost" else []
            (folder / "octopus.toml").write_text("\n".join([*lines, *sink]))
        lost, new = tmp_path / "lost", tmp_path / "new"
        (lost / "service.py").write_text(SERVICE)
        service = await asyncio.create_subprocess_exec(
            sys.executable, "service.py", cwd=lost, env=environment(lost), stdout=asyncio.subprocess.PIPE
        )
        assert service.stdout is not None
        async with asyncio.timeout(40):
            assert await service.stdout.readline() == b"shipped\n"
        service.send_signal(signal.SIGKILL)
        await service.wait()
        shutil.rmtree(lost)  # with its disk

        command = ["-m", "octopus_async.cli", "replay", "octopus.toml", "--models", "models"]
        command += ["--from", queue.url, "--json"]
        replay = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=new, env=environment(new), stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(50):
            said, _ = await replay.communicate()
        told = json.loads(said)
        assert (replay.returncode, told["ok"], told["queue"]["applied"]) == (0, True, 25), told
        assert await queue.count() == 0
        async with Machine(tmp_path / "c", tmp_path / "shop.db") as manager:
            scan = manager.backends["sqlite"].scan("Book")
            titles = {int(str((record.fields or {})["title"])) async for record in scan}
        assert titles == set(range(25))


@pytest.fixture
def environment() -> Callable[[Path], dict[str, str]]:
    root = str(Path(__file__).parents[2])
    return lambda folder: os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{root}"}


def _fields(title: str) -> Fields:
    moment = "2026-01-31T12:00:00.000000Z"
    return {"title": title, "created_at": moment, "updated_at": moment}
