"""Tells a divergence from a record that changes under way: by looking again, until it stands.

A difference stands if the same two states were found twice, the journal owing nothing of the key
before the second look, and if a write that was under way when they arose must have ended. For that
either the newer version is older than a write may take, or it was watched for that long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from typing import NamedTuple

from octopus_async.clock import decode_version, is_version
from octopus_async.verification.difference import Difference, Pair
from octopus_async.verification.owed import Owed
from octopus_async.verification.report import Report
from octopus_async.verification.stores import Stores, Suspect

_WAITS = (0.0, 0.05, 0.1, 0.2, 0.4)


class _Watched(NamedTuple):
    pair: Pair
    since: float


class Suspicion:
    """Looks at suspects until each is cleared, owed, or stands.

    Parameters:
        owed: what is going to be made up.
        report: counts what is.
        settle: seconds within which a write has ended, or is in the journal.
        wall: seconds since 1970.
    """

    def __init__(self, owed: Owed, report: Report, *, settle: float, wall: Callable[[], float]) -> None:
        self._owed = owed
        self._report = report
        self._settle = settle
        self._wall = wall

    def is_owed(self, stores: Stores, suspect: Suspect) -> bool:
        """Whether what is missing is going to be made up, as of the last look; counts it."""
        owed = any(self._owed.owes(name, suspect.key) for name in (stores.primary.name, suspect.backend))
        if owed:
            self._report.owed[suspect.backend] = self._report.owed.get(suspect.backend, 0) + 1
        return owed

    async def settled(
        self, stores: Stores, suspects: Iterable[Suspect]
    ) -> dict[Suspect, tuple[Difference, Pair]]:
        """Those of the suspects that really differ. Raises `Unavailable`, JournalError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + 2 * self._settle + 1
        watched: dict[Suspect, _Watched | None] = dict.fromkeys(suspects)
        standing: dict[Suspect, tuple[Difference, Pair]] = {}
        for wait in chain(_WAITS, repeat(min(1.0, self._settle / 2))):
            if not watched:
                break
            if loop.time() > until:
                self._report.unsettled += len(watched)
                break
            await asyncio.sleep(wait)
            await self._look(stores, watched, standing)
        return standing

    async def _look(
        self,
        stores: Stores,
        watched: dict[Suspect, _Watched | None],
        standing: dict[Suspect, tuple[Difference, Pair]],
    ) -> None:
        await self._owed.look()
        now = asyncio.get_running_loop().time()
        for suspect, pair in (await stores.pairs(watched)).items():
            before = watched[suspect]
            found = stores.difference(suspect.backend, pair)
            if found is None or self.is_owed(stores, suspect):
                del watched[suspect]
            elif before is None or before.pair != pair:
                watched[suspect] = _Watched(pair, now)
            elif self._age(pair) > self._settle or now - before.since > self._settle:
                standing[suspect] = found, pair
                del watched[suspect]

    def _age(self, pair: Pair) -> float:
        """How many seconds ago the newer of the two was written."""
        newest = max((record.version for record in pair if record is not None), default="")
        if not is_version(newest):
            return self._settle + 1  # by others, who tell nobody when
        return self._wall() - decode_version(newest)[0] / 1000
