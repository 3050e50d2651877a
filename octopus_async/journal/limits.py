"""When a journal takes no more. Nothing that it holds is ever dropped for it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from octopus_async.errors import JournalFull
from octopus_async.journal.overlay import Overlay

_LOOK_EVERY = 1.0


class Limits:
    """The caps on a journal's bytes, and on the age of what waits in it.

    Parameters:
        path: the journal's folder, for messages.
        max_bytes: most bytes of the files that this process holds.
        max_age: seconds that an entry may wait.
        wall: seconds since 1970.
    """

    def __init__(self, path: Path, max_bytes: int, max_age: float, wall: Callable[[], float]) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._wall = wall
        self._looked = -math.inf
        self._oldest = math.inf
        self._target = ""

    def admit(self, size: int, overlay: Overlay) -> None:
        """Raise JournalFull if nothing more is to be taken; ``size`` is the bytes of all files."""
        if size >= self._max_bytes:
            raise JournalFull(
                f"the journal {self._path} has {size} bytes, and max_bytes is {self._max_bytes}: nothing was"
                " dropped. Bring back the backends that it waits for, or raise max_bytes"
            )
        now = self._wall()
        if not self._looked <= now < self._looked + _LOOK_EVERY:
            self._looked = now
            self._oldest, self._target = overlay.oldest_of() or (math.inf, "")
        if now - self._oldest > self._max_age:
            raise JournalFull(
                f"an entry of the journal {self._path} has waited {now - self._oldest:.0f} seconds for"
                f" {self._target}, and max_age is {self._max_age:.0f}: nothing was dropped. Bring back"
                f" {self._target}, or raise max_age"
            )
