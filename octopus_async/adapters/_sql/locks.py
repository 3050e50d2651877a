"""Which lock each key has. There is a fixed number of them, so that they need no room of their own."""

from __future__ import annotations

from zlib import crc32

from octopus_async.record import Key

LOCKS = 4096
"""The more, the seldomer two keys share one."""


def number_of(key: Key) -> int:
    """The number of a key's lock."""
    return crc32(repr(tuple(key)).encode()) % LOCKS


def name_of(key: Key) -> str:
    """The id of a key's lock where that is a row of the side table."""
    return row_name(number_of(key))


def row_name(number: int) -> str:
    """The id of a lock's row in the side table."""
    return f"lock {number}"
