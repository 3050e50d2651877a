"""Which keys were settled so lately that the disk does not know of it yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


class Unnoted:
    """Keys whose entries a crash would make pending again."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, bytes], asyncio.Future[None]] = {}

    def add(self, target: str, keys: Sequence[bytes], durable: asyncio.Future[None]) -> None:
        """``target`` owes nothing of ``keys``; ``durable`` is done when that is on the disk."""
        named = [(target, key) for key in keys]
        self._keys.update(dict.fromkeys(named, durable))
        durable.add_done_callback(lambda _: self._forget(named, durable))

    def find(self, target: str, key: bytes) -> asyncio.Future[None] | None:
        """What to wait for, or None if the disk knows."""
        return self._keys.get((target, key))

    def _forget(self, named: Sequence[tuple[str, bytes]], durable: asyncio.Future[None]) -> None:
        for name in named:
            if self._keys.get(name) is durable:
                del self._keys[name]
