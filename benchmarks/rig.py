"""How two sides are measured in turns, and where: sizes, servers, folders."""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from benchmarks.rows import Goal, Row, line
from octopus_async.testing.servers import MariaDBServer, MemcachedServer

_PATIENCE = 2
Operation = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        seconds: how long one side of a comparison runs in one round.
        rounds: how often the sides take turns.
        many: how many callers at the same time, beside one alone.
        most: the same, once more; None for no more.
        records: how many records are there to be read.
        replayed: how many records are replayed at once.
        backlog: how many operations are pending where there are many.
    """

    seconds: float
    rounds: int
    many: int
    most: int | None
    records: int
    replayed: int
    backlog: int

    @property
    def tasks(self) -> tuple[int, ...]:
        """How many callers, from one on."""
        return (1, self.many) if self.most is None else (1, self.many, self.most)


FULL = Sizes(0.3, 5, 100, 1000, 5000, 20_000, 1_000_000)
QUICK = Sizes(0.03, 3, 100, None, 300, 2000, 20_000)
TINY = Sizes(0.002, 1, 3, 4, 20, 50, 200)
"""To see that everything runs."""


class Figures(NamedTuple):
    """One side: medians over its rounds. Latencies are microseconds."""

    rate: float
    p50: float
    p99: float


@dataclass
class Rig:
    """What all families share.

    Attributes:
        sizes: how much is measured.
        loop: the name of the event loop.
        folder: an empty one, on a disk.
        memcached: a private server.
        mariadb: a private server.
        rows: what was measured so far; each is printed as it comes.
    """

    sizes: Sizes
    loop: str
    folder: Path
    memcached: MemcachedServer
    mariadb: MariaDBServer
    rows: list[Row] = field(default_factory=list)

    async def compare(  # noqa: PLR0913 - two sides, and what to call and hold them against
        self,
        name: str,
        ours: Operation,
        peer: str,
        theirs: Operation,
        tasks: int,
        goal: Goal | None = None,
        *,
        tail: Goal | None = None,
    ) -> tuple[Figures, Figures]:
        """Measure both sides in turns; ``tail`` is a goal for how much smaller our p99 is."""
        sides = await in_turns((ours, theirs), tasks, self.sizes)
        self.add_pair(name, tasks, sides[0], peer, sides[1], goal)
        if tail is not None:
            row = self.row_of(f"{name}: p99", tasks, sides[0], peer, sides[1])
            self.add(row.judged(sides[1].p99 / sides[0].p99, tail))
        return sides[0], sides[1]

    def add_pair(  # noqa: PLR0913 - as above
        self, name: str, tasks: int, ours: Figures, peer: str, theirs: Figures, goal: Goal | None = None
    ) -> None:
        """Add the row of two sides: its ratio is one of rates, or of times where less is better."""
        less = goal is not None and goal.at_most
        ratio = theirs.rate / ours.rate if less else ours.rate / theirs.rate
        self.add(self.row_of(name, tasks, ours, peer, theirs).judged(ratio, goal))

    def row_of(self, name: str, tasks: int, ours: Figures, peer: str, theirs: Figures) -> Row:
        """A row without a ratio."""
        return Row(self.named(name), tasks, ours.rate, ours.p50, ours.p99, peer, theirs.rate, theirs.p99)

    def add(self, row: Row) -> None:
        """Take a row, and print it."""
        self.rows.append(row)
        print(line(row), flush=True)

    def named(self, name: str) -> str:
        """The name of a row, with the loop where it is not the usual one."""
        return name if self.loop == "asyncio" else f"{name} ({self.loop})"

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        number = sum(1 for _ in self.folder.iterdir())
        path = self.folder / f"{number}-{name}"
        path.mkdir()
        return path


async def in_turns(sides: Sequence[Operation], tasks: int, sizes: Sizes) -> list[Figures]:
    """Run operations in turns for some rounds, after one that does not count.

    Where one call of each task takes longer than a round should, there are fewer rounds.
    """
    measured: list[list[Figures]] = [[] for _ in sides]
    patience = perf_counter() + _PATIENCE * sizes.seconds * sizes.rounds * len(sides)
    for operation in sides:
        await one_round(operation, tasks, sizes.seconds / 5)
    for number in range(sizes.rounds):
        if number and perf_counter() > patience:
            break
        for operation, figures in zip(sides, measured, strict=True):
            gc.collect()  # so that nobody pays for what the other side left lying about
            figures.append(await one_round(operation, tasks, sizes.seconds))
    return [medians(figures) for figures in measured]


async def one_round(operation: Operation, tasks: int, seconds: float) -> Figures:
    """Have ``tasks`` callers do an operation again and again."""
    latencies: list[float] = []
    began = perf_counter()
    until = began + seconds

    async def caller() -> None:
        start = perf_counter()
        while True:
            await operation()
            now = perf_counter()
            latencies.append(now - start)
            if now >= until:
                return
            start = now

    await asyncio.gather(*(caller() for _ in range(tasks)))
    return figures_of(latencies, perf_counter() - began)


def figures_of(latencies: Sequence[float], seconds: float) -> Figures:
    """The figures of one round."""
    return Figures(len(latencies) / seconds, percentile(latencies, 50) * 1e6, percentile(latencies, 99) * 1e6)


def percentile(values: Sequence[float], share: int) -> float:
    """The value that ``share`` per cent do not exceed."""
    return (
        statistics.quantiles(values, n=100, method="inclusive")[share - 1] if len(values) > 1 else values[0]
    )


def medians(figures: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return Figures(*(statistics.median(column) for column in zip(*figures, strict=True)))
