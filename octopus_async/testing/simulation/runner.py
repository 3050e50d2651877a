"""From a seed to a verdict: runs a scenario, has it judged, and shrinks one that failed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from octopus_async.testing.simulation.census import Census, struck_clients
from octopus_async.testing.simulation.chance import seeded
from octopus_async.testing.simulation.checker import check, history_of
from octopus_async.testing.simulation.history import History, Terms, Violation
from octopus_async.testing.simulation.loop import SimulationError
from octopus_async.testing.simulation.scenario import CACHE, CRASHES, DISK, Scenario, scenario_of, without
from octopus_async.testing.simulation.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run.

    Attributes:
        scenario: what was run.
        history: what happened.
        violations: the promises that were broken, the gravest first; empty for a good run.
        census: how often which fault struck.
        steps: how many callbacks the run took.
        seconds: its length in virtual time.
    """

    scenario: Scenario
    history: History
    violations: tuple[Violation, ...]
    census: Census
    steps: int
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether a promise was broken."""
        return bool(self.violations)

    def __str__(self) -> str:
        lines = [str(self.scenario), *(f"* {violation}" for violation in self.violations)]
        keys = {violation.key for violation in self.violations if violation.key}
        lines.append(history_of(self.history, keys or {call.key for call in self.history.calls}))
        lines.append(f"again: python -m octopus_async.testing.simulation {self.scenario.setup.seed}")
        return "\n".join(lines)


def run_seed(seed: int, trace: Callable[[str], None] | None = None) -> Report:
    """Run the scenario of a seed. The same seed gives the same report."""
    return run(scenario_of(seed), trace)


def run(scenario: Scenario, trace: Callable[[str], None] | None = None) -> Report:
    """Run a scenario.

    Parameters:
        scenario: what happens.
        trace: is told of every fault and event of the library, a line each.
    """
    collects = gc.isenabled()
    # What the collector finds and when depends on more than the seed, and it runs code.
    gc.disable()
    try:
        with seeded(scenario.setup.seed):
            world = World(scenario, trace)
            problem = _play(world)
    finally:
        if collects:
            gc.enable()
    world.final.problems += [*problem, *world.notes.problems, *world.loop.faults]
    world.final.units = world.notes.units
    history = History(world.notes.calls, world.final, _terms(scenario, world))
    violations = [] if problem else check(history)
    if problem:
        violations = [Violation("problem", "", text) for text in world.final.problems]
    census = +(world.census + struck_clients(history))
    return Report(scenario, history, tuple(violations), census, world.loop.steps, world.loop.time())


def shrink(report: Report, *, most_runs: int = 400) -> Report:
    """The smallest scenario that still breaks the same promise, found by delta debugging.

    The algorithm is ddmin (Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing
    Input, 2002), over the faults and then over the steps.
    """
    shrinker = _Shrinker(report, most_runs)
    before = 0
    while before != shrinker.size:
        before = shrinker.size
        shrinker.reduce(
            lambda scenario: scenario.faults, lambda scenario, kept: without(scenario, faults=kept)
        )
        shrinker.reduce(lambda scenario: scenario.steps, lambda scenario, kept: without(scenario, steps=kept))
    return shrinker.best


class _Shrinker:
    def __init__(self, report: Report, most_runs: int) -> None:
        self.best = report
        self._promise = report.violations[0].promise
        self._left = most_runs

    @property
    def size(self) -> int:
        return len(self.best.scenario.steps) + len(self.best.scenario.faults)

    def reduce(
        self,
        parts_of: Callable[[Scenario], Sequence[T]],
        with_parts: Callable[[Scenario, Sequence[T]], Scenario],
    ) -> None:
        pieces = 2
        while (parts := parts_of(self.best.scenario)) and self._left > 0:
            size = max(1, -(-len(parts) // pieces))
            for start in range(0, len(parts), size):
                if self._still_fails(
                    with_parts(self.best.scenario, [*parts[:start], *parts[start + size :]])
                ):
                    pieces = max(2, pieces - 1)
                    break
            else:
                if size == 1:
                    return
                pieces = min(len(parts), pieces * 2)

    def _still_fails(self, scenario: Scenario) -> bool:
        self._left -= 1
        if self._left < 0 or not scenario.steps:
            return False
        report = run(scenario)
        if not any(violation.promise == self._promise for violation in report.violations):
            return False
        self.best = report
        return True


def _play(world: World) -> list[str]:
    try:
        world.run()
    except SimulationError as error:
        return [f"{type(error).__name__}: {error}"]
    return []


def _terms(scenario: Scenario, world: World) -> Terms:
    setup = scenario.setup
    kinds = {(fault.target, fault.kind) for fault in scenario.faults}
    crashes = any(kind in CRASHES or kind == "die" for _, kind in kinds)
    alone = setup.processes == 1 and not crashes
    journal_failed = any(target == DISK for target, _ in kinds)
    # A process whose clock is behind writes what is older than others have, and shows it in a shared cache.
    agree = len(set(setup.skews)) == 1 and not any(kind in ("clock", "clock_restart") for _, kind in kinds)
    # What lies in a cache that hangs for longer than it remembers lands when nobody expects it any more.
    forgetful = any(
        fault.target == CACHE
        and (
            fault.kind in ("restart_old", "evict", "restart_empty")
            or (fault.kind == "hung" and fault.seconds + 0.3 > setup.ttl)
        )
        for fault in scenario.faults
    )
    return Terms(
        healthy=not scenario.faults,
        alone=alone,
        steady_caches=alone and not forgetful,
        fresh_reads=setup.read == "cascade"
        and (CACHE, "restart_old") not in kinds
        and (setup.processes == 1 or (setup.order != "CONCURRENT" and not crashes and agree)),
        early_caches=setup.order != "PRIMARY_FIRST",
        replicas_kept=not crashes or (setup.journal and not journal_failed),
        journalled=setup.journal,
        journal_failed=journal_failed,
        told_caches=(CACHE,) if setup.shared_cache and (CACHE, "restart_old") not in kinds else (),
        relapses=tuple(
            (fault.at, fault.at + fault.seconds)
            for fault in scenario.faults
            if setup.shared_cache and fault.kind == "restart_old"
        ),
        ttl=setup.ttl,
        pauses=tuple(world.pauses),
    )
