"""For pytest: ``-p octopus_async.testing.mutants.plugin`` plants the bug that the environment names."""

from __future__ import annotations

import os

from octopus_async.testing.mutants.catalogue import MUTANTS

VARIABLE = "OCTOPUS_MUTANT"


def pytest_configure() -> None:
    """Plant it before any test is collected."""
    name = os.environ.get(VARIABLE)
    if name:
        MUTANTS[name].plant()
