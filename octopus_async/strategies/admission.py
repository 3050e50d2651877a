"""How many writes may be under way at the same time: what is more is refused at once, not queued."""

from __future__ import annotations

from octopus_async.errors import WriteUnavailable
from octopus_async.strategies.writer import Draft

_MOST_BYTES = 256 * 1024 * 1024


class Admission:
    """Bounds the memory of writes that wait: for a backend that hangs, or for each other.

    Parameters:
        most: how many writes may be under way.
        most_bytes: how many bytes of records they may hold, one beyond it.
    """

    def __init__(self, most: int, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0

    def enter(self, draft: Draft, under_way: int) -> None:
        """Begin a write beside those under way. Raises `WriteUnavailable`: nothing was sent."""
        if under_way >= self._most:
            raise _refusal(draft, f"{under_way:,} writes are under way, and max_writes is {self._most:,}")
        if self._bytes >= self._most_bytes:
            raise _refusal(draft, f"{self._bytes:,} bytes are being written already")
        self._bytes += _size(draft)

    def leave(self, draft: Draft) -> None:
        """That write has ended."""
        self._bytes -= _size(draft)


def _size(draft: Draft) -> int:
    return len(draft.payload or b"")


def _refusal(draft: Draft, reason: str) -> WriteUnavailable:
    return WriteUnavailable(
        f"the write of {draft.key} was not taken: {reason}. Nothing was written. Write less at a time,"
        " or find out what the writes wait for: `octopus status` shows the backends"
    )
