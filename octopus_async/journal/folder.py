"""A writer's folder, as the holder of its lock writes it: one group of lines after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from octopus_async.journal.disk import Disk
from octopus_async.journal.format import FORMAT, Header, Kept, Range, compose, encode_header, salt
from octopus_async.journal.letters import Letter, Letters
from octopus_async.journal.root import BLOCK, NO_ROOM, Root, as_journal_error, write_all
from octopus_async.journal.segments import GONE, Segment, segment_name


class Checkpoint(NamedTuple):
    """What a new file says of those before it.

    Attributes:
        keeps: the files that are still needed, by number; with a value, what is owed of them.
        dead: the entries that are dead letters; None where nothing is said about them.
        carried: dead letters whose file goes: they are written anew.
    """

    keeps: dict[int, dict[str, list[Range]] | None]
    dead: list[int] | None = None
    carried: tuple[Letter, ...] = ()


def keep_all(segments: Iterable[Segment]) -> Checkpoint:
    """The checkpoint that lets no file go."""
    return Checkpoint(dict.fromkeys(segment.number for segment in segments))


class Written(NamedTuple):
    """Where a group lies: the number of its first line, and that of the file."""

    first: int
    segment: int


class _PoisonedError(Exception):
    """A file could not be made durable: what it holds beyond the last durable line is in doubt."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


