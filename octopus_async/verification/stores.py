"""The backends of one model as they are compared: asked patiently, the primary always first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import NamedTuple, TypeVar

from octopus_async.backend import DeadLetter
from octopus_async.errors import SchemaMismatch, Unavailable
from octopus_async.guard import Guard
from octopus_async.record import Key, Record
from octopus_async.schema import Schema
from octopus_async.verification.difference import Difference, Pair, difference, likely_cause

T = TypeVar("T")
_PAUSES = (0.5, 1.0, 2.0, 4.0)


class Suspect(NamedTuple):
    """A key of which a backend may differ from the primary."""

    key: Key
    backend: str


class Stores:
    """The backends of one model.

    Parameters:
        schema: the model's.
        primary: the system of record.
        replicas: what has to be equal to it.
        caches: what may forget.
        unasked: takes down why a cache could not be asked, by its name.
    """

    def __init__(
        self,
        schema: Schema,
        primary: Guard,
        replicas: Iterable[Guard],
        caches: Iterable[Guard],
        unasked: dict[str, str],
    ) -> None:
        self.schema = schema
        self.primary = primary
        self.replicas = {guard.name: guard for guard in replicas}
        self.caches = {guard.name: guard for guard in caches}
        self._unasked = unasked

    def role(self, backend: str) -> str:
        """What a backend is to the model: replica or cache."""
        return "cache" if backend in self.caches else "replica"

    def guard(self, backend: str) -> Guard:
        """Any of the backends by its name."""
        if backend == self.primary.name:
            return self.primary
        return self.caches.get(backend) or self.replicas[backend]

    def difference(self, backend: str, pair: Pair) -> Difference | None:
        """In what a backend differs."""
        return difference(pair, self.schema, cache=backend in self.caches)

    def cause(self, backend: str, found: Difference, pair: Pair, letters: Sequence[DeadLetter]) -> str:
        """What likely brought a difference about."""
        cache = self.caches.get(backend)
        ttl = None if cache is None else cache.capabilities.ttl
        return likely_cause(found, pair, ttl=ttl, letters=letters)

    async def pages(
        self, backend: str, since: str, size: int, beyond: Record | None
    ) -> AsyncGenerator[list[Record]]:
        """All that a backend holds of the model, in pages; goes on where a failure stopped it.

        Raises:
            Unavailable: it failed again and again.
        """
        pauses = list(_PAUSES)
        while True:
            try:
                scan = self._pages(self.guard(backend), since, size, beyond)
                async with aclosing(scan):
                    async for page in scan:
                        beyond, pauses = page[-1], list(_PAUSES)
                        yield page
            except Unavailable as error:
                if not pauses or isinstance(error, SchemaMismatch):
                    raise
                await asyncio.sleep(pauses.pop(0))
            else:
                return

    async def _pages(
        self, guard: Guard, since: str, size: int, beyond: Record | None
    ) -> AsyncGenerator[list[Record]]:
        page: list[Record] = []
        async for record in guard.scan(self.schema.model, after=since, batch=size, beyond=beyond):
            page.append(record)
            if len(page) == size:
                yield page
                page = []
        if page:
            yield page

    async def held(self, backend: str, keys: Sequence[Key]) -> Mapping[Key, Record]:
        """What a backend holds of keys. A cache that cannot be asked has nothing.

        Raises:
            Unavailable: it failed again and again.
        """
        guard = self.guard(backend)
        try:
            found = await _insistently(lambda: guard.peek(keys)) if keys else ()
        except Unavailable as error:
            if backend not in self.caches:
                raise
            self._unasked[backend] = str(error)
            return {}
        return {record.key: record for record in found if record is not None}

    async def pairs(self, suspects: Collection[Suspect]) -> dict[Suspect, Pair]:
        """What primary and others hold of suspects now. Raises `Unavailable`."""
        primary = await self.held(self.primary.name, list({suspect.key for suspect in suspects}))
        names = {suspect.backend for suspect in suspects}
        held = await self.each(names, lambda name: [key for key, backend in suspects if backend == name])
        return {it: Pair(primary.get(it.key), held[it.backend].get(it.key)) for it in suspects}

    async def each(
        self, names: Iterable[str], keys_of: Callable[[str], Sequence[Key]]
    ) -> dict[str, Mapping[Key, Record]]:
        """What each of some backends holds of its keys, asked at the same time. Raises `Unavailable`."""
        names = list(names)
        held = await asyncio.gather(*(self.held(name, keys_of(name)) for name in names))
        return dict(zip(names, held, strict=True))


async def _insistently(call: Callable[[], Awaitable[T]]) -> T:
    for pause in _PAUSES:
        try:
            return await call()
        except SchemaMismatch:
            raise
        except Unavailable:
            await asyncio.sleep(pause)
    return await call()
