"""A manager on stores in memory that fail to order, with a real journal: the stage of many tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from octopus_async import BreakerPolicy, Dao, DaoManager, GuardPolicy, Key, KeyedModel, Model
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.events import Event
from octopus_async.record import Record
from octopus_async.testing.faulty import FaultyAdapter

QUICK = BreakerPolicy(open_for=0.02, open_at_most=0.05)
POLICY = GuardPolicy(timeout=0.2, open_timeout=0.5, reads=QUICK, writes=QUICK)


class Book(Model):
    title: str


class Country(KeyedModel):
    id: str
    name: str


class Strict(KeyedModel, provisional=False):
    id: str


@dataclass
class Stage:
    """What a test looks at."""

    manager: DaoManager
    books: Dao[Book]
    countries: Dao[Country]
    backends: dict[str, FaultyAdapter]
    events: list[Event] = field(default_factory=list)

    @property
    def primary(self) -> FaultyAdapter:
        return self.backends["primary"]

    @property
    def cache(self) -> FaultyAdapter:
        return self.backends["cache"]

    async def held(self, backend: str, model: Model | KeyedModel) -> dict[str, Any] | None:
        """The fields that a backend itself holds of a model, asked past guard and faults."""
        key = Key(type(model).__name__, str(model.__dict__["id"]))
        (answer,) = await self.backends[backend].adapter.read([key])
        return dict(answer.fields) if isinstance(answer, Record) and answer.fields is not None else None

    async def title(self, backend: str, book: Book) -> object:
        """The title that a backend itself holds of a book; None if it does not hold the book."""
        fields = await self.held(backend, book)
        return None if fields is None else fields["title"]

    def seen(self, kind: type[Event]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - whatever a test waits for
                await asyncio.sleep(0.001)

    async def drained(self) -> None:
        """Wait until nothing is owed."""
        async with asyncio.timeout(5):
            await self.manager.drained()


@asynccontextmanager
async def stage(
    folder: Path | None,
    *,
    replica: bool = False,
    cache: bool = True,
    **options: Any,  # noqa: ANN401 - any setting
) -> AsyncGenerator[Stage]:
    """Open a manager on a primary, and if wanted a replica and a cache; with a journal in ``folder``."""
    backends = {"primary": FaultyAdapter(MemoryAdapter(durable=True, name="primary"))}
    if replica:
        backends["replica"] = FaultyAdapter(MemoryAdapter(durable=True, name="replica"))
    if cache:
        backends["cache"] = FaultyAdapter(MemoryAdapter(name="cache"))
    events: list[Event] = []
    options = {"timeout": 1.0, "close_timeout": 1.0, "guard": POLICY, **options}
    async with DaoManager(
        list(backends.values()), journal=folder, listeners=[events.append], **options
    ) as manager:
        try:
            yield Stage(manager, manager.dao(Book), manager.dao(Country), backends, events)
        finally:
            for backend in backends.values():
                backend.heal()
