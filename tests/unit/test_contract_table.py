"""The table of adapters in the documentation: it says what a run gave, and leaves no adapter out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from octopus_async.backend import Capabilities
from tests.contract.table import page, section_of

PAGE = Path(__file__).parents[2] / "docs" / "backends" / "README.md"


def told(row: str, section: str, *, passed: bool, guarded: bool = False) -> dict[str, Any]:
    capabilities = asdict(Capabilities(durable=True))
    return {
        "row": row,
        "guarded": guarded,
        "section": section,
        "passed": passed,
        "capabilities": capabilities,
    }


@pytest.mark.parametrize(
    ("test", "section"),
    [
        ("test_a_call_cancelled_at_any_await_leaves_the_others_their_answers[1]", "cancellation"),
        ("test_a_rejected_record_does_not_stop_the_others_of_its_batch[sqlite-bare]", "batches"),
        ("test_a_scan_in_small_batches_misses_nothing", "batches"),
        ("test_every_cell_of_the_table[create-nothing]", "versions"),
        ("test_calls_without_a_server_are_unavailable", "opening"),
    ],
)
def test_a_test_is_of_one_section(test: str, section: str) -> None:
    assert section_of(test) == section


def test_a_failure_is_seen_in_it() -> None:
    made = page(
        [
            told("sqlite", "keys", passed=True),
            told("sqlite", "keys", passed=False),
            told("sqlite", "values", passed=True, guarded=True),
        ]
    )
    assert "| sqlite | - | - | - | 1 of 2 | - |" in made
    assert "| sqlite, guarded | - | - | - | - | 1 |" in made
    assert "| sqlite | for good | no | 500 | 500 | 4 | 1 | - | no |" in made


def test_the_documentation_s_table_has_no_failure_in_it() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    assert [row for row in rows if " of " in row.replace("| reads at once", "")] == []
