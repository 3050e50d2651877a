"""Says which of a folder's files are still needed, and what of them is owed."""

from __future__ import annotations

from octopus_async.journal.folder import Checkpoint, Folder
from octopus_async.journal.overlay import Overlay
from octopus_async.journal.segments import Segment

_MOST_RANGES = 200_000


def is_needed(segment: Segment, overlay: Overlay) -> bool:
    """Whether something in it is pending, or damaged without a copy; dead letters can be carried over."""
    return segment.spared or overlay.any_in(segment.first, segment.last)


def is_drained(folder: Folder, overlay: Overlay) -> bool:
    """Whether nothing in the folder is needed any more."""
    return not folder.letters and not any(is_needed(segment, overlay) for segment in folder.segments)


def reclaimable(folder: Folder, overlay: Overlay) -> int:
    """How many bytes a checkpoint would free."""
    return sum(segment.size for segment in folder.sealed if not is_needed(segment, overlay))


def checkpoint_of(folder: Folder, overlay: Overlay) -> Checkpoint | None:
    """What a new file has to say, so that the files that are not needed can go; None if that is too much.

    What is done with is noted in later files than the entry itself. So for each file that stays
    behind one that goes, the checkpoint repeats what is owed of it.
    """
    needed = [segment for segment in folder.segments if is_needed(segment, overlay)]
    kept = {segment.number for segment in needed}
    gone = {segment.number for segment in folder.segments} - kept
    last = max(gone, default=0)
    keeps = {
        segment.number: overlay.owed_in(segment.first, segment.last)
        if segment.number < last and not segment.spared
        else None
        for segment in needed
    }
    if sum(len(ranges) for owed in keeps.values() if owed for ranges in owed.values()) > _MOST_RANGES:
        return None
    carried = tuple(letter for letter in folder.letters if letter.segment in gone)
    return Checkpoint(dict(keeps), sorted({letter.entry for letter in folder.letters}), carried)
