"""The pending operations of a key that is written again and again. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

from octopus_async.journal.item import Blob, sequence_of, version_of
from octopus_async.journal.traits import TRAITS


class HotKey:
    """More than a few operations of one key, in the order of their versions.

    What is found at their end, taken from their beginning, or not there at all for a target must
    not cost a walk through all of them: there may be hundreds of thousands.

    Parameters:
        blobs: the operations, in order.
        shared_of: gives the index of an entry's traits by its number; 0 for what is done with.
    """

    __slots__ = ("_first", "_shared_of", "blobs", "owed")

    def __init__(self, blobs: list[Blob], shared_of: Callable[[int], int]) -> None:
        self.blobs = blobs
        self.owed: dict[str, int] = {}
        self._shared_of = shared_of
        # Before these places there is nothing that the target owes.
        self._first: dict[str, int] = {}
        for blob in blobs:
            self._count(TRAITS[shared_of(sequence_of(blob))].targets)

    def insert(self, blob: Blob, targets: Iterable[str]) -> None:
        """Add one, in its place."""
        if version_of(self.blobs[-1]) <= version_of(blob):
            self.blobs.append(blob)
        else:
            place = bisect_right(self.blobs, version_of(blob), key=version_of)
            self.blobs.insert(place, blob)
            self._first = {target: min(first, place) for target, first in self._first.items()}
        self._count(targets)

    def owed_by(self, target: str) -> Iterator[Blob]:
        """What ``target`` has not applied yet, in order."""
        if self.owed.get(target):
            found = False
            for place in range(self._first.get(target, 0), len(self.blobs)):
                blob = self.blobs[place]
                if target in TRAITS[self._shared_of(sequence_of(blob))].targets:
                    if not found:
                        found, self._first[target] = True, place
                    yield blob

    def last_owed_by(self, target: str) -> Blob | None:
        """The last of them."""
        if not self.owed.get(target):
            return None
        for blob in reversed(self.blobs):
            if target in TRAITS[self._shared_of(sequence_of(blob))].targets:
                return blob
        return None

    def finished(self, target: str, count: int) -> None:
        """``target`` owes so many fewer; forget what is done with at the beginning."""
        self.owed[target] -= count
        done = 0
        while done < len(self.blobs) and not self._shared_of(sequence_of(self.blobs[done])):
            done += 1
        del self.blobs[:done]
        self._first = {target: max(0, first - done) for target, first in self._first.items()}

    def _count(self, targets: Iterable[str]) -> None:
        for target in targets:
            self.owed[target] = self.owed.get(target, 0) + 1
