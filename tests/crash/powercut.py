"""A disk in memory that keeps what POSIX promises and no more, and every state that a power cut may leave."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import TypeAlias


@dataclass(eq=False)
class Inode:
    """A file: its durable bytes, and what was done to it since (bytes appended, or a size it was cut to)."""

    durable: bytes = b""
    unsynced: list[bytes | int] = field(default_factory=list)

    def content(self) -> bytes:
        return replay(self.durable, self.unsynced)


Names: TypeAlias = "dict[Path, Inode | None]"
"""Every path; a folder has None."""


@dataclass
class Change:
    """What one call did to the names of a folder: all of it survives, or nothing."""

    folder: Path
    removed: tuple[Path, ...] = ()
    added: tuple[tuple[Path, Inode | None], ...] = ()


def replay(content: bytes, changes: list[bytes | int]) -> bytes:
    for change in changes:
        content = content[:change] if isinstance(change, int) else content + change
    return content


def changed(names: Names, changes: list[Change]) -> Names:
    names = dict(names)
    for change in changes:
        for path in change.removed:
            names.pop(path, None)
        names.update(change.added)
    return names


State: TypeAlias = "dict[Path, bytes | None]"


class PowerDisk:
    """Implements the journal's `Disk`.

    Parameters:
        state: what is on it at the beginning, all of it durable.
        before: called before each call that changes something.
    """

    def __init__(self, state: State | None = None, before: Callable[[], object] = lambda: None) -> None:
        self._durable: Names = {Path("/"): None}
        for path, content in (state or {}).items():
            self._durable[path] = None if content is None else Inode(content)
        self._changes: list[Change] = []
        self._open: dict[int, Inode] = {}
        self._locks: dict[int, Path] = {}
        self._next = 3
        self._before = before

    def states(self, most: int) -> Iterator[State]:
        """What a power cut may leave now; at most so many, the likely ones first.

        Changes to a folder's names survive in their order, in each folder as far as it may be.
        Of a file that was written and not synced a part survives, with or without bytes that
        were never written in place of the rest.
        """
        folders = sorted({change.folder for change in self._changes})
        kept = [range(sum(change.folder == folder for change in self._changes), -1, -1) for folder in folders]
        return islice(self._states(folders, kept), most)

    def _states(self, folders: list[Path], kept: list[range]) -> Iterator[State]:
        for counts in product(*kept):
            left = dict(zip(folders, counts, strict=True))
            survived = []
            for change in self._changes:
                left[change.folder] -= 1
                if left[change.folder] >= 0:
                    survived.append(change)
            names = changed(self._durable, survived)
            files = [
                path for path, inode in names.items() if inode is not None and _is_reachable(path, names)
            ]
            folders_left = [
                path for path, inode in names.items() if inode is None and _is_reachable(path, names)
            ]
            for contents in product(*[list(_versions(names[path])) for path in files]):
                yield {**dict.fromkeys(folders_left), **dict(zip(files, contents, strict=True))}

    # -- the journal's side ----------------------------------------------------------------------

    def make_folder(self, path: Path) -> None:
        self._free(path)
        self._change(Change(path.parent, added=((path, None),)))

    def check_folder(self, path: Path) -> None:
        self._folder(path)

    def list_folder(self, path: Path) -> list[str]:
        self._folder(path)
        return [other.name for other in self._names() if other.parent == path and other != path]

    def sync_folder(self, path: Path) -> None:
        self._before()
        self._folder(path)
        done = [change for change in self._changes if change.folder == path]
        self._durable = changed(self._durable, done)
        self._changes = [change for change in self._changes if change.folder != path]

    def remove_folder(self, path: Path) -> None:
        if self.list_folder(path):
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        self._change(Change(path.parent, removed=(path,)))

    def create(self, path: Path) -> int:
        self._free(path)
        inode = Inode()
        self._change(Change(path.parent, added=((path, inode),)))
        return self._describe(inode)

    def open(self, path: Path) -> int:
        return self._describe(self._file(path))

    def size(self, file: int) -> int:
        return len(self._open[file].content())

    def read(self, file: int, offset: int, length: int) -> bytes:
        return self._open[file].content()[offset : offset + length]

    def write(self, file: int, data: bytes | memoryview) -> int:
        self._before()
        self._open[file].unsynced.append(bytes(data))
        return len(data)

    def truncate(self, file: int, size: int) -> None:
        self._before()
        self._open[file].unsynced.append(size)

    def sync(self, file: int) -> None:
        self._before()
        inode = self._open[file]
        inode.durable, inode.unsynced = inode.content(), []

    def close(self, file: int) -> None:
        del self._open[file]
        self._locks.pop(file, None)

    def rename(self, path: Path, other: Path) -> None:
        self._change(Change(path.parent, removed=(path,), added=((other, self._file(path)),)))

    def unlink(self, path: Path) -> None:
        self._file(path)
        self._change(Change(path.parent, removed=(path,)))

    def lock(self, path: Path, seconds: float = 0.0, *, shared: bool = False) -> int | None:
        del seconds, shared
        if path in self._locks.values():
            return None
        file = self.open(path) if path in self._names() else self.create(path)
        self._locks[file] = path
        return file

    def forget(self) -> None:
        self._open.clear()
        self._locks.clear()

    # --------------------------------------------------------------------------------------------

    def _names(self) -> Names:
        return changed(self._durable, self._changes)

    def _change(self, change: Change) -> None:
        self._before()
        self._folder(change.folder)
        self._changes.append(change)

    def _free(self, path: Path) -> None:
        if path in self._names():
            raise FileExistsError(errno.EEXIST, "File exists")

    def _folder(self, path: Path) -> None:
        if self._names().get(path, ...) is not None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    def _file(self, path: Path) -> Inode:
        inode = self._names().get(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return inode

    def _describe(self, inode: Inode) -> int:
        self._next += 1
        self._open[self._next] = inode
        return self._next


def _is_reachable(path: Path, names: Names) -> bool:
    return all(parent in names for parent in path.parents)


def _versions(inode: Inode | None) -> Iterator[bytes]:
    """What may be left of a file: whole calls, a part of the last one, and its length without its bytes."""
    assert inode is not None
    yield inode.content()
    for count in range(len(inode.unsynced) - 1, -1, -1):
        before = replay(inode.durable, inode.unsynced[:count])
        change = inode.unsynced[count]
        if isinstance(change, bytes) and change:
            for size in sorted({1, len(change) // 2, len(change) - 1} - {0, len(change)}):
                yield before + change[:size]
            yield before + bytes(len(change))
            yield before + change[: len(change) // 2] + bytes(len(change) - len(change) // 2)
        yield before
