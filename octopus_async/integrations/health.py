"""Whether a service can serve: from what its manager knows, without asking anybody. No framework."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any

from octopus_async.guard import Guard
from octopus_async.manager import DaoManager, Statistics
from octopus_async.strategies.plan import Plan


class Readiness(Enum):
    """What a service can do."""

    READY = "ready"
    """Everything."""
    DEGRADED = "degraded"
    """It serves, while something behind it does not work, or is still being made up for."""
    UNAVAILABLE = "unavailable"
    """It cannot take a write, or has nobody left to read."""


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """One backend; ``retry_in`` is in seconds, 0 unless it is being waited for."""

    role: str
    reads: str
    writes: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class JournalHealth:
    """What the journal of this process holds; ``oldest_age`` is in seconds."""

    pending: int
    oldest_age: float
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Health:
    """A service at one moment.

    Attributes:
        readiness: what it can do.
        notes: why that is not everything, in sentences; no secret, no host.
        backends: each backend, by its name.
        journal: what the journal holds; None without one.
    """

    readiness: Readiness
    notes: tuple[str, ...]
    backends: dict[str, BackendHealth]
    journal: JournalHealth | None

    @property
    def status(self) -> HTTPStatus:
        """200 while it serves, degraded or not; 503 when a load balancer should ask somebody else."""
        unavailable = self.readiness is Readiness.UNAVAILABLE
        return HTTPStatus.SERVICE_UNAVAILABLE if unavailable else HTTPStatus.OK

    def as_json(self) -> dict[str, Any]:
        """As an object to answer."""
        return asdict(self) | {"readiness": self.readiness.value}


def health_of(manager: DaoManager) -> Health:
    """The health of an open manager, for all models that Daos were made of. It does no I/O."""
    statistics = manager.statistics()
    plans = [manager.plan_of(model) for model in manager.models or [""]]  # "": a model without a routing
    journal = statistics.journal
    faults = list(dict.fromkeys(fault for plan in plans for fault in _faults(manager, plan, statistics)))
    notes = [*faults, *_notes(manager, statistics)]
    readiness = Readiness.READY if not notes else Readiness.DEGRADED
    return Health(
        Readiness.UNAVAILABLE if faults else readiness,
        tuple(notes),
        {name: _backend(guard, plans) for name, guard in manager.backends.items()},
        None
        if journal is None
        else JournalHealth(journal.pending, round(journal.oldest_age, 3), journal.dead_letters),
    )


def _faults(manager: DaoManager, plan: Plan, statistics: Statistics) -> Iterator[str]:
    """What keeps a model from being served."""
    primary = plan.primary.name
    if not manager.backends[primary].writes.passes:
        if statistics.journal is None:
            yield f"{primary} takes no writes, and there is no journal"
        elif statistics.journal.refusal is not None:
            yield f"{primary} takes no writes, and the journal takes no more either"
    if not any(manager.backends[backend.name].reads.passes for backend in plan.readers):
        yield f"none of {', '.join(backend.name for backend in plan.readers)} can be read"


def _notes(manager: DaoManager, statistics: Statistics) -> Iterator[str]:
    """What does not work as it should, while the service serves."""
    for name, guard in manager.backends.items():
        for direction, breaker in (("reads", guard.reads), ("writes", guard.writes)):
            if not breaker.passes:
                yield f"{name}: the breaker of {direction} is {breaker.state.value}"
    yield from (f"{name}: the replay is paused: {why}" for name, why in statistics.paused.items())
    if statistics.journal is not None:
        for name, pending in statistics.journal.pending_by_target.items():
            if pending:
                yield f"{name}: {pending} operations wait in the journal"
        if statistics.journal.dead_letters:
            yield f"{statistics.journal.dead_letters} dead letters wait for an operator"


def _backend(guard: Guard, plans: list[Plan]) -> BackendHealth:
    statistics = guard.statistics()
    return BackendHealth(
        _role(guard, plans),
        statistics.reads.state.value,
        statistics.writes.state.value,
        round(max(statistics.reads.retry_in, statistics.writes.retry_in), 3),
    )


def _role(guard: Guard, plans: list[Plan]) -> str:
    if not guard.capabilities.durable:
        return "cache"
    return "primary" if any(plan.primary.name == guard.name for plan in plans) else "replica"
