"""Probes what an open breaker keeps away, in the background, until it can be let in again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from octopus_async.errors import Unavailable
from octopus_async.guard.breaker import Breaker


class Prober:
    """Probes one direction of a backend for as long as its breaker wants it.

    Parameters:
        breaker: gives the permits, and is told what came of each.
        attempt: makes one probe; raises `Unavailable`.

    Attributes:
        task: the probing under way, or the last one; None before the first.
    """

    def __init__(self, breaker: Breaker, attempt: Callable[[], Awaitable[None]]) -> None:
        self._breaker = breaker
        self._attempt = attempt
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Probe if the breaker wants it, and nobody does yet."""
        if self._breaker.wants_probe and (self.task is None or self.task.done()):
            self.task = asyncio.get_running_loop().create_task(self._probe_until_closed())

    async def _probe_until_closed(self) -> None:
        breaker = self._breaker
        while breaker.wants_probe:
            await asyncio.sleep(breaker.retry_in)
            permit = breaker.permit()
            if permit is None:
                # Forced meanwhile, or a jitter of the clock: look again, and do not spin.
                await asyncio.sleep(breaker.retry_in or breaker.policy.open_for)
                continue
            await self._probe_once(permit)

    async def _probe_once(self, permit: int) -> None:
        breaker = self._breaker
        try:
            await self._attempt()
        except asyncio.CancelledError:
            breaker.probe_dropped(permit)
            raise
        except Unavailable as error:
            if error.alive:
                # Tables are made at a model's next use, which an open breaker would keep away for ever.
                breaker.probe_succeeded(permit)
            else:
                breaker.probe_failed(permit, str(error))
        else:
            breaker.probe_succeeded(permit)
