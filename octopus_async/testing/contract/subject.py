"""The adapter under test, as the suites handle it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import cast

from octopus_async.backend import Adapter, Answer, CacheAdapter
from octopus_async.errors import Unavailable
from octopus_async.record import APPLIED, Fields, Key, Miss, Mode, Operation, Outcome, Record, failed
from octopus_async.testing.operations import Author


class Subject(Author):
    """The adapter under test with a model prepared, and an author of operations for it.

    It calls the adapter no more often at once than the adapter's capabilities allow.
    """

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter
        self._reading = asyncio.Semaphore(adapter.capabilities.read_concurrency)
        self._writing = asyncio.Semaphore(adapter.capabilities.write_concurrency)

    async def read(self, *keys: Key) -> list[Answer]:
        """Look keys up."""
        async with self._reading:
            return list(await self.adapter.read(keys))

    async def find(self, key: Key) -> Record | None:
        """The living record of a key."""
        (answer,) = await self.read(key)
        return answer if isinstance(answer, Record) and answer.fields is not None else None

    async def apply(self, *operations: Operation, mode: Mode = Mode.LIVE) -> list[Outcome]:
        """Apply operations in one batch; where all of them failed alike, give that as outcomes."""
        async with self._writing:
            try:
                return list(await self.adapter.apply(operations, mode))
            except Unavailable as error:
                return [failed(error)] * len(operations)

    async def have(self, key: Key, fields: Fields) -> Operation:
        """Create a record."""
        operation = self.create(key, fields)
        assert await self.apply(operation) == [APPLIED]
        return operation

    async def fill(self, record: Record, miss: Miss) -> None:
        """Fill a cache."""
        async with self._writing:
            await cast("CacheAdapter", self.adapter).fill([(record, miss)])


def record_by(operation: Operation) -> Record:
    """The record that an operation of known birth leaves behind."""
    return Record(operation.key, operation.version, operation.born, operation.fields)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds; five seconds at the most."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - tasks and descriptors announce nothing
            await asyncio.sleep(0.01)


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - it is no folder of files
