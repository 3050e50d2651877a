"""Reads a writer's folder: which files are needed, what is pending, dead or damaged."""

from __future__ import annotations

from pathlib import Path

from octopus_async.clock import decode_version
from octopus_async.errors import JournalError
from octopus_async.journal.batch import read_batches
from octopus_async.journal.disk import Disk
from octopus_async.journal.format import FORMAT, Dead, Done, Drop, Header, Line, Raw, Unit
from octopus_async.journal.item import Item, item_of_raw
from octopus_async.journal.letters import Letter, Letters
from octopus_async.journal.overlay import Overlay
from octopus_async.journal.root import unknown_format
from octopus_async.journal.segments import (
    ENDLESS,
    GONE,
    Damage,
    Peek,
    Reader,
    Segment,
    peek,
    pieces_of,
    segment_name,
    segment_numbers,
)


class Contents:
    """What a writer's folder says.

    Attributes:
        segments: the files that are needed, in order.
        garbage: the names of the others: what a checkpoint has made superfluous, and unfinished files.
        damage: what is wrong with them.
        overlay: what is pending; it was given, and has to be swept when all folders are read into it.
        letters: the dead letters.
        lines: how many lines there are, by the number of the file.
        writer: who wrote last.
        number: the highest number of a file.
    """

    def __init__(self, disk: Disk, path: Path, overlay: Overlay) -> None:
        self.path = path
        self.overlay = overlay
        self.segments: list[Segment] = []
        self.garbage: list[str] = []
        self.damage: list[Damage] = []
        self.letters = Letters()
        self.lines: dict[int, int] = {}
        self.writer = ""
        self.number = 0
        self._disk = disk
        self._newest = b""

    @property
    def newest(self) -> int:
        """The latest moment in a version, milliseconds since 1970; 0 for none."""
        try:
            return decode_version(self._newest.decode())[0]
        except ValueError:
            return 0

    @property
    def durable(self) -> int:
        """The number of the last line."""
        return max((segment.last for segment in self.segments if segment.first <= segment.last), default=0)

    def read(self) -> None:
        """Read the folder, and change nothing.

        Raises:
            JournalCorrupt: a file has another format.
            JournalError, OSError: a file is no plain file, or cannot be opened.
        """
        names = self._disk.list_folder(self.path)
        if GONE in names:
            self.garbage = [*(name for name in names if name.endswith((".jsonl", ".tmp"))), GONE]
            return
        peeks = {number: self._peek(number) for number in segment_numbers(names)}
        self.number = max(peeks, default=0)
        checkpoint = _last_checkpoint(peeks)
        needed = _needed(peeks, checkpoint)
        kept = {segment_name(number) for number in needed}
        self.garbage = [name for name in names if name.endswith((".jsonl", ".tmp")) and name not in kept]
        for number in needed:
            if number in peeks:
                self._read_segment(number, peeks[number].header, _limit(peeks, checkpoint, number))
            else:
                self.damage.append(
                    Damage(number, 0, 0, "the file is missing, and all it held is lost", tail=False)
                )

    def _peek(self, number: int) -> Peek:
        peeked = peek(self._disk, self.path, number)
        if peeked.header is not None and peeked.header.format != FORMAT:
            raise unknown_format(self.path / segment_name(number), peeked.header.format)
        return peeked

    def _read_segment(self, number: int, header: Header | None, limit: int) -> None:
        expected = None if header is None else header.first
        segment = Segment(number, expected or 0, 0)
        if header is not None:
            self._apply_checkpoint(header)
        reader = Reader(segment, expected, limit, self._take)
        for line in reader.lines(pieces_of(self._disk, self.path, number)):
            self._apply(line, segment)
        self.segments.append(segment)
        self.damage += reader.damage
        self.lines[number] = reader.count

    def _take(self, bodies: list[bytes], place: int, sequence: int, most: int) -> int:
        taken = 0
        for batch in read_batches(bodies, place, sequence, most):
            self.overlay.add_batch(batch)
            self._newest = max(self._newest, batch.newest)
            taken += len(batch.keys)
        return taken

    def _apply_checkpoint(self, header: Header) -> None:
        self.writer = header.writer
        for segment in self.segments:
            kept = header.keeps.get(segment.number)
            if kept is not None and kept.owed is not None:
                self.overlay.keep_only(kept.owed, segment.first, segment.last)
        if header.dead is not None:
            self.letters.keep_only(header.dead)

    def _apply(self, line: Line, segment: Segment) -> None:
        if isinstance(line, Unit):
            self._add_unit(line, segment)
        elif isinstance(line, Done):
            for first, last in line.ranges:
                self.overlay.strike(line.target, first, last)
        elif isinstance(line, Dead):
            self.overlay.units.shatter(line.entry)
            for target in line.targets:
                self.overlay.strike(target, line.entry, line.entry)
            self._newest = max(self._newest, line.raw.version)
            self.letters.add(Letter(line.entry, line.target, line.rest, segment.number))
        elif isinstance(line, Drop):
            self.letters.remove(line.entry)
        else:
            self.letters.remove(line.retries or 0)
            self._add(segment, line.sequence, line.raw)

    def _add_unit(self, line: Unit, segment: Segment) -> None:
        """A unit of which an entry cannot be understood must not be applied without it."""
        items = [
            self._add(segment, line.sequence + place, raw, unit=True)
            for place, raw in enumerate(line.entries)
        ]
        self.overlay.bind(line.sequence, [b"" if item is None else item.key for item in items])
        if None in items:
            self.overlay.units.shatter(line.sequence)

    def _add(self, segment: Segment, sequence: int, raw: Raw, *, unit: bool = False) -> Item | None:
        try:
            item = item_of_raw(raw, unit=unit)
        except (ValueError, JournalError) as error:
            problem = f"entry {sequence} cannot be understood, so its file is kept as it is: {error}"
            self.damage.append(Damage(segment.number, 0, 0, problem, tail=False))
            segment.spared = True
            return None
        if item.shared:
            self.overlay.add(sequence, item)
        self._newest = max(self._newest, raw.version)
        return item


def _last_checkpoint(peeks: dict[int, Peek]) -> Header | None:
    headers = [peeks[number].header for number in sorted(peeks)]
    return next((header for header in reversed(headers) if header is not None), None)


def _needed(peeks: dict[int, Peek], checkpoint: Header | None) -> list[int]:
    """The numbers of the files that the last checkpoint has not made superfluous."""
    if checkpoint is None:
        return sorted(peeks)
    return sorted({*checkpoint.keeps, *(number for number in peeks if number >= checkpoint.segment)})


def _limit(peeks: dict[int, Peek], checkpoint: Header | None, number: int) -> int:
    """The number of the last line that is valid in a file: what came later found no more durable."""
    if checkpoint is not None and number in checkpoint.keeps:
        last = checkpoint.keeps[number].last
        return ENDLESS if last is None else last
    later = (peeks[other].durable for other in sorted(peeks) if other > number)
    return next((durable for durable in later if durable is not None), ENDLESS)
