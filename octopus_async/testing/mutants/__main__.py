"""``python -m octopus_async.testing.mutants``: plants one bug after the other, and says what finds each."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

from octopus_async.testing.mutants.catalogue import MUTANTS, SIMULATION, Mutant
from octopus_async.testing.mutants.plugin import VARIABLE
from octopus_async.testing.simulation.runner import run_seed

_LONGEST_HUNT = 3600.0
_LONGEST_SEED = 60.0
"""Seconds of processor time, which a loaded machine does not lengthen: the mutant makes the library spin."""
_LATE = 124


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: by what it was found, or that it survived."""

    name: str
    found: bool
    by: str
    seconds: float

    def __str__(self) -> str:
        return f"{'found   ' if self.found else 'SURVIVED'} {self.name:<40} {self.seconds:6.1f} s  {self.by}"


def main(arguments: list[str] | None = None) -> int:
    """Plant what the arguments name, or everything; 1 if a mutant survives."""
    chosen = _parser().parse_args(arguments)
    if chosen.hunt:
        return _hunt(MUTANTS[chosen.hunt], chosen.seeds)
    names = chosen.names or list(MUTANTS)
    unknown = sorted(set(names) - set(MUTANTS))
    if unknown:
        sys.stderr.write(f"no mutant is called {unknown[0]!r}; there are {', '.join(MUTANTS)}\n")
        return 2
    verdicts: list[Verdict] = []
    with ThreadPoolExecutor(chosen.jobs or os.cpu_count()) as pool:
        for verdict in pool.map(partial(_verdict, seeds=chosen.seeds), [MUTANTS[name] for name in names]):
            verdicts.append(verdict)
            if not chosen.json:
                _say(str(verdict))
    found = sum(verdict.found for verdict in verdicts)
    if chosen.json:
        _say(
            json.dumps(
                {"planted": len(verdicts), "found": found, "mutants": [asdict(one) for one in verdicts]}
            )
        )
    else:
        _say(f"{found} of {len(verdicts)} found")
    return int(found < len(verdicts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m octopus_async.testing.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="which mutants; default: all")
    parser.add_argument(
        "--seeds", type=int, default=2000, help="how many seeds the simulation may try for each"
    )
    parser.add_argument("--jobs", type=int, default=None, help="how many at a time; default: all processors")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--hunt", metavar="NAME", help=argparse.SUPPRESS)
    return parser


def _verdict(mutant: Mutant, seeds: int) -> Verdict:
    """Look for a mutant, in processes of their own, until something finds it."""
    started = time.perf_counter()
    by = ""
    for hunter in mutant.hunted_by:
        by = _ask_simulation(mutant, seeds) if hunter == SIMULATION else _ask_tests(mutant, hunter)
        if by:
            break
    return Verdict(mutant.name, bool(by), by or "nothing", round(time.perf_counter() - started, 1))


def _ask_simulation(mutant: Mutant, seeds: int) -> str:
    hunt = ["-m", "octopus_async.testing.mutants", "--hunt", mutant.name, "--seeds", str(seeds)]
    said = _last_line(hunt, {})
    seed = said.removeprefix("seed ").partition(":")[0]
    if seed.isdigit() and _run(["-m", "octopus_async.testing.simulation", seed], {}).returncode:
        return _disowned(f"seed {seed} of the simulation")
    return said


def _ask_tests(mutant: Mutant, tests: str) -> str:
    options = ["-m", "pytest", "-q", "-x", "--no-header", "--tb=no", "-rf"]
    planted = ["-p", "octopus_async.testing.mutants.plugin"]
    run = _run([*options, *planted, *shlex.split(tests)], {VARIABLE: mutant.name})
    failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED ")]
    if run.returncode != 1 or not failed:  # anything else is no failed test, and proves nothing
        return ""
    test = failed[0].removeprefix("FAILED ").partition(" - ")[0]
    return test if not _run([*options, test], {}).returncode else _disowned(test)


def _disowned(what: str) -> str:
    """What fails without the mutant as well has found nothing."""
    sys.stderr.write(f"{what} fails without any mutant\n")
    return ""


def _last_line(arguments: Sequence[str], variables: dict[str, str]) -> str:
    run = _run(arguments, variables)
    lines = run.stdout.splitlines()
    if run.returncode not in (0, 1) or not lines:
        sys.stderr.write(run.stderr)
        return ""
    return lines[-1] if run.returncode == 1 else ""


def _run(arguments: Sequence[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    try:
        return subprocess.run(
            command,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=_LONGEST_HUNT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, _LATE, "", f"{command} took too long\n")


def _hunt(mutant: Mutant, seeds: int) -> int:
    """Plant it here, and run seeds until one fails: 1, and the seed; 0 if none does."""
    mutant.plant()
    for seed in range(seeds):
        signal.signal(signal.SIGVTALRM, partial(_give_up, seed))
        signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST_SEED)
        report = run_seed(seed)
        if report.failed:
            _say(f"seed {seed}: {str(report.violations[0])[:100]}")
            return 1
    return 0


def _give_up(seed: int, *_: object) -> None:
    _say(f"seed {seed}: did not end within {_LONGEST_SEED:.0f} s")
    os._exit(1)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
