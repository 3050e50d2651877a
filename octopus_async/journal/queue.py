"""Keys in the order in which they came to be owed. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

_CHUNK = 1024


class KeyQueue:
    """A queue that may hold millions of keys, in tuples: the garbage collector does not look into those."""

    __slots__ = ("_back", "_chunks", "_front")

    def __init__(self) -> None:
        self._front: list[bytes] = []  # the next one last
        self._chunks: deque[tuple[bytes, ...]] = deque()
        self._back: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._front or self._chunks or self._back)

    def put(self, key: bytes) -> None:
        """Add at the end."""
        self._back.append(key)
        if len(self._back) == _CHUNK:
            self._chunks.append(tuple(self._back))
            self._back.clear()

    def put_all(self, keys: Sequence[bytes]) -> None:
        """Add many at the end."""
        self._back += keys
        whole = len(self._back) - len(self._back) % _CHUNK
        self._chunks.extend(tuple(self._back[place : place + _CHUNK]) for place in range(0, whole, _CHUNK))
        del self._back[:whole]

    def take(self) -> bytes:
        """Remove the first one; there must be one."""
        if not self._front:
            if not self._chunks:
                self._chunks.append(tuple(self._back))
                self._back.clear()
            self._front = list(reversed(self._chunks.popleft()))
        return self._front.pop()

    def take_over(self, other: KeyQueue, least: int) -> None:
        """Move the first keys of another queue to the beginning of this one: ``least``, or a few more."""
        moved: list[tuple[bytes, ...]] = []
        while other and least > 0:
            if other._front:
                chunk, other._front = tuple(reversed(other._front)), []
            elif other._chunks:
                chunk = other._chunks.popleft()
            else:
                chunk, other._back = tuple(other._back), []
            moved.append(chunk)
            least -= len(chunk)
        if self._front:
            self._chunks.appendleft(tuple(reversed(self._front)))
            self._front = []
        self._chunks.extendleft(reversed(moved))

    def put_back(self, keys: Sequence[bytes]) -> None:
        """Add at the beginning, the first of ``keys`` first."""
        self._front.extend(reversed(keys))
