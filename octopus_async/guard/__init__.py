"""Guarded backends: circuit breakers, deadlines and natural batching around an adapter."""

from octopus_async.guard.breaker import Breaker, BreakerStatistics, Failure, State, Transition
from octopus_async.guard.guard import Guard, GuardStatistics
from octopus_async.guard.lane import Lane, LaneLimits
from octopus_async.guard.policy import BreakerPolicy, GuardPolicy

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
