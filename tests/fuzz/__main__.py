"""Fuzzes the parsers for a time each: `python -m tests.fuzz SECONDS [TARGET ...]`.

With atheris, each in a process of its own and guided by coverage; where that cannot be had, by mutation
alone. A finding is shown, kept in a file by libFuzzer, and ends the run with a status other than 0.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_BOUNDS = ("-timeout=20", "-rss_limit_mb=2048", "-max_len=16384", "-print_final_stats=1")
_DONE = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


def main(seconds: float, names: list[str]) -> int:
    """Fuzz these targets, or all; the number of those that have failed."""
    from tests.fuzz.targets import TARGETS

    guided = importlib.util.find_spec("atheris") is not None
    if not guided:
        print("atheris is not installed: mutation alone", flush=True)
    failures = 0
    for name in names or list(TARGETS):
        blind = TARGETS[name].blind or not guided
        count = _by_mutation(name, seconds) if blind else _by_coverage(name, seconds)
        failures += count is None
        said = "FAILED" if count is None else f"{count} inputs, {count / seconds:.0f}/s"
        print(f"{name}: {said} ({'mutation' if blind else 'coverage'})", flush=True)
    return failures


def _by_mutation(name: str, seconds: float) -> int | None:
    from tests.fuzz.mutation import mutations
    from tests.fuzz.targets import TARGETS

    target, seed = TARGETS[name], time.time_ns()
    chance, end, count = random.Random(seed), time.monotonic() + seconds, 0
    hostile = mutations(target.seeds, chance)
    while time.monotonic() < end:
        data = chance.randbytes(8) if target.blind else next(hostile)
        try:
            target.run(data)
        except Exception as error:  # noqa: BLE001 - every one is a finding
            print(f"{name}: {error!r}, given {data!r}", flush=True)
            return None
        count += 1
    return count


def _by_coverage(name: str, seconds: float) -> int | None:
    from tests.fuzz.targets import TARGETS

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(TARGETS[name].seeds):
            Path(corpus, f"seed{number}").write_bytes(seed)
        bounds = (*_BOUNDS, f"-max_total_time={seconds:.0f}", corpus)
        command = [sys.executable, "-m", "tests.fuzz", "--guided", name, *bounds]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 300)
    found = _DONE.search(done.stderr)
    if done.returncode or found is None:
        print(done.stdout[-4000:], done.stderr[-4000:], flush=True)
        return None
    return int(found[1])


def _guided(name: str, arguments: list[str]) -> None:
    """Hand this process over to libFuzzer."""
    atheris: Any = importlib.import_module("atheris")  # not there for who checks types
    with atheris.instrument_imports(include=["octopus_async"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--guided"]:
        _guided(sys.argv[2], sys.argv[3:])
    sys.exit(main(float(sys.argv[1]) if sys.argv[1:] else 60.0, sys.argv[2:]))
