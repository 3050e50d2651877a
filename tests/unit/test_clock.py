"""Versions sort by time, are never behind what was seen, and are told from anything hostile."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus_async.clock import (
    VERSION_LENGTH,
    Clock,
    decode_version,
    encode_version,
    is_version,
    version_after,
    version_at,
    version_before,
    writer_of,
)
from octopus_async.errors import WriteUnavailable

LAST_MILLISECOND = (1 << 48) - 1
LAST_COUNTER = (1 << 16) - 1
LAST_WRITER = (1 << 64) - 1
NOW = 1_700_000_000.0
PARTS = st.tuples(st.integers(0, LAST_MILLISECOND), st.integers(0, LAST_COUNTER), st.integers(0, LAST_WRITER))


class Wall:
    """A clock on the wall that a test can set."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# -- the form ------------------------------------------------------------------------------------


@given(PARTS)
@settings(deadline=None, database=None)
def test_a_version_is_read_as_it_was_written(parts: tuple[int, int, int]) -> None:
    version = encode_version(*parts)
    assert len(version) == VERSION_LENGTH
    assert is_version(version)
    assert decode_version(version) == parts


@given(PARTS, PARTS)
@settings(deadline=None, database=None)
def test_versions_compare_as_text_and_as_bytes_as_their_parts_do(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    left, right = encode_version(*one), encode_version(*other)
    assert (left < right) is (one < other)
    assert (left.encode() < right.encode()) is (one < other)


@pytest.mark.parametrize(
    "parts",
    [(0, 0, 0), (LAST_MILLISECOND, LAST_COUNTER, LAST_WRITER), (1, 0, 0), (0, 1, 0), (0, 0, 1 << 60)],
    ids=repr,
)
def test_the_limits_of_each_part_are_kept(parts: tuple[int, int, int]) -> None:
    assert decode_version(encode_version(*parts)) == parts


GOOD = encode_version(1_700_000_000_000, 3, 5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD[:-1],
        GOOD + "0",
        GOOD + "\n",
        " " + GOOD[1:],
        GOOD.lower(),
        "8" + GOOD[1:],
        GOOD[:-1] + "I",
        GOOD[:-1] + "L",
        GOOD[:-1] + "O",
        GOOD[:-1] + "U",
        GOOD[:-1] + "\N{ARABIC-INDIC DIGIT ONE}",
        GOOD[:-1] + "\0",
        "\ud800" * VERSION_LENGTH,
        "0" * 10_000_000,
        GOOD.encode(),
        None,
        7,
        [GOOD],
    ],
    ids=lambda it: ascii(it)[:40],
)
def test_what_is_no_version_is_told(text: object) -> None:
    assert not is_version(text)
    with pytest.raises(ValueError, match="not a version") as caught:
        decode_version(text)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 500


@given(st.text() | st.binary() | st.integers() | st.none())
@settings(deadline=None, database=None)
def test_nothing_hostile_is_taken_for_a_version(text: object) -> None:
    assert not is_version(text)


def test_the_version_of_a_moment_is_below_all_that_are_issued_in_it() -> None:
    clock = Clock(Wall(), writer=0)
    milliseconds = int(NOW * 1000)
    assert version_at(milliseconds) <= clock.next() < version_at(milliseconds + 1)


# -- what a clock issues -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "following"),
    [
        ((7, 3, 5), (7, 3, 6)),
        ((7, 3, LAST_WRITER), (7, 4, 0)),
        ((7, LAST_COUNTER, LAST_WRITER), (8, 0, 0)),
        ((LAST_MILLISECOND, LAST_COUNTER, LAST_WRITER), (LAST_MILLISECOND, LAST_COUNTER, LAST_WRITER)),
    ],
)
def test_nothing_lies_between_a_version_and_the_one_after_it(
    version: tuple[int, int, int], following: tuple[int, int, int]
) -> None:
    assert version_after(encode_version(*version)) == encode_version(*following)
    if version != following:
        assert version_before(encode_version(*following)) == encode_version(*version)


def test_nothing_is_before_the_first_version() -> None:
    assert version_before(encode_version(0, 0, 0)) == encode_version(0, 0, 0)


def test_a_version_says_when_and_by_whom() -> None:
    version = Clock(Wall(), writer=77).next()
    assert decode_version(version) == (int(NOW * 1000), 0, 77)
    assert writer_of(version) == 77


@given(st.integers(0, LAST_MILLISECOND), st.integers(0, LAST_WRITER))
@settings(deadline=None, database=None)
def test_the_short_way_of_issuing_writes_what_the_long_one_does(milliseconds: int, writer: int) -> None:
    clock = Clock(Wall(0), writer=writer)
    clock.observe(encode_version(milliseconds, 7, 0))
    assert clock.next() == encode_version(milliseconds, 8, writer)


