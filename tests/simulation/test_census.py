"""What is injected does happen: the census counts harm done, and the simulated faults do it."""

import pytest

from octopus_async.journal import FileJournal
from octopus_async.manager import DaoManager
from octopus_async.testing.simulation import FAULTS, Fault, Scenario, Setup, Step, run, scenario_of
from octopus_async.testing.simulation.scenario import CRASHES

WRITES = tuple(Step(0, 0, 0.05, "update" if number else "create", "k0") for number in range(10))


def struck(*faults: Fault, steps: tuple[Step, ...] = WRITES, **setup: object) -> dict[str, int]:
    report = run(Scenario(Setup(7, **setup), steps, faults))  # type: ignore[arg-type]
    assert not report.violations
    return dict(report.census)


def test_a_server_that_is_down_refuses_requests() -> None:
    assert struck(Fault(0.1, "down", "primary", 0.2))["primary down"] > 0


def test_what_lies_in_a_server_that_hangs_lands_late() -> None:
    counted = struck(Fault(0.1, "hung", "primary", 1.0), timeout=0.3, call_timeout=0.1)
    assert counted["primary hung"] > 0
    assert counted["late landing"] > 0


def test_a_crash_within_a_write_leaves_it_unanswered() -> None:
    report = run(Scenario(Setup(7), WRITES, (Fault(0.1, "crash", "0", 0.1, 3.0),)))
    assert report.census["crash within a call"] == 1
    assert [call.result for call in report.history.calls].count("open") == 1


def test_a_crash_within_a_replay_is_followed_by_another() -> None:
    counted = struck(Fault(0.1, "down", "primary", 0.3), Fault(0.2, "crash_replay", "0", 0.1, 6.0))
    assert counted["crash within a replay"] == 1
    assert counted["restart on pending entries"] == 1


def test_a_journal_is_killed_between_two_of_its_calls_to_the_disk() -> None:
    counted = struck(Fault(0.1, "down", "primary", 0.5), Fault(0.15, "crash_disk", "0", 0.1, 2.0))
    assert counted["crash within a disk call"] == 1


def test_a_table_that_changed_in_an_outage_is_met_by_the_replay() -> None:
    counted = struck(Fault(0.1, "down", "primary", 0.3), Fault(0.4, "wrong_schema", "primary", 0.5))
    assert counted["wrong schema at replay"] > 0


def test_the_journal_of_who_died_for_good_is_adopted() -> None:
    steps = (*WRITES, Step(1, 0, 2.5, "read", "k0"))
    faults = (Fault(0.1, "down", "primary", 0.6), Fault(0.3, "die", "0"))
    counted = struck(*faults, steps=steps, processes=2, skews=(0.0, 0.0))
    assert counted["adoption of pending entries"] == 1


UNIT = (Step(0, 0, 0.05, "unit", "u0"),)


def test_a_unit_of_work_is_there_as_a_whole() -> None:
    report = run(Scenario(Setup(7), UNIT, (Fault(0.0, "down", "primary", 0.5),)))
    assert not report.violations
    assert set(report.history.final.primary) == {"u0a", "u0b"}


FORK = Scenario(Setup(7), WRITES, (Fault(0.2, "down", "primary", 0.3), Fault(0.3, "fork", "0")))


def test_a_forked_child_holds_nothing_and_refuses_everything() -> None:
    report = run(FORK)
    assert not report.violations
    assert report.census["fork"] == 1


def test_a_forked_child_that_holds_the_lock_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileJournal, "forget_process", lambda _: None)
    assert "descriptors of the journal, and their locks" in str(run(FORK).violations)


def test_a_forked_child_that_goes_on_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DaoManager, "_forked", lambda _: None)
    assert "in the child of a fork: create" in str(run(FORK).violations)


def test_scenarios_draw_every_kind_of_fault() -> None:
    drawn = {fault.kind for seed in range(600) for fault in scenario_of(seed).faults}
    assert drawn >= {*CRASHES, "die", "fork", "pause", "clock", "clock_restart", "down", "hung", "slow"}
    assert drawn >= {"errors", "lost", "partial", "read_only", "full", "wrong_schema", "eio"}
    assert drawn >= {"evict", "restart_empty", "restart_old"}


def test_the_census_has_a_line_for_each_kind() -> None:
    assert len(FAULTS) == len(set(FAULTS)) > 50
