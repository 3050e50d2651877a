"""The power of a real file system is cut under a loaded journal, where the machine permits to mount one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.journals import ROUNDS
from tests.crash.lanes import Findings

pytestmark = pytest.mark.timeout(120 * ROUNDS)

CUTS = 6 * ROUNDS
ROOT = Path(__file__).parents[2]


def test_what_was_acknowledged_survives_the_cut_of_a_real_file_system() -> None:
    # A process of its own, as it gets a mount namespace of its own.
    command = [sys.executable, "-m", "tests.crash.images", str(CUTS)]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False).stdout
    findings = Findings.from_json(said)
    assert findings.problems == []
    if not findings.points.total():
        pytest.skip(next(iter(findings.points)))
    assert findings.points.total() == CUTS
    assert findings.counts["acknowledged"] > 0
    assert findings.counts["compared"] > 0
