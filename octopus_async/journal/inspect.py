"""Looks at a journal without opening it: for the command line, also while processes write to it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from octopus_async.backend import DeadLetter
from octopus_async.errors import JournalError
from octopus_async.events import Events
from octopus_async.journal.contents import Contents
from octopus_async.journal.disk import Disk, OsDisk
from octopus_async.journal.file import FileJournal
from octopus_async.journal.format import key_bytes
from octopus_async.journal.item import at_of, operation_of, sequence_of
from octopus_async.journal.letters import Letter
from octopus_async.journal.mark import lowest, marks_in
from octopus_async.journal.overlay import Overlay
from octopus_async.journal.root import LOCK, Root, explained
from octopus_async.journal.segments import Damage, segment_name
from octopus_async.record import Key, Operation

_ATTEMPTS = 5


class PendingEntry(NamedTuple):
    """One entry that waits.

    Attributes:
        sequence: its number.
        operation: what it does.
        targets: the backends that have not applied it yet.
        provisional: whether the primary may still refuse it.
        at: when it was journalled, seconds since 1970.
    """

    sequence: int
    operation: Operation
    targets: tuple[str, ...]
    provisional: bool
    at: float


@dataclass(frozen=True, slots=True)
class SegmentSummary:
    """One file: its path, bytes, intact lines, the numbers of the first and the last, and its damage."""

    path: str
    bytes: int
    lines: int
    first: int
    last: int
    damage: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class FolderSummary:
    """One writer's folder.

    Attributes:
        name: the folder's.
        alive: whether a process holds it.
        writer: the folder of the process that wrote last; another than ``name`` if it was taken over.
        segments: its files.
        pending: how many entries wait.
        pending_by_target: the same for each backend.
        oldest_at: when the oldest of them was journalled, seconds since 1970; None for none.
        dead_letters: what was refused.
        missing: files that are gone, and what else belongs to no file.
        marks: for each model with replicas, the version up to which these have, or are owed, what this
            writer wrote; empty for the beginning, and an empty name for all models.
    """

    name: str
    alive: bool
    writer: str
    segments: tuple[SegmentSummary, ...]
    pending: int
    pending_by_target: dict[str, int]
    oldest_at: float | None
    dead_letters: tuple[DeadLetter, ...]
    missing: tuple[Damage, ...]
    marks: dict[str, str]

    @property
    def bytes(self) -> int:
        """The bytes of all its files."""
        return sum(segment.bytes for segment in self.segments)

    @property
    def damage(self) -> tuple[Damage, ...]:
        """All that is wrong with it."""
        return (*self.missing, *(damage for segment in self.segments for damage in segment.damage))


@dataclass(frozen=True, slots=True)
class Summary:
    """A journal at one moment.

    Attributes:
        path: its folder.
        ceiling: no version above that moment (milliseconds since 1970) was ever issued.
        folders: those of its writers, the oldest first.
        quarantine: the names of the copies of damaged bytes.
    """

    path: str
    ceiling: int
    folders: tuple[FolderSummary, ...]
    quarantine: tuple[str, ...]

    @property
    def pending(self) -> int:
        """How many entries wait."""
        return sum(folder.pending for folder in self.folders)

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """What was refused, in the order of numbers."""
        letters = [letter for folder in self.folders for letter in folder.dead_letters]
        return tuple(sorted(letters, key=lambda letter: letter.sequence))

    @property
    def marks(self) -> dict[str, str]:
        """For each model the lowest of its writers' low-water marks."""
        return lowest(*(folder.marks for folder in self.folders))

    @property
    def damage(self) -> tuple[Damage, ...]:
        """All that is wrong with it."""
        return tuple(damage for folder in self.folders for damage in folder.damage)


def inspect(path: str | PathLike[str], *, disk: Disk | None = None) -> Summary:
    """Read all of a journal, check every line, and change nothing.

    An end of a living writer's last file that is not whole yet is a write under way, not damage.

    Raises:
        JournalCorrupt: another release has written it.
        JournalError: there is none, or it cannot be read.
    """
    root = _root(path, disk)
    with explained(f"read the journal {root.path}"):
        folders = tuple(summary for name in root.folders() if (summary := _summarize(root, name)) is not None)
        quarantine: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            quarantine = sorted(root.disk.list_folder(root.path / "quarantine"))
        return Summary(str(root.path), root.ceiling().milliseconds, folders, tuple(quarantine))


def pending(path: str | PathLike[str], *, disk: Disk | None = None) -> Iterator[PendingEntry]:
    """All entries that wait in a journal, the oldest first. Raises JournalError, as `inspect` does."""
    root = _root(path, disk)
    with explained(f"read the journal {root.path}"):
        for name in root.folders():
            contents = _read(root, name)
            if contents is not None:
                yield from _entries_of(contents)


