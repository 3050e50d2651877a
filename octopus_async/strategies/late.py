"""What the journal may still write down although nobody waits for it: later writes of its keys wait first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

from octopus_async.errors import JournalError
from octopus_async.events import Events, WriteJournalled
from octopus_async.record import Key, Operation
from octopus_async.strategies.keys import until

T = TypeVar("T")


class LateEntries:
    """Keeps, by key, the entries whose writers gave up before the journal had answered.

    Such an entry is pending as soon as it is durable. A write that was let past it would be hidden
    behind that older state, and would not know that it follows something the primary may refuse.

    Parameters:
        events: is told of an entry that is durable after all, so that it is replayed.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._undecided: dict[Key, asyncio.Future[Any]] = {}

    @property
    def undecided(self) -> bool:
        """Whether anything is on its way to the journal that nobody waits for."""
        return bool(self._undecided)

    async def in_time(
        self,
        appending: asyncio.Future[T],
        operations: Sequence[Operation],
        targets: Sequence[str],
        deadline: float,
    ) -> T:
        """What the journal answers. Raises JournalError, also where that is not known by ``deadline``."""
        if await until(appending, deadline):
            return appending.result()
        self._undecided.update((operation.key, appending) for operation in operations)
        appending.add_done_callback(lambda _: self._decided(appending, operations, targets))
        raise JournalError("the journal was not durable before the deadline")

    async def wait(self, key: Key, deadline: float) -> None:
        """Wait until the journal has, or has not, what is on its way there for ``key``.

        Raises:
            JournalError: that was not known at ``deadline`` (the loop's clock).
        """
        appending = self._undecided.get(key)
        if appending is not None and not await until(appending, deadline):
            message = f"an earlier write of {key} was still on its way to the journal at the deadline"
            raise JournalError(message)

    def _decided(
        self, appending: asyncio.Future[Any], operations: Sequence[Operation], targets: Sequence[str]
    ) -> None:
        for operation in operations:
            if self._undecided.get(operation.key) is appending:
                del self._undecided[operation.key]
        if not appending.cancelled() and appending.exception() is None:
            for operation in operations:
                self._events.emit(WriteJournalled(operation.key, operation.version, tuple(targets)))
