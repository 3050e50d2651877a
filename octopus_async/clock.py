"""The hybrid logical clock that issues versions (Kulkarni and others, 2014).

A version is 128 bits as 26 characters of Crockford's base 32, which sort as the bits do:
48 bits of milliseconds since 1970, 16 of a counter, 64 of the writer's id.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable

from octopus_async.errors import WriteUnavailable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DIGIT = {character: value for value, character in enumerate(_ALPHABET)}
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_COUNTER_LIMIT = 1 << 16
_LAST_MILLISECOND = (1 << 48) - 1
_LAST_WRITER = (1 << 64) - 1
_LAST = (1 << 128) - 1
VERSION_PATTERN = r"[0-7][0-9A-HJKMNP-TV-Z]{25}"
"""What every version looks like, for those who look for one within other text."""
_SHAPE = re.compile(VERSION_PATTERN + r"\Z")
VERSION_LENGTH = 26


def encode_version(milliseconds: int, counter: int, writer: int) -> str:
    """Write the three parts of a version as its 26 characters."""
    number = (milliseconds << 80) | (counter << 64) | writer
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def decode_version(version: str) -> tuple[int, int, int]:
    """Read a version's milliseconds, counter and writer. Raises ValueError for anything else."""
    if not is_version(version):
        msg = f"not a version: {str(version)[:40]!r}"
        raise ValueError(msg)
    number = 0
    for character in version:
        number = number << 5 | _DIGIT[character]
    return number >> 80, number >> 64 & 0xFFFF, number & _LAST_WRITER


def is_version(text: object) -> bool:
    """Whether ``text`` has the form of a version."""
    return isinstance(text, str) and _SHAPE.match(text) is not None


def version_at(milliseconds: int) -> str:
    """The smallest version of that moment: a bound for comparisons."""
    return encode_version(milliseconds, 0, 0)


def writer_of(version: str) -> int:
    """The id of the clock that issued a version. Raises ValueError for anything else."""
    return decode_version(version)[2]


def version_after(version: str) -> str:
    """The next possible version: a floor that keeps out ``version`` itself, and nothing that is newer."""
    milliseconds, counter, writer = decode_version(version)
    number = min((milliseconds << 80) + (counter << 64) + writer + 1, _LAST)
    return encode_version(number >> 80, number >> 64 & 0xFFFF, number & _LAST_WRITER)


def version_before(version: str) -> str:
    """The last possible version before: a floor that keeps out whatever is older than ``version``."""
    milliseconds, counter, writer = decode_version(version)
    number = max((milliseconds << 80) + (counter << 64) + writer - 1, 0)
    return encode_version(number >> 80, number >> 64 & 0xFFFF, number & _LAST_WRITER)


class Clock:
    """Issues versions greater than all that this clock has issued or seen.

    Parameters:
        wall: seconds since 1970; injected, so that a test can set it back.
        writer: this writer's id, 64 bits; random where it is not given.
    """

    def __init__(self, wall: Callable[[], float] = time.time, *, writer: int | None = None) -> None:
        self._wall = wall
        self._milliseconds = 0
        self._counter = 0
        self._seen = ""
        self.writer = secrets.randbits(64) if writer is None else writer
        # Ten bits of alphabet at a time leave 64 bits of writer split at bit 60: the low 60 bits
        # are the last 12 characters of every version this clock issues.
        self._tail = encode_version(0, 0, self.writer)[-12:]
        self._writer_high = self.writer >> 60

    @property
    def milliseconds(self) -> int:
        """The clock's own time: never behind a version that it issued or saw."""
        return self._milliseconds

    def wall(self) -> float:
        """Seconds since 1970, as the machine says."""
        return self._wall()

    def next(self) -> str:
        """Issue a version.

        Raises:
            WriteUnavailable: none is left after what was seen, which only damage can bring about.
        """
        now = int(self._wall() * 1000)
        if now > self._milliseconds:
            self._milliseconds, self._counter = now, 0
        elif self._counter + 1 < _COUNTER_LIMIT:
            self._counter += 1
        elif self._milliseconds >= _LAST_MILLISECOND:
            msg = "no version is left: a backend or the journal gave the last there is, from a damaged record"
            raise WriteUnavailable(msg)
        else:
            self._milliseconds, self._counter = self._milliseconds + 1, 0
        head = (self._milliseconds << 20) | (self._counter << 4) | self._writer_high
        pairs = _PAIRS
        return (
            pairs[head >> 60]
            + pairs[head >> 50 & 1023]
            + pairs[head >> 40 & 1023]
            + pairs[head >> 30 & 1023]
            + pairs[head >> 20 & 1023]
            + pairs[head >> 10 & 1023]
            + pairs[head & 1023]
            + self._tail
        )

    def observe(self, version: str) -> float:
        """Move past a version that was seen somewhere.

        Returns:
            By how many seconds it is ahead of this machine's clock; negative if it is behind.
        """
        milliseconds, counter, _ = decode_version(version)
        self._milliseconds, self._counter = max((self._milliseconds, self._counter), (milliseconds, counter))
        return milliseconds / 1000 - self._wall()

    def see(self, version: str) -> None:
        """Move past a version that a backend gave, where it is one; the way of most is short."""
        if version > self._seen and is_version(version):
            self._seen = version
            self.observe(version)

    def start_above(self, milliseconds: int) -> None:
        """Issue nothing at or below that moment: the durable ceiling of an earlier run."""
        if milliseconds >= self._milliseconds:
            self._milliseconds, self._counter = milliseconds, _COUNTER_LIMIT - 1
