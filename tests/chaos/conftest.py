"""The rig that all cells share, the choice of cells, and a table of what was measured."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from octopus_async.testing.servers import MARIADB, MEMCACHED, find
from tests.chaos.cells import CELLS, SHORT, Measured
from tests.chaos.rig import Room

MEASURED = pytest.StashKey[list[Measured]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--matrix", action="store_true", help="all cells of the chaos matrix, not some")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        cells = CELLS if metafunc.config.getoption("--matrix", default=False) else SHORT
        metafunc.parametrize("cell", cells, ids=str)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    measured = terminalreporter.config.stash.get(MEASURED, [])
    if measured:
        terminalreporter.section("chaos")
        for line in Measured.table(measured):
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def room() -> Generator[Room]:
    for kind in (MARIADB, MEMCACHED):
        find(kind)
    room = Room()
    yield room
    room.close()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> list[Measured]:
    """Where a cell writes down what was measured."""
    return request.config.stash.setdefault(MEASURED, [])
