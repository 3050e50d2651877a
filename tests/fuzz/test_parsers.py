"""Hostile bytes for every parser: nothing but the errors that it names, and never what was not written."""

from __future__ import annotations

import random
import time
import tracemalloc
from itertools import islice

import pytest

from tests.fuzz.budget import FACTOR
from tests.fuzz.journals import ONE_FILE, TRUE_FILES, TRUE_ONE, check_damaged
from tests.fuzz.mutation import mutations
from tests.fuzz.targets import TARGETS

_SLOW = {"journal-forged": 250, "journal-damaged": 250, "settings": 600}
_QUICK = 3000

BOMBS = {
    "nesting": b"[" * 1_000_000,
    "named nesting": b'{"a":' * 200_000,
    "digits": b"9" * 1_000_000,
    "a number in a member": b'{"seq":1,"drop":' + b"9" * 1_000_000,
    "backslashes": b'"' + b"\\" * 1_000_000,
    "quotation marks": b'"' * 1_000_000,
    "line ends": b"\n" * 20_000,
    "a long line": b"x" * 1_000_000,
    "empty values": b"VALUE octopus:Book:1 0 0 1\r\n\r\n" * 10_000,
    "a value said to be endless": b"STORED\r\nVALUE octopus:Book:1 0 "
    + b"9" * 1500
    + b" 1\r\n"
    + b"x" * 1_000_000,
    "percent signs": b"mysql://" + b"%" * 1_000_000,
    "options": b"mysql://db/?" + b"&".join(b"o%d=1" % number for number in range(50_000)),
    "hosts": b"memcache://" + b"h," * 200_000 + b"h",
    "tables": b"[a]\n" + b"".join(b"[a.b%d]\n" % number for number in range(20_000)),
}


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_bytes_are_understood_refused_or_reported(name: str) -> None:
    target, chance = TARGETS[name], random.Random(FACTOR)
    count = _SLOW.get(name, _QUICK) * FACTOR
    hostile = (chance.randbytes(8) for _ in range(count)) if target.blind else mutations(target.seeds, chance)
    for seed in target.seeds:
        target.run(seed)
    for data in islice(hostile, count):
        try:
            target.run(data)
        except Exception as error:
            error.add_note(f"{name} was given {data!r}")
            raise


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if not target.blind])
def test_hostile_bytes_take_time_by_their_length_alone(name: str, bomb: str) -> None:
    data = BOMBS[bomb]
    start = time.process_time()
    TARGETS[name].run(data)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if not target.blind])
def test_hostile_bytes_take_memory_by_their_length_alone(name: str) -> None:
    for bomb, data in BOMBS.items():
        tracemalloc.start()
        try:
            TARGETS[name].run(data[:20_000])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 20_000_000, bomb


def test_a_file_in_another_files_place_changes_and_adds_no_record() -> None:
    first, second = TRUE_FILES.values()
    for files in ({1: second}, {1: second, 2: first}, {1: first, 2: first}, {1: second, 2: second}):
        check_damaged(files, TRUE_FILES, TRUE_ONE)


def test_lines_that_are_left_out_or_told_twice_are_noticed() -> None:
    lines = ONE_FILE[1].splitlines(keepends=True)
    for place in range(len(lines)):
        for piece in ([], [lines[place]] * 2):
            data = b"".join([*lines[:place], *piece, *lines[place + 1 :]])
            check_damaged({1: data}, ONE_FILE, TRUE_ONE)
