"""Several backends' errors in one: what each said, and when another try makes sense."""

from __future__ import annotations

from collections.abc import Mapping

from octopus_async.errors import OctopusError, Unavailable


def said(causes: Mapping[str, OctopusError]) -> str:
    """What each said, by its name, for a message."""
    return "; ".join(f"{name}: {error}" for name, error in causes.items())


def soonest(causes: Mapping[str, OctopusError]) -> float | None:
    """The least seconds after which one of them may be tried again; None where nobody knows."""
    waits = [
        error.retry_after for error in causes.values() if isinstance(error, Unavailable) and error.retry_after
    ]
    return min(waits, default=None)
