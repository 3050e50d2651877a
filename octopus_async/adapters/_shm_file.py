"""Opens the file that the processes of a host share: one user's own, never through a link."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_FORMAT = 1
_PRIVATE = 0o077
_STEP = 4 * 1024**2
_BLOCK = 512  # bytes, of st_blocks
_TRIES = 20
_PAUSE = 0.001


class Unfit(OSError):
    """The folder or the file is not one to put values into."""


def open_file(folder: Path, name: str, size: int) -> int:
    """Open the file of that name, and make folder and file where there are none.

    Whoever has it open holds a shared lock on it. One of another size is made anew if nobody has.

    Parameters:
        folder: is made with mode 0700 where it is missing; has to be ours, and nobody else's.
        name: of the file; the version of the format is added.
        size: in bytes.

    Returns:
        A descriptor, open for reading and writing, for the caller to close.

    Raises:
        OSError: it cannot be had; an `Unfit` says why.
    """
    within = _open_folder(folder)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(f"{name}.v{_FORMAT}", flags, 0o600, dir_fd=within)
    finally:
        os.close(within)
    try:
        _check(file, stat.S_ISREG, folder / name)
        _check_room(file, size, folder)
        _give_size(file, size, folder / name)
    except BaseException:
        os.close(file)
        raise
    return file


def reserve(file: int, size: int) -> Iterator[None]:
    """Take room for all of the file, so that no later write finds its file system full; step by step."""
    for start in range(0, size, _STEP):
        os.posix_fallocate(file, start, min(_STEP, size - start))
        yield


def is_gone(file: int) -> bool:
    """Whether somebody has removed the file, so that others may have another one by its name."""
    return os.fstat(file).st_nlink == 0


def _open_folder(folder: Path) -> int:
    folder.mkdir(mode=0o700, exist_ok=True)
    within = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check(within, stat.S_ISDIR, folder)
    except BaseException:
        os.close(within)
        raise
    return within


def _check(file: int, is_kind: Callable[[int], bool], path: Path) -> None:
    status = os.fstat(file)
    if not is_kind(status.st_mode):
        raise Unfit(f"{path} is of the wrong kind")
    if status.st_uid != os.geteuid() or status.st_mode & _PRIVATE:
        raise Unfit(f"{path} belongs to somebody else, or others may use it: chown it, and chmod go= it")


def _check_room(file: int, size: int, folder: Path) -> None:
    """Before any is taken, as a file system in memory would give the host's last."""
    system = os.fstatvfs(file)
    room = system.f_bavail * system.f_frsize + os.fstat(file).st_blocks * _BLOCK
    if room < size:
        raise Unfit(f"{folder} has room for {room} bytes, not for {size}: lower max_bytes, or give it more")


def _give_size(file: int, size: int, path: Path) -> None:
    for _ in range(_TRIES):
        if _has_size(file, size):
            return
        time.sleep(_PAUSE)  # another process is just making it: that takes microseconds
    raise Unfit(f"{path} has another size, and other processes use it: give all the same max_bytes")


def _has_size(file: int, size: int) -> bool:
    """Share the file, made anew if it had another size; False if somebody else uses or makes it."""
    fits = os.fstat(file).st_size == size
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if fits else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if not fits:
        os.ftruncate(file, 0)
        os.ftruncate(file, size)
        fcntl.flock(file, fcntl.LOCK_SH)
    return os.fstat(file).st_size == size
