"""A disk in memory that keeps what POSIX promises and no more, and the states that a power cut may leave.

Modelled, of all that was not synced, and independently of each other:
- changes to the names of a folder: any subset of them, so in any order; each survives wholly or not at
  all, as creating, removing and renaming are atomic;
- what was written to a file: any number of whole calls, and of the next one any part: cut at a byte, or
  with any of its sectors replaced by zeros or by bytes that lay there before;
- a truncation: wholly or not at all.

Not modelled: a disk that forgets what it has confirmed (J5 and docs/journal.md say what is found then), and
damage to what was durable (the tests of J2 and J4). A sync that is cut is one that was not made yet, as its
states are those before the call; a write that is cut, likewise, is covered by the states after it.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain, combinations, islice, product
from pathlib import Path
from typing import TypeAlias

_SECTOR = 512
_MOST_SUBSETS = 64


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
        self.before = before

    @property
    def is_dirty(self) -> bool:
        """Whether anything was not synced."""
        inodes = [*self._durable.values(), *(inode for change in self._changes for _, inode in change.added)]
        return bool(self._changes) or any(inode is not None and inode.unsynced for inode in inodes)

    def states(self, most: int) -> Iterator[State]:
        """What a power cut may leave now; at most so many, the likely ones first.

        Files end in what was written first, or in zeros; `sample` leaves holes before what was written later.
        """
        folders = sorted({change.folder for change in self._changes})
        kept = [
            _subsets([change for change in self._changes if change.folder == folder]) for folder in folders
        ]
        choices = (frozenset[int]().union(*choice) for choice in product(*kept))
        return islice(chain.from_iterable(map(self._states, choices)), most)

    def sample(self, chance: random.Random) -> State:
        """One of the states that a power cut may leave now, by chance."""
        share = chance.choice((0.0, 0.5, 0.9, 1.0))
        names, files, folders = self._left(
            {id(change) for change in self._changes if chance.random() < share}
        )
        return {**dict.fromkeys(folders), **{path: _version(names[path], chance) for path in files}}

    def _states(self, kept: AbstractSet[int]) -> Iterator[State]:
        names, files, folders = self._left(kept)
        for contents in product(*[list(_versions(names[path])) for path in files]):
            yield {**dict.fromkeys(folders), **dict(zip(files, contents, strict=True))}

    def _left(self, kept: AbstractSet[int]) -> tuple[Names, list[Path], list[Path]]:
        """The names, and of those that can be reached the files and the folders, if these changes survive."""
        names = changed(self._durable, [change for change in self._changes if id(change) in kept])
        reachable = [path for path in names if _is_reachable(path, names)]
        files = [path for path in reachable if names[path] is not None]
        return names, files, [path for path in reachable if names[path] is None]

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
        self.before()
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
        self.before()
        self._open[file].unsynced.append(bytes(data))
        return len(data)

    def truncate(self, file: int, size: int) -> None:
        self.before()
        self._open[file].unsynced.append(size)

    def sync(self, file: int) -> None:
        self.before()
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
        self.before()
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


def _subsets(changes: list[Change]) -> list[frozenset[int]]:
    """Which changes of a folder may survive: the first of them, then any, by their identities."""
    whole = [id(change) for change in changes]
    prefixes = [frozenset(whole[:count]) for count in range(len(whole), -1, -1)]
    others = (frozenset(kept) for count in range(1, len(whole)) for kept in combinations(whole, count))
    return list(dict.fromkeys([*prefixes, *islice(others, _MOST_SUBSETS)]))


def _versions(inode: Inode | None) -> Iterator[bytes]:
    """What may be left of a file: whole calls, a part of the last one, and its length without its bytes."""
    assert inode is not None
    yield inode.content()
    for count in range(len(inode.unsynced) - 1, -1, -1):
        before = replay(inode.durable, inode.unsynced[:count])
        change = inode.unsynced[count]
        if isinstance(change, bytes) and change:
            half = len(change) // 2
            for size in sorted({1, half, len(change) - 1} - {0, len(change)}):
                yield before + change[:size]
            yield before + bytes(len(change))
            yield before + change[:half] + bytes(len(change) - half)
        yield before


def _version(inode: Inode | None, chance: random.Random) -> bytes:
    """One of the contents that may be left of a file, by chance."""
    assert inode is not None
    count = chance.randint(0, len(inode.unsynced))
    before = replay(inode.durable, inode.unsynced[:count])
    if count == len(inode.unsynced) or isinstance(change := inode.unsynced[count], int):
        return before
    part = change[: chance.randint(0, len(change))] if chance.random() < 0.5 else change
    if chance.random() < 0.3:
        return before + part
    lost = chance.choice((bytes(len(part)), chance.randbytes(len(part)), _stale(before, len(part))))
    return before + _torn(part, lost, len(before), chance)


def _torn(data: bytes, lost: bytes, start: int, chance: random.Random) -> bytes:
    """The data at a place of a file, some of its sectors never written."""
    share, kept = chance.random(), bytearray(data)
    for sector in range(start // _SECTOR, (start + len(data)) // _SECTOR + 1):
        begin, end = max(0, sector * _SECTOR - start), (sector + 1) * _SECTOR - start
        if chance.random() < share:
            kept[begin:end] = lost[begin:end]
    return bytes(kept)


def _stale(lines: bytes, length: int) -> bytes:
    """What may lie in the place of bytes that were not written: intact lines of earlier, and garbage."""
    return (lines[-length:] + b"\xfe" * length)[:length]
