"""P10: what a million pending operations take: memory, the next opening, and writes beside them."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from pathlib import Path

from benchmarks.load import Book, book
from benchmarks.outage import outage
from benchmarks.rig import Rig
from benchmarks.rows import Row, at_least, at_most
from octopus_async import DaoManager, FileJournal
from octopus_async.clock import Clock
from octopus_async.events import Events
from octopus_async.record import Key, Kind, Operation

_AT_ONCE = 10_000
_OPENINGS = 3


async def run(rig: Rig) -> None:
    """Measure a long outage."""
    count, folder = rig.sizes.backlog, rig.fresh("backlog")
    payload = await write(folder / "full", count)
    found = [await _reopened(folder / "full") for _ in range(min(_OPENINGS, rig.sizes.rounds))]
    assert all(once["pending"] == count for once in found)
    seconds = {name: statistics.median(once[name] for once in found) for name in ("open", "whole", "lines")}
    each = statistics.median(once["resident"] for once in found) / count - payload
    row = Row(
        rig.named(f"P10 {count:,} pending: bytes beyond payload"), 1, peer=f"payload of {payload:.0f} bytes"
    )
    rig.add(row.judged(each, at_most(200)))
    for name, peer, goal in (
        ("whole", "reading with one checksum", at_most(3)),
        ("lines", "reading lines, a checksum each", None),
    ):
        rates = (count / seconds["open"], count / seconds[name])
        row = Row(
            rig.named(f"{'P10 ' if goal else ''}{count:,} pending: reopening"),
            1,
            rates[0],
            peer=peer,
            peer_ops_per_s=rates[1],
        )
        rig.add(row.judged(rates[1] / rates[0], goal))
    await _writes(rig, folder)


async def write(folder: Path, count: int) -> float:
    """Journal ``count`` creates; gives the mean length of their payloads."""
    journal, clock = FileJournal(folder), Clock()
    await journal.open(Events())
    size = 0
    for start in range(0, count, _AT_ONCE):
        waiting: list[asyncio.Future[int]] = []
        for number in range(start, min(start + _AT_ONCE, count)):
            operation = _create(number, clock)
            size += len(operation.payload or b"")
            waiting.append(journal.append(operation, ["sqlite"]))
        await asyncio.gather(*waiting)
    await journal.close()
    return size / count


def _create(number: int, clock: Clock) -> Operation:
    made = book(number)
    version = clock.next()
    payload = made.model_dump_json(exclude={"id"}).encode()
    return Operation(Kind.CREATE, Key("Book", str(made.id)), version, version, None, payload, None)


async def _reopened(folder: Path) -> dict[str, float]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.reopening", str(folder),
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    said, _ = await child.communicate()
    assert child.returncode == 0
    found: dict[str, float] = json.loads(said)
    return found


async def _writes(rig: Rig, folder: Path) -> None:
    url = [f"sqlite:///{folder}/away.db"]
    async with outage(url, folder / "full") as behind, outage(url, folder / "empty") as empty:
        await _is_behind(behind, rig.sizes.backlog)
        crowded, free = behind.dao(Book), empty.dao(Book)
        await rig.compare(
            f"P10 {rig.sizes.backlog:,} pending: create in an outage",
            lambda: crowded.create(book(0)),
            "with none pending",
            lambda: free.create(book(0)),
            100,
            at_least(0.8),
        )


async def _is_behind(octopus: DaoManager, count: int) -> None:
    statistics_ = octopus.statistics().journal
    assert statistics_ is not None
    assert statistics_.pending == count
