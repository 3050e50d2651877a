"""How much is tried: little and always the same in an ordinary run, as much as is asked for in a long one."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("OCTOPUS_FUZZ_FACTOR", "1"))
"""How many times as many examples as in an ordinary run; above 1 they are other ones each time."""


def fuzzed(examples: int) -> settings:
    """Settings of a property that is tried with so many examples in an ordinary run."""
    return settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
