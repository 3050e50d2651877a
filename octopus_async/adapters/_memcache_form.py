"""How a cache's keys and values are written in memcached."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

from octopus_async.adapters._memcache_replies import Item
from octopus_async.cachevalue import Cell, decode_cell, encode_cell
from octopus_async.record import Key

_LONGEST_RELATIVE_EXPIRY = 30 * 24 * 3600
_LONGEST_KEY = 250
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[!-~]+")


@dataclass(frozen=True, slots=True)
class Form:
    """How a cache's keys and values are written, on whichever server.

    Attributes:
        prefix: starts every key.
        ttl: seconds that a value lives.
        item_limit: the longest key and value together, in bytes.
        wall: seconds since 1970.
        fingerprints: of the schemas, by the names of their models.
    """

    prefix: str
    ttl: float
    item_limit: int
    wall: Callable[[], float] = time.time
    fingerprints: dict[str, str] = field(default_factory=dict)

    def wire_key(self, key: Key) -> bytes:
        """The key as memcached sees it: hashed unless it is short, printable ASCII."""
        text = f"{key.model}:{key.id}"
        plain = _PLAIN.fullmatch(text) is not None and ":" not in key.model
        if not plain or len(self.prefix) + len(text) > _LONGEST_KEY:
            digest = blake2b(key.model.encode(), digest_size=16).digest()
            text = "#" + blake2b(key.id.encode(), key=digest, digest_size=32).hexdigest()
        return (self.prefix + text).encode()

    def encode(self, key: Key, cell: Cell) -> bytes:
        """The cell as bytes."""
        return encode_cell(cell, key, self.fingerprints.get(key.model, ""))

    def decode(self, key: Key, item: Item) -> Cell:
        """The bytes as a cell: an empty marker if they are foreign."""
        return decode_cell(item.data, key, self.fingerprints.get(key.model, ""))

    def fits(self, wire: bytes, value: bytes) -> bool:
        """Whether a server takes it; a refused value could cost the old one."""
        return len(wire) + len(value) <= self.item_limit

    def store(self, verb: bytes, wire: bytes, value: bytes, life: float, token: bytes = b"") -> bytes:
        """A command that stores ``value`` for ``life`` seconds."""
        expiry = math.ceil(life if life <= _LONGEST_RELATIVE_EXPIRY else self.wall() + life)
        tail = b" " + token if token else b""
        return b"%b %b 0 %d %d%b\r\n%b\r\n" % (verb, wire, expiry, len(value), tail, value)
