"""What caches missed: they are not read for those keys until they have been told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from octopus_async.backend import Backend
from octopus_async.events import CacheBehind, Events
from octopus_async.record import Key, Kind, Operation

_MOST_KEYS = 50_000


class CacheDebts:
    """Keeps, for one cache, the keys whose last write it missed.

    A cache forgets by itself after its time to live: so does a debt, unless what it missed was sent.
    That may land whenever a cache that hangs goes on, and lives from then: it is owed until it is paid.
    Past ``most_keys`` the cache is not read at all for its time to live, counted from when it answers
    where something may land, which bounds the memory of a long outage.

    Parameters:
        cache: the cache.
        now: a monotonic clock in seconds.
        events: is told when the cache is not read any more.
        most_keys: how many keys are remembered one by one.
    """

    def __init__(
        self, cache: Backend, now: Callable[[], float], events: Events, *, most_keys: int = _MOST_KEYS
    ) -> None:
        self._cache = cache
        self._now = now
        self._events = events
        self._most_keys = most_keys
        self._ttl = cache.capabilities.ttl or 0.0
        self._owed: dict[Key, tuple[Operation, float]] = {}
        self._distrusted_until = 0.0

    @property
    def total(self) -> int:
        """How many keys the cache has to be told of."""
        return len(self._owed)

    def owes(self, key: Key) -> bool:
        """Whether the cache must not be read for ``key``."""
        if self._distrusted_until:
            if self._now() < self._distrusted_until:
                return True
            self._distrusted_until = 0.0
        return key in self._owed

    def add(self, operation: Operation, *, sent: bool) -> None:
        """The cache missed ``operation``, or may have; if it was ``sent``, it may still land."""
        known, until = self._owed.pop(operation.key, (None, 0.0))
        forgotten = math.inf if sent else self._now() + self._ttl
        self._owed[operation.key] = (_debt(operation, known), max(until, forgotten))
        if len(self._owed) > self._most_keys:
            last = max(until for _, until in self._owed.values())
            self._owed.clear()
            self._distrusted_until = max(self._distrusted_until, last)
            self._events.emit(CacheBehind(self._cache.name, self._ttl))

    def answers(self) -> None:
        """The cache answers: what had been sent to it has landed, and will be forgotten."""
        if self._distrusted_until == math.inf:
            self._distrusted_until = self._now() + self._ttl

    def due(self, limit: int) -> Sequence[Operation]:
        """The first debts in line, at most ``limit``; those that the time to live has paid are dropped."""
        now = self._now()
        due: list[Operation] = []
        expired: list[Key] = []
        for key, (operation, until) in self._owed.items():
            if until <= now:
                expired.append(key)
            elif len(due) < limit:
                due.append(operation)
            else:
                break
        for key in expired:
            del self._owed[key]
        return due

    def postpone(self, operation: Operation) -> None:
        """The cache did not take ``operation`` yet: others must not wait behind it."""
        known = self._owed.pop(operation.key, None)
        if known is not None:
            self._owed[operation.key] = known

    def paid(self, operation: Operation) -> None:
        """The cache has taken ``operation``."""
        known = self._owed.get(operation.key)
        if known is None or known[0].version > operation.version:
            return
        if operation.kind is not Kind.RETRACT or known[0].kind is Kind.RETRACT:
            del self._owed[operation.key]


def _debt(missed: Operation, known: Operation | None) -> Operation:
    """What to tell a cache that missed one operation, or two.

    A retraction clears its own version alone: it cannot stand for another missed write.
    """
    if missed.kind is Kind.RETRACT and (known is None or known == missed):
        return missed
    newest = missed if known is None or known.version <= missed.version else known
    return Operation(Kind.INVALIDATE, newest.key, newest.version, newest.born)
