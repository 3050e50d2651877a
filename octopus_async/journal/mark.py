"""The low-water mark of a writer's folder: up to which version replicas have what the primary has.

One small file beside the segments, replaced as a whole. See `Journal.mark` for what it says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from octopus_async.clock import is_version
from octopus_async.errors import JournalError
from octopus_async.events import JournalDamaged
from octopus_async.journal.disk import Disk
from octopus_async.journal.folder import Folder
from octopus_async.journal.format import FORMAT, MAGIC, SUM_LENGTH, salt, seal
from octopus_async.journal.root import Root, unknown_format, write_all

MARK = "mark"
EVERYTHING = ""
"""In the place of a model's name: all models; in the place of a version: from the beginning."""

_MOST_BYTES = 1 << 24
_LOST = "the low-water mark of replicas cannot be read: they are compared with the primary from the beginning"


class MarkFile:
    """The mark in this process's own folder, and what it carries on behalf of dead writers.

    What a dead writer's mark says is in here before its folder may go, and stays until the
    process says that its own marks take it into account: so a crash in between repeats the work.
    All methods but `inherited` do disk work at once: they are for the journal's thread.

    Parameters:
        root: the shared folder.
        folder: this process's own folder.
    """

    def __init__(self, root: Root, folder: Folder) -> None:
        self._root = root
        self._folder = folder
        self._own: Mapping[str, str] = {}
        self._carried: dict[str, Mapping[str, str]] = {}

    def inherited(self, names: Iterable[str]) -> dict[str, str]:
        """What the marks of these folders, which were taken over, said."""
        return lowest(*(self._carried.get(name, {}) for name in names))

    def store(self, marks: Mapping[str, str], known: Iterable[str]) -> None:
        """Replace the mark; ``known`` are the folders whose marks it takes into account. Raises OSError."""
        carried = {name: mark for name, mark in self._carried.items() if name not in set(known)}
        self._write(lowest(marks, *carried.values()))
        self._own, self._carried = marks, carried

    def carry(self, name: str) -> None:
        """Take over the mark of a dead writer's folder, durably. Raises OSError, JournalCorrupt."""
        marks = self._read(name)
        if marks:
            carried = {**self._carried, name: marks}
            self._write(lowest(self._own, *carried.values()))
            self._carried = carried
            self._root.disk.unlink(self._root.path / name / MARK)

    def _write(self, marks: Mapping[str, str]) -> None:
        disk, path = self._root.disk, self._folder.path / MARK
        if marks:
            # Before it is there: what cannot be made durable may be there all the same.
            self._folder.marked = True
            self._replace(disk, path, encode(marks, self._folder.name))
        elif self._folder.marked:
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(path)
            disk.sync_folder(self._folder.path)
            self._folder.marked = False

    def _replace(self, disk: Disk, path: Path, data: bytes) -> None:
        # A name that looks unfinished: whoever takes over the folder removes it.
        temporary = path.with_suffix(".tmp")
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(temporary)
        file = disk.create(temporary)
        try:
            write_all(disk, file, data)
            disk.sync(file)
        finally:
            disk.close(file)
        disk.rename(temporary, path)
        disk.sync_folder(self._folder.path)

    def _read(self, name: str) -> Mapping[str, str]:
        path = self._root.path / name / MARK
        if MARK not in self._root.disk.list_folder(path.parent):
            return {}
        try:
            data = read_file(self._root.disk, path)
        except (OSError, JournalError):
            data = b""
        marks = decode(data, name, path)
        if marks is None:
            self._root.quarantine(f"{name}.{MARK}", 0, data)
            self._root.damage.append(JournalDamaged(str(path), 0, len(data), _LOST))
            return {EVERYTHING: EVERYTHING}
        return marks


def lowest(*marks: Mapping[str, str]) -> dict[str, str]:
    """For each model the lowest of its marks."""
    merged: dict[str, str] = {}
    for mark in marks:
        for model, version in mark.items():
            merged[model] = min(version, merged.get(model, version))
    return merged


def marks_in(disk: Disk, folder: Path) -> dict[str, str]:
    """What the mark in a writer's folder says to who only looks. Raises OSError, JournalError."""
    path = folder / MARK
    try:
        data = read_file(disk, path)
    except FileNotFoundError:
        return {}
    marks = decode(data, folder.name, path)
    return {EVERYTHING: EVERYTHING} if marks is None else marks


def encode(marks: Mapping[str, str], folder: str) -> bytes:
    """The file's one line."""
    body = to_json({"octopus": MAGIC, "format": FORMAT, "marks": dict(marks)})[:-1]
    return body + seal(body, salt(folder, 0)) + b"\n"


def decode(data: bytes, folder: str, path: Path) -> dict[str, str] | None:
    """Read the line back; None where it is damaged. Raises `JournalCorrupt` for another format."""
    line, end, _ = data.partition(b"\n")
    body = line[:-SUM_LENGTH]
    if not end or seal(body, salt(folder, 0)) != line[-SUM_LENGTH:]:
        return None
    try:
        members: dict[str, Any] = from_json(body + b"}")
        if members["format"] != FORMAT:
            raise unknown_format(path, members["format"])
        marks = members["marks"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    known = all(version == EVERYTHING or is_version(version) for _, version in marks)
    return dict(marks) if known else None


def read_file(disk: Disk, path: Path) -> bytes:
    """All of a small file. Raises OSError, JournalError."""
    file = disk.open(path)
    try:
        return disk.read(file, 0, _MOST_BYTES)
    finally:
        disk.close(file)
