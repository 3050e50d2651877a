"""The benchmarks run. How fast anything is, no test says: that depends on the machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from benchmarks.__main__ import FAMILIES, main
from benchmarks.plots import draw
from benchmarks.rows import Row, at_least

FIGURES = {f"P{number}" for number in range(1, 13)}
FIELDS = [
    *("name", "tasks", "ops_per_s", "p50_us", "p99_us"),
    *("peer", "peer_ops_per_s", "peer_p99_us", "ratio", "goal", "met"),
]


@pytest.fixture(autouse=True)
def the_librarys_log_is_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("octopus_async")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.timeout(300)  # it does a little of everything, each with servers and a disk
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_they_run_on_each_loop_and_every_figure_has_a_ratio_and_a_goal(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = main(["--tiny", "--loop", loop, "--json", "rows.json", *families_of(loop)])

    written = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [Row(**row) for row in written] == rows
    assert list(written[0]) == FIELDS == [field.name for field in fields(Row)]
    judged = [row for row in rows if row.goal is not None]
    assert all(row.ratio is not None and row.ratio >= 0 and row.met is not None for row in judged)
    assert {row.name.split()[0] for row in judged} == (FIGURES if loop == "asyncio" else set())


def test_rows_are_drawn_held_against_their_goals_and_by_load(tmp_path: Path) -> None:
    row = Row("P1 create: SQLite", 1, 100.0, 10.0, 20.0, "by hand", 50.0, 40.0).judged(2.0, at_least(8))
    mix = replace(row, name="YCSB A, uniform", goal=None)
    assert [path.name for path in draw([row, replace(row, tasks=100), mix], tmp_path)] == [
        "goals.svg",
        "load.svg",
        "ycsb.svg",
    ]
    assert all(path.stat().st_size > 0 for path in tmp_path.iterdir())


def families_of(loop: str) -> list[str]:
    """On the second loop a few are enough to see that it carries them."""
    return list(FAMILIES) if loop == "asyncio" else ["floor"]
