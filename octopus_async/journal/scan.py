"""Reads the lines of a segment, and finds what is none: torn ends, damage, numbers that are missing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple
from zlib import crc32

from octopus_async.journal.disk import Disk
from octopus_async.journal.format import MOST_BYTES, SUM, SUM_LENGTH, seal

_CHUNK = 1 << 20


class Gap(NamedTuple):
    """Bytes that are no intact lines.

    Attributes:
        offset, length: where they are.
        problem: what is wrong with them.
    """

    offset: int
    length: int
    problem: str


class Lines(NamedTuple):
    """Intact lines that follow each other, without their sums; ``offset`` is the first one's."""

    offset: int
    bodies: list[bytes]


TORN = "a write was cut short"
DAMAGED = "bytes do not match their checksum"
UNREADABLE = "the disk cannot read it"


def scan(disk: Disk, file: int, seed: int) -> Iterator[Lines | Gap]:
    """Go through a file from its beginning to its end.

    Parameters:
        disk: the disk.
        file: the file's descriptor.
        seed: of its sums, see `format.salt`.
    """
    size, offset, carry = disk.size(file), 0, b""
    bad: Gap | None = None
    while offset + len(carry) < size:
        try:
            data = carry + disk.read(file, offset + len(carry), min(_CHUNK, size - offset - len(carry)))
        except OSError:
            length = min(len(carry) + _CHUNK, size - offset)
            bad, offset, carry = _join(bad, Gap(offset, length, UNREADABLE)), offset + length, b""
            continue
        if len(data) == len(carry):
            break
        lines = data.split(b"\n")
        carry = lines.pop()
        for piece in _sort(offset, lines, seed):
            if isinstance(piece, Gap):
                bad = _join(bad, piece)
                continue
            if bad is not None:
                yield bad
                bad = None
            yield piece
        offset += len(data) - len(carry)
        if len(carry) > MOST_BYTES:
            bad, offset, carry = _join(bad, Gap(offset, len(carry), DAMAGED)), offset + len(carry), b""
    if carry:
        bad = _join(bad, Gap(offset, len(carry), TORN))
    if bad is not None:
        yield bad


def _sort(offset: int, lines: list[bytes], seed: int) -> Iterator[Lines | Gap]:
    """Tell intact lines from others, in order."""
    bodies = [line[:-SUM_LENGTH] for line in lines]
    ends = [line[-SUM_LENGTH:] for line in lines]
    if ends == [SUM % checksum for checksum in map(crc32, bodies, repeat(seed))]:
        if bodies:
            yield Lines(offset, bodies)
        return
    for line in lines:
        intact = line[-SUM_LENGTH:] == seal(line[:-SUM_LENGTH], seed)
        length = len(line) + 1
        yield Lines(offset, [line[:-SUM_LENGTH]]) if intact else Gap(offset, length, DAMAGED)
        offset += length


def _join(gap: Gap | None, following: Gap) -> Gap:
    if gap is None:
        return following
    problem = UNREADABLE if UNREADABLE in {gap.problem, following.problem} else gap.problem
    return Gap(gap.offset, gap.length + following.length, problem)
