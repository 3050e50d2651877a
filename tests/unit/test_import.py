"""Importing the package costs no driver: who uses one backend installs and loads one."""

import subprocess
import sys

import pytest

DRIVERS_AND_EXTRAS = (
    *("aiosqlite", "aiomysql", "pymysql", "asyncmy", "asyncpg", "sqlalchemy", "aiomcache"),
    *("typer", "rich", "matplotlib"),
)


def loaded_after(statement: str) -> set[str]:
    """Names of all modules that a fresh interpreter holds after the statement."""
    script = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return loaded_after("import octopus_async")


def test_the_package_is_imported(loaded: set[str]) -> None:
    assert "octopus_async" in loaded


@pytest.mark.parametrize("module", DRIVERS_AND_EXTRAS)
def test_importing_the_package_imports_no_driver_and_no_extra(loaded: set[str], module: str) -> None:
    assert module not in loaded


def test_the_probe_notices_a_driver() -> None:
    assert "aiosqlite" in loaded_after("import aiosqlite")
