"""The folder that the journals of several processes share: the ceiling, number blocks, writers' folders."""

from __future__ import annotations

import contextlib
import errno
import re
import secrets
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

from pydantic_core import from_json, to_json

from octopus_async.errors import JournalCorrupt, JournalError, JournalFull, JournalLocked
from octopus_async.events import JournalDamaged
from octopus_async.journal.disk import Disk
from octopus_async.journal.format import FORMAT, MAGIC, SUM_LENGTH, number_of, seal

BLOCK = 1 << 20
"""Numbers that a writer takes at a time: no two writers ever share one."""

LOCK = "lock"
_CEILING = "ceiling"
_QUARANTINE = "quarantine"
_FOLDER = re.compile(r"writer-(\d{16})-[0-9a-f]{8}")
_PATIENCE = 5.0
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ABSENCE = 60_000


class Ceiling(NamedTuple):
    """What the root folder keeps for all its writers.

    Attributes:
        milliseconds: no version above that moment (since 1970) was ever issued.
        sequence: the first number that belongs to no writer yet.
    """

    milliseconds: int = 0
    sequence: int = 1


class Root:
    """The shared folder. All methods do disk work at once: they are for the journal's thread.

    Parameters:
        disk: the disk.
        path: the folder; made if it is missing.
        wall: seconds since 1970.
    """

    def __init__(self, disk: Disk, path: Path, wall: Callable[[], float]) -> None:
        self.disk = disk
        self.path = path
        self.wall = wall
        self.damage: list[JournalDamaged] = []

    def prepare(self) -> None:
        """Make the folder if it is missing. Raises JournalError."""
        with explained(f"open the journal {self.path}"):
            with contextlib.suppress(FileExistsError):
                self.disk.make_folder(self.path)
                self.disk.sync_folder(self.path.parent)
            self.disk.check_folder(self.path)

    def ceiling(self) -> Ceiling:
        """What is kept for all writers; replaced by a safe guess, and reported, where it is damaged."""
        path = self.path / _CEILING
        try:
            file = self.disk.open(path)
        except FileNotFoundError:
            return Ceiling() if not self.folders() else self._guess(path, 0, "is missing")
        try:
            data = self.disk.read(file, 0, 4096)
        finally:
            self.disk.close(file)
        ceiling = _decode(data, path)
        if ceiling is None:
            self.quarantine(f"{_CEILING}-{secrets.token_hex(4)}", 0, data)
            return self._guess(path, len(data), "is damaged")
        return ceiling

    def raise_ceiling(self, milliseconds: int) -> None:
        """Make a later ceiling durable. Raises JournalError."""
        with explained(f"raise the ceiling of {self.path}"), self._locked():
            ceiling = self.ceiling()
            if ceiling.milliseconds < milliseconds:
                self._store(ceiling._replace(milliseconds=milliseconds))

    def take_block(self) -> int:
        """Take a block of numbers that no writer has ever had; gives its first. Raises JournalError."""
        with explained(f"take numbers from {self.path}"), self._locked():
            return self._take_block()

    def create_folder(self) -> tuple[str, int, int]:
        """Make and lock a writer's folder; gives its name, lock and first number. Raises JournalError."""
        with explained(f"make a folder in the journal {self.path}"), self._locked():
            first = self._take_block()
            name = f"writer-{first:016d}-{secrets.token_hex(4)}"
            path = self.path / name
            self.disk.make_folder(path)
            with self._locks() as locks:
                self._lock_folder(name, locks)
                self.disk.sync_folder(self.path)
            if not locks:
                raise JournalLocked(f"{path} was just made, and somebody else has locked it")
            return name, locks[name], first

    def folders(self) -> list[str]:
        """The names of all writers' folders, the oldest first."""
        return sorted(name for name in self.disk.list_folder(self.path) if _FOLDER.fullmatch(name))

    def lock_dead(self) -> dict[str, int]:
        """Lock the folders whose writers are gone; gives the lock of each. Raises JournalError."""
        doing = f"look for the journals of dead processes in {self.path}"
        with explained(doing), self._locked(), self._locks() as locks:
            for name in self.folders():
                with contextlib.suppress(FileNotFoundError):
                    self._lock_folder(name, locks)
            return locks

    def remove_folder(self, name: str) -> None:
        """Remove a locked writer's folder, whose segments are gone already."""
        path = self.path / name
        for other in self.disk.list_folder(path):
            self.disk.unlink(path / other)
        with contextlib.suppress(OSError):  # somebody looks whether its writer is dead, and will remove it
            self.disk.remove_folder(path)

    def quarantine(self, name: str, offset: int, data: bytes) -> Path | None:
        """Keep a copy of damaged bytes, durably; gives its path, or None where there is no room for it."""
        folder = self.path / _QUARANTINE
        path = folder / f"{name}.{offset}"
        try:
            with contextlib.suppress(FileExistsError):
                self.disk.make_folder(folder)
                self.disk.sync_folder(self.path)
            self.disk.check_folder(folder)
            with contextlib.suppress(FileExistsError):
                self._write(path, data)
                self.disk.sync_folder(folder)
        except (OSError, JournalError):
            return None
        return path

    def _take_block(self) -> int:
        ceiling = self.ceiling()
        self._store(ceiling._replace(sequence=ceiling.sequence + BLOCK))
        return ceiling.sequence

    def _store(self, ceiling: Ceiling) -> None:
        path = self.path / _CEILING
        body = to_json({"octopus": MAGIC, "format": FORMAT, **ceiling._asdict()})[:-1]
        temporary = path.with_suffix(".tmp")
        with contextlib.suppress(FileNotFoundError):
            self.disk.unlink(temporary)
        self._write(temporary, body + seal(body, 0) + b"\n")
        self.disk.rename(temporary, path)
        self.disk.sync_folder(self.path)

    def _write(self, path: Path, data: bytes) -> None:
        file = self.disk.create(path)
        try:
            write_all(self.disk, file, data)
            self.disk.sync(file)
        except BaseException:
            with contextlib.suppress(OSError):
                self.disk.unlink(path)
            raise
        finally:
            self.disk.close(file)

    def _guess(self, path: Path, length: int, problem: str) -> Ceiling:
        """Above whatever may have been, unless this machine's clock was set back as well."""
        guessed = "a moment ahead of now was taken in its place, which is safe if the clock was not set back"
        self.damage.append(
            JournalDamaged(str(path), 0, length, f"the ceiling of versions {problem}; {guessed}")
        )
        blocks = [int(found[1]) for name in self.folders() if (found := _FOLDER.fullmatch(name))]
        first = max(blocks, default=1) + 1024 * BLOCK
        return Ceiling(int(self.wall() * 1000) + _ABSENCE, first)

    def _lock_folder(self, name: str, locks: dict[str, int]) -> None:
        """Lock a writer's folder, unless another holds it."""
        self.disk.check_folder(self.path / name)
        lock = self.disk.lock(self.path / name / LOCK)
        if lock is not None:
            locks[name] = lock

    @contextlib.contextmanager
    def _locks(self) -> Generator[dict[str, int]]:
        """Collects locks, and lets go of all if something goes wrong."""
        locks: dict[str, int] = {}
        try:
            yield locks
        except BaseException:
            for lock in locks.values():
                self.disk.close(lock)
            raise

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        lock = self.disk.lock(self.path / LOCK, _PATIENCE)
        if lock is None:
            raise JournalLocked(
                f"another process has held {self.path / LOCK} for {_PATIENCE:.0f} seconds; it should take"
                " milliseconds: find the process that is stopped or hangs, and end it"
            )
        try:
            yield
        finally:
            self.disk.close(lock)


