"""How fast it went: histograms of fixed size, by phase and by slice of time. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_LEAST = 1e-6
_GROWTH = 1.02
_PER_LOG = 1 / math.log(_GROWTH)
_BUCKETS = math.ceil(math.log(1000 / _LEAST) * _PER_LOG)


class Histogram:
    """Durations from a microsecond to a quarter of an hour, each to within 2 per cent."""

    __slots__ = ("_buckets", "count")

    def __init__(self) -> None:
        self.count = 0
        self._buckets = [0] * (_BUCKETS + 1)

    def add(self, seconds: float) -> None:
        """Count one duration."""
        index = int(math.log(seconds / _LEAST) * _PER_LOG) if seconds > _LEAST else 0
        self._buckets[min(index, _BUCKETS)] += 1
        self.count += 1

    def microseconds(self, share: float) -> int | None:
        """The duration that ``share`` of all do not exceed; None if there were none."""
        left = math.ceil(share * self.count)
        if not left:
            return None
        for index, count in enumerate(self._buckets):
            left -= count
            if left <= 0:
                return round(_LEAST * 1e6 * math.pow(_GROWTH, index + 0.5))
        return None


@dataclass(slots=True)
class Tally:
    """What happened in a phase, or in a slice of time."""

    writes: Histogram = field(default_factory=Histogram)
    reads: Histogram = field(default_factory=Histogram)
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """A slice of time. Times are seconds since the load began, latencies microseconds.

    Attributes:
        at: its end.
        seconds: its length.
        writes: acknowledged writes; others have no latency.
        reads: answered reads.
        write_p50: of the writes; None if there were none. The others alike.
        write_p99: as above.
        read_p50: as above.
        read_p99: as above.
        errors: operations that failed or were refused.
        backlog: what was owed to all backends at its end.
        behind: how much of that is owed to caches.
    """

    at: float
    seconds: float
    writes: int
    reads: int
    write_p50: int | None
    write_p99: int | None
    read_p50: int | None
    read_p99: int | None
    errors: int
    backlog: int
    behind: int


@dataclass(slots=True)
class PhaseRecord:
    """One phase of the drill, in seconds since the load began."""

    name: str
    away: bool
    began: float
    ended: float = 0.0
    tally: Tally = field(default_factory=Tally)

    def as_json(self) -> dict[str, object]:
        """The phase as the report has it."""
        writes, reads = self.tally.writes, self.tally.reads
        return {
            "name": self.name,
            "seconds": round(self.ended - self.began, 3),
            "writes": writes.count,
            "reads": reads.count,
            "write_p50_us": writes.microseconds(0.5),
            "write_p99_us": writes.microseconds(0.99),
            "read_p50_us": reads.microseconds(0.5),
            "read_p99_us": reads.microseconds(0.99),
            "errors": self.tally.errors,
        }


class Meter:
    """Takes durations, and sorts them into the phase and the slice that are running."""

    def __init__(self) -> None:
        self.phases: list[PhaseRecord] = []
        self.samples: list[Sample] = []
        self._slice = Tally()
        self._slice_began = 0.0

    def begin_phase(self, name: str, now: float, *, away: bool) -> None:
        """A phase begins, and the one before it ends."""
        self.end_phase(now)
        self.phases.append(PhaseRecord(name, away, now))

    def end_phase(self, now: float) -> None:
        """The phase that is running ends."""
        if self.phases and not self.phases[-1].ended:
            self.phases[-1].ended = now

    def wrote(self, seconds: float) -> None:
        """A write was acknowledged."""
        for tally in (self.phases[-1].tally, self._slice):
            tally.writes.add(seconds)

    def read(self, seconds: float) -> None:
        """A read was answered."""
        for tally in (self.phases[-1].tally, self._slice):
            tally.reads.add(seconds)

    def erred(self) -> None:
        """An operation failed, or was refused."""
        for tally in (self.phases[-1].tally, self._slice):
            tally.errors += 1

    def sample(self, now: float, backlog: int, behind: int) -> Sample:
        """End the slice that is running, and begin the next."""
        tally, self._slice = self._slice, Tally()
        sample = Sample(
            at=now,
            seconds=now - self._slice_began,
            writes=tally.writes.count,
            reads=tally.reads.count,
            write_p50=tally.writes.microseconds(0.5),
            write_p99=tally.writes.microseconds(0.99),
            read_p50=tally.reads.microseconds(0.5),
            read_p99=tally.reads.microseconds(0.99),
            errors=tally.errors,
            backlog=backlog,
            behind=behind,
        )
        self._slice_began = now
        self.samples.append(sample)
        return sample
