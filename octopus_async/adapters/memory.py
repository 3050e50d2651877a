"""Records in this process: the default cache, and a durable backend for tests and demonstrations.

Nothing here awaits, so each call is one atomic step of the event loop.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import NamedTuple

from octopus_async.backend import Answer, Capabilities
from octopus_async.cachevalue import EMPTY, Cell, cell_of, record_of, settle
from octopus_async.errors import BackendRefused, ConfigurationError, OperationNotSupported
from octopus_async.record import (
    APPLIED,
    Key,
    Kind,
    Miss,
    Mode,
    Operation,
    Outcome,
    Record,
    Stored,
    born_after,
    decide,
    decide_unit,
    rejected,
)
from octopus_async.schema import Schema
from octopus_async.url import BackendURL

DEFAULT_BYTES = 64 * 1024**2
DEFAULT_TTL = 300.0
_LEASE_LIFE = 10.0
_OVERHEAD = 460
"""Bytes that an entry costs beside its payload and id, as `tracemalloc` found on Python 3.11."""


class _Entry(NamedTuple):
    """A cell with its moment of expiry; its identity is the lease that a miss hands out."""

    cell: Cell
    expires: float


class MemoryAdapter:
    """An in-process cache with a budget of bytes, a finite time to live, and LRU eviction.

    Values are kept as encoded bytes, so every read gives fresh objects and sizes are exact.

    Parameters:
        max_bytes: the budget; a record that is larger by itself is invalidated instead.
        ttl: seconds after which a value is forgotten.
        durable: be a durable backend instead, which neither evicts nor forgets, as a stand-in
            for a database; it lives as long as the object, across `close` and `open`.
        name: the name by which strategies call it.
        now: a monotonic clock in seconds.
    """

    def __init__(
        self,
        *,
        max_bytes: int = DEFAULT_BYTES,
        ttl: float = DEFAULT_TTL,
        durable: bool = False,
        name: str = "memory",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < ttl < math.inf or max_bytes <= 0:
            raise ConfigurationError(f"{name}: ttl and max_bytes have to be positive and finite")
        self._name = name
        self._capabilities = Capabilities(
            durable=durable, transactional=durable, scan=durable, ttl=None if durable else ttl
        )
        self._durable = durable
        self._max_bytes = math.inf if durable else max_bytes
        self._ttl = math.inf if durable else ttl
        self._now = now
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._bytes = 0
        self._is_open = False

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "memory") -> MemoryAdapter:
        """Make one of ``memory://?max_bytes=64MB&ttl=300``. Raises `ConfigurationError`."""
        url.check_options("max_bytes", "ttl")
        max_bytes = url.size("max_bytes", DEFAULT_BYTES)
        return cls(max_bytes=max_bytes, ttl=url.number("ttl", DEFAULT_TTL), name=name)

    @property
    def name(self) -> str:
        """The name by which strategies, receipts and messages call it."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    @property
    def bytes(self) -> int:
        """What the entries occupy, in bytes."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    async def open(self) -> None:
        """Be ready."""
        self._is_open = True

    async def close(self) -> None:
        """Forget everything, unless this is a durable one."""
        self._is_open = False
        if not self._durable:
            self._entries.clear()
            self._bytes = 0

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        """Nothing is needed for a model."""

    async def ping(self) -> None:
        """Raise `BackendRefused` if it is closed."""
        self._check_open()

    async def probe(self) -> None:
        """Raise `BackendRefused` if it is closed."""
        self._check_open()

    async def read(self, keys: Sequence[Key]) -> list[Answer]:
        """Look up keys: records, tombstones, and for a cache misses with their leases."""
        self._check_open()
        return [self.read_now(key) for key in keys]

    def read_now(self, key: Key) -> Answer:
        """See `InProcessAdapter`."""
        return self._find(key, self._now()) if self._durable else self._look_up(key, self._now())

    async def peek(self, keys: Sequence[Key]) -> list[Record | None]:
        """Look up keys: records and tombstones; no lease is left for what a cache does not have."""
        self._check_open()
        now = self._now()
        return [self._find(key, now) for key in keys]

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        """Apply operations; a cache looks at versions alone, whatever the mode."""
        self._check_open()
        return [self.apply_now(operation, mode) for operation in operations]

    async def apply_unit(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        """Apply all operations or none of them, of a durable backend."""
        self._check_open()
        entries = [self._entries.get(operation.key) for operation in operations]
        found = [None if entry is None else _stored(entry.cell) for entry in entries]
        verdicts = decide_unit(operations, found, mode)
        return [
            self._decide(operation, Mode.MIRROR) if verdict is None else verdict
            for operation, verdict in zip(operations, verdicts, strict=True)
        ]

    def apply_now(self, operation: Operation, mode: Mode) -> Outcome:
        """See `InProcessAdapter`."""
        return self._decide(operation, mode) if self._durable else self._settle(operation, self._now())

    async def fill(self, items: Sequence[tuple[Record, Miss]]) -> None:
        """Store each record whose lease still holds, and that is not below the lease's floor."""
        self._check_open()
        for record, lease in items:
            self.fill_now(record, lease)

    def fill_now(self, record: Record, lease: Miss) -> None:
        """See `InProcessAdapter`."""
        entry = self._entries.get(record.key)
        if entry is None or entry is not lease.lease or record.version < entry.cell.version:
            return
        cell = cell_of(record)
        if cell is not None and _size(record.key, cell) <= self._max_bytes:
            self._store(record.key, cell, self._now() + self._ttl)

    async def scan(
        self,
        model: str,
        *,
        after: str = "",
        batch: int = 500,  # noqa: ARG002 - nothing is fetched, so nothing comes in batches
        beyond: Record | None = None,
    ) -> AsyncIterator[Record]:
        """All of a model's records, tombstones too, of versions above ``after``, oldest first."""
        self._check_open()
        if not self._durable:
            raise OperationNotSupported(f"{self._name} is a cache: it can't list its records")
        for record in self._scan(model, after, beyond):
            yield record

    def _find(self, key: Key, now: float) -> Record | None:
        entry = self._entries.get(key)
        if entry is None or entry.expires <= now or entry.cell.marker:
            return None
        return record_of(key, entry.cell)

    def _check_open(self) -> None:
        if not self._is_open:
            raise BackendRefused(f"{self._name} is not open", backend=self._name)

    # --- as a cache

    def _look_up(self, key: Key, now: float) -> Answer:
        entry = self._entries.get(key)
        if entry is None or entry.expires <= now:
            return Miss(self._store(key, EMPTY, now + min(_LEASE_LIFE, self._ttl)))
        self._entries.move_to_end(key)
        cell = entry.cell
        return Miss(entry) if cell.marker else record_of(key, cell)

    def _settle(self, operation: Operation, now: float) -> Outcome:
        key = operation.key
        entry = self._entries.get(key)
        before = None if entry is None or entry.expires <= now else entry.cell
        outcome, cell = settle(operation, before)
        if cell is not None and cell is not before:
            if _size(key, cell) > self._max_bytes:
                cell = Cell(operation.version, marker=True)
            self._store(key, cell, now + self._ttl)
        return outcome

    def _store(self, key: Key, cell: Cell, expires: float) -> _Entry:
        entry = _Entry(cell, expires)
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= _size(key, old.cell)
        self._entries[key] = entry
        self._bytes += _size(key, cell)
        while self._bytes > self._max_bytes:
            oldest, evicted = self._entries.popitem(last=False)
            self._bytes -= _size(oldest, evicted.cell)
        return entry

    # --- as a durable backend

    def _decide(self, operation: Operation, mode: Mode) -> Outcome:
        if operation.kind in (Kind.INVALIDATE, Kind.RETRACT):
            return rejected(OperationNotSupported(f"{self._name} is durable: it forgets nothing"))
        entry = self._entries.get(operation.key)
        stored = None if entry is None else _stored(entry.cell)
        outcome = decide(operation, stored, mode)
        if outcome is not None:
            return outcome
        cell = Cell(operation.version, born_after(operation, stored), operation.payload)
        self._store(operation.key, cell, math.inf)
        return APPLIED

    def _scan(self, model: str, after: str, beyond: Record | None) -> Iterator[Record]:
        found = [
            (entry.cell.version, key)
            for key, entry in self._entries.items()
            if key.model == model
            and (not after or entry.cell.version > after)
            and (beyond is None or (entry.cell.version, key) > (beyond.version, beyond.key))
        ]
        for _, key in sorted(found):
            yield record_of(key, self._entries[key].cell)


def _stored(cell: Cell) -> Stored:
    return Stored(cell.version, cell.born, cell.payload is not None)


def _size(key: Key, cell: Cell) -> int:
    return _OVERHEAD + len(key.id) + len(cell.payload or b"")
