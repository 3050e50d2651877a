"""The hunt for planted bugs: what is found, what survives, and what must not count as found."""

import pytest

from octopus_async.testing.mutants import MUTANTS, Mutant
from octopus_async.testing.mutants.__main__ import main

pytestmark = pytest.mark.timeout(
    300
)  # interpreters are started one after the other, on a machine that may be loaded

NAMED = {
    "acknowledge-before-fsync",
    "no-version-guard",
    "tombstone-forgotten",
    "filled-below-the-floor",
    "rejections-counted-as-failures",
    "permit-never-freed",
    "operations-of-a-key-reordered",
    "first-state-replayed",
    "coalesced-past-what-decides",
    "unknown-treated-as-failed",
    "compensation-missing",
    "dead-letter-blocks",
    "lines-without-checksum",
    "lock-not-taken",
    "cancelled-waiter-aborts-its-group",
    "connection-reused-after-cancellation",
    "read-only-taken-for-a-rejection",
    "ping-taken-for-write-health",
    "clock-below-its-ceiling",
    "caches-not-touched-at-replay",
    "stale-fill-for-its-lease-is-ignored",
    "unit-split-by-coalescing",
}
"""The bugs that have to be among those that are planted."""


def test_the_bugs_that_have_to_be_planted_are_and_each_says_what_it_breaks() -> None:
    assert set(MUTANTS) >= NAMED
    assert all(mutant.plant.__doc__ and mutant.hunted_by for mutant in MUTANTS.values())


def test_a_bug_that_is_found_is_named_with_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["acknowledge-before-fsync", "--seeds", "100", "--jobs", "1"]) == 0
    assert "found    acknowledge-before-fsync" in capsys.readouterr().out


def test_a_bug_that_survives_makes_the_hunt_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debts-forgotten", "--seeds", "0", "--jobs", "1"]) == 1
    assert "SURVIVED debts-forgotten" in capsys.readouterr().out


def test_a_test_that_fails_without_the_bug_has_not_found_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    broken = tmp_path_factory.mktemp("broken") / "test_broken.py"
    broken.write_text("def test_broken():\n    assert False\n")
    planted = MUTANTS["debts-forgotten"].plant
    monkeypatch.setitem(MUTANTS, "debts-forgotten", Mutant("debts-forgotten", planted, (str(broken),)))
    assert main(["debts-forgotten", "--jobs", "1"]) == 1
    captured = capsys.readouterr()
    assert "SURVIVED" in captured.out
    assert "fails without any mutant" in captured.err


def test_an_unknown_name_is_refused() -> None:
    assert main(["no-such-bug"]) == 2
