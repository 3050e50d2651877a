"""Teaches an adapter the models that it is asked for, at the first use of each."""

from __future__ import annotations

from collections.abc import Sequence

from octopus_async.backend import Adapter
from octopus_async.errors import SchemaMismatch
from octopus_async.events import Events, SchemaDiffers
from octopus_async.record import Key, Outcome
from octopus_async.schema import Schema


class Preparation:
    """Which models an adapter has been taught, and which it has to be.

    Parameters:
        adapter: the adapter.
        events: is told when a table does not fit its model, and when it does not for another reason.
    """

    def __init__(self, adapter: Adapter, events: Events) -> None:
        self._adapter = adapter
        self._events = events
        self._schemas: dict[str, tuple[Schema, bool]] = {}
        self._prepared: set[str] = set()
        self._problems: dict[str, str] = {}

    def learn(self, schema: Schema, *, create: bool) -> None:
        """Learn a model; what it needs is checked or created at its first use."""
        self._schemas[schema.model] = (schema, create)

    def covers(self, models: set[str]) -> bool:
        """Whether nothing has to be done for ``models``."""
        return models <= self._prepared

    async def ensure(self, models: set[str]) -> None:
        """Teach the adapter those of ``models`` that it does not know. Raises `Unavailable`."""
        for model in sorted(models - self._prepared):
            known = self._schemas.get(model)
            if known is None:
                continue
            schema, create = known
            try:
                await self._adapter.prepare(schema, create=create)
            except SchemaMismatch as error:
                self.differs(model, error)
                raise
            self._prepared.add(model)

    def judge(self, keys: Sequence[Key], outcomes: Sequence[Outcome]) -> None:
        """Look at what writes said of their models' tables."""
        for key, outcome in zip(keys, outcomes, strict=True):
            if isinstance(outcome.error, SchemaMismatch):
                self.differs(key.model, outcome.error)
            elif self._problems and outcome.error is None:
                self._problems.pop(key.model, None)

    def differs(self, model: str, error: SchemaMismatch) -> None:
        """A model's table was found not to fit: say so once, and look again at its next use."""
        self._prepared.discard(model)
        problem = str(error)
        if self._problems.get(model) != problem:
            self._problems[model] = problem
            self._events.emit(SchemaDiffers(self._adapter.name, model, problem))

    def forget(self) -> None:
        """The adapter was closed, and has to be taught everything again."""
        self._prepared.clear()
