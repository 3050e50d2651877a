"""When pymongo asks its servers how they are, so that nobody closes it in the middle of that."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from pymongo import monitoring


class Heartbeats(monitoring.ServerHeartbeatListener):
    """The checks of a client's servers that are under way.

    Closed while it connects for one, the driver leaves the socket to the garbage collector.
    """

    def __init__(self) -> None:
        self._under_way: set[object] = set()
        self._changed = asyncio.Event()

    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None:
        """One begins."""
        self._under_way.add(event.connection_id)

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        """The server has answered."""
        self._end(event.connection_id)

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        """The server has not."""
        self._end(event.connection_id)

    def _end(self, server: object) -> None:
        self._under_way.discard(server)
        self._changed.set()

    async def rest(self, seconds: float) -> None:
        """Wait until none is under way, or that long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._under_way:
                    self._changed.clear()
                    await self._changed.wait()
