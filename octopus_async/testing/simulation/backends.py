"""Adapters of the simulated servers: what a simulated process uses as its database or cache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from octopus_async.backend import Answer, Capabilities
from octopus_async.errors import BackendRefused
from octopus_async.record import Key, Miss, Mode, Operation, Outcome, Record
from octopus_async.schema import Schema
from octopus_async.testing.simulation.cacheserver import CacheServer
from octopus_async.testing.simulation.server import DatabaseServer


class SimulatedDatabase:
    """One process's adapter of a `DatabaseServer`."""

    def __init__(self, server: DatabaseServer, *, connections: int = 1, batch: int = 500) -> None:
        self.server = server
        self._is_open = False
        self._capabilities = Capabilities(
            durable=True, transactional=True, scan=True, write_batch=batch, write_concurrency=connections
        )

    @property
    def name(self) -> str:
        """The server's name."""
        return self.server.name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    async def open(self) -> None:
        """Connect."""
        await self.server.call(lambda: None)
        self._is_open = True

    async def close(self) -> None:
        """Disconnect."""
        self._is_open = False

    async def prepare(self, schema: Schema, *, create: bool) -> None:  # noqa: ARG002 - the table is there, or is not
        """Look at the model's table."""
        self._check_open()
        await self.server.check_schema()

    async def ping(self) -> None:
        """Prove that reads work."""
        self._check_open()
        await self.server.call(lambda: None)

    async def probe(self) -> None:
        """Prove that writes work."""
        self._check_open()
        await self.server.write_nothing()

    async def read(self, keys: Sequence[Key]) -> Sequence[Answer]:
        """Look up keys."""
        self._check_open()
        return await self.server.read(keys)

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply operations in one transaction."""
        self._check_open()
        return await self.server.apply(operations, mode)

    async def apply_unit(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply all operations or none of them."""
        self._check_open()
        return await self.server.apply_unit(operations, mode)

    async def scan(
        self, model: str, *, after: str = "", batch: int = 500, beyond: Record | None = None
    ) -> AsyncIterator[Record]:
        """All of a model's records of versions above ``after``, in batches."""
        self._check_open()
        above = after if beyond is None else max(after, beyond.version)
        chosen = await self.server.call(
            lambda: sorted(
                (row for key, row in self.server.rows.items() if key.model == model and row.version > above),
                key=lambda row: row.version,
            )
        )
        for start in range(0, len(chosen), batch):
            for row in chosen[start : start + batch]:
                yield row

    def _check_open(self) -> None:
        if not self._is_open:
            raise BackendRefused(f"{self.name} is not connected", backend=self.name)


class SimulatedCache:
    """One process's adapter of a `CacheServer`."""

    def __init__(self, server: CacheServer, *, connections: int = 2, batch: int = 500) -> None:
        self.server = server
        self._is_open = False
        self._capabilities = Capabilities(
            durable=False, ttl=server.ttl, write_batch=batch, write_concurrency=connections
        )

    @property
    def name(self) -> str:
        """The server's name."""
        return self.server.name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    async def open(self) -> None:
        """Connect."""
        await self.server.call(lambda: None)
        self._is_open = True

    async def close(self) -> None:
        """Disconnect."""
        self._is_open = False

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        """Nothing is needed for a model."""

    async def ping(self) -> None:
        """Prove that reads work."""
        self._check_open()
        await self.server.call(lambda: None)

    async def probe(self) -> None:
        """Prove that writes work."""
        self._check_open()
        await self.server.write_nothing()

    async def read(self, keys: Sequence[Key]) -> Sequence[Answer]:
        """Look up keys; a miss leaves a lease."""
        self._check_open()
        return await self.server.read(keys)

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:  # noqa: ARG002 - a cache looks at versions alone
        """Apply operations, each on its own."""
        self._check_open()
        return await self.server.apply(operations)

    async def fill(self, items: Sequence[tuple[Record, Miss]]) -> None:
        """Store records whose leases hold."""
        self._check_open()
        await self.server.fill(items)

    def _check_open(self) -> None:
        if not self._is_open:
            raise BackendRefused(f"{self.name} is not connected", backend=self.name)
