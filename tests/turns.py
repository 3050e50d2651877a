"""Whose turn it is, where several processes run tests: who measures time has the machine alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "OCTOPUS_TEST_TURNS"
"""The environment variable that tells all processes of a run the folder of their locks."""


@contextmanager
def turn(*, exclusive: bool) -> Generator[None]:
    """Wait until this process may run its next test; at once where it is the only one.

    ``exclusive`` waits for the running tests of the others, and they wait for this one. The gate is held
    while waiting, so that the others' next tests queue behind and cannot starve it.
    """
    folder = Path(os.environ[VARIABLE])
    with (folder / "gate").open("w") as gate, (folder / "room").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
