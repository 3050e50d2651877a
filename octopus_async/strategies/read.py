"""How a record is looked for: Cascade, Race and Hedge.

Race and Hedge are as fresh as the stalest backend among them; Cascade fills caches on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from octopus_async.backend import Answer, Backend
from octopus_async.errors import ConfigurationError, Unavailable
from octopus_async.record import Key, Record


class Search(NamedTuple):
    """What a search found, and what each backend that was asked answered, by its name.

    ``record`` is the hit: a living record or a tombstone; None if nobody had the key.
    """

    record: Record | None
    answers: dict[str, Answer | Unavailable]


class ReadStrategy(Protocol):
    """A way to look for one key in several backends."""

    @property
    def names(self) -> tuple[str, ...]:
        """The backends to ask, by name, in order. Empty for caches first, then the primary."""
        ...

    async def search(self, key: Key, backends: Sequence[Backend], deadline: float) -> Search:
        """Look for ``key``; ``deadline`` is a moment of the loop's clock."""
        ...


class _Named:
    def __init__(self, *names: str) -> None:
        if len(set(names)) != len(names):
            msg = f"{type(self).__name__} names a backend twice: {', '.join(names)}"
            raise ConfigurationError(msg)
        self.names = names

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.names))})"


class Cascade(_Named):
    """Ask one backend after the other: a miss or a failure falls through to the next.

    Each gets an equal share of the time that is left, so that one that hangs leaves some to those
    behind it.
    """

    async def search(self, key: Key, backends: Sequence[Backend], deadline: float) -> Search:
        """Look for ``key`` in order."""
        now = asyncio.get_running_loop().time
        answers: dict[str, Answer | Unavailable] = {}
        waiting = len(backends)
        for backend in backends:
            until = now() + (deadline - now()) / waiting if waiting > 1 else deadline
            waiting -= 1
            answer = answers[backend.name] = await backend.fetch(key, until)
            if isinstance(answer, Record):
                return Search(answer, answers)
        return Search(None, answers)


class Race(_Named):
    """Ask all backends at once; the first that has the key wins.

    Losers that were not sent yet are dropped; those that were end by themselves, owned by their
    backend's guard: cancelling a call on its way would cost its connection.
    """

    async def search(self, key: Key, backends: Sequence[Backend], deadline: float) -> Search:
        """Look for ``key`` everywhere at once."""
        return await _first_hit(key, backends, deadline, delay=0.0)


class Hedge(_Named):
    """Ask the first backend, and the next one as well when it is late, misses or fails.

    Parameters:
        names: the backends in order.
        delay: after how many seconds without an answer the next one is asked.
    """

    def __init__(self, *names: str, delay: float = 0.05) -> None:
        super().__init__(*names)
        if not delay > 0:
            msg = f"Hedge needs a delay above 0 seconds, not {delay!r}"
            raise ConfigurationError(msg)
        self.delay = delay

    async def search(self, key: Key, backends: Sequence[Backend], deadline: float) -> Search:
        """Look for ``key``, one backend more each time nothing came within the delay."""
        return await _first_hit(key, backends, deadline, delay=self.delay)


async def _first_hit(key: Key, backends: Sequence[Backend], deadline: float, *, delay: float) -> Search:
    answers: dict[str, Answer | Unavailable] = {}
    pending: dict[asyncio.Future[Answer | Unavailable], str] = {}
    waiting = list(reversed(backends))
    try:
        while waiting or pending:
            for _ in range(len(waiting) if not delay else min(1, len(waiting))):
                backend = waiting.pop()
                pending[backend.fetch(key, deadline)] = backend.name
            done, _ = await asyncio.wait(
                pending, timeout=delay if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            # In the order in which they were asked, which a set does not keep.
            for future in [future for future in pending if future in done]:
                answer = answers[pending.pop(future)] = future.result()
                if isinstance(answer, Record):
                    return Search(answer, answers)
        return Search(None, answers)
    finally:
        for future in pending:
            future.cancel()
