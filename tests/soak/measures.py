"""What a process holds at one moment, and whether it holds more and more. Pure but for the look at /proc."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import NamedTuple

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST_POINTS = 300


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds.

    Attributes:
        rss: resident memory in bytes.
        objects: what the garbage collector keeps track of.
        tasks: tasks of the running loop.
        threads: threads of the process.
        descriptors: open files, sockets and pipes.
        journal: bytes of all files below the journal's folder.
        files: how many of them there are.
    """

    rss: int
    objects: int
    tasks: int
    threads: int
    descriptors: int
    journal: int
    files: int

    @classmethod
    def now(cls, journal: Path) -> Held:
        """Collect what is garbage, and look."""
        gc.collect()
        sizes = [path.stat().st_size for path in journal.rglob("*") if path.is_file()]
        return cls(
            rss=int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE,
            objects=len(gc.get_objects()),
            tasks=len(asyncio.all_tasks()),
            threads=sum(1 for _ in Path("/proc/self/task").iterdir()),
            descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
            journal=sum(sizes),
            files=len(sizes),
        )


class Trend(NamedTuple):
    """How one measure went.

    Attributes:
        name: of the measure.
        middle: its median.
        most: its most.
        growth: by how much it grew over the second half of the run, as a robust line has it.
        allowed: what may be noise.
    """

    name: str
    middle: float
    most: float
    growth: float
    allowed: float

    @property
    def flat(self) -> bool:
        """Whether it did not grow."""
        return self.growth <= self.allowed


_NOISE = {  # a share of the median, and an amount: the larger of the two
    "rss": (0.03, 4e6),
    "objects": (0.02, 2000.0),
    "tasks": (0.0, 2.0),
    "threads": (0.0, 1.0),
    "descriptors": (0.0, 2.0),
    "journal": (0.0, 1.5e6),  # it is cleared from a megabyte on
    "files": (0.0, 2.0),
}


def trends(samples: Sequence[tuple[float, Held]]) -> list[Trend]:
    """How each measure went, from samples with their moments in seconds."""
    late = samples[len(samples) // 2 :]
    found: list[Trend] = []
    for name in [field.name for field in fields(Held)]:
        values = [getattr(held, name) for _, held in samples]
        points = [(at, float(getattr(held, name))) for at, held in late]
        share, amount = _NOISE[name]
        middle = median(values)
        growth = slope(points) * (points[-1][0] - points[0][0])
        found.append(Trend(name, middle, max(values), growth, max(share * middle, amount)))
    return found


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all points: a few that stand out do not move it.

    H. Theil, "A rank-invariant method of linear and polynomial regression analysis", 1950; P. K. Sen, 1968.
    """
    points = points[:: 1 + len(points) // _MOST_POINTS]
    slopes = [(y - y0) / (x - x0) for (x0, y0), (x, y) in combinations(points, 2) if x != x0]
    return median(slopes) if slopes else 0.0
