"""Guarded backends: circuit breakers, deadlines and natural batching around an adapter."""

from octopus_async.guard.breaker import Breaker, BreakerPolicy, BreakerStatistics, Failure, State, Transition
from octopus_async.guard.guard import Guard, GuardPolicy, GuardStatistics
from octopus_async.guard.lane import Lane, LaneLimits

__all__ = [
    "Breaker",
    "BreakerPolicy",
    "BreakerStatistics",
    "Failure",
    "Guard",
    "GuardPolicy",
    "GuardStatistics",
    "Lane",
    "LaneLimits",
    "State",
    "Transition",
]
