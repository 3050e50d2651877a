"""Puts the seed in the place of every source of chance that the library has."""

from __future__ import annotations

import logging
import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import octopus_async.clock
import octopus_async.journal.root


class _Bits:
    """Stands in for the standard module `secrets`."""

    def __init__(self, source: random.Random) -> None:
        self.randbits = source.getrandbits
        self._source = source

    def token_hex(self, size: int) -> str:
        return self._source.randbytes(size).hex()


_USERS: tuple[Any, ...] = (octopus_async.clock, octopus_async.journal.root)
"""The modules that draw from `secrets`."""


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Make a run depend on its seed alone, and keep the library's log lines to itself."""
    logger = logging.getLogger("octopus_async")
    was_disabled, state = logger.disabled, random.getstate()
    logger.disabled = True
    random.seed(f"library {seed}")  # the breakers' jitter is drawn from the global generator
    bits = _Bits(random.Random(f"writers {seed}"))
    secrets = [module.secrets for module in _USERS]
    for module in _USERS:
        module.secrets = bits
    try:
        yield
    finally:
        for module, original in zip(_USERS, secrets, strict=True):
            module.secrets = original
        random.setstate(state)
        logger.disabled = was_disabled
