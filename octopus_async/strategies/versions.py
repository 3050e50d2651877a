"""Issues versions under a durable ceiling, so that a clock set back across a restart harms nothing."""

from __future__ import annotations

import asyncio
import logging

from octopus_async.backend import Journal
from octopus_async.clock import Clock
from octopus_async.errors import JournalError
from octopus_async.events import ClockAhead, Events

_log = logging.getLogger("octopus_async")
_AHEAD = 20_000
_RENEW = 10_000
_PATIENCE = 0.5
_SHARE = 0.25
_GRACE = 5_000
_SUSPICIOUS = 60.0


class Versions:
    """Hands out a clock's versions, and reserves the time ahead of them in the journal's folder.

    Parameters:
        clock: the clock.
        journal: keeps the ceiling; None without a journal, when there is none.
        events: is told of versions that are far ahead.
    """

    def __init__(self, clock: Clock, journal: Journal | None, events: Events) -> None:
        self.clock = clock
        self._journal = journal
        self._events = events
        self._reserved = 0
        self._reserving: asyncio.Future[None] | None = None

    async def issue(self, deadline: float) -> str:
        """A version greater than all that were issued or seen.

        Parameters:
            deadline: of the write, on the loop's clock; a slow disk may take a share of what is left.
        """
        version = self.clock.next()
        if self._journal is not None and self.clock.milliseconds + _RENEW > self._reserved:
            reserving = self._reserve(self._journal)
            if self.clock.milliseconds >= self._reserved:
                left = deadline - asyncio.get_running_loop().time()
                await asyncio.wait([reserving], timeout=min(_PATIENCE, _SHARE * max(0.0, left)))
                # A disk that cannot be written must not stop a healthy primary: the ceiling is
                # a second line of defence, against a clock that is set back while we are down.
                self._reserved = max(self._reserved, self.clock.milliseconds + _GRACE)
        return version

    def overtaken(self, stored: str | None, backend: str) -> None:
        """A store holds something newer than what was issued: move past it."""
        if stored is None:
            return
        ahead = self.clock.observe(stored)
        if ahead > _SUSPICIOUS:
            self._events.emit(ClockAhead(backend, stored, ahead))

    def _reserve(self, journal: Journal) -> asyncio.Future[None]:
        if self._reserving is None or self._reserving.done():
            until = self.clock.milliseconds + _AHEAD
            self._reserving = journal.reserve(until)
            self._reserving.add_done_callback(lambda future: self._was_reserved(future, until))
        return self._reserving

    def _was_reserved(self, future: asyncio.Future[None], until: int) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._reserved = max(self._reserved, until)
        elif isinstance(error, JournalError):
            _log.warning("the ceiling of versions could not be raised: %s", error)
