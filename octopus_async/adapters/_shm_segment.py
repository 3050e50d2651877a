"""Values in a file of a memory file system, which the processes of a host share: an index and rings of bytes.

The file has parts, each with a lock of its own. A part has an index of buckets, eight entries each, and
a ring in which values are written one behind the other, over the oldest ones. Whatever is in the file is
taken for hostile: a bucket has a checksum, a value has its own and its full key, and what does not fit
is not there. Nothing is mapped into memory, so a file that somebody cuts short ends no process.

Readers take no lock. A writer publishes a value by one write of its bucket, after the value stands in
the ring: killed before that it has changed nothing, and its lock ends with it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

from octopus_async.record import Key

PARTS = 16
LEAST_BYTES = 1024**2
_BUCKET_SIZE = 256
_ENTRIES = 8
_FIRST = 8
_ENTRY = struct.Struct("<8sQId")  # tag, position, length, moment of expiry
_COUNT = struct.Struct("<Q")
_SUM = struct.Struct("<I")
_BLANK = bytes(_BUCKET_SIZE)
_INDEX_SHARE = 8
_RING_SHARE = 2
_MOST = 1 << 63
_TRIES = 4
_LOCK = struct.Struct("hhqqi4x")  # struct flock of Linux


class Lease(NamedTuple):
    """What a key's place held at one moment: nobody has written it since if it holds the same.

    Attributes:
        evictions: how many entries its bucket has lost to others.
        position: where the key's value began; 0 where there was none.
    """

    evictions: int
    position: int


NOWHERE = Lease(-1, -1)
"""A lease that never holds."""


class Place(NamedTuple):
    """Where a key belongs: its part, the offset of its bucket, and its tag there."""

    part: int
    bucket: int
    tag: bytes


class Found(NamedTuple):
    """What a place holds: a value, or None; and the lease of who has seen it."""

    value: bytes | None
    lease: Lease


class Segment:
    """The file, by its descriptor, which stays its owner's.

    Parameters:
        descriptor: of the file, open for reading and writing.
        size: of the file, in bytes.
        ttl: seconds that a value lives.
    """

    def __init__(self, descriptor: int, size: int, ttl: float) -> None:
        self._file = descriptor
        self._ttl = ttl
        self._part_size = size // PARTS // _BUCKET_SIZE * _BUCKET_SIZE
        self._buckets = self._part_size // _INDEX_SHARE // _BUCKET_SIZE
        self._ring_start = (1 + self._buckets) * _BUCKET_SIZE
        self._ring_size = self._part_size - self._ring_start
        self.longest = self._ring_size // _RING_SHARE

    def place_of(self, key: Key) -> Place:
        """Where ``key`` belongs."""
        digest = blake2b(f"{key.model}\0{key.id}".encode(), digest_size=16).digest()
        number = int.from_bytes(digest[:8], "little")
        part, bucket = number % PARTS, number // PARTS % self._buckets
        return Place(part, part * self._part_size + (1 + bucket) * _BUCKET_SIZE, digest[8:])

    def try_lock(self, part: int) -> bool:
        """Take the lock of a part, against all other descriptors of the file; False where it is taken."""
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, part, 1, 0))
        except BlockingIOError:
            return False
        return True

    def unlock(self, part: int) -> None:
        """Give the lock of a part back."""
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, part, 1, 0))

    def find(self, place: Place) -> Found:
        """What stands at ``place``. Takes no lock."""
        bucket = self._read_bucket(place.bucket)
        if bucket is None:
            return Found(None, NOWHERE)
        (evictions,) = _COUNT.unpack_from(bucket)
        at = _find_entry(bucket, place.tag)
        if at is None:
            return Found(None, Lease(evictions, 0))
        _, position, length, expires = _ENTRY.unpack_from(bucket, at)
        lease = Lease(evictions, position)
        if not time.monotonic() < expires or length > self.longest:
            return Found(None, lease)
        start = place.part * self._part_size + self._ring_start + position % self._ring_size
        return Found(os.pread(self._file, length, start), lease)

    def store(self, place: Place, value: bytes) -> None:
        """Put a value, not longer than `longest`, at ``place``. The caller holds the lock of its part."""
        position = self._append(place.part, value)
        bucket = bytearray(self._read_bucket(place.bucket) or _fresh())
        at = _find_entry(bucket, place.tag)
        if at is None:
            at, evicts = _find_room(bucket)
            _COUNT.pack_into(bucket, 0, (_COUNT.unpack_from(bucket)[0] + evicts) % _MOST)
        _ENTRY.pack_into(bucket, at, place.tag, position, len(value), time.monotonic() + self._ttl)
        _seal(bucket)
        os.pwrite(self._file, bucket, place.bucket)

    def _append(self, part: int, value: bytes) -> int:
        """Write a value into the part's ring; gives its position, which counts on from turn to turn."""
        header = part * self._part_size
        head = self._read_bucket(header)
        position = 0 if head is None else _COUNT.unpack_from(head)[0]
        if not 0 < position < _MOST:
            # Nanoseconds since the start of the host are above any number of bytes written since.
            position = time.monotonic_ns()
        left = self._ring_size - position % self._ring_size
        if left < len(value):
            position += left
        os.pwrite(self._file, value, header + self._ring_start + position % self._ring_size)
        after = bytearray(_BUCKET_SIZE)
        _COUNT.pack_into(after, 0, position + len(value))
        _seal(after)
        os.pwrite(self._file, after, header)
        return position

    def _read_bucket(self, offset: int) -> bytes | None:
        """A bucket as it was written; None if it is damaged, and not just being written."""
        for _ in range(_TRIES):
            bucket = os.pread(self._file, _BUCKET_SIZE, offset)
            if bucket == _BLANK:
                return bucket
            if len(bucket) == _BUCKET_SIZE and _SUM.unpack(bucket[-4:])[0] == crc32(bucket[:-4]):
                return bucket
        return None


def _seal(bucket: bytearray) -> None:
    bucket[-4:] = _SUM.pack(crc32(bucket[:-4]))


def _fresh() -> bytes:
    """A bucket in place of a damaged one: no lease that was given before holds."""
    return _COUNT.pack(time.monotonic_ns()) + bytes(_BUCKET_SIZE - _COUNT.size)


def _find_entry(bucket: bytes | bytearray, tag: bytes) -> int | None:
    at = bucket.find(tag, _FIRST)
    while at >= 0:
        place, odd = divmod(at - _FIRST, _ENTRY.size)
        if not odd:
            return at if place < _ENTRIES else None
        at = bucket.find(tag, at + 1)
    return None


def _find_room(bucket: bytearray) -> tuple[int, bool]:
    """Where an entry may go, and whether another has to make way: the one that expires first."""
    entries = [
        (expires if length else 0.0, _FIRST + place * _ENTRY.size)
        for place, (_, _, length, expires) in enumerate(
            _ENTRY.iter_unpack(bucket[_FIRST : _FIRST + _ENTRIES * _ENTRY.size])
        )
    ]
    expires, at = min(entries)
    return at, expires > 0.0
