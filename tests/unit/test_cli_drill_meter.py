"""The drill's figures: histograms of fixed size, phases and slices of time."""

from __future__ import annotations

import random

import pytest

from octopus_async.cli.drill.meter import Histogram, Meter


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_quantile_is_within_two_per_cent_of_the_exact_one(share: float) -> None:
    chance = random.Random(7)
    durations = [chance.lognormvariate(-6, 2) for _ in range(5000)]
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    exact = sorted(durations)[round(share * len(durations)) - 1] * 1e6
    found = histogram.microseconds(share)
    assert found is not None
    assert abs(found - exact) <= 0.02 * exact + 1


def test_no_duration_is_too_short_or_too_long() -> None:
    histogram = Histogram()
    for duration in (0.0, 1e-9, 1e9):
        histogram.add(duration)
    assert histogram.count == 3
    assert histogram.microseconds(0.01) == 1
    assert (histogram.microseconds(1) or 0) > 900e6


def test_without_durations_there_is_no_quantile() -> None:
    assert Histogram().microseconds(0.5) is None


def test_each_phase_has_its_own_figures() -> None:
    meter = Meter()
    meter.begin_phase("healthy", 0.0, away=False)
    meter.wrote(0.001)
    meter.read(0.0001)
    meter.begin_phase("primary locked", 2.0, away=True)
    meter.wrote(0.1)
    meter.erred()
    meter.end_phase(5.0)
    healthy, locked = (phase.as_json() for phase in meter.phases)
    assert (healthy["name"], healthy["seconds"], healthy["writes"]) == ("healthy", 2.0, 1)
    assert healthy["write_p50_us"] == pytest.approx(1000, rel=0.02)
    assert (locked["seconds"], locked["writes"], locked["reads"], locked["errors"]) == (3.0, 1, 0, 1)
    assert locked["read_p99_us"] is None


def test_a_slice_begins_where_the_last_one_ended() -> None:
    meter = Meter()
    meter.begin_phase("healthy", 0.0, away=False)
    meter.wrote(0.001)
    first = meter.sample(0.25, backlog=3, behind=1)
    second = meter.sample(1.0, backlog=0, behind=0)
    assert (first.writes, first.seconds, first.backlog, first.behind) == (1, 0.25, 3, 1)
    assert (second.writes, second.seconds, second.write_p99) == (0, 0.75, None)
