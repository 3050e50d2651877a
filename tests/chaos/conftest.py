"""The rig that all cells share, the choice of cells, and a table of what was measured."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from octopus_async.testing.servers import MARIADB, MEMCACHED, find
from tests.chaos.cells import CELLS, SHORT, Cell, Measured
from tests.chaos.disks import why_not_mounted
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
        if why_not_mounted() is not None:
            terminalreporter.line(
                f"The journal's disk was full by a quota in the process, and MariaDB's was not: "
                f"mounting a small one takes root ({why_not_mounted()})"
            )


@pytest.fixture(scope="session")
def ordinary_room() -> Generator[Room]:
    for kind in (MARIADB, MEMCACHED):
        find(kind)
    room = Room()
    yield room
    room.close()


@pytest.fixture(scope="session")
def small_room() -> Generator[Room]:
    why_not = why_not_mounted()
    if why_not is not None:
        pytest.skip(f"MariaDB's disk cannot be filled: mounting a small one takes root ({why_not})")
    for kind in (MARIADB, MEMCACHED):
        find(kind)
    room = Room(small=True)
    yield room
    room.close()


@pytest.fixture
def room(cell: Cell, request: pytest.FixtureRequest) -> Room:
    """The servers of a cell: those with a small disk are started for the cells that fill it alone."""
    name = "small_room" if cell.needs_small_disk else "ordinary_room"
    room: Room = request.getfixturevalue(name)
    return room


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> list[Measured]:
    """Where a cell writes down what was measured."""
    return request.config.stash.setdefault(MEASURED, [])
