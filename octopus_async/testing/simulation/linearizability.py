"""Whether a history of one record could be that of a single, sequential record.

The search is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993) with the memory
of Lowe (Testing for Linearizability, 2017): a set of calls done and a state are tried only once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from octopus_async.testing.simulation.history import (
    CANCELLED,
    NOT_FOUND,
    OK,
    OPEN,
    REJECTED,
    UNKNOWN,
    Call,
)

_UNDECIDED = (OPEN, CANCELLED, UNKNOWN)
_IMPOSSIBLE = object()


def is_linearizable(calls: Sequence[Call]) -> bool:
    """Whether the calls, all of one key that does not exist at first, can be put in an order.

    Calls that never ended, were cancelled, or whose caller was told "perhaps", may take effect
    at any time after their invocation, or never. Reads that failed say nothing.
    """
    chosen = [call for call in calls if _says_something(call)]
    ends = [_end(call) for call in chosen]
    sure = sum(1 << index for index, call in enumerate(chosen) if call.result not in _UNDECIDED)
    tried: set[tuple[int, str | None]] = set()
    waiting: list[tuple[int, str | None]] = [(0, None)]
    while waiting:
        done, state = waiting.pop()
        if done & sure == sure:
            return True
        if (done, state) in tried:
            continue
        tried.add((done, state))
        # What begins after the earliest end of those that are left cannot be first.
        limit = min((ends[index] for index in range(len(chosen)) if not done >> index & 1), default=math.inf)
        for index, call in enumerate(chosen):
            if done >> index & 1 or call.invoked > limit:
                continue
            after = _step(call, state)
            if after is not _IMPOSSIBLE:
                waiting.append((done | 1 << index, after))  # type: ignore[arg-type]
    return False


def _says_something(call: Call) -> bool:
    if call.is_write:
        return call.result in (OK, REJECTED, NOT_FOUND, *_UNDECIDED)
    return call.result == OK


def _end(call: Call) -> float:
    if call.result in _UNDECIDED or call.responded is None:
        return math.inf
    return call.responded


def _step(call: Call, state: str | None) -> object:
    """The state after ``call`` in ``state``; ``_IMPOSSIBLE`` if it could not have ended as it did."""
    if not call.is_write or call.result in (REJECTED, NOT_FOUND):
        return state if _says(call, state) else _IMPOSSIBLE
    if call.conditional and (state is None or state != call.expects):
        return _IMPOSSIBLE
    if call.kind == "delete":
        return None
    return call.value if (call.kind == "create") == (state is None) else _IMPOSSIBLE


def _says(call: Call, state: str | None) -> bool:
    """Whether a call that changes nothing can have ended as it did in ``state``."""
    if call.kind == "read":
        return call.seen == state
    if call.kind == "exists":
        return (call.seen is not None) == (state is not None)
    if call.result == NOT_FOUND:
        return state is None
    if call.error.startswith("DuplicateRecord"):
        return state is not None
    if call.error.startswith("StaleRecord"):
        return state is not None and state != call.expects
    return True
