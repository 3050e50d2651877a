"""Policies say at once which of their numbers cannot work."""

from __future__ import annotations

import math
from typing import Any

import pytest

from octopus_async import BreakerPolicy, ConfigurationError, GuardPolicy

WRONG: list[tuple[str, Any]] = [
    *[(name, wrong) for name in ("window", "open_for", "open_at_most", "permit_for") for wrong in (0, -1.0)],
    *[("open_for", wrong) for wrong in (math.nan, math.inf, "1", None, True)],
    *[(name, wrong) for name in ("failures_in_a_row", "minimum_calls") for wrong in (0, 1.5, math.inf)],
    ("permits", 0),
    ("successes", -1),
    ("bad_rate", 0),
    ("bad_rate", 1.1),
    ("jitter", -0.1),
    ("jitter", 2),
    ("backoff", 0.5),
    ("backoff", math.nan),
    ("slow_after", 0),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_breakers_policy_names_what_cannot_work(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        BreakerPolicy(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["timeout", "open_timeout"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "1"])
def test_a_guards_policy_names_what_cannot_work(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        GuardPolicy(**{name: value})  # type: ignore[arg-type]


def test_what_is_at_the_edge_is_taken() -> None:
    BreakerPolicy(jitter=0, bad_rate=1, backoff=1, failures_in_a_row=1, minimum_calls=1, slow_after=1)
    GuardPolicy(timeout=60, open_timeout=0.001)
