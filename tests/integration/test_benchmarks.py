"""The benchmarks run. How fast anything is, no test says: that depends on the machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.__main__ import FAMILIES, main
from benchmarks.rows import Row

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


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_they_run_on_each_loop_and_every_figure_has_a_ratio_and_a_goal(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = main(["--tiny", "--loop", loop, "--json", "rows.json", "--plots", "plots", *families_of(loop)])

    written = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [Row(**row) for row in written] == rows
    assert list(written[0]) == FIELDS == [field.name for field in fields(Row)]
    judged = [row for row in rows if row.goal is not None]
    assert all(row.ratio is not None and row.ratio >= 0 and row.met is not None for row in judged)
    assert {row.name.split()[0] for row in judged} == (FIGURES if loop == "asyncio" else set())
    assert (tmp_path / "plots" / "goals.svg").exists() is (loop == "asyncio")


def families_of(loop: str) -> list[str]:
    """On the second loop a few are enough to see that it carries them."""
    return list(FAMILIES) if loop == "asyncio" else ["floor"]
