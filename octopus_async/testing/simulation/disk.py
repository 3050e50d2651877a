"""A simulated disk for the journal: it loses what was not synced, and fails now and then.

What POSIX promises and no more: bytes are durable once their file was synced, names once their
folder was; a sync that failed loses the pages it was about, and a later one says nothing of it.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from random import Random

from octopus_async.testing.simulation.census import Census
from octopus_async.testing.simulation.loop import Process


@dataclass(slots=True)
class DiskSwitches:
    """How the disk misbehaves.

    Attributes:
        eio: the share of calls that fail with EIO.
        full: the share of those that need room, and find none.
        slow: seconds that a job takes longer, at most.
    """

    eio: float = 0.0
    full: float = 0.0
    slow: float = 0.0


@dataclass(slots=True, eq=False)
class _File:
    """A file's bytes: as programs see them, as the platter has them, and what was done between."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    unsynced: list[bytes | int] = field(default_factory=list)  # appended bytes, or a size it was cut to
    doomed: bool = False
    holders: dict[int, bool] = field(default_factory=dict)  # who locks it, and whether shared


@dataclass(slots=True, eq=False)
class _Descriptor:
    file: _File
    owner: Process


class SimulatedDisk:
    """The disk of one machine, with all its processes.

    Parameters:
        random: decides what fails, and what survives a power cut.
        census: counts the harm done.
    """

    def __init__(self, random: Random, census: Census) -> None:
        self.switches = DiskSwitches()
        self.census = census
        self._random = random
        self._names: dict[str, _File | None] = {"/": None}  # None is a folder
        self._durable_names: dict[str, _File | None] = {"/": None}
        self._renaming: dict[str, list[tuple[str, _File | None, bool]]] = {}  # folder: (path, what, there)
        self._descriptors: dict[int, _Descriptor] = {}
        self._next = 3

    def kill(self, process: Process) -> None:
        """A process died: its descriptors close, and its locks go. What it wrote stays in the page cache."""
        for number in [number for number, held in self._descriptors.items() if held.owner is process]:
            self.close(number)

    def cut_power(self) -> None:
        """Keep what is durable, and of the rest what the disk happened to have done."""
        for folder in sorted(self._renaming):
            changes = self._renaming[folder]
            for path, what, there in changes[: self._random.randint(0, len(changes))]:
                _rename(self._durable_names, path, what, there=there)
        self._renaming.clear()
        reachable = {path: what for path, what in self._durable_names.items() if self._is_reachable(path)}
        self._names = dict(reachable)
        self._durable_names = reachable
        for path in sorted(reachable):
            file = reachable[path]
            if file is not None:
                self._recover(file)
        self._descriptors.clear()

    def open_files(self, process: Process) -> int:
        """How many descriptors a process holds."""
        return sum(held.owner is process for held in self._descriptors.values())

    # -- as processes see it ---------------------------------------------------------------------

    def make_folder(self, path: str) -> None:
        """Make a folder."""
        if path in self._names:
            raise FileExistsError(errno.EEXIST, "File exists", path)
        self._need_folder(_folder_of(path))
        self._fail(room=True)
        self._change(path, None, there=True)

    def check_folder(self, path: str) -> None:
        """Raise for what is no folder."""
        self._need_folder(path)

    def list_folder(self, path: str) -> list[str]:
        """The names in a folder, in any order."""
        self._need_folder(path)
        names = [name.rpartition("/")[2] for name in self._names if name != "/" and _folder_of(name) == path]
        self._random.shuffle(names)
        return names

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable."""
        self._need_folder(path)
        self._fail()
        for name, what, there in self._renaming.pop(path, ()):
            _rename(self._durable_names, name, what, there=there)

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        self._need_folder(path)
        if self.list_folder(path):
            raise OSError(errno.ENOTEMPTY, "Directory not empty", path)
        self._fail()
        self._change(path, None, there=False)

    def create(self, path: str, owner: Process) -> int:
        """Create a file for its owner."""
        if path in self._names:
            raise FileExistsError(errno.EEXIST, "File exists", path)
        self._need_folder(_folder_of(path))
        self._fail(room=True)
        file = _File()
        self._change(path, file, there=True)
        return self._describe(file, owner)

    def open(self, path: str, owner: Process) -> int:
        """Open a file for its owner."""
        file = self._need_file(path)
        self._fail()
        return self._describe(file, owner)

    def size(self, number: int) -> int:
        """The bytes in a file."""
        return len(self._file(number).data)

    def read(self, number: int, offset: int, length: int) -> bytes:
        """Read at a place."""
        self._fail(factor=0.2)
        return bytes(self._file(number).data[offset : offset + length])

    def write(self, number: int, data: bytes) -> int:
        """Append; a disk that is nearly full takes a part."""
        file = self._file(number)
        self._fail()
        if self._random.random() < self.switches.full:
            # The last room is filled first, and the next call is told that there is none.
            part = data[: self._random.randrange(len(data))] if data else b""
            if not part or self._random.random() < 0.5:
                self.census["disk full"] += 1
                raise OSError(errno.ENOSPC, "No space left on device")
            self.census["short write"] += 1
            data = part
        file.data += data
        file.unsynced.append(data)
        return len(data)

    def truncate(self, number: int, size: int) -> None:
        """Cut a file."""
        file = self._file(number)
        self._fail()
        del file.data[size:]
        file.unsynced.append(size)

    def sync(self, number: int) -> None:
        """Make a file's bytes durable, unless it fails."""
        file = self._file(number)
        if self._random.random() < self.switches.eio:
            # The pages are marked clean all the same: no later sync will write them.
            self.census["failed fsync"] += bool(file.unsynced)
            file.doomed = file.doomed or bool(file.unsynced)
            file.unsynced.clear()
            raise OSError(errno.EIO, "Input/output error")
        if not file.doomed:
            file.durable = bytes(file.data)
        file.unsynced.clear()

    def close(self, number: int) -> None:
        """Close a descriptor, and let go of its lock."""
        held = self._descriptors.pop(number, None)
        if held is None:
            raise OSError(errno.EBADF, "Bad file descriptor")
        held.file.holders.pop(number, None)

    def rename(self, path: str, other: str) -> None:
        """Give a file another name."""
        file = self._need_file(path)
        self._fail()
        self._change(path, None, there=False)
        self._change(other, file, there=True)

    def unlink(self, path: str) -> None:
        """Remove a file's name."""
        self._need_file(path)
        self._fail(factor=0.3)
        self._change(path, None, there=False)

    def lock(self, path: str, owner: Process, *, shared: bool) -> int | None:
        """Lock a file; None if another holds it."""
        file = self._names.get(path)
        if file is None:
            if shared:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
            number = self.create(path, owner)
            file = self._file(number)
        else:
            number = self._describe(file, owner)
        if any(not (shared and other) for other in file.holders.values()):
            self.close(number)
            return None
        file.holders[number] = shared
        return number

    # --------------------------------------------------------------------------------------------

    def _change(self, path: str, what: _File | None, *, there: bool) -> None:
        _rename(self._names, path, what, there=there)
        self._renaming.setdefault(_folder_of(path), []).append((path, what, there))

    def _is_reachable(self, path: str) -> bool:
        return path == "/" or (path in self._durable_names and self._is_reachable(_folder_of(path)))

    def _recover(self, file: _File) -> None:
        data = bytearray(file.durable)
        if not file.doomed:
            changes = file.unsynced[: self._random.randint(0, len(file.unsynced))]
            for change in changes:
                if isinstance(change, int):
                    del data[change:]
                else:
                    data += change
            last = changes[-1] if changes else b""
            if isinstance(last, bytes) and last and self._random.random() < 0.5:
                self.census["torn tail"] += 1
                torn = self._random.randrange(len(last))
                del data[len(data) - len(last) + torn :]
                if self._random.random() < 0.3:
                    # The size was written, the block was not.
                    data += bytes(len(last) - torn)
        file.data, file.durable = data, bytes(data)
        file.unsynced.clear()
        file.holders.clear()
        file.doomed = False

    def _fail(self, *, room: bool = False, factor: float = 1.0) -> None:
        if self.switches.eio and self._random.random() < self.switches.eio * factor:
            self.census["disk error"] += 1
            raise OSError(errno.EIO, "Input/output error")
        if room and self.switches.full and self._random.random() < self.switches.full:
            self.census["disk full"] += 1
            raise OSError(errno.ENOSPC, "No space left on device")

    def _need_folder(self, path: str) -> None:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        if self._names[path] is not None:
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)

    def _need_file(self, path: str) -> _File:
        file = self._names.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return file

    def _describe(self, file: _File, owner: Process) -> int:
        self._next += 1
        self._descriptors[self._next] = _Descriptor(file, owner)
        return self._next

    def _file(self, number: int) -> _File:
        held = self._descriptors.get(number)
        if held is None:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return held.file


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _rename(names: dict[str, _File | None], path: str, what: _File | None, *, there: bool) -> None:
    if there:
        names[path] = what
    else:
        names.pop(path, None)
