"""Processes that write to a shared memory cache, are killed and stopped, and fork: ``WHAT FOLDER COUNT``.

Forking is not for a process with threads: so it is done in one of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from octopus_async.adapters.shm import SharedMemoryAdapter
from octopus_async.backend import Answer
from octopus_async.clock import Clock
from octopus_async.errors import Unavailable
from octopus_async.record import APPLIED, NOT_TAKEN, Key, Mode, Record
from octopus_async.testing.operations import Author, fields_of

KEYS = [Key("Book", f"book {number}") for number in range(40)]
BYTES = 4 * 1024**2


def adapter_in(folder: str) -> SharedMemoryAdapter:
    return SharedMemoryAdapter(folder=Path(folder), max_bytes=BYTES)


def child(run: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            run()
        finally:
            os._exit(1)
    return pid


def end(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)
    os.waitpid(pid, 0)


def write_on_and_on(folder: str) -> None:
    """Until it is killed, or its parent is gone."""
    parent = os.getppid()

    async def write() -> None:
        author, chance, adapter = Author("Book", Clock()), random.Random(), adapter_in(folder)
        await adapter.open()
        while os.getppid() == parent:
            number = chance.randrange(10_000)
            fields = fields_of(count=number, title=f"{number}." * chance.choice([1, 100, 3_000]))
            await adapter.apply([author.update(chance.choice(KEYS), fields)], Mode.MIRROR)

    asyncio.run(write())


def check(answer: Answer, newest: dict[Key, str]) -> bool:
    """Whether it is a record: then it is whole, and not older than what was seen before."""
    if not isinstance(answer, Record):
        return False
    fields = answer.fields or {}
    title, start = str(fields["title"]), f"{fields['count']}."
    assert title == start * (len(title) // len(start)), "a wrong record"
    assert answer.version >= newest.get(answer.key, ""), "an older record"
    newest[answer.key] = answer.version
    return True


async def kills(folder: str, count: int) -> str:
    """Writers are killed at random moments, while we and a lasting writer go on."""
    adapter, author, chance = adapter_in(folder), Author("Book", Clock()), random.Random(1)
    await adapter.open()
    newest: dict[Key, str] = {}
    seen = 0
    lasting = child(lambda: write_on_and_on(folder))
    for _ in range(count):
        victim = child(lambda: write_on_and_on(folder))
        until = time.monotonic() + chance.uniform(0.002, 0.03)
        while time.monotonic() < until:
            seen += sum(check(answer, newest) for answer in await adapter.read(KEYS))
        end(victim)
        await write_on(adapter, author)
    end(lasting)
    answers = await adapter.read(KEYS)
    assert all(check(answer, newest) for answer in answers), "not every key is there"
    await adapter.close()
    return f"{count} killed, {seen} records read"


async def write_on(adapter: SharedMemoryAdapter, author: Author) -> None:
    """Every key can be written, if not at once: a lasting writer may be kept from the processor."""
    left = KEYS
    for _ in range(50):
        updates = [author.update(key, fields_of(count=7, title="7.")) for key in left]
        outcomes = zip(left, await adapter.apply(updates, Mode.MIRROR), strict=True)
        left = [key for key, outcome in outcomes if outcome.status in NOT_TAKEN]
        if not left:
            return
    raise AssertionError(f"{left} cannot be written")


async def forked(folder: str, _: int) -> str:
    """A child does not use what its parent has opened, and can open its own."""
    adapter, author = adapter_in(folder), Author("Book", Clock())
    await adapter.open()
    created = author.create(KEYS[0], fields_of(title="from the parent"))
    assert await adapter.apply([created], Mode.MIRROR) == [APPLIED]
    read, write = os.pipe()

    def in_child() -> None:
        asyncio.set_event_loop(None)
        asyncio.events._set_running_loop(None)
        os.write(write, asyncio.run(answers()).encode())
        os._exit(0)

    async def answers() -> str:
        try:
            await adapter.read(KEYS[:1])
        except Unavailable as error:
            own = adapter_in(folder)
            await own.open()
            (answer,) = await own.read(KEYS[:1])
            assert isinstance(answer, Record)
            return f"{error} / {(answer.fields or {})['title']}"
        return "the parent's was used"

    end(child(in_child), 0)
    return os.read(read, 1000).decode()


async def stop_holding(folder: str, part: int) -> str:
    """Take the lock of a part, and stop; give it back when we are continued."""
    adapter = adapter_in(folder)
    await adapter.open()
    assert adapter._segment is not None
    assert adapter._segment.try_lock(part)
    print("locked", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    await adapter.close()
    return "released"


if __name__ == "__main__":
    what, where, number = sys.argv[1:]
    print(asyncio.run({"kills": kills, "forked": forked, "stop": stop_holding}[what](where, int(number))))
