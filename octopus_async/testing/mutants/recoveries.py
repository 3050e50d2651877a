"""Mutations of breakers, probes and replay."""

from __future__ import annotations

from typing import Any

import octopus_async.recovery
from octopus_async.guard import Breaker, Guard
from octopus_async.record import Mode
from octopus_async.recovery import Replayer

# A mutation reaches into what is private: that is where bugs are.
# ruff: noqa: SLF001
# mypy: disable-error-code="method-assign,assignment"


def permit_never_freed() -> None:
    """A probe keeps its permit for good."""
    original = Breaker.permit

    def permit(self: Breaker) -> int | None:
        given = original(self)
        self._permits = {number: float("inf") for number in self._permits}
        return given

    Breaker.permit = permit
    Breaker.probe_failed = lambda *_: None
    Breaker.probe_dropped = lambda *_: None


def ping_taken_for_write_health() -> None:
    """A server that answers pings is taken to accept writes."""
    original = Guard._probe

    async def probe(self: Guard, _: str) -> None:
        await original(self, "reads")

    Guard._probe = probe


def dead_letter_blocks() -> None:
    """What is rejected stays where it is, and is tried again and again."""

    async def bury(*_: object) -> int:
        return 0

    Replayer._bury = bury


def caches_not_touched_at_replay() -> None:
    """What is replayed into the primary is not told to the caches."""

    async def tell(*_: object) -> None:
        pass

    Replayer._tell_caches = tell


def settled_before_applied() -> None:
    """The journal forgets an operation whatever its backend said."""
    octopus_async.recovery.NOT_TAKEN = ()  # type: ignore[attr-defined]  # what the module goes by
    original = Replayer._conclude

    async def conclude(self: Replayer, runs: Any, outcomes: Any) -> int:  # noqa: ANN401 - as in the original
        done = await original(self, runs, outcomes)
        self._journal.settle(self.backend.name, runs)
        return done

    Replayer._conclude = conclude


def replayed_as_live() -> None:
    """Replay judges an operation as if its caller still waited."""
    original = Replayer._mode

    def mode(self: Replayer, run: Any) -> Mode:  # noqa: ANN401 - as in the original
        return Mode.LIVE if original(self, run) is Mode.REPLAY else Mode.MIRROR

    Replayer._mode = mode


def replica_before_its_primary() -> None:
    """A replica is given what its primary may still refuse."""

    def must_wait(self: Replayer, key: Any) -> bool:  # noqa: ANN401 - as in the original
        return self._plan_of(key.model) is None

    Replayer._must_wait = must_wait
