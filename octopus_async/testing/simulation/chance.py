"""Puts the seed in the place of every source of chance that the library has."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import octopus_async.clock


class _Bits:
    """Stands in for the standard module `secrets`."""

    def __init__(self, source: random.Random) -> None:
        self.randbits = source.getrandbits
        self._source = source

    def token_hex(self, size: int) -> str:
        return self._source.randbytes(size).hex()


_clock: Any = octopus_async.clock


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make a run depend on its seed alone, and keep the library's log lines to itself."""
    logger = logging.getLogger("octopus_async")
    was_disabled, state, secrets = logger.disabled, random.getstate(), _clock.secrets
    logger.disabled = True
    random.seed(f"library {seed}")  # the breakers' jitter is drawn from the global generator
    _clock.secrets = _Bits(random.Random(f"writers {seed}"))
    try:
        yield
    finally:
        _clock.secrets = secrets
        random.setstate(state)
        logger.disabled = was_disabled
