"""Real servers under load, and everything that can be done to them: nothing is lost, late, stale or stuck."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.cells import Cell, Measured, Run, RunWithFullJournal, When
from tests.chaos.rig import Room


@pytest.mark.alone
@pytest.mark.timeout(200)  # a server stands still for a minute, and a first run downloads the servers
async def test_nothing_is_lost_late_or_stuck(
    cell: Cell, room: Room, tmp_path: Path, measured: list[Measured]
) -> None:
    run = RunWithFullJournal if cell.fills_journal else Run
    found = await run(cell, room, tmp_path).run()
    measured.append(found)
    assert {fault: examples for fault, examples in found.faults.items() if examples} == {}
    assert found.acknowledged > 50
    assert found.late < 0.1
    assert found.blocked < 0.1
    assert found.drained < 5 + found.forgiven
    if cell.when is When.IDLE:  # what is over before anybody calls is nobody's concern
        assert found.breakers == []
        assert found.journalled == 0
    if cell.when is When.REPLAYING or (cell.needs_small_disk and cell.when is When.LOADED):
        assert found.journalled > 0
    if cell.fills_journal:
        assert found.refused_writes > 0
        assert found.went_on > 0
