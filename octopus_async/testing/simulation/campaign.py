"""Many seeds, on several processors."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context

from octopus_async.testing.simulation.census import Census
from octopus_async.testing.simulation.runner import run_seed

_CHUNK = 25


@dataclass(slots=True)
class Tally:
    """What came of many seeds.

    Attributes:
        seeds: how many were run.
        failures: which promise was broken first, by the seed.
        calls: how many calls clients made, by their results.
        struck: how often which fault did harm, see `census.FAULTS`.
        struck_seeds: in how many seeds it did.
        seconds: of real time.
        busy: seconds of processor time, which say more on a machine that does other things as well.
    """

    seeds: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    struck: Census = field(default_factory=Counter)
    struck_seeds: Census = field(default_factory=Counter)
    seconds: float = 0.0
    busy: float = 0.0

    @property
    def seeds_per_second(self) -> float:
        """How fast it went."""
        return self.seeds / self.seconds if self.seconds else 0.0

    def add(self, other: Tally) -> None:
        """Add what came of other seeds, which may have run at the same time."""
        self.busy += other.busy
        self.seeds += other.seeds
        self.failures.update(other.failures)
        for result, count in other.calls.items():
            self.calls[result] = self.calls.get(result, 0) + count
        self.struck += other.struck
        self.struck_seeds += other.struck_seeds


def run_seeds(
    seeds: Iterable[int], *, jobs: int | None = None, progress: Callable[[Tally], None] | None = None
) -> Tally:
    """Run many seeds.

    Parameters:
        seeds: which.
        jobs: how many processes; as many as there are processors where it is None, none for 1.
        progress: is told how far it is, now and then.
    """
    started = time.perf_counter()
    total = Tally()
    jobs = jobs or os.cpu_count() or 1
    for part in _tallies(_chunks(seeds), jobs):
        total.add(part)
        total.seconds = time.perf_counter() - started
        if progress is not None:
            progress(total)
    return total


def _tallies(chunks: Iterable[list[int]], jobs: int) -> Iterator[Tally]:
    if jobs == 1:
        yield from map(_run_chunk, chunks)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running: list[Future[Tally]] = [pool.submit(_run_chunk, chunk) for chunk in chunks]
        for done in as_completed(running):
            yield done.result()


def _chunks(seeds: Iterable[int]) -> Iterator[list[int]]:
    chunk: list[int] = []
    for seed in seeds:
        chunk.append(seed)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _run_chunk(seeds: list[int]) -> Tally:
    began = time.process_time()
    tally = Tally(seeds=len(seeds))
    for seed in seeds:
        report = run_seed(seed)
        if report.failed:
            tally.failures[seed] = str(report.violations[0])
        for call in report.history.calls:
            tally.calls[call.result] = tally.calls.get(call.result, 0) + 1
        tally.struck += report.census
        tally.struck_seeds.update(set(report.census))
    tally.busy = time.process_time() - began
    return tally
