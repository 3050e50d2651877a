"""Where a model's records go, and from where they come."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from octopus_async.backend import Backend
from octopus_async.strategies.read import ReadStrategy


class Order(Enum):
    """In which order a write asks the backends.

    A durable backend beside the primary is never given what the primary might still reject:
    what it has once taken with a newer version cannot be taken back without leaving a trace.
    """

    AUTO = "auto"
    """All at the same time, but the primary first where it has a reason to reject."""
    CONCURRENT = "concurrent"
    """Caches always at the same time: a rejected write may be seen in them for a moment."""
    PRIMARY_FIRST = "primary first"
    """Everybody else when the primary has applied it."""


class Acknowledge(Enum):
    """When a write is acknowledged."""

    PRIMARY = "primary"
    """When the primary, or in its place the journal, has it."""
    ALL = "all"
    """When every durable backend has it, or the journal on its behalf."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One model's backends in their roles.

    Attributes:
        primary: the system of record.
        replicas: the other durable backends that are written to.
        caches: the caches that are written to.
        readers: the backends that are read, in order.
        read: how they are read.
        order: how writes are ordered.
        acknowledge: when writes are acknowledged.
        sinks: further targets of what is journalled for the primary: `octopus_async.sink.SINK`, or none.
    """

    primary: Backend
    replicas: tuple[Backend, ...]
    caches: tuple[Backend, ...]
    readers: tuple[Backend, ...]
    read: ReadStrategy
    order: Order = Order.AUTO
    acknowledge: Acknowledge = Acknowledge.PRIMARY
    sinks: tuple[str, ...] = ()

    @property
    def journalled_for(self) -> tuple[str, ...]:
        """The targets of a write that the primary did not take."""
        return (self.primary.name, *(replica.name for replica in self.replicas), *self.sinks)
