"""A process that uses the library, told by its input what to do; says on its output what it was promised.

Run as ``python process.py JOURNAL URL...``. Input and output are JSON arrays, one a line, so that what it was
promised is known however it dies. Each write is said before it is begun, and when its fate is known.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

from octopus_async import Dao, DaoManager, OctopusError, Receipt
from octopus_async.cli.drill.ledger import Deed, Fate, Name
from octopus_async.cli.drill.workload import Volume, contents
from octopus_async.errors import RecordNotFound, RecordRejected
from octopus_async.events import DeadLettered, Event, JournalAdopted, ReplayFinished

SEED = 7


def say(*words: object) -> None:
    """One write to the pipe, so that a line is said wholly or not at all."""
    os.write(1, json.dumps(words).encode() + b"\n")


def listen(event: Event) -> None:
    """Say what the tests ask for."""
    if isinstance(event, JournalAdopted):
        say("adopted", event.path, event.entries)
    elif isinstance(event, DeadLettered):
        say("dead", event.key.id, event.reason)
    elif isinstance(event, ReplayFinished):
        say("replayed", event.applied)


async def write(name: Name, step: int, deed: Deed, id_: UUID, call: Callable[[], Awaitable[Receipt]]) -> bool:
    """Make a write; whether it was acknowledged."""
    say("begin", *name, step, deed, str(id_))
    fate, journalled, provisional = Fate.UNKNOWN, False, False
    try:
        receipt = await call()
    except OctopusError as error:
        if isinstance(error, RecordRejected | RecordNotFound):
            fate = Fate.REFUSED
        say("error", f"{name}, {deed.name.lower()}: {error!r}")
    else:
        fate, journalled, provisional = Fate.ACKNOWLEDGED, receipt.journalled, receipt.provisional
    say("end", *name, step, fate, journalled, provisional)
    return fate is Fate.ACKNOWLEDGED


async def load(volumes: Dao[Volume], shelf: int, over: asyncio.Event) -> None:
    """Create, change and delete records of a shelf of its own, one after the other, until it is over."""
    chance = random.Random(shelf)
    for place in itertools.count(1):
        if over.is_set():
            return
        name = Name(shelf, place)
        volume = Volume(**contents(SEED, name, 1))
        alive = await write(name, 1, Deed.CREATE, volume.id, partial(volumes.create, volume))
        step = 1
        while alive and step < 4 and chance.random() < 0.6:
            step += 1
            if chance.random() < 0.3:
                await write(name, step, Deed.DELETE, volume.id, partial(volumes.delete, volume.id))
                break
            change(volume, name, step)
            alive = await write(name, step, Deed.UPDATE, volume.id, partial(volumes.update, volume))
        await asyncio.sleep(chance.expovariate(300))


def change(volume: Volume, name: Name, step: int) -> None:
    """Make a record what it is to hold after a step."""
    for field, value in contents(SEED, name, step).items():
        setattr(volume, field, value)


class Servant:
    """Does what the input says."""

    def __init__(self, manager: DaoManager) -> None:
        self._manager = manager
        self._volumes = manager.dao(Volume)
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> None:
        """Do one thing after the other, until the input ends."""
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        while line := await lines.readline():
            order, *arguments = json.loads(line)
            await getattr(self, order)(*arguments)
        for task in self._tasks:
            task.cancel()

    async def load(self, *shelves: int) -> None:
        """Begin the load, a task for each shelf."""
        self._tasks += [asyncio.create_task(load(self._volumes, shelf, self._over)) for shelf in shelves]

    async def create(self, shelf: int, place: int, id_: str) -> None:
        """Create a record under an id that somebody chose, and tell later what became of it."""
        name = Name(shelf, place)
        volume = Volume(id=UUID(id_), **contents(SEED, name, 1))

        async def call() -> Receipt:
            receipt = await self._volumes.create(volume)
            self._tasks.append(asyncio.create_task(self._settle(id_, receipt)))
            return receipt

        await write(name, 1, Deed.CREATE, volume.id, call)

    async def read(self, *ids: str) -> None:
        """Read records, and say which step each holds."""
        for id_ in ids:
            try:
                volume = await self._volumes.read(UUID(id_))
            except OctopusError as error:
                say("unread", id_, repr(error))
            else:
                say("read", id_, None if volume is None else volume.step)

    async def drain(self) -> None:
        """End the load, and wait until nothing is owed to anybody."""
        self._over.set()
        await self._manager.drained()
        journal = self._manager.journal
        assert journal is not None
        say("drained", {it.operation.key.id: it.reason for it in journal.dead_letters()})

    async def _settle(self, id_: str, receipt: Receipt) -> None:
        try:
            await receipt.settled()
        except OctopusError as error:
            say("settled", id_, type(error).__name__)
        else:
            say("settled", id_, None)


async def main(journal: str, *urls: str) -> None:
    """Open, say so, and serve."""
    async with DaoManager(list(urls), journal=journal, create_tables=True, listeners=[listen]) as manager:
        servant = Servant(manager)
        statistics = manager.statistics().journal
        say("open", 0 if statistics is None else statistics.pending)
        await servant.serve()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
