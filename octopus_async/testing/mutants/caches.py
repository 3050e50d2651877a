"""Mutations of the way of a read, and of what caches are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import octopus_async.adapters.memory
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.cachevalue import EMPTY, Cell, cell_of
from octopus_async.record import Key, Kind, Miss, Operation, Outcome, Record
from octopus_async.strategies.debts import CacheDebts
from octopus_async.strategies.reader import Reader
from octopus_async.testing.simulation import cacheserver

# A mutation reaches into what is private: that is where bugs are.
# ruff: noqa: SLF001
# mypy: disable-error-code="method-assign,assignment"


def cached_tombstone_forgotten() -> None:
    """A delete leaves nothing in a cache: no floor for what is older."""
    original = octopus_async.cachevalue.settle

    def settle(operation: Operation, cell: Cell | None) -> tuple[Outcome, Cell | None]:
        outcome, after = original(operation, cell)
        return outcome, EMPTY if operation.kind is Kind.DELETE and after is not cell else after

    octopus_async.adapters.memory.settle = settle  # type: ignore[attr-defined]
    cacheserver.settle = settle  # type: ignore[attr-defined]


def lease_ignored() -> None:
    """A reader fills whatever it has found, whether or not its lease still holds."""

    def fill(self: MemoryAdapter, record: Record, lease: Miss) -> None:
        del lease
        cell = cell_of(record)
        if cell is not None:
            self._store(record.key, cell, self._now() + self._ttl)

    MemoryAdapter.fill_now = fill


def overlay_not_read() -> None:
    """Reads do not look at what waits in the journal."""
    original = Reader.find

    async def find(self: Reader, plan: Any, key: Key, deadline: float) -> Record | None:  # noqa: ANN401 - as in the original
        journal, self._journal = self._journal, None
        finding = original(self, plan, key, deadline)
        try:
            return await finding
        finally:
            self._journal = journal

    Reader.find = find


def debts_forgotten() -> None:
    """A cache is read though it missed the last write of the key."""
    CacheDebts.owes = lambda *_: False


def nothing_where_nobody_could_look() -> None:
    """A read that could not ask says that there is nothing."""

    def check(self: Reader, plan: Any, key: Key, answers: Mapping[str, Any]) -> None:  # noqa: ANN401 - as in the original
        del self, plan, key, answers

    Reader._check_authority = check


def search_joined_after_a_write() -> None:
    """A read joins a search that began before the last write."""
    Reader.detach = lambda *_: None


def connection_reused_after_cancellation() -> None:
    """A cancelled call puts its connection back with the reply unread."""
    from octopus_async.adapters._memcache_pool import _SafePool

    def discard(self: _SafePool, connection: Any) -> None:  # noqa: ANN401 - the driver's connection
        self.release(connection)

    _SafePool.discard = discard


def lease_ignored_by_memcache() -> None:
    """A reader fills memcached with whatever it has found, whether or not its lease still holds."""
    from octopus_async.adapters._memcache_shard import Shard

    async def fill(self: Shard, items: Any) -> None:  # noqa: ANN401 - as in the original
        form = self._form
        cells = [(record.key, cell_of(record)) for record, _ in items]
        await self._server.exchange(
            [
                form.store(b"set", form.wire_key(key), form.encode(key, cell), form.ttl)
                for key, cell in cells
                if cell is not None
            ]
        )

    Shard.fill = fill


def filled_below_the_floor() -> None:
    """A reader fills a cache with what is older than the cache has been told of."""
    original = MemoryAdapter.fill_now

    def fill(self: MemoryAdapter, record: Record, lease: Miss) -> None:
        entry = self._entries.get(record.key)
        if entry is not None and entry is lease.lease:
            self._entries[record.key] = entry = entry._replace(cell=entry.cell._replace(version=""))
            lease = Miss(entry)  # the same, without its floor
        original(self, record, lease)

    MemoryAdapter.fill_now = fill


def value_of_another_key_taken() -> None:
    """A cache's value is taken for the record that was asked for, whatever key it names."""
    original = octopus_async.cachevalue._parse_head

    def parse(head: bytes, key: Key) -> tuple[str, str, str, str]:
        parts = octopus_async.cachevalue.from_json(head)  # type: ignore[attr-defined]
        return original(head, Key(parts[2], parts[3]) if isinstance(parts, list) else key)

    octopus_async.cachevalue._parse_head = parse
