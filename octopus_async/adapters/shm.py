"""A cache that the worker processes of one host share, in a file of a memory file system, without a server.

Reads take no lock and never wait. A write locks a sixteenth of the keys for some microseconds, on the
event loop's own thread; a process that is stopped in between holds up writes to that part alone.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from octopus_async.adapters._shm_file import is_gone, open_file, reserve
from octopus_async.adapters._shm_segment import LEAST_BYTES, NOWHERE, Found, Place, Segment
from octopus_async.backend import Answer, Capabilities
from octopus_async.cachevalue import Cell, cell_of, decode_cell, encode_cell, record_of, settle
from octopus_async.errors import BackendFailed, BackendRefused, ConfigurationError, Unavailable
from octopus_async.record import NO_VERSION, Key, Kind, Miss, Mode, Operation, Outcome, Record, failed
from octopus_async.schema import Schema
from octopus_async.url import BackendURL

DEFAULT_BYTES = 32 * 1024**2
"""Half of what a container's memory file system usually has."""
DEFAULT_TTL = 300.0
DEFAULT_SEGMENT = "octopus"
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_LOCK_TRIES = 100
_LOCK_PAUSE = 0.001
_READ_BATCH = 100
_WRITE_BATCH = 50
"""What takes the event loop's thread a millisecond or two."""

T = TypeVar("T")
W = TypeVar("W")


