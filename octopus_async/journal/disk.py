"""What the journal asks of a disk, and the real one. Nothing here follows a link."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import stat
import time
import weakref
from pathlib import Path
from threading import Lock
from typing import Protocol

from octopus_async.errors import JournalError

_POLL = 0.005
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
_guard = Lock()
"""Held while a descriptor is opened, and while the process forks: so that the child misses none."""


class Disk(Protocol):
    """Files and folders by path. Every method may raise OSError; none of them retries."""

    def make_folder(self, path: Path) -> None:
        """Make a folder that nobody else can enter."""
        ...

    def check_folder(self, path: Path) -> None:
        """Raise JournalError if that is no folder of its own right, or others can write to it."""
        ...

    def list_folder(self, path: Path) -> list[str]:
        """The names in a folder."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        ...

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        ...

    def create(self, path: Path) -> int:
        """Create a file that does not exist, for appending; gives its descriptor."""
        ...

    def open(self, path: Path) -> int:
        """Open a file for reading and truncating; gives its descriptor.

        Raises JournalError if it is no plain file, or others can write to it.
        """
        ...

    def size(self, file: int) -> int:
        """The bytes in a file."""
        ...

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Read at a place; fewer bytes only at the end of the file."""
        ...

    def write(self, file: int, data: bytes | memoryview) -> int:
        """Append; gives how many bytes were taken, which may be fewer."""
        ...

    def truncate(self, file: int, size: int) -> None:
        """Cut a file to ``size`` bytes."""
        ...

    def sync(self, file: int) -> None:
        """Make a file's bytes durable."""
        ...

    def close(self, file: int) -> None:
        """Close a descriptor, and let go of the lock that it holds."""
        ...

    def rename(self, path: Path, other: Path) -> None:
        """Give a file another name, in place of a file that has it."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        ...

    def lock(self, path: Path, seconds: float = 0.0, *, shared: bool = False) -> int | None:
        """Lock a file, which is created where it is missing; None if another still holds it then."""
        ...

    def forget(self) -> None:
        """In a forked child: close every descriptor, and touch nothing else."""
        ...


class OsDisk:
    """The machine's own disk. After a fork the child has none of its descriptors, and so no lock.

    Parameters:
        of_anybody: whether files may belong to another user, as when root looks at them: what root
            makes among a service's files is out of that service's reach.
    """

    # What each method does is said in `Disk`.
    # ruff: noqa: D102

    def __init__(self, *, of_anybody: bool = False) -> None:
        self._of_anybody = of_anybody
        self._open: set[int] = set()
        _disks.add(self)

    def make_folder(self, path: Path) -> None:
        path.mkdir(0o700)

    def check_folder(self, path: Path) -> None:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise JournalError(
                f"{path} is a symbolic link, which the journal does not follow: name the folder itself"
            )
        if not stat.S_ISDIR(found.st_mode):
            raise JournalError(f"{path} is not a folder: give the journal a folder of its own")
        self._check_access(path, found)

    def list_folder(self, path: Path) -> list[str]:
        return [entry.name for entry in path.iterdir()]

    def sync_folder(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove_folder(self, path: Path) -> None:
        path.rmdir()

    def create(self, path: Path) -> int:
        return self._opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)

    def open(self, path: Path) -> int:
        file = self._opened(path, os.O_RDWR)
        try:
            self._check_file(path, os.fstat(file))
        except BaseException:
            self.close(file)
            raise
        return file

    def size(self, file: int) -> int:
        return os.fstat(file).st_size

    def read(self, file: int, offset: int, length: int) -> bytes:
        return os.pread(file, length, offset)

    def write(self, file: int, data: bytes | memoryview) -> int:
        return os.write(file, data)

    def truncate(self, file: int, size: int) -> None:
        os.ftruncate(file, size)

    def sync(self, file: int) -> None:
        _sync(file)

    def close(self, file: int) -> None:
        self._open.discard(file)
        os.close(file)

    def rename(self, path: Path, other: Path) -> None:
        path.rename(other)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def lock(self, path: Path, seconds: float = 0.0, *, shared: bool = False) -> int | None:
        until = time.monotonic() + seconds
        while (file := self._lock_now(path, shared=shared)) is None and time.monotonic() < until:
            time.sleep(_POLL)
        return file

    def forget(self) -> None:
        for file in self._open:
            with contextlib.suppress(OSError):
                os.close(file)
        self._open.clear()

    def _opened(self, path: Path, flags: int) -> int:
        with _guard:
            file = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
            self._open.add(file)
        return file

    def _check_file(self, path: Path, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise JournalError(f"{path} is not a plain file")
        self._check_access(path, found)

    def _check_access(self, path: Path, found: os.stat_result) -> None:
        """As sshd's StrictModes (sshd_config(5)): who else can write there can forge what is journalled."""
        if found.st_uid != os.geteuid() and not self._of_anybody:
            raise JournalError(
                f"{path} belongs to the user {_user(found.st_uid)}, and this process runs as"
                f" {_user(os.geteuid())}: run it as that user, or give the journal a folder of its own"
            )
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise JournalError(
                f"others than its owner can write to {path}: see that nobody did, and run `chmod go-rwx` on"
                " it, or give the journal a folder of its own"
            )

    def _lock_now(self, path: Path, *, shared: bool) -> int | None:
        flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
        file = self._opened(path, flags)
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is_at(file, path):
                return file
        except BlockingIOError:
            pass
        except BaseException:
            self.close(file)
            raise
        self.close(file)
        return None


def _user(number: int) -> str:
    with contextlib.suppress(KeyError):
        return f"{pwd.getpwuid(number).pw_name} ({number})"
    return str(number)


def _is_at(file: int, path: Path) -> bool:
    """Whether the file has not been removed, or replaced, between opening and locking it."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file), there)


_disks: weakref.WeakSet[OsDisk] = weakref.WeakSet()


def _forget_all() -> None:
    for disk in list(_disks):
        disk.forget()
    _guard.release()


os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_forget_all)
