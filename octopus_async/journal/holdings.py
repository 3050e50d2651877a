"""The folders that a process holds, its own and those it took over, and which of them must shrink."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from octopus_async.errors import JournalError
from octopus_async.events import Event, JournalFailed
from octopus_async.journal.checkpoint import checkpoint_of, is_drained, reclaimable
from octopus_async.journal.commit import GroupCommit
from octopus_async.journal.folder import Checkpoint, Folder, Written, keep_all
from octopus_async.journal.letters import Letter
from octopus_async.journal.overlay import Overlay
from octopus_async.journal.root import BLOCK

_WORTH_CLEARING = 1 << 20


class Holdings:
    """Knows which folder a number belongs to, and lets go of files that nobody needs.

    Parameters:
        overlay: what is pending.
        segment_bytes: size from which on a new file is begun.
        emit: is told when a group could not be written.

    Attributes:
        folders: what is held; this process's own folder is the first.
        groups: how many groups were made durable.
        size: the bytes of all files.
        commit: writes to the folders.
    """

    def __init__(self, overlay: Overlay, segment_bytes: int, emit: Callable[[Event], None]) -> None:
        self.folders: list[Folder] = []
        self.groups = 0
        self.size = 0
        self.commit: GroupCommit | None = None
        self._overlay = overlay
        self._segment_bytes = segment_bytes
        self._emit = emit
        self._by_block: dict[int, Folder] = {}
        self._touched: set[Folder] = set()
        self._due: set[Folder] = set()
        self._failing: set[Folder] = set()

    def add(self, folder: Folder) -> None:
        """Hold a folder."""
        self.folders.append(folder)
        self.size += folder.size
        for segment in folder.segments:
            self._by_block[_block(segment.first)] = folder

    def of(self, sequence: int) -> Folder:
        """The folder in which an entry lies."""
        return self._by_block[_block(sequence)]

    def letters(self) -> Iterator[Letter]:
        """All dead letters."""
        for folder in self.folders:
            yield from folder.letters

    def letters_of(self, entry: int) -> list[Letter]:
        """The dead letters of an entry."""
        return [letter for folder in self.folders for letter in folder.letters.of(entry)]

    def find_letters(self, entry: int) -> tuple[Folder, list[Letter]]:
        """The dead letters of an entry, and where they lie. Raises JournalError if there are none."""
        for folder in self.folders:
            letters = folder.letters.of(entry)
            if letters:
                return folder, letters
        raise JournalError(f"there is no dead letter {entry} in the folders that this process holds")

    def done(self, target: str, sequences: Iterable[int]) -> None:
        """Have it noted that ``target`` has applied entries, which the overlay has forgotten."""
        by_folder: dict[Folder, list[int]] = {}
        for sequence in sequences:
            by_folder.setdefault(self.of(sequence), []).append(sequence)
        for folder, numbers in by_folder.items():
            self._touched.add(folder)
            if self.commit is not None:
                self.commit.mark(folder, target, numbers)

    def touch(self, folder: Folder) -> None:
        """Something in a folder may have become superfluous."""
        self._touched.add(folder)

    def checkpoint_for(self, folder: Folder) -> Checkpoint | None:
        """A checkpoint, if a new file should begin now."""
        current = folder.current
        full = current is not None and current.size >= self._segment_bytes
        if not full and folder not in self._due:
            return None
        self._due.discard(folder)
        checkpoint = checkpoint_of(folder, self._overlay) if folder.ready else None
        return checkpoint or (keep_all(folder.segments) if full else None)

    def written(self, folder: Folder, written: Written) -> None:
        """A group is durable."""
        self.groups += 1
        self._failing.discard(folder)
        self._by_block[_block(written.first)] = folder

    def not_written(self, folder: Folder, error: JournalError) -> None:
        """A group could not be made durable: said once, until it works again."""
        self._touched.add(folder)
        if folder not in self._failing:
            self._failing.add(folder)
            self._emit(JournalFailed(str(folder.path), str(error)))

    def committed(self, folder: Folder) -> None:
        """Let go of a folder, or of its files, if nothing in them is needed any more."""
        self.measure()
        if (
            folder not in self._touched
            or not folder.ready
            or self.commit is None
            or self.commit.pending(folder)
        ):
            return
        self._touched.discard(folder)
        if not is_drained(folder, self._overlay):
            if reclaimable(folder, self._overlay) >= self._segment_bytes // 2:
                self._due.add(folder)
                self.commit.wake(folder)
        elif folder is not self.folders[0]:
            self.commit.do(Removal(folder, self))
        elif folder.size >= min(_WORTH_CLEARING, self._segment_bytes):
            self.commit.do(Clearing(folder, self))

    def removed(self, folder: Folder) -> None:
        """A folder is gone, or left to the next opening."""
        self.folders.remove(folder)
        self.measure()

    def measure(self) -> None:
        """Add up the bytes of all files."""
        self.size = sum(held.size for held in self.folders)


def _block(sequence: int) -> int:
    return (sequence - 1) // BLOCK


class Clearing:
    """Removes the files of a folder in which nothing is needed."""

    def __init__(self, folder: Folder, holdings: Holdings) -> None:
        self.folder = folder
        self._holdings = holdings

    def work(self) -> None:
        """Remove them, the oldest first."""
        self.folder.clear()

    def done(self, error: BaseException | None) -> None:  # noqa: ARG002 - what is left goes with the folder
        """Take into account what is left."""
        self._holdings.measure()


class Removal(Clearing):
    """Removes a folder that was taken over, and in which nothing is needed."""

    def work(self) -> None:
        """Remove it, and let go of its lock."""
        self.folder.remove()

    def done(self, error: BaseException | None) -> None:  # noqa: ARG002 - its lock is gone in either case
        """Hold it no longer."""
        self._holdings.removed(self.folder)
