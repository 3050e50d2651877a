"""memcached's replies, parsed strictly: whatever is not the one expected is an error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from aiomcache import ClientException, constants

STORED = constants.STORED
SERVER_ERROR = b"SERVER_ERROR "
TOO_LARGE = SERVER_ERROR + b"object too large for cache"
CHUNK = 256 * 1024
_STORE_REPLIES = {constants.STORED, constants.NOT_STORED, constants.EXISTS, constants.NOT_FOUND}
_LINE_LIMIT = 2048
_VALUE_TERMS = 5


class Item(NamedTuple):
    """A stored value and the token that a compare-and-swap needs; no data if it was too long."""

    data: bytes
    token: bytes


class Replies:
    """Reads lines and blocks out of a connection in large pieces."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._data = b""
        self._at = 0

    async def store(self) -> bytes:
        """The reply to a command that stores."""
        line = await self._line()
        if line in _STORE_REPLIES or line.startswith(SERVER_ERROR):
            return line
        raise ClientException("unexpected reply", line[:80])

    async def version(self) -> None:
        """The reply to ``version``."""
        line = await self._line()
        if not line.startswith(constants.VERSION + b" "):
            raise ClientException("unexpected reply", line[:80])

    async def items(self, keys: Sequence[bytes], found: dict[bytes, Item], limit: int) -> None:
        """The reply to ``gets``; values above ``limit`` bytes are read past."""
        expected = set(keys)
        while (line := self._line_at_hand() or await self._line()) != b"END":
            terms = line.split(b" ")
            if len(terms) != _VALUE_TERMS or terms[0] != b"VALUE" or terms[1] not in expected:
                raise ClientException("unexpected reply", line[:80])
            _, key, _, length, token = terms
            if not length.isdigit() or not token.isdigit():
                raise ClientException("malformed reply", line[:80])
            expected.remove(key)
            data = self._block_at_hand(int(length), limit)
            found[key] = Item(await self._block(int(length), limit) if data is None else data, token)

    def finish(self) -> None:
        """Make sure that nothing follows."""
        if self._at != len(self._data):
            raise ClientException("bytes after the last reply")

    # A batch's reply arrives in a few large pieces: most of it is at hand, and needs no awaiting.

    def _line_at_hand(self) -> bytes | None:
        at = self._at
        end = self._data.find(b"\r\n", at)
        if end < 0:
            return None
        self._at = end + 2
        return self._data[at:end]

    def _block_at_hand(self, length: int, limit: int) -> bytes | None:
        at = self._at
        end = at + length
        if length > limit or self._data[end : end + 2] != b"\r\n":
            return None
        self._at = end + 2
        return self._data[at:end]

    async def _line(self) -> bytes:
        while (line := self._line_at_hand()) is None:
            if len(self._data) - self._at > _LINE_LIMIT:
                raise ClientException("a reply without an end")
            await self._more()
        return line

    async def _block(self, length: int, limit: int) -> bytes:
        data = await self._take(length) if length <= limit else await self._skip(length)
        if await self._take(2) != b"\r\n":
            raise ClientException("a value without an end")
        return data

    async def _take(self, length: int) -> bytes:
        while len(self._data) - self._at < length:
            await self._more()
        data = self._data[self._at : self._at + length]
        self._at += length
        return data

    async def _skip(self, length: int) -> bytes:
        while (rest := len(self._data) - self._at) < length:
            length -= rest
            self._at = len(self._data)
            await self._more()
        self._at += length
        return b""

    async def _more(self) -> None:
        data = await self._reader.read(CHUNK)
        if not data:
            raise EOFError("the connection was closed")
        self._data = self._data[self._at :] + data
        self._at = 0