class Snapshot:
    """What a journal of any number of processes said at one moment.

    Attributes:
        pending: how many operations each backend is owed, by its name.
        letters: the dead letters of each key.
    """

    def __init__(self, contents: Iterable[Contents] = ()) -> None:
        self.pending: Counter[str] = Counter()
        self.letters: dict[Key, list[DeadLetter]] = {}
        self._overlays: list[Overlay] = []
        for read in contents:
            self.pending.update(read.overlay.owed_by_target())
            self._overlays.append(read.overlay)
            for letter in map(Letter.opened, read.letters):
                self.letters.setdefault(letter.operation.key, []).append(letter)

    def owes_key(self, target: str, key: Key) -> bool:
        """Whether ``target`` had not applied everything known of ``key``."""
        wanted = key_bytes(key)
        return any(overlay.owes_key(target, wanted) for overlay in self._overlays)


def snapshot(path: str | PathLike[str], *, disk: Disk | None = None) -> Snapshot:
    """What all writers of a journal owe at this moment. Raises JournalError, as `inspect` does."""
    root = _root(path, disk)
    with explained(f"read the journal {root.path}"):
        return Snapshot(filter(None, [_read(root, name) for name in root.folders()]))


def verify(path: str | PathLike[str], *, disk: Disk | None = None) -> tuple[SegmentSummary, ...]:
    """Check every line of a journal; each file with what is wrong with it. Raises as `inspect` does."""
    return tuple(segment for folder in inspect(path, disk=disk).folders for segment in folder.segments)


async def retry_dead_letter(path: str | PathLike[str], sequence: int) -> int:
    """Make a dead letter pending again, in a journal that no process holds; gives its new number.

    Raises:
        JournalError: there is no such dead letter, or a living process holds it.
    """
    journal = FileJournal(path)
    await journal.open(Events())
    try:
        return await journal.retry(sequence)
    finally:
        await journal.close()


async def drop_dead_letter(path: str | PathLike[str], sequence: int) -> None:
    """Forget a dead letter for good, in a journal that no process holds. Raises as `retry_dead_letter`."""
    journal = FileJournal(path)
    await journal.open(Events())
    try:
        await journal.drop(sequence)
    finally:
        await journal.close()


def _root(path: str | PathLike[str], disk: Disk | None) -> Root:
    root = Root(disk or OsDisk(of_anybody=True), Path(path).absolute(), lambda: 0.0)
    with explained(f"read the journal {root.path}"):
        root.disk.check_folder(root.path)
    return root


def _read(root: Root, name: str) -> Contents | None:
    """A folder's contents; None if its writer has removed it meanwhile."""
    for _ in range(_ATTEMPTS):
        contents = Contents(root.disk, root.path / name, Overlay())
        try:
            contents.read()
        except FileNotFoundError:
            continue  # the writer has let go of a file between listing and reading
        contents.overlay.sweep()
        if not _missing(contents) or not _is_alive(root, name):
            return contents
    if name in root.folders():
        raise JournalError(f"{root.path / name} changes faster than it can be read: try again")
    return None


def _missing(contents: Contents) -> list[Damage]:
    """What is wrong with files that are not there: while the writer lives, they may just have gone."""
    read = {segment.number for segment in contents.segments}
    return [found for found in contents.damage if found.segment not in read]


def _summarize(root: Root, name: str) -> FolderSummary | None:
    alive = _is_alive(root, name)
    contents = _read(root, name)
    if contents is None:
        return None
    last = contents.segments[-1].number if contents.segments else 0
    damage = [found for found in contents.damage if not (alive and found.tail and found.segment == last)]
    segments = tuple(
        SegmentSummary(
            str(root.path / name / segment_name(segment.number)),
            segment.size,
            contents.lines[segment.number],
            segment.first,
            segment.last,
            tuple(found for found in damage if found.segment == segment.number),
        )
        for segment in contents.segments
    )
    return FolderSummary(
        name,
        alive,
        contents.writer,
        segments,
        contents.overlay.pending,
        contents.overlay.owed_by_target(),
        contents.overlay.oldest(),
        tuple(letter.opened() for letter in contents.letters),
        tuple(_missing(contents)),
        marks_in(root.disk, root.path / name),
    )


def _is_alive(root: Root, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        lock = root.disk.lock(root.path / name / LOCK, shared=True)
        if lock is not None:
            root.disk.close(lock)
            return False
        return True
    return False


def _entries_of(contents: Contents) -> Iterator[PendingEntry]:
    found = sorted(contents.overlay.all(), key=lambda entry: sequence_of(entry[1].blob))
    for key, (blob, traits) in found:
        operation = operation_of(key, blob, traits)
        yield PendingEntry(sequence_of(blob), operation, traits.targets, traits.provisional, at_of(blob))
