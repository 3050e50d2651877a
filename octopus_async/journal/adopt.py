"""Takes over the folders of dead writers: damage goes to quarantine, what is pending to a living process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from octopus_async.errors import JournalError
from octopus_async.events import JournalDamaged
from octopus_async.journal.checkpoint import checkpoint_of, is_drained
from octopus_async.journal.contents import Contents
from octopus_async.journal.folder import Folder, keep_all
from octopus_async.journal.mark import MarkFile
from octopus_async.journal.overlay import Overlay
from octopus_async.journal.root import Root, explained
from octopus_async.journal.scan import UNREADABLE
from octopus_async.journal.segments import GONE, Damage, segment_name

_PIECE = 16 * 1024 * 1024


@dataclass
class Adopted:
    """A folder that was taken over.

    Attributes:
        path: where it is or was.
        folder: the folder, locked; None if nothing in it was needed any more, and it is gone.
        entries: how many are pending in it.
        newest: the latest moment in a version, milliseconds since 1970.
        damage: what was wrong with it.
        failure: why it could not be recorded that it was taken over, if it could not.
    """

    path: Path
    folder: Folder | None
    entries: int
    newest: int
    damage: list[JournalDamaged] = field(default_factory=list)
    failure: JournalError | None = None


def adopt(root: Root, name: str, lock: int, own: Folder, mark: MarkFile, overlay: Overlay) -> Adopted:  # noqa: PLR0913 - whose folder, and into what
    """Read a dead writer's folder, which the caller has locked; the lock goes with it.

    Parameters:
        root: the shared folder.
        name: the dead writer's folder.
        lock: the descriptor of its lock.
        own: this process's own folder.
        mark: the low-water mark in it, which takes over that of the dead writer.
        overlay: takes what is pending; to be swept afterwards.

    Raises:
        JournalCorrupt: it has another format. Nothing was changed.
        JournalError: it cannot be read.
    """
    folder = Folder(root, name, lock, own.name)
    try:
        with explained(f"take over the journal {folder.path}"):
            mark.carry(name)
            return _adopt(root, folder, overlay)
    except BaseException:
        folder.close()
        raise


def _adopt(root: Root, folder: Folder, overlay: Overlay) -> Adopted:
    before = overlay.pending
    contents = Contents(root.disk, folder.path, overlay)
    contents.read()
    folder.take_over(contents.segments, contents.letters, contents.number, contents.durable)
    adopted = Adopted(folder.path, folder, overlay.pending - before, contents.newest)
    adopted.damage = [_put_aside(root, folder, damage) for damage in contents.damage]
    for name in contents.garbage:
        if name == GONE:  # it comes last, and must outlive those that it makes garbage
            root.disk.sync_folder(folder.path)
        root.disk.unlink(folder.path / name)
    if is_drained(folder, overlay):
        folder.remove()
        adopted.folder = None
        return adopted
    try:
        # The header of the new file names the adopter.
        folder.append([], checkpoint_of(folder, overlay) or keep_all(folder.segments))
    except JournalError as error:
        adopted.failure = error
    return adopted


def _put_aside(root: Root, folder: Folder, damage: Damage) -> JournalDamaged:
    """Copy damaged bytes to quarantine, and cut them off if nothing follows them."""
    path = folder.path / segment_name(damage.segment)
    said = damage.problem
    if damage.length:
        # What could not be read may be intact: another opening may succeed, so it is not cut off.
        copy = None if UNREADABLE in said else _copy(root, folder, path, damage)
        said += f"; a copy is {copy}" if copy else "; there was no copying it, so its file is kept as it is"
        for segment in folder.segments:
            segment.spared |= segment.number == damage.segment and copy is None
    return JournalDamaged(str(path), damage.offset, damage.length, said)


def _copy(root: Root, folder: Folder, path: Path, damage: Damage) -> Path | None:
    copies: list[Path | None] = []
    try:
        file = root.disk.open(path)
        try:
            for offset in range(damage.offset, damage.offset + damage.length, _PIECE):
                length = min(_PIECE, damage.offset + damage.length - offset)
                data = root.disk.read(file, offset, length)
                copies.append(root.quarantine(f"{folder.name}.{damage.segment:06d}", offset, data))
            if damage.tail and all(copies):
                root.disk.truncate(file, damage.offset)
                root.disk.sync(file)
        finally:
            root.disk.close(file)
    except OSError:
        return None
    return copies[0] if all(copies) else None
