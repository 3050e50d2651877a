"""A loaded process is killed at random moments, again and again, and what it had acknowledged is found."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from octopus_async.events import JournalDamaged
from tests.crash.journals import ROUNDS, Heard, opened, pending

pytestmark = pytest.mark.timeout(60 * ROUNDS)

LIVES = 20 * ROUNDS
ROOT = Path(__file__).parents[2]

CHILD = """
import asyncio, itertools, os, random, sys
from octopus_async.events import Events
from octopus_async.journal import FileJournal
from tests.crash.journals import PRIMARY, create, update

async def write(journal, names, chance):
    for name in names:
        operation = create(name, "x" * chance.randrange(300))
        await journal.append(operation, [PRIMARY])
        os.write(1, f"+{name}\\n".encode())
        if chance.random() < 0.3:
            await journal.append(update(name, "later"), [PRIMARY])

async def settle(journal, chance):
    while True:
        await asyncio.sleep(0.005)
        runs = journal.runs(PRIMARY, chance.randrange(1, 60))
        os.write(1, b"".join(f"-{run.operation.key.id}\\n".encode() for run in runs))
        journal.settle(PRIMARY, runs)

async def main(path, life):
    chance = random.Random(life)
    journal = FileJournal(path, segment_bytes=50_000)
    await journal.open(Events())
    os.write(1, b"ready\\n")
    names = (f"{life}-{number}" for number in itertools.count())
    await asyncio.gather(*[write(journal, names, chance) for _ in range(20)], settle(journal, chance))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


async def live(path: Path, life: int, seconds: float) -> tuple[set[str], set[str]]:
    """Run a process for a while and kill it; gives what it has acknowledged, and what it may have settled."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(path), str(life), stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    reading = asyncio.create_task(process.stdout.read())
    await asyncio.sleep(seconds)
    process.kill()
    said = (await reading).decode()
    await process.wait()
    whole = said[: said.rfind("\n") + 1].splitlines()
    acknowledged = {line[1:] for line in whole if line.startswith("+")}
    settled = {line[1:] for line in whole if line.startswith("-")}
    return acknowledged, settled


async def test_a_process_that_is_killed_under_load_loses_nothing_it_had_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged, settled = set[str](), set[str]()
    for life in range(LIVES):
        new, done = await live(tmp_path / "j", life, chance.uniform(0.01, 0.25))
        acknowledged |= new
        settled |= done
    heard = Heard()
    async with opened(tmp_path / "j", heard) as journal:
        found = {run.operation.key.id for run in pending(journal)}
    assert acknowledged - settled <= found
    assert len(acknowledged) > 10 * LIVES
    assert settled
    # A killed process leaves the page cache behind: at most the last line of a write is cut.
    assert all("cut short" in damage.reason for damage in heard.of(JournalDamaged))