class Folder:
    """Appends to the folder's last file, and begins a new one where that is asked for or called for.

    All methods do disk work at once: they are for the journal's thread, one at a time.

    Parameters:
        root: the shared folder.
        name: the folder's name.
        lock: the descriptor of its lock.
        writer: the name of this process's own folder.
        numbers: the first number that may be used; 0 to take a block when it is needed.

    Attributes:
        marked: whether it has a low-water mark, for which it has to stay.
    """

    def __init__(self, root: Root, name: str, lock: int, writer: str, numbers: int = 0) -> None:
        self.name = name
        self.path = root.path / name
        self.letters = Letters()
        self.segments: list[Segment] = []
        self.ready = True
        self.marked = False
        self.synced = 0
        self._root = root
        self._disk: Disk = root.disk
        self._lock = lock
        self._writer = writer
        self._file: int | None = None
        self._gone = False
        self._number = 0
        self._next = numbers
        self._limit = numbers + BLOCK if numbers else 0
        self._durable = numbers - 1 if numbers else 0

    def take_over(self, segments: list[Segment], letters: Letters, number: int, durable: int) -> None:
        """Go on where a dead writer stopped; nothing is ever appended to its files."""
        self.segments = segments
        self.letters = letters
        self._number = number
        self._durable = durable

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        return sum(segment.size for segment in self.segments)

    @property
    def current(self) -> Segment | None:
        """The file that is being appended to."""
        return self.segments[-1] if self._file is not None else None

    @property
    def sealed(self) -> list[Segment]:
        """The files that nothing is appended to any more."""
        return self.segments if self._file is None else self.segments[:-1]

    def append(self, lines: list[tuple[bytes, int]], checkpoint: Checkpoint | None = None) -> Written:
        """Make a group of lines durable: all of them, or an error.

        A file that cannot be made durable is left for good, and the group written anew to the
        next one, whose header makes void what the first may hold of it.

        Parameters:
            lines: each line's rest, and how many numbers it takes.
            checkpoint: begin a new file with it; without one that is done only where it must be.

        Raises:
            JournalFull: there is no room; the file ends where it ended before.
            JournalError: it could not be written; it may be found again all the same.
        """
        if not lines and checkpoint is None:
            return Written(self._next, self._number)
        try:
            self._ready_for(sum(count for _, count in lines), checkpoint)
            try:
                first = self._write(lines)
            except _PoisonedError:
                self._begin(keep_all(self.segments))
                first = self._write(lines)
        except (OSError, _PoisonedError) as raised:
            error = raised.error if isinstance(raised, _PoisonedError) else raised
            raise as_journal_error(error, f"write to the journal {self.path}") from error
        return Written(first, self._number)

    def clear(self) -> None:
        """Remove all files: nothing in them is needed. Raises JournalError.

        It takes no room, and none of it counts before all of it does: the last file is given a
        name that says that nothing in the folder is needed, and goes last.
        """
        self._leave()
        try:
            self._clear()
        except OSError as error:
            raise as_journal_error(error, f"clear the journal {self.path}") from error

    def _clear(self) -> None:
        if self.segments and not self._gone:
            self._disk.rename(self.path / self.segments[-1].name, self.path / GONE)
            self.segments.pop()
            self._gone = True
        if self._gone:
            self._disk.sync_folder(self.path)
            while self.segments:
                self._disk.unlink(self.path / self.segments[0].name)
                del self.segments[0]
            # Names may go in any order, and a file without that one's word would ask for those before it.
            self._disk.sync_folder(self.path)
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(self.path / GONE)
            self._disk.sync_folder(self.path)
            self._gone = False

    def remove(self) -> None:
        """Remove the folder, of which nothing is needed, and let go of its lock. Raises JournalError."""
        try:
            self.clear()
            self._root.remove_folder(self.name)
        except OSError as error:
            raise as_journal_error(error, f"remove the journal {self.path}") from error
        finally:
            self.close()

    def close(self) -> None:
        """Let go of its files and its lock, so that another process can take it over."""
        self._leave()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            with contextlib.suppress(OSError):
                self._disk.close(lock)

    def _ready_for(self, count: int, checkpoint: Checkpoint | None) -> None:
        if self._next + max(count, 1) > self._limit:
            self._next = self._root.take_block()
            self._limit = self._next + BLOCK
            checkpoint = checkpoint or keep_all(self.segments)
        if checkpoint is not None or self._file is None:
            self._begin(checkpoint or keep_all(self.segments))

    def _write(self, lines: list[tuple[bytes, int]]) -> int:
        segment, file, first = self.segments[-1], self._file, self._next
        if not lines or file is None:
            return first
        data = compose(lines, first, self._durable, salt(self.name, segment.number))
        try:
            write_all(self._disk, file, data)
        except OSError as error:
            self._cut_back(file, segment.size, error)
        self._sync(file)
        self._next += sum(count for _, count in lines)
        self._durable = segment.last = self._next - 1
        segment.size += len(data)
        return first

    def _cut_back(self, file: int, size: int, error: OSError) -> NoReturn:
        """Leave nothing behind of a group that did not fit; a file that cannot be cut is left for good."""
        if error.errno not in NO_ROOM:
            self._leave()
            raise _PoisonedError(error) from error
        try:
            self._disk.truncate(file, size)
        except OSError:
            self._leave()
        raise error

    def _sync(self, file: int) -> None:
        try:
            self._disk.sync(file)
        except OSError as error:
            # The kernel may have dropped the pages and call the next sync a success: never sync it again.
            self._leave()
            raise _PoisonedError(error) from error
        self.synced += 1

    def _begin(self, checkpoint: Checkpoint) -> None:
        """Begin a new file, and remove those that it does not keep."""
        self._leave()
        if self._gone:
            self._clear()
        self._number += 1  # a name is never used twice, whatever became of its file
        number, seed = self._number, salt(self.name, self._number)
        keeps = {
            other.number: Kept(None if other.spared else other.last, checkpoint.keeps[other.number])
            for other in self.segments
            if other.number in checkpoint.keeps
        }
        at, writer = self._root.wall(), self._writer
        header = Header(
            FORMAT, self.name, number, writer, at, self._next, self._durable, keeps, checkpoint.dead
        )
        carried = compose(
            [(letter.rest, 1) for letter in checkpoint.carried], self._next, self._durable, seed
        )
        data = encode_header(header, seed) + carried
        self._file = self._create(segment_name(number), data)
        segment = Segment(number, self._next, len(data))
        self._next += len(checkpoint.carried)
        segment.last = self._next - 1
        for letter in checkpoint.carried:
            letter.segment = number
            self._durable = segment.last
        for other in [other for other in self.segments if other.number not in checkpoint.keeps]:
            self.segments.remove(other)
            with contextlib.suppress(
                OSError
            ):  # the checkpoint says that it is garbage; the next opening removes it
                self._disk.unlink(self.path / other.name)
        self.segments.append(segment)

    def _create(self, name: str, data: bytes) -> int:
        """Make a file that has its content from the moment it has its name."""
        path = self.path / name
        temporary = path.with_suffix(".tmp")
        file = self._disk.create(temporary)
        try:
            write_all(self._disk, file, data)
            self._disk.sync(file)
            self._disk.rename(temporary, path)
            self._disk.sync_folder(self.path)
        except BaseException:
            self._disk.close(file)
            with contextlib.suppress(OSError):
                self._disk.unlink(temporary)
            raise
        return file

    def _leave(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                self._disk.close(file)
