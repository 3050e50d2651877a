"""A soak of some seconds, and its measures: what grows is seen, and what stands out once is not growth."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from pathlib import Path
from random import Random

import pytest

from octopus_async.testing.servers import MARIADB, MEMCACHED, find
from tests.chaos.rig import Room
from tests.soak.measures import Held, slope, trends
from tests.soak.soak import Soak

FLAT = Held(rss=80_000_000, objects=100_000, tasks=20, threads=3, descriptors=30, journal=4000, files=4)


def noisy(count: int = 200) -> list[tuple[float, Held]]:
    chance = Random(1)
    return [
        (
            number * 5.0,
            replace(FLAT, rss=FLAT.rss + chance.randrange(10**6), tasks=FLAT.tasks + chance.randrange(3)),
        )
        for number in range(count)
    ]


def growing(name: str) -> set[str]:
    """What is found not to be flat when one measure grows by a tenth, or by one in five samples."""
    samples = [
        (at, replace(held, **{name: getattr(held, name) + number * max(0.2, getattr(held, name) // 1000)}))
        for number, (at, held) in enumerate(noisy())
    ]
    return {trend.name for trend in trends(samples) if not trend.flat}


def test_what_goes_up_and_down_is_flat() -> None:
    assert all(trend.flat for trend in trends(noisy()))


@pytest.mark.parametrize("name", [field.name for field in fields(Held) if field.name != "journal"])
def test_what_grows_is_seen(name: str) -> None:
    assert growing(name) == {name}


def test_single_samples_that_stand_out_are_no_growth() -> None:
    samples = noisy()
    samples[-1] = (samples[-1][0], replace(FLAT, rss=10 * FLAT.rss, tasks=500))
    assert all(trend.flat for trend in trends(samples))


def test_the_slope_is_that_of_the_line_whatever_a_few_points_do() -> None:
    points = [(float(x), 3.0 * x + 1.0) for x in range(100)]
    points[7] = (7.0, 1e6)
    points[50] = (50.0, -1e6)
    assert slope(points) == pytest.approx(3.0)
    assert slope(points[:1]) == 0.0


@pytest.mark.alone
@pytest.mark.timeout(120)  # a first run downloads the servers
async def test_under_faults_nothing_is_lost_and_nothing_is_left_over(tmp_path: Path) -> None:
    for kind in (MARIADB, MEMCACHED):
        await asyncio.to_thread(find, kind)
    room = await asyncio.to_thread(Room)
    try:
        course = await Soak(room, tmp_path, 10.0, say=lambda _: None).run()
    finally:
        await asyncio.to_thread(room.close)
    print(*course.table(), sep="\n")
    assert course.wrong == {}
    assert course.acknowledged > 100
    assert sum(course.faults.values()) >= 1
    first, last = course.samples[0][1], course.samples[-1][1]
    assert last.tasks <= first.tasks + 4
    assert last.threads <= first.threads + 2
    assert last.descriptors <= first.descriptors + 8  # connections of a pool that was not full before
    assert last.files <= first.files + 2