def _decode(data: bytes, path: Path) -> Ceiling | None:
    line, end, _ = data.partition(b"\n")
    body = line[:-SUM_LENGTH]
    if not end or seal(body, 0) != line[-SUM_LENGTH:]:
        return None
    try:
        members = from_json(body + b"}")
        if members["format"] != FORMAT:
            raise unknown_format(path, members["format"])
        return Ceiling(number_of(members["milliseconds"]), number_of(members["sequence"]))
    except (ValueError, KeyError, TypeError):
        return None


def write_all(disk: Disk, file: int, data: bytes) -> None:
    """Write until all is taken: a disk that is nearly full takes a part first, and raises then."""
    rest = memoryview(data)
    while rest:
        rest = rest[disk.write(file, rest) :]


def unknown_format(path: Path, version: object) -> JournalCorrupt:
    """The error for what a later release has written."""
    return JournalCorrupt(
        f"{path} has format version {version}, and this release of octopus_async knows {FORMAT} alone."
        " Nothing was changed: open it with the release that wrote it, or let that one drain it first"
    )


def as_journal_error(error: BaseException, doing: str) -> JournalError:
    """What an error of the disk means to whoever uses the journal."""
    if isinstance(error, JournalError):
        return error
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return JournalFull(
            f"cannot {doing}: {error.strerror}. Make room on the disk, and it goes on by itself"
        )
    said = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
    return JournalError(f"cannot {doing}: {said}")


@contextlib.contextmanager
def explained(doing: str) -> Generator[None]:
    """Raise errors of the disk as errors of the journal."""
    try:
        yield
    except OSError as error:
        raise as_journal_error(error, doing) from error
