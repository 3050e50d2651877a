"""Whatever fails, every promise holds: simulated outages by the thousand, each from its seed."""

import os
import subprocess
import sys

import pytest

from octopus_async.testing.simulation import (
    FAULTS,
    Fault,
    Scenario,
    Setup,
    Step,
    run,
    run_seed,
    run_seeds,
    scenario_of,
    shrink,
)

SEEDS = int(os.environ.get("OCTOPUS_SIMULATION_SEEDS", "2000"))


@pytest.mark.timeout(900)
def test_no_seed_breaks_a_promise() -> None:
    tally = run_seeds(range(SEEDS))
    assert tally.seeds == SEEDS
    assert tally.failures == {}
    if tally.seeds >= 2000:
        # A fault that never strikes proves nothing, whatever the seeds are said to inject.
        assert {name: tally.struck_seeds[name] for name in FAULTS if tally.struck_seeds[name] < 3} == {}
        assert tally.struck["crash within a call"] > 200
        assert tally.struck["crash within a replay"] > 100


def test_a_seed_replays_exactly() -> None:
    for seed in (3, 11, 26):
        traces: list[list[str]] = [[], []]
        reports = [run_seed(seed, trace.append) for trace in traces]
        assert traces[0] == traces[1]
        assert [str(call) for call in reports[0].history.calls] == [
            str(call) for call in reports[1].history.calls
        ]


def test_a_seed_replays_exactly_whatever_the_interpreter_s_hash_seed() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-m", "octopus_async.testing.simulation", "26", "--trace"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert said[0] == said[1]


def test_a_scenario_survives_being_written_down() -> None:
    scenario = scenario_of(26)
    assert Scenario.from_json(scenario.to_json()) == scenario


def test_seeds_reach_what_they_are_meant_to_reach() -> None:
    """A simulation that is too kind proves nothing."""
    reports = [run_seed(seed) for seed in range(120)]
    calls = [call for report in reports for call in report.history.calls]
    assert sum(call.journalled for call in calls) > 20
    assert {call.result for call in calls} >= {"ok", "open", "cancelled", "refused", "rejected", "not found"}
    assert any(report.history.final.dead for report in reports)


def test_a_failure_shrinks_to_what_causes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug: what is replayed is forgotten by the journal, but never sent."""
    from octopus_async.recovery import Replayer

    async def forget(self: Replayer) -> int:
        runs = self._journal.runs(self.backend.name, 10)
        self._journal.settle(self.backend.name, runs)
        return sum(len(run.sequences) for run in runs)

    monkeypatch.setattr(Replayer, "_replay_batch", forget)
    steps = tuple(Step(0, client, 0.1, "create", f"g{client}") for client in range(3))
    faults = (Fault(0.05, "down", "primary", 1.0), Fault(0.2, "evict", "cache", 0.0, 0.5))
    report = run(Scenario(Setup(1), steps, faults))
    assert report.violations[0].promise == "C1"
    smallest = shrink(report).scenario
    assert (len(smallest.steps), [fault.kind for fault in smallest.faults]) == (1, ["down"])
