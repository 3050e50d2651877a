"""How a cache's keys and values are written in Redis, and the scripts that write them conditionally.

A value is a string: one letter for its kind (record, tombstone, marker), the version, twice the born,
and the cell as `octopus_async.cachevalue` writes it. What stands before the cell has a fixed place, so that
the scripts find it without reading the rest; a marker has a random text in place of each born, so that
no two are alike. `redis-cli --raw GETRANGE octopus:Book:7 0 78` shows it.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import NamedTuple

from octopus_async.cachevalue import EMPTY, Cell, decode_cell, encode_cell
from octopus_async.clock import VERSION_LENGTH, is_version
from octopus_async.record import NO_VERSION, Key

LEASE_LIFE = 10.0
_RECORD, _TOMBSTONE = b"rt"
_PREFIX = 1 + 3 * VERSION_LENGTH


class Script(NamedTuple):
    """A script of the server: its text, and the digest by which it is called."""

    text: str
    digest: str


def _script(text: str) -> Script:
    return Script(text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324 - the name that Redis gives it


# Lua compares texts as the server's locale says, and versions are compared as bytes.
STORE = _script("""
local what, version, born, value, life = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local function below(one, other)
  for place = 1, #one do
    local a, b = one:byte(place), other:byte(place)
    if a ~= b then return a < b end
  end
  return false
end

local head = redis.pcall('GETRANGE', KEYS[1], 0, 78)
local kind, stored, stored_born
if type(head) == 'string' and #head == 79 and head:find('^[rtm][0-9A-Z ]+$') then
  kind, stored, stored_born = head:sub(1, 1), head:sub(2, 27), head:sub(28, 53)
end
if what == 'retract' then
  if kind and kind ~= 'm' and stored == version then redis.call('SET', KEYS[1], value, 'PX', life) end
  return ''
end
if kind then
  if below(version, stored) then return stored end
  if what == 'write' and kind ~= 'm' and stored == version then return '' end
  if what == 'write' and kind == 'r' and below(born, stored_born) then born = stored_born end
end
if value:sub(1, 1) ~= 'm' then value = value:sub(1, 27) .. born .. born .. value:sub(80) end
redis.call('SET', KEYS[1], value, 'PX', life)
return ''
""")
"""Do an operation as `cachevalue.settle` says: ARGV is what to do, version, born, value, milliseconds.

It gives the stored version where that is newer, else an empty text.
"""

LEASE = _script("""
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'string' then return value end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
""")
"""Give what is stored; where that is nothing, store a marker and give it. ARGV: marker, milliseconds."""

FILL = _script("""
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'string' and redis.sha1hex(value) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return ''
""")
"""Store a value in place of the one with that digest. ARGV: digest, value, milliseconds."""


SCRIPTS = {script.digest: script.text for script in (STORE, LEASE, FILL)}


class Lease(NamedTuple):
    """What a miss hands out: the digest of what the record may replace, and the least version it may have."""

    digest: str
    floor: str


@dataclass(frozen=True, slots=True)
class Form:
    """How a cache's keys and values are written, on whichever server.

    Attributes:
        prefix: starts every key.
        ttl: seconds that a value lives.
        item_limit: the longest value, in bytes.
        fingerprints: of the schemas, by the names of their models.
    """

    prefix: str
    ttl: float
    item_limit: int
    fingerprints: dict[str, str] = field(default_factory=dict)

    @property
    def life(self) -> int:
        """Milliseconds that a value lives."""
        return max(1, int(self.ttl * 1000))

    @property
    def lease_life(self) -> int:
        """Milliseconds that a place for a lease lives."""
        return max(1, int(min(self.ttl, LEASE_LIFE) * 1000))

    def wire_key(self, key: Key) -> bytes:
        """The key as Redis sees it."""
        model = key.model.replace("%", "%25").replace(":", "%3A")  # model and id are never run together
        return f"{self.prefix}{model}:{key.id}".encode()

    def encode(self, key: Key, cell: Cell) -> bytes:
        """The cell as bytes; as a marker with its version if it is too long."""
        value = self._encode(key, cell)
        return value if len(value) <= self.item_limit else self._encode(key, Cell(cell.version, marker=True))

    def _encode(self, key: Key, cell: Cell) -> bytes:
        kind = "m" if cell.marker else "t" if cell.payload is None else "r"
        born = secrets.token_hex(13).upper() if cell.marker else padded(cell.born)
        # The script has the last word on the born: the one in the cell, under its checksum, is not read.
        body = encode_cell(cell._replace(born=cell.version), key, self.fingerprints.get(key.model, ""))
        return f"{kind}{padded(cell.version)}{born}{born}".encode() + body

    def decode(self, key: Key, value: bytes) -> Cell:
        """The bytes as a cell: an empty marker if they are foreign."""
        cell = decode_cell(value[_PREFIX:], key, self.fingerprints.get(key.model, ""))
        version, born, again = (
            value[start : start + VERSION_LENGTH].decode("ascii", "replace").rstrip(" ")
            for start in range(1, _PREFIX, VERSION_LENGTH)
        )
        if version != cell.version or born != again:
            return EMPTY
        if cell.marker:
            return cell
        as_expected = _RECORD if cell.payload is not None else _TOMBSTONE
        if value[0] != as_expected or not (born == NO_VERSION or is_version(born)):
            return EMPTY
        return cell._replace(born=born)


def lease_on(value: bytes, cell: Cell) -> Lease:
    """The right to replace a value, which reads as ``cell``."""
    return Lease(hashlib.sha1(value).hexdigest(), cell.version)  # noqa: S324 - the only digest that scripts have


def padded(version: str) -> str:
    """A version as long as any other: what has none sorts before all."""
    return version.ljust(VERSION_LENGTH)
