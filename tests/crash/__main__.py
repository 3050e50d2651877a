"""All crash tests of the journal in their long form, and a table of what they did.

Run as ``python -m tests.crash 10000``: so many kill points, five times as many crash states, a hundredth
of it cuts of a real file system, and every call to the disk failing in every way.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.crash.lanes import Findings

ROOT = Path(__file__).parents[2]
_ROW = "{:<28}{:>10}{:>10}{:>14}{:>12}{:>7}{:>7}{:>9}"


def campaign(module: str, count: int) -> Findings:
    """Run a campaign in a process of its own: it forks, or mounts."""
    command = [sys.executable, "-m", f"tests.crash.{module}", str(count)]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False).stdout
    return Findings.from_json(said) if said else Findings(problems=[f"{module} failed: see its traceback"])


def row(name: str, count: int, found: Findings) -> str:
    counts = found.counts
    told = [f"{counts[what]:,}" for what in ("acknowledged", "compared")]
    wrong = [counts[what] for what in ("lost", "extra", "damaged")]
    return _ROW.format(name, f"{count:,}", f"{found.seconds:.0f}", *told, *wrong)


def faults() -> bool:
    """Every call to the disk fails in every way; whether nothing was lost."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/crash/test_journal_faults.py"]
    environment = {**os.environ, "OCTOPUS_CRASH_ROUNDS": "4"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def main() -> int:
    points = int(sys.argv[1]) if sys.argv[1:] else 10_000
    kills = campaign("kills", points)
    states = campaign("cuts", 5 * points)
    images = campaign("images", max(1, points // 100))
    print(_ROW.format("", "count", "seconds", "acknowledged", "compared", "lost", "extra", "damaged"))
    print(row("processes killed", kills.points.total(), kills))
    print(row("crash states opened", states.counts["states"], states))
    print(row("power cuts of ext4", images.points.total(), images))
    for name, found in (("killed", kills), ("power cuts", images)):
        print(f"\n{name}: " + ", ".join(f"{count} {where}" for where, count in found.points.most_common()))
    problems = [*kills.problems, *states.problems, *images.problems]
    for problem in problems[:50]:
        print(problem)
    print("\nevery call to the disk failing with EIO, ENOSPC and EDQUOT, once and more often:", flush=True)
    return 0 if faults() and not problems else 1


if __name__ == "__main__":
    sys.exit(main())