@given(st.lists(st.floats(0, 4e9) | st.just(NOW), max_size=50))
@settings(deadline=None, database=None)
def test_versions_rise_however_the_wall_clock_is_set(moments: list[float]) -> None:
    wall = Wall()
    clock = Clock(wall)
    issued = []
    for wall.now in moments:
        issued += [clock.next(), clock.next()]
    assert issued == sorted(set(issued))


def test_a_clock_set_back_goes_on_counting_where_it_was() -> None:
    wall = Wall()
    clock = Clock(wall, writer=1)
    first = clock.next()
    wall.now = 0
    assert decode_version(clock.next()) == (int(NOW * 1000), 1, 1)
    assert clock.next() > first
    wall.now = NOW + 1
    assert decode_version(clock.next()) == (int(NOW * 1000) + 1000, 0, 1)


def test_a_full_counter_borrows_the_next_millisecond() -> None:
    clock = Clock(Wall(), writer=1)
    clock.observe(encode_version(int(NOW * 1000), LAST_COUNTER - 1, 0))
    assert decode_version(clock.next()) == (int(NOW * 1000), LAST_COUNTER, 1)
    assert decode_version(clock.next()) == (int(NOW * 1000) + 1, 0, 1)
    assert decode_version(clock.next()) == (int(NOW * 1000) + 1, 1, 1)


def test_two_clocks_never_issue_the_same() -> None:
    wall = Wall()
    one, other = Clock(wall), Clock(wall)
    assert one.writer != other.writer
    assert one.next() != other.next()


# -- what a clock sees ---------------------------------------------------------------------------


@given(PARTS.filter(lambda parts: parts[0] < LAST_MILLISECOND), st.integers(0, LAST_WRITER))
@settings(deadline=None, database=None)
def test_the_next_version_is_above_any_that_was_seen(parts: tuple[int, int, int], writer: int) -> None:
    seen = encode_version(*parts)
    observing, seeing = Clock(Wall(), writer=writer), Clock(Wall(), writer=writer)
    observing.observe(seen)
    seeing.see(seen)
    assert observing.next() == seeing.next() > seen


def test_observing_says_how_far_ahead_the_version_is() -> None:
    clock = Clock(Wall())
    assert clock.observe(version_at(int(NOW * 1000) + 90_000)) == pytest.approx(90)
    assert clock.observe(version_at(int(NOW * 1000) - 1000)) == pytest.approx(-1)
    assert clock.milliseconds == int(NOW * 1000) + 90_000


def test_an_older_version_moves_nothing() -> None:
    clock = Clock(Wall())
    issued = clock.next()
    clock.observe(version_at(1))
    clock.see(version_at(2))
    assert clock.next() > issued


@pytest.mark.parametrize("text", ["", "\U0010ffff", "zzzz", "8" + "0" * 25], ids=ascii)
def test_what_is_seen_and_is_no_version_moves_nothing(text: str) -> None:
    clock = Clock(Wall(), writer=0)
    clock.see(text)
    clock.see(version_at(int(NOW * 1000) + 5))
    assert clock.milliseconds == int(NOW * 1000) + 5


def test_observing_what_is_no_version_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a version"):
        Clock(Wall()).observe("x")


def test_after_the_last_version_of_all_none_is_issued() -> None:
    clock = Clock(Wall())
    clock.see(encode_version(LAST_MILLISECOND, LAST_COUNTER, 0))
    with pytest.raises(WriteUnavailable, match="no version is left"):
        clock.next()


# -- the ceiling of an earlier run ---------------------------------------------------------------


@given(st.integers(0, LAST_MILLISECOND - 1), st.integers(0, LAST_MILLISECOND - 1))
@settings(deadline=None, database=None)
def test_nothing_is_issued_at_or_below_the_ceiling(seen: int, ceiling: int) -> None:
    clock = Clock(Wall())
    clock.observe(version_at(seen))
    clock.start_above(ceiling)
    assert clock.next() >= version_at(ceiling + 1)


def test_a_ceiling_of_the_past_changes_nothing() -> None:
    clock = Clock(Wall(), writer=1)
    clock.start_above(5)
    assert decode_version(clock.next()) == (int(NOW * 1000), 0, 1)
    clock.start_above(5)
    assert decode_version(clock.next()) == (int(NOW * 1000), 1, 1)


def test_a_ceiling_that_was_reached_already_is_gone_above() -> None:
    clock = Clock(Wall(), writer=1)
    clock.next()
    clock.start_above(int(NOW * 1000))
    assert decode_version(clock.next()) == (int(NOW * 1000) + 1, 0, 1)
