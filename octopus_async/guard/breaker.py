"""The circuit breaker: a pure state machine with an injected clock. It does no I/O and never waits.

    CLOSED --bad calls--> OPEN --back-off over--> HALF_OPEN --a probe succeeds--> CLOSED
                            ^------------a probe fails------------'

By hand: FORCED_OPEN, FORCED_CLOSED, DISABLED, each until `Breaker.release`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from octopus_async.guard.policy import BreakerPolicy

_SLICES = 20


class State(Enum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    FORCED_OPEN = "forced open"
    FORCED_CLOSED = "forced closed"
    """Calls pass whatever happens; what happens is counted, and seen in the statistics."""
    DISABLED = "disabled"
    """Calls pass, and nothing is counted."""


class Failure(Enum):
    """How a call failed."""

    REFUSED = "connection refused"
    TIMEOUT = "no answer in time"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Transition:
    """A breaker moved."""

    before: State
    after: State
    reason: str


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """A breaker at one moment. ``retry_in`` is in seconds, 0 unless it is open."""

    state: State
    calls: int
    bad: int
    in_a_row: int
    retry_in: float


class _Slice:
    """The calls of a short while; the window is made of some, so that calls cost no memory."""

    __slots__ = ("bad", "calls", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.calls = 0
        self.bad = 0


class Breaker:
    """One breaker: for one direction (reads or writes) of one backend.

    Parameters:
        policy: its thresholds and times.
        now: a monotonic clock in seconds.
        on_change: is told of each transition, at once.
        uniform: random numbers between two bounds, for the jitter.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        now: Callable[[], float],
        on_change: Callable[[Transition], None],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.policy = policy
        self.state = State.CLOSED
        self._now = now
        self._on_change = on_change
        self._uniform = uniform
        self._generation = 0
        self._slices: deque[_Slice] = deque()
        self._calls = 0
        self._bad = 0
        self._in_a_row = 0
        self._times_open = 0
        self._retry_at = 0.0
        self._permits: dict[int, float] = {}
        self._next_permit = 0
        self._successes = 0

    @property
    def passes(self) -> bool:
        """Whether calls may pass now."""
        return self.state in _PASSING

    def enter(self) -> int | None:
        """Ask to make a call.

        Returns:
            The generation to report the call's end with; None if it must not be made.
        """
        return self._generation if self.state in _PASSING else None

    def succeeded(self, generation: int, seconds: float) -> None:
        """A call that began in ``generation`` was answered, perhaps by a rejection."""
        if generation != self._generation or self.state is State.DISABLED:
            return
        slow = self.policy.slow_after is not None and seconds > self.policy.slow_after
        if not slow:
            self._in_a_row = 0
        self._count(bad=slow)
        if slow:
            self._judge_rate("slow calls")

    def failed(self, generation: int, failure: Failure, reason: str = "") -> None:
        """A call that began in ``generation`` failed for the backend's fault."""
        if generation != self._generation or self.state is State.DISABLED:
            return
        self._in_a_row += 1
        self._count(bad=True)
        reason = reason or failure.value
        if failure is Failure.REFUSED:
            self._open(reason)
        elif self._in_a_row >= self.policy.failures_in_a_row:
            self._open(f"{self._in_a_row} in a row: {reason}")
        else:
            self._judge_rate(reason)

    @property
    def retry_in(self) -> float:
        """Seconds until a probe makes sense: 0 when one does now."""
        return max(0.0, self._retry_at - self._now()) if self.state is State.OPEN else 0.0

    @property
    def wants_probe(self) -> bool:
        """Whether it stands where only a probe can close it."""
        return self.state in (State.OPEN, State.HALF_OPEN)

    def permit(self) -> int | None:
        """Ask to make a probe: a permit to give back, or None where none is free now."""
        now = self._now()
        if self.state is State.OPEN and now >= self._retry_at:
            self._move(State.HALF_OPEN, "time for a probe")
            self._successes = 0
            self._permits.clear()
        if self.state is not State.HALF_OPEN:
            return None
        self._permits = {permit: until for permit, until in self._permits.items() if until > now}
        if len(self._permits) >= self.policy.permits:
            return None
        self._next_permit += 1
        self._permits[self._next_permit] = now + self.policy.permit_for
        return self._next_permit

    def probe_succeeded(self, permit: int) -> None:
        """The probe of that permit got its answer."""
        if self._permits.pop(permit, None) is None or self.state is not State.HALF_OPEN:
            return
        self._successes += 1
        if self._successes >= self.policy.successes:
            self._close("a probe succeeded")

    def probe_failed(self, permit: int, reason: str) -> None:
        """The probe of that permit failed."""
        if self._permits.pop(permit, None) is not None and self.state is State.HALF_OPEN:
            self._open(f"a probe failed: {reason}")

    def probe_dropped(self, permit: int) -> None:
        """The probe of that permit was cancelled, and proves nothing."""
        self._permits.pop(permit, None)

    def trip(self, reason: str) -> None:
        """Open it now, as a failure would: for a backend that could not be opened at all."""
        if self.state in (State.CLOSED, State.HALF_OPEN):
            self._open(reason)

    def force(self, state: State) -> None:
        """Put it by hand into FORCED_OPEN, FORCED_CLOSED or DISABLED. Raises ValueError."""
        if state not in _FORCED:
            msg = f"a breaker can be forced open, forced closed or disabled, not {state.value}"
            raise ValueError(msg)
        self._forget_calls()
        self._move(state, "by hand")

    def release(self) -> None:
        """Give it back to itself: a forced breaker goes on as OPEN and asks for a probe at once."""
        if self.state not in _FORCED:
            return
        self._forget_calls()
        self._times_open = 0
        self._retry_at = self._now()
        self._move(State.OPEN, "released by hand")

    def statistics(self) -> BreakerStatistics:
        """Its figures now, over the sliding window."""
        self._forget_before(self._now() - self.policy.window)
        return BreakerStatistics(self.state, self._calls, self._bad, self._in_a_row, self.retry_in)

    def _count(self, *, bad: bool) -> None:
        now, window = self._now(), self.policy.window
        self._forget_before(now - window)
        if not self._slices or now - self._slices[-1].start > window / _SLICES:
            self._slices.append(_Slice(now))
        newest = self._slices[-1]
        newest.calls += 1
        newest.bad += bad
        self._calls += 1
        self._bad += bad

    def _judge_rate(self, last: str) -> None:
        if self._calls >= self.policy.minimum_calls and self._bad >= self.policy.bad_rate * self._calls:
            self._open(f"{self._bad} of {self._calls} calls were bad, the last: {last}")

    def _forget_before(self, moment: float) -> None:
        slices = self._slices
        while slices and slices[0].start < moment:
            oldest = slices.popleft()
            self._calls -= oldest.calls
            self._bad -= oldest.bad

    def _forget_calls(self) -> None:
        self._slices.clear()
        self._calls = 0
        self._bad = 0
        self._in_a_row = 0
        self._generation += 1

    def _open(self, reason: str) -> None:
        if self.state is State.FORCED_CLOSED:
            return
        policy = self.policy
        pause = min(policy.open_at_most, policy.open_for * policy.backoff**self._times_open)
        self._retry_at = self._now() + pause * (1 - self._uniform(0.0, policy.jitter))
        # Far beyond any cap; without a bound the power above would overflow in a long outage.
        self._times_open = min(self._times_open + 1, 64)
        self._forget_calls()
        self._move(State.OPEN, reason)

    def _close(self, reason: str) -> None:
        self._times_open = 0
        self._forget_calls()
        self._move(State.CLOSED, reason)

    def _move(self, after: State, reason: str) -> None:
        before, self.state = self.state, after
        if before is not after:
            self._on_change(Transition(before, after, reason))


# A tuple: its members are compared by identity, where a set asks for an enum's slow hash.
_PASSING = (State.CLOSED, State.FORCED_CLOSED, State.DISABLED)
_FORCED = frozenset({State.FORCED_OPEN, State.FORCED_CLOSED, State.DISABLED})
