"""The times and thresholds of guards and breakers, checked as they are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from octopus_async.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and how it closes again. Times are seconds.

    Attributes:
        failures_in_a_row: timeouts or errors, one after the other, that open it.
        window: how far back the rate of bad calls looks, to a twentieth of it.
        minimum_calls: how many calls the window has to hold before the rate counts.
        bad_rate: the share of failed or slow calls that opens it.
        slow_after: a call that takes longer counts as bad; None for never.
        open_for: how long it stays open the first time.
        backoff: by how much longer each further time in a row.
        open_at_most: the longest it stays open without a probe.
        jitter: the share of that time that is random, so that processes do not probe as one.
        permits: how many probes may be under way in half-open.
        permit_for: after which time a permit that was not given back counts as free.
        successes: how many probes have to succeed.
    """

    failures_in_a_row: int = 3
    window: float = 10.0
    minimum_calls: int = 20
    bad_rate: float = 0.5
    slow_after: float | None = None
    open_for: float = 0.2
    backoff: float = 2.0
    open_at_most: float = 3.0
    jitter: float = 0.2
    permits: int = 1
    permit_for: float = 5.0
    successes: int = 1

    def __post_init__(self) -> None:
        _check(self, _is_time, "window", "open_for", "open_at_most", "permit_for")
        _check(self, _is_count, "failures_in_a_row", "minimum_calls", "permits", "successes")
        _check(self, _is_share, "bad_rate", "jitter")
        if self.bad_rate == 0:
            raise ConfigurationError("bad_rate is above 0: else every call would open the breaker")
        _check(self, _is_factor, "backoff")
        if self.slow_after is not None:
            _check(self, _is_time, "slow_after")


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """How a backend is guarded. Times are seconds.

    Attributes:
        timeout: the longest that one physical call may take.
        open_timeout: the longest that opening or closing the adapter may take.
        reads: the breaker's policy for reads.
        writes: the breaker's policy for writes.
    """

    timeout: float = 1.0
    open_timeout: float = 5.0
    reads: BreakerPolicy = field(default_factory=BreakerPolicy)
    writes: BreakerPolicy = field(default_factory=BreakerPolicy)

    def __post_init__(self) -> None:
        _check(self, _is_time, "timeout", "open_timeout")


def _is_time(number: float) -> str | None:
    return None if 0 < number < math.inf else "a number of seconds above 0"


def _is_count(number: float) -> str | None:
    return None if number >= 1 and number % 1 == 0 else "a whole number of at least 1"


def _is_factor(number: float) -> str | None:
    return None if 1 <= number < math.inf else "a factor of at least 1"


def _is_share(number: float) -> str | None:
    return None if 0 <= number <= 1 else "a share from 0 to 1"


def _check(policy: object, rule: Callable[[float], str | None], *names: str) -> None:
    for name in names:
        value = getattr(policy, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        wanted = rule(value if number else math.nan)
        if wanted is not None:
            raise ConfigurationError(f"{name} is {wanted}, not {value!r}")
