"""What is asked of a queue that carries journalled operations beside the journal: the sink protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from octopus_async.backend import Adapter
from octopus_async.record import Operation

SINK = "@sink"
"""The target under which a journal notes what a sink was not given yet. No backend's URL gives this name."""


class Delivery(NamedTuple):
    """A message that a queue has handed out.

    Attributes:
        operation: what it carries; None for what cannot be read.
        problem: why it cannot be read.
        handle: by what the queue knows it.
        received: how often it was handed out, this time included.
    """

    operation: Operation | None
    problem: str
    handle: object
    received: int


@runtime_checkable
class SinkAdapter(Adapter, Protocol):
    """A queue. `apply` puts operations into it, in order by key; nothing can be looked up there.

    Beside that it hands out what it holds, for a consumer that gives each message back in the end.
    """

    async def receive(self, *, wait: float) -> Sequence[Delivery]:
        """The next messages, some ten at most, those of a key in their order; hidden from others for a while.

        Parameters:
            wait: seconds to wait for one.

        Raises:
            Unavailable: the queue cannot be asked.
        """
        ...

    async def delete(self, deliveries: Sequence[Delivery]) -> None:
        """Forget messages for good. Raises `Unavailable`; then some may come again."""
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give messages back at once, to be handed out again or to become dead letters there.

        Raises `Unavailable`; then they come back after a while.
        """
        ...
