"""``python -m octopus_async.testing.simulation SEED``: run seeds, replay one, shrink one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from octopus_async.testing.simulation.campaign import Tally, run_seeds
from octopus_async.testing.simulation.census import table
from octopus_async.testing.simulation.runner import Report, run, shrink
from octopus_async.testing.simulation.scenario import Scenario, scenario_of


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say; 1 if a promise was broken."""
    chosen = _parser().parse_args(arguments)
    if chosen.count > 1:
        return _run_many(chosen.seed, chosen.count, chosen.jobs, census=chosen.census)
    if chosen.scenario is not None:
        scenario = Scenario.from_json(chosen.scenario.read_text())
    else:
        scenario = scenario_of(chosen.seed)
    report = run(scenario, _say if chosen.trace else None)
    if report.failed and chosen.shrink:
        report = shrink(report)
        _say("the smallest scenario that still fails:")
        _say(report.scenario.to_json())
    _tell(report)
    return int(report.failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m octopus_async.testing.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", default=0, help="the seed, or the first of many")
    parser.add_argument("--count", type=int, default=1, help="how many seeds to run from there on")
    parser.add_argument(
        "--jobs", type=int, default=None, help="on how many processes; default: all processors"
    )
    parser.add_argument(
        "--trace", action="store_true", help="print every fault and every event of the library"
    )
    parser.add_argument(
        "--shrink", action="store_true", help="look for the smallest scenario that still fails"
    )
    parser.add_argument(
        "--census", action="store_true", help="print how often each kind of fault struck, of many seeds"
    )
    parser.add_argument("--scenario", type=Path, help="a file with a scenario, as --shrink prints it")
    return parser


def _run_many(first: int, count: int, jobs: int | None, *, census: bool) -> int:
    tally = run_seeds(range(first, first + count), jobs=jobs, progress=_show)
    _say("")
    if census:
        for line in table(tally.struck, tally.struck_seeds):
            _say(line)
    for seed, what in sorted(tally.failures.items()):
        _say(f"seed {seed}: {what}")
    calls = ", ".join(f"{number} {result}" for result, number in sorted(tally.calls.items()))
    _say(
        f"{tally.seeds} seeds in {tally.seconds:.1f} s, {tally.seeds_per_second:.1f} seeds/s "
        f"({tally.busy / tally.seeds * 1000:.1f} ms of a processor each), "
        f"{len(tally.failures)} failed; calls: {calls}"
    )
    return int(bool(tally.failures))


def _show(tally: Tally) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(
            f"\r{tally.seeds} seeds, {tally.seeds_per_second:.0f}/s, {len(tally.failures)} failed"
        )


def _tell(report: Report) -> None:
    if report.failed:
        _say(str(report))
    else:
        _say(f"{report.scenario}\nno promise broken: {len(report.history.calls)} calls, {report.steps} steps")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
