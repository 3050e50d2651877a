"""Turns settings into guarded backends, and into the plan of each model."""

from __future__ import annotations

from collections.abc import Sequence

from octopus_async.backend import Backend
from octopus_async.config import Routing, Settings, adapter_for
from octopus_async.errors import ConfigurationError
from octopus_async.events import Events
from octopus_async.guard import Guard
from octopus_async.sink import SINK, SinkAdapter
from octopus_async.strategies.plan import Plan
from octopus_async.strategies.read import Cascade


class Planner:
    """The backends of a manager by name, and where each model goes.

    Parameters:
        settings: what the manager was told.
        events: is told what happens to the backends.

    Raises:
        ConfigurationError: a name is not known or given twice, or a plan cannot work.
    """

    def __init__(self, settings: Settings, events: Events) -> None:
        self._settings = settings
        self.guards = _guards(settings, events)
        self.sink = _sink(settings, events, self.guards)
        unknown = sorted(set(settings.guards) - set(self.guards))
        if unknown:
            msg = f"guards names {unknown[0]!r}, but the backends are {', '.join(self.guards)}"
            raise ConfigurationError(msg)
        self._default = self._plan(Routing())
        self._plans = {name: self._plan(routing) for name, routing in settings.routings.items()}

    def plan_of(self, model: str) -> Plan:
        """Where the model of that name goes."""
        return self._plans.get(model, self._default)

    def guards_of(self, model: str) -> list[Guard]:
        """The backends that have to do with the model of that name."""
        plan = self.plan_of(model)
        backends = (plan.primary, *plan.replicas, *plan.caches, *plan.readers)
        return [self.guards[name] for name in dict.fromkeys(backend.name for backend in backends)]

    def _plan(self, routing: Routing) -> Plan:
        settings = self._settings
        written = [self._guard(name) for name in routing.write or list(self.guards)[: len(settings.write)]]
        caches = tuple(guard for guard in written if not guard.capabilities.durable)
        read = routing.read or settings.read or Cascade()
        readers = tuple(self._guard(name) for name in read.names) or (*caches, written[0])
        primary = written[0]
        for guard in written:
            if isinstance(guard.adapter, SinkAdapter):
                msg = (
                    f"{guard.name} is a queue, which holds no records: give it as sink=... beside the journal"
                )
                raise ConfigurationError(msg)
        if not primary.capabilities.durable:
            msg = f"the primary has to be durable, and {primary.name} is a cache: put another backend first"
            raise ConfigurationError(msg)
        _check_readers(readers, caches)
        return Plan(
            primary=primary,
            replicas=tuple(guard for guard in written[1:] if guard.capabilities.durable),
            caches=caches,
            readers=readers,
            read=read,
            order=routing.order or settings.order,
            acknowledge=routing.acknowledge or settings.acknowledge,
            sinks=() if self.sink is None else (SINK,),
        )

    def _guard(self, name: str) -> Guard:
        guard = self.guards.get(name)
        if guard is None:
            msg = f"no backend is called {name!r}; there are {', '.join(self.guards)}"
            raise ConfigurationError(msg)
        return guard


def _guards(settings: Settings, events: Events) -> dict[str, Guard]:
    guards: dict[str, Guard] = {}
    for source in (*settings.write, *settings.backends):
        adapter = adapter_for(source)
        if adapter.name in guards:
            msg = f"two backends are called {adapter.name!r}: name one by ?name=... in its URL"
            raise ConfigurationError(msg)
        guards[adapter.name] = Guard(adapter, events, settings.guard_of(adapter))
    return guards


def _sink(settings: Settings, events: Events, guards: dict[str, Guard]) -> Guard | None:
    """The guarded sink, which is one of the backends then."""
    if settings.sink is None:
        return None
    adapter = adapter_for(settings.sink)
    if not isinstance(adapter, SinkAdapter):
        msg = f"sink={adapter.name} is no queue: sqs://region/queue.fifo is one"
        raise ConfigurationError(msg)
    if adapter.name in guards:
        msg = f"two backends are called {adapter.name!r}: name one by ?name=... in its URL"
        raise ConfigurationError(msg)
    guard = guards[adapter.name] = Guard(adapter, events, settings.guard_of(adapter))
    return guard


def _check_readers(readers: Sequence[Backend], caches: Sequence[Backend]) -> None:
    for reader in readers:
        if not reader.capabilities.durable and reader not in caches:
            msg = f"cache {reader.name} is read but not written: it would not hear of changes"
            raise ConfigurationError(msg)
        if not reader.capabilities.readable:
            msg = f"backend {reader.name} can only be written to: leave it out of the reads"
            raise ConfigurationError(msg)
    if not any(reader.capabilities.durable for reader in readers):
        names = ", ".join(reader.name for reader in readers)
        msg = f"reads ask {names} alone, which may forget and cannot say that a record does not exist"
        raise ConfigurationError(msg)
