"""A process that writes to two databases is killed again and again; the second ends up equal to the first."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from octopus_async import DaoManager, Model
from octopus_async.backend import ScanAdapter
from octopus_async.record import Record
from tests.crash.journals import ROUNDS

pytestmark = pytest.mark.timeout(120 * ROUNDS)

LIVES = 4 * ROUNDS
ROOT = Path(__file__).parents[2]

CHILD = """
import asyncio, os, random, sys
from octopus_async import DaoManager
from tests.crash.test_replica_kill import Note, settings

async def write(notes, chance):
    while True:
        note = Note(title="one")
        await notes.create(note)
        if chance.random() < 0.6:
            note.title = "two"
            await notes.update(note)
        if chance.random() < 0.3:
            await notes.delete(note)

async def main(folder, life):
    chance = random.Random(life)
    async with DaoManager(**settings(folder)) as manager:
        notes = manager.dao(Note)
        await notes.create(Note(title="first"))
        os.write(1, b"ready\\n")
        await asyncio.gather(*[write(notes, chance) for _ in range(20)])

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


class Note(Model):
    title: str


def settings(folder: str | Path) -> dict[str, object]:
    """Two databases, of which the second is slower, and a journal."""
    return {
        "write": [
            f"sqlite:///{folder}/primary.db?name=primary&synchronous=NORMAL",
            f"sqlite:///{folder}/replica.db?name=replica&synchronous=FULL",
        ],
        "journal": f"{folder}/journal",
        "create_tables": True,
        "late_writes": 0.05,
    }


async def live(folder: Path, life: int, seconds: float) -> None:
    """Run a process for a while, and kill it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(folder), str(life), stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    await asyncio.sleep(seconds)
    process.kill()
    await process.wait()


def rows(folder: Path, name: str) -> set[tuple[str, str]]:
    """The ids and titles in a database, read past the library."""
    connection = sqlite3.connect(folder / f"{name}.db")
    try:
        return set(connection.execute("SELECT id, title FROM note"))
    finally:
        connection.close()


async def records(manager: DaoManager, name: str) -> dict[str, Record]:
    adapter = manager.backends[name].adapter
    assert isinstance(adapter, ScanAdapter)
    return {record.key.id: record async for record in adapter.scan("Note")}


async def test_a_replica_equals_its_primary_however_often_the_process_was_killed(tmp_path: Path) -> None:
    chance = random.Random(7)
    apart = 0
    for life in range(LIVES):
        await live(tmp_path, life, chance.uniform(0.05, 0.3))
        apart += len(rows(tmp_path, "primary") ^ rows(tmp_path, "replica"))
    async with DaoManager(**settings(tmp_path)) as manager:  # type: ignore[arg-type]
        await manager.create_tables(Note)
        async with asyncio.timeout(60):
            await manager.drained()
            while manager.statistics().comparing:  # noqa: ASYNC110 - until late writes were looked for too
                await asyncio.sleep(0.01)
        primary, replica = await records(manager, "primary"), await records(manager, "replica")
    assert apart > 0
    assert len(primary) > LIVES
    assert replica == primary
