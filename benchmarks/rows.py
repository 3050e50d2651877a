"""What was measured, beside its peer and its goal: a row of the table and of the JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Goal:
    """What a ratio should be: at least, or at most."""

    bound: float
    at_most: bool = False

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='}{self.bound:g}"

    def met_by(self, ratio: float) -> bool:
        """Whether a ratio is good enough."""
        return ratio <= self.bound if self.at_most else ratio >= self.bound


def at_least(bound: float) -> Goal:
    """More is better."""
    return Goal(bound)


def at_most(bound: float) -> Goal:
    """Less is better."""
    return Goal(bound, at_most=True)


@dataclass(frozen=True)
class Row:
    """One comparison. What does not apply is None.

    Attributes:
        name: the figure it belongs to (P1 to P12), what is measured, and the event loop.
        tasks: how many callers at the same time.
        ops_per_s: operations a second; medians over the rounds, as all others.
        p50_us: latency, microseconds.
        p99_us: latency, microseconds.
        peer: what it is compared with.
        peer_ops_per_s: the same of the peer.
        peer_p99_us: the same of the peer.
        ratio: ours to theirs: of operations a second where the goal is a least, of times where it is a most.
        goal: what the ratio should be; None for a row that is there to be read.
        met: whether it is.
    """

    name: str
    tasks: int
    ops_per_s: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    peer: str = ""
    peer_ops_per_s: float | None = None
    peer_p99_us: float | None = None
    ratio: float | None = None
    goal: str | None = None
    met: bool | None = None

    def judged(self, ratio: float, goal: Goal | None) -> Row:
        """The row with its ratio, held against a goal."""
        if goal is None:
            return replace(self, ratio=ratio)
        return replace(self, ratio=ratio, goal=str(goal), met=goal.met_by(ratio))


_LARGE = 10  # from here on digits behind the point say nothing
_HEAD = (
    f"{'':<58} {'tasks':>5} {'ops/s':>9} {'p50 us':>8} {'p99 us':>9}  {'beside':<34} {'ops/s':>9}"
    f" {'p99 us':>9} {'ratio':>7} {'goal':>7}"
)


def heading() -> str:
    """The table's first line."""
    return _HEAD


def line(row: Row) -> str:
    """A row as the table has it."""
    goal = "" if row.goal is None else f"{row.goal:>7} {'met' if row.met else 'NOT MET'}"
    return (
        f"{row.name:<58} {row.tasks:>5} {_count(row.ops_per_s):>9} {_count(row.p50_us):>8}"
        f" {_count(row.p99_us):>9}  {row.peer:<34} {_count(row.peer_ops_per_s):>9}"
        f" {_count(row.peer_p99_us):>9} {_ratio(row.ratio):>7} {goal}"
    ).rstrip()


def markdown(rows: Iterable[Row]) -> str:
    """The table for a page."""
    head = (
        "| | tasks | ops/s | p50 us | p99 us | beside | ops/s | p99 us | ratio | goal | |\n"
        "|---|--:|--:|--:|--:|---|--:|--:|--:|--:|---|\n"
    )
    return head + "".join(
        f"| {row.name} | {row.tasks} | {_count(row.ops_per_s)} | {_count(row.p50_us)} | {_count(row.p99_us)}"
        f" | {row.peer} | {_count(row.peer_ops_per_s)} | {_count(row.peer_p99_us)} | {_ratio(row.ratio)}"
        f" | {row.goal or ''} | {'' if row.met is None else 'met' if row.met else '**not met**'} |\n"
        for row in rows
    )


def save(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as a JSON list."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


def load(paths: Iterable[Path]) -> list[Row]:
    """Read rows back, as of portions of a run."""
    return [Row(**row) for path in paths for row in json.loads(path.read_text(encoding="utf-8"))]


def _count(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= _LARGE else f"{value:.2g}"


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= _LARGE * _LARGE else f"{value:.2f}"