class SharedMemoryAdapter:
    """A cache in the host's memory, with a fixed size, a finite time to live, and the oldest values evicted.

    Parameters:
        segment: its name; processes of one user that give the same name share it.
        max_bytes: the size of its file, reserved as a whole; alike in all processes.
        ttl: seconds after which a value is forgotten.
        folder: where it is, on a file system that a restart of the host empties, as the moments of expiry
            count from there; None for one of the user's own in ``/dev/shm``.
        name: the name by which strategies call it.
    """

    def __init__(
        self,
        segment: str = DEFAULT_SEGMENT,
        *,
        max_bytes: int = DEFAULT_BYTES,
        ttl: float = DEFAULT_TTL,
        folder: Path | None = None,
        name: str = "shm",
    ) -> None:
        if sys.platform != "linux":
            raise ConfigurationError(f"{name}: shm:// needs Linux: its locks and its file system in memory")
        if _SEGMENT.fullmatch(segment) is None:
            raise ConfigurationError(
                f"{name}: a segment has up to 64 letters, digits, dots, dashes, underscores"
            )
        if not 0 < ttl < math.inf or max_bytes < LEAST_BYTES:
            raise ConfigurationError(f"{name}: ttl has to be positive and finite, max_bytes at least 1 MB")
        self._name = name
        self._segment_name = segment
        self._size = max_bytes
        self._ttl = ttl
        self._folder = folder or Path(f"/dev/shm/octopus-{os.geteuid()}")  # noqa: S108 - made 0700, and checked
        self._capabilities = Capabilities(
            durable=False, read_batch=_READ_BATCH, write_batch=_WRITE_BATCH, ttl=ttl
        )
        self._fingerprints: dict[str, str] = {}
        self._descriptor = -1
        self._owner = 0
        self._segment: Segment | None = None

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "shm") -> SharedMemoryAdapter:
        """Make one of ``shm:///segment?max_bytes=32MB&ttl=300``. Raises `ConfigurationError`."""
        url.check_options("max_bytes", "ttl")
        if url.hosts or url.user:
            raise ConfigurationError(f"{url}: is on this host, and has none: shm:///segment")
        max_bytes, ttl = url.size("max_bytes", DEFAULT_BYTES), url.number("ttl", DEFAULT_TTL)
        return cls(url.path or DEFAULT_SEGMENT, max_bytes=max_bytes, ttl=ttl, name=name)

    @property
    def name(self) -> str:
        """The name by which strategies, receipts and messages call it."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    async def open(self) -> None:
        """Open the segment, or make it. Raises `Unavailable`."""
        if self._segment is None:
            self._open_file()
            try:
                for _ in reserve(self._descriptor, self._size):
                    await asyncio.sleep(0)
            except OSError as error:
                await self.close()
                raise BackendRefused(f"{self._name}: no room for it: {error}", backend=self._name) from error
            except BaseException:
                await self.close()
                raise

    def _open_file(self) -> Segment:
        try:
            descriptor = open_file(self._folder, self._segment_name, self._size)
        except OSError as error:
            raise BackendRefused(f"{self._name}: {error}", backend=self._name) from error
        self._descriptor, self._owner = descriptor, os.getpid()
        self._segment = Segment(descriptor, self._size, self._ttl)
        return self._segment

    async def close(self) -> None:
        """Close the file; what is in it stays for the others."""
        if self._segment is not None:
            self._segment = None
            os.close(self._descriptor)

    async def prepare(self, schema: Schema, *, create: bool) -> None:  # noqa: ARG002 - nothing to create
        """Learn the model's fingerprint: values of another one are misses."""
        self._fingerprints[schema.model] = schema.fingerprint

    async def ping(self) -> None:
        """Look a key of its own up. Raises `Unavailable`."""
        with self._using() as segment:
            segment.find(segment.place_of(_a_probe()))

    async def probe(self) -> None:
        """Store under a key of its own. Raises `Unavailable`."""
        probe = Operation(Kind.INVALIDATE, _a_probe(), NO_VERSION, NO_VERSION)
        (outcome,) = await self.apply([probe], Mode.MIRROR)
        if outcome.error is not None:
            raise outcome.error

    async def read(self, keys: Sequence[Key]) -> list[Answer]:
        """Look up keys: records, tombstones, and misses with their leases. Never waits."""
        with self._using() as segment:
            return [self._look_up(segment, key) for key in keys]

    def read_now(self, key: Key) -> Record | Miss:
        """See `InstantReader`."""
        with self._using() as segment:
            return self._look_up(segment, key)

    async def peek(self, keys: Sequence[Key]) -> list[Record | None]:
        """Look up keys: records and tombstones."""
        answers = await self.read(keys)
        return [answer if isinstance(answer, Record) else None for answer in answers]

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:  # noqa: ARG002 - see below
        """Apply operations by their versions alone, whatever the mode; never raises for a single part."""
        with self._using() as segment:
            work = [(segment.place_of(operation.key), operation) for operation in operations]
        return await self._each(work, self._settle, failed(self._busy()))

    async def fill(self, items: Sequence[tuple[Record, Miss]]) -> None:
        """Store each record whose lease still holds, and that is not below the lease's floor."""
        with self._using() as segment:
            work = [(segment.place_of(record.key), (record, miss)) for record, miss in items]
        await self._each(work, self._fill, None)

    # --- one key

    def _look_up(self, segment: Segment, key: Key) -> Record | Miss:
        found = segment.find(segment.place_of(key))
        cell = self._decode(key, found)
        if cell is not None and not cell.marker:
            try:
                return record_of(key, cell)
            except ValueError:
                pass  # its fields are no fields: it is to be written anew
        return Miss(found.lease)

    def _settle(self, segment: Segment, place: Place, operation: Operation) -> Outcome:
        before = self._decode(operation.key, segment.find(place))
        outcome, after = settle(operation, before)
        if after is not None and after is not before:
            value = self._encode(operation.key, after)
            if len(value) > segment.longest:
                value = self._encode(operation.key, Cell(operation.version, marker=True))
            segment.store(place, value)
        return outcome

    def _fill(self, segment: Segment, place: Place, item: tuple[Record, Miss]) -> None:
        record, miss = item
        found, cell = segment.find(place), cell_of(record)
        if found.lease != miss.lease or found.lease == NOWHERE or cell is None:
            return
        held = self._decode(record.key, found)
        value = self._encode(record.key, cell)
        if (held is None or record.version >= held.version) and len(value) <= segment.longest:
            segment.store(place, value)

    def _encode(self, key: Key, cell: Cell) -> bytes:
        return encode_cell(cell, key, self._fingerprints.get(key.model, ""))

    def _decode(self, key: Key, found: Found) -> Cell | None:
        """None for nothing; what is foreign or damaged is an empty marker."""
        if found.value is None:
            return None
        return decode_cell(found.value, key, self._fingerprints.get(key.model, ""))

    # --- the segment

    async def _each(
        self, work: Sequence[tuple[Place, W]], do: Callable[[Segment, Place, W], T], busy: T
    ) -> list[T]:
        """Do something with each place, its part locked; ``busy`` for those that stay locked by others."""
        results = [busy] * len(work)
        parts: dict[int, list[int]] = defaultdict(list)
        for number, (place, _) in enumerate(work):
            parts[place.part].append(number)
        for _ in range(_LOCK_TRIES):
            with self._using() as segment:
                for part in [*parts]:
                    if segment.try_lock(part):
                        try:
                            for number in parts.pop(part):
                                results[number] = do(segment, *work[number])
                        finally:
                            segment.unlock(part)
            if not parts:
                break
            await asyncio.sleep(_LOCK_PAUSE)
        return results

    @contextmanager
    def _using(self) -> Generator[Segment]:
        """The segment, if it is ours and still the one that others have. Raises `Unavailable`."""
        if self._segment is None:
            raise BackendRefused(f"{self._name} is not open", backend=self._name)
        if self._owner != os.getpid():
            reason = f"{self._name} was opened by process {self._owner}, before a fork: open one in the child"
            raise BackendRefused(reason, backend=self._name)
        try:
            yield self._open_anew() if is_gone(self._descriptor) else self._segment
        except OSError as error:
            raise BackendFailed(f"{self._name}: {error}", backend=self._name, sent=True) from error

    def _open_anew(self) -> Segment:
        """Somebody has removed the file: others may share another one by now."""
        gone = self._descriptor
        segment = self._open_file()
        os.close(gone)
        return segment

    def _busy(self) -> Unavailable:
        reason = f"{self._name}: another process has stopped while it held a lock"
        error = BackendFailed(reason, backend=self._name, sent=False)
        error.alive = True  # the other parts are there
        return error


def _a_probe() -> Key:
    """A key in any part: a process that has stopped holds the lock of one alone."""
    return Key("!probe", str(time.monotonic_ns()))
