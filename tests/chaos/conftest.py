"""The rig that all cells share, the choice of cells, and a table of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import fields

import pytest

from octopus_async.testing.servers import MARIADB, MEMCACHED, POSTGRES, find
from tests.chaos.cells import CELLS, SHORT, Cell, Measured
from tests.chaos.disks import why_not_mounted
from tests.chaos.rig import Room

_KINDS = {"mariadb": MARIADB, "postgres": POSTGRES}
_MEASURED = "chaos"
_CELLS = {str(cell): cell for cell in CELLS}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--matrix", action="store_true", help="all cells of the chaos matrix, not some")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        cells = CELLS if metafunc.config.getoption("--matrix", default=False) else SHORT
        metafunc.parametrize("cell", cells, ids=str)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    measured = list(_reported(terminalreporter))
    if measured:
        terminalreporter.section("chaos")
        for line in Measured.table(measured):
            terminalreporter.line(line)
        if why_not_mounted() is not None:
            terminalreporter.line(
                f"The journal's disk was full by a quota in the process, and a database's was not: "
                f"mounting a small one takes root ({why_not_mounted()})"
            )


@pytest.fixture(scope="session")
def rooms() -> Generator[Callable[[Cell], Room]]:
    """The servers of a cell, started for the first one that needs them."""
    opened: dict[tuple[str, bool], Room] = {}

    def room_for(cell: Cell) -> Room:
        name = cell.database, cell.needs_small_disk
        if name not in opened:
            opened[name] = Room(cell.database, small=cell.needs_small_disk)
        return opened[name]

    yield room_for
    for room in opened.values():
        room.close()


@pytest.fixture
def room(cell: Cell, rooms: Callable[[Cell], Room]) -> Room:
    why_not = why_not_mounted() if cell.needs_small_disk else None
    if why_not is not None:
        pytest.skip(f"{cell.database}'s disk cannot be filled: mounting a small one takes root ({why_not})")
    for kind in (_KINDS[cell.database], MEMCACHED):
        find(kind)
    return rooms(cell)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Generator[list[Measured]]:
    """Where a cell writes down what was measured; it travels in the report of the test."""
    rows: list[Measured] = []
    yield rows
    for row in rows:
        values = {field.name: getattr(row, field.name) for field in fields(row)}
        request.node.user_properties.append((_MEASURED, values | {"cell": str(row.cell)}))


def _reported(terminalreporter: pytest.TerminalReporter) -> Iterator[Measured]:
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "teardown":
                for name, values in report.user_properties:
                    if name == _MEASURED:
                        yield Measured(**values | {"cell": _CELLS[values["cell"]]})
