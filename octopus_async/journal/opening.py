"""What opening, adopting and closing do on the disk: in the journal's thread."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from octopus_async.errors import JournalError
from octopus_async.journal.adopt import Adopted, adopt
from octopus_async.journal.checkpoint import is_drained
from octopus_async.journal.folder import Folder
from octopus_async.journal.mark import MarkFile
from octopus_async.journal.overlay import Overlay
from octopus_async.journal.root import Root, explained


class Opening:
    """A journal being opened.

    Attributes:
        own: this process's own folder; None until it is made.
        mark: the low-water mark in it.
        adopted: the folders that were taken over.
    """

    def __init__(self, root: Root, overlay: Overlay) -> None:
        self.own: Folder | None = None
        self.mark: MarkFile | None = None
        self.adopted: list[Adopted] = []
        self._root = root
        self._overlay = overlay

    def work(self) -> int:
        """Make a folder of its own, and take over those of dead writers.

        Returns:
            The moment (milliseconds since 1970) above which the clock has to start.

        Raises:
            JournalLocked, JournalCorrupt, JournalFull, JournalError: and nothing is held.
        """
        self._root.prepare()
        name, lock, first = self._root.create_folder()
        self.own = Folder(self._root, name, lock, name, first)
        self.mark = MarkFile(self._root, self.own)
        self.adopted, failures = adopt_all(self._root, self.own, self.mark, self._overlay)
        if failures:
            raise failures[0]
        with explained(f"open the journal {self._root.path}"):
            ceiling = self._root.ceiling().milliseconds
        return max(ceiling, *(adopted.newest for adopted in self.adopted), 0)

    def undo(self) -> None:
        """Let go of everything."""
        folders = [adopted.folder for adopted in self.adopted if adopted.folder is not None]
        release([*folders, *([self.own] if self.own is not None else [])], self._overlay)


def adopt_all(
    root: Root, own: Folder, mark: MarkFile, overlay: Overlay
) -> tuple[list[Adopted], list[JournalError]]:
    """Take over what dead writers have left; gives the folders, and why others could not be taken over.

    Parameters:
        root: the shared folder.
        own: this process's own folder.
        mark: the low-water mark in it.
        overlay: takes what is pending.
    """
    adopted: list[Adopted] = []
    failures: list[JournalError] = []
    for name, lock in root.lock_dead().items():
        try:
            adopted.append(adopt(root, name, lock, own, mark, overlay))
        except JournalError as error:
            failures.append(error)
    overlay.sweep()
    return adopted, failures


def release(folders: Sequence[Folder], overlay: Overlay) -> None:
    """Let go of folders, and remove those in which nothing is needed any more."""
    for folder in folders:
        with contextlib.suppress(
            JournalError
        ):  # what is left behind is found, and removed, by the next opening
            if folder.ready and not folder.marked and is_drained(folder, overlay):
                folder.remove()
        folder.close()
