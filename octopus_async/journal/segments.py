"""Reads one file of a writer's folder: its lines in order, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from octopus_async.journal.disk import Disk
from octopus_async.journal.format import (
    NUMBERS,
    SUM_LENGTH,
    Header,
    Line,
    Unit,
    decode,
    decode_header,
    durable_of,
    salt,
)
from octopus_async.journal.scan import UNREADABLE, Gap, Lines, scan

GONE = "gone"
"""The name of a file that says that nothing in its folder is needed."""

_SEGMENT = re.compile(r"(\d{6,9})\.jsonl")
ENDLESS = NUMBERS
"""Above every number."""

LINE_END = SUM_LENGTH + 1


class Segment:
    """One file of a writer's folder.

    Attributes:
        number: its number in the folder, which gives its name.
        first, last: the numbers of its first and last line; ``last`` is below ``first`` for none.
        size: its bytes.
        spared: whether it has damage of which there is no copy, so that it must stay.
    """

    __slots__ = ("first", "last", "number", "size", "spared")

    def __init__(self, number: int, first: int, size: int) -> None:
        self.number = number
        self.first = first
        self.last = first - 1
        self.size = size
        self.spared = False

    @property
    def name(self) -> str:
        """The file's name."""
        return segment_name(self.number)


class Damage(NamedTuple):
    """What is wrong with a part of a file, for a person.

    Attributes:
        segment: the file's number.
        offset, length: the bytes; a length of 0 for what is not there at all.
        problem: what is wrong, and what is lost.
        tail: whether nothing follows in the file.
    """

    segment: int
    offset: int
    length: int
    problem: str
    tail: bool


class Peek(NamedTuple):
    """What the beginning of a file says: its header, if intact, and what was durable before it."""

    header: Header | None
    durable: int | None


def segment_name(number: int) -> str:
    """The name of a folder's file."""
    return f"{number:06d}.jsonl"


def segment_numbers(names: Iterable[str]) -> list[int]:
    """The numbers of the files among ``names``, in order."""
    return sorted(int(found[1]) for name in names if (found := _SEGMENT.fullmatch(name)))


def pieces_of(disk: Disk, folder: Path, number: int) -> Iterator[Lines | Gap]:
    """The content of a file, see `scan`. Raises OSError, JournalError."""
    file = disk.open(folder / segment_name(number))
    try:
        yield from scan(disk, file, salt(folder.name, number))
    finally:
        disk.close(file)


def peek(disk: Disk, folder: Path, number: int) -> Peek:
    """Read the beginning of a file. Raises OSError, JournalError."""
    for piece in pieces_of(disk, folder, number):
        if isinstance(piece, Lines):
            header = decode_header(piece.bodies[0]) if piece.offset == 0 else None
            return Peek(header, header.durable if header is not None else durable_of(piece.bodies[0]))
    return Peek(None, None)


def width_of(line: Line) -> int:
    """How many numbers a line takes."""
    return len(line.entries) if isinstance(line, Unit) else 1


class Reader:
    """Gives a segment's valid lines, and collects what is wrong with it.

    Parameters:
        segment: the file; its last number and its size are set as it is read.
        expected: the number that the first line must have; None if nobody knows.
        limit: the last number that is valid in it; `ENDLESS` for the last file of a folder.
        take: is given lines, the place of the first, the number it must have, and how many of them
            are valid; takes as many as it can, and gives how many.
    """

    def __init__(
        self,
        segment: Segment,
        expected: int | None,
        limit: int,
        take: Callable[[list[bytes], int, int, int], int],
    ) -> None:
        self.count = 0
        self._take = take
        self.damage: list[Damage] = []
        self._segment = segment
        self._expected = expected
        self._limit = limit
        self._gap: Gap | None = None

    def lines(self, pieces: Iterable[Lines | Gap]) -> Iterator[Line]:
        """The lines that count, in order, but for those that ``take`` has taken."""
        for piece in pieces:
            if isinstance(piece, Gap):
                self._gap = piece
                continue
            offset, place = piece.offset, 0
            while place < len(piece.bodies):
                taken = self._take_simple(piece.bodies, place)
                offset += sum(map(len, piece.bodies[place : place + taken])) + taken * LINE_END
                place += taken
                if place < len(piece.bodies):
                    yield from self._take_one(piece.bodies[place], offset)
                    offset += len(piece.bodies[place]) + LINE_END
                    place += 1
            self._segment.size = offset
        self._finish()

    def _take_simple(self, bodies: list[bytes], place: int) -> int:
        if self._gap is not None or self._expected is None:
            return 0
        most = max(0, self._limit + 1 - self._expected)
        taken = self._take(bodies, place, self._expected, most)
        self._expected += taken
        self._segment.last = self._expected - 1
        self.count += taken
        return taken

    def _take_one(self, body: bytes, offset: int) -> Iterator[Line]:
        line = decode(body)
        if line is None:
            self._no_line(body, offset)
        elif self._accept(line, offset, offset + len(body) + LINE_END):
            self._segment.last = line.sequence + width_of(line) - 1
            self._segment.first = self._segment.first or line.sequence
            self._expected = self._segment.last + 1
            self.count += 1
            yield line

    def _accept(self, line: Line, offset: int, end: int) -> bool:
        """Judge a line that does not simply follow the one before."""
        number, expected = line.sequence, self._expected
        if number > self._limit:
            return False
        if expected is not None and number < expected:
            self._report(Gap(offset, end - offset, f"line {number} is out of place"), None)
            return False
        gap, self._gap = self._gap, None
        if gap is not None or expected != number:
            self._report(gap or Gap(offset, 0, "lines are missing"), number)
        return True

    def _no_line(self, body: bytes, offset: int) -> None:
        if offset == 0 and decode_header(body) is not None:
            return
        self._report(Gap(offset, len(body) + LINE_END, "an intact line is of no known kind"), None)

    def _finish(self) -> None:
        gap, self._gap = self._gap, None
        if gap is not None:
            self._segment.size = gap.offset + gap.length
        if self._limit == ENDLESS:
            if gap is not None:
                self._report(gap, None, tail=True)
        elif gap is not None or self._expected is None or self._expected <= self._limit:
            self._report(
                gap or Gap(self._segment.size, 0, "lines are missing"), self._limit + 1, tail=gap is not None
            )

    def _report(self, gap: Gap, following: int | None, *, tail: bool = False) -> None:
        lost = "nothing that was acknowledged is lost, unless the disk has lost what it had confirmed"
        if not tail or following is not None:
            lost = self._lost_before(following)
        elif gap.problem == UNREADABLE:
            lost = "what it holds is not known until an opening can"
        self.damage.append(
            Damage(self._segment.number, gap.offset, gap.length, f"{gap.problem}; {lost}", tail)
        )

    def _lost_before(self, following: int | None) -> str:
        if following is None:
            return "it was not taken into account"
        if self._expected is None:
            return "which lines are lost is not known"
        if following <= self._expected:
            return "nothing that was acknowledged is lost"
        return f"lost: the lines numbered {self._expected} to {following - 1}"
