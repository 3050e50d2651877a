"""Loaded processes are killed at random moments and chosen calls, and what they acknowledged is found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.crash.journals import PRIMARY, REPLICA, ROUNDS
from tests.crash.kills import CALLS
from tests.crash.lanes import Findings
from tests.crash.truth import Truth

pytestmark = pytest.mark.timeout(90 * ROUNDS)

POINTS = 250 * ROUNDS
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def findings() -> Findings:
    # A process of its own, as this one has threads, and must not be forked.
    command = [sys.executable, "-m", "tests.crash.kills", str(POINTS)]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False).stdout
    return Findings.from_json(said)


def test_a_process_that_is_killed_under_load_loses_nothing_it_had_acknowledged(findings: Findings) -> None:
    assert findings.problems == []
    assert findings.points.total() >= POINTS
    assert findings.counts["acknowledged"] > 5 * POINTS
    assert findings.counts["compared"] > 20 * POINTS


def test_they_were_killed_in_opening_under_load_and_at_calls_of_many_kinds(findings: Findings) -> None:
    places = findings.points
    assert places["at a random moment of opening"] > 0
    assert places["at a random moment under load"] > 0
    killed_at = {place.split()[1] for place in places if not place.startswith("at ")}
    assert len(killed_at & CALLS.keys()) > len(CALLS) / 2


class TestTheJudgeOfTheKilled:
    """What it must not overlook."""

    def told(self, *said: Sequence[object]) -> Truth:
        truth = Truth()
        truth.hear([["append", "a", "1", 11, [PRIMARY]], ["appended", "a", "1"], *map(list, said)])
        return truth

    def found(self, truth: Truth, *waiting: object, **more: object) -> list[str]:
        nothing = {"whole": True, "ceiling": 0, "damage": [], "letters": [], REPLICA: []}
        truth.hear([["found", {**nothing, PRIMARY: waiting, **more}]])
        return [problem.split(":")[0] for problem in truth.problems]

    def test_all_is_well_if_what_was_acknowledged_is_found(self) -> None:
        assert self.found(self.told(), ("a", "1", 11, 1)) == []

    def test_what_was_acknowledged_is_gone(self) -> None:
        assert self.found(self.told()) == ["lost"]

    def test_an_older_state_than_the_acknowledged_is_found(self) -> None:
        later = (["append", "a", "2", 22, [PRIMARY]], ["appended", "a", "2"])
        assert self.found(self.told(*later), ("a", "1", 11, 1)) == ["lost"]

    def test_what_was_begun_and_not_acknowledged_may_be_found_or_not(self) -> None:
        later = ["append", "a", "2", 22, [PRIMARY]]
        assert self.found(self.told(later), ("a", "1", 11, 1)) == []
        assert self.found(self.told(later), ("a", "2", 22, 2)) == []

    def test_what_was_settled_may_be_gone(self) -> None:
        assert self.found(self.told(["settle", PRIMARY, [("a", "1")]])) == []

    def test_what_was_never_sent_is_found(self) -> None:
        assert self.found(self.told(), ("a", "1", 11, 1), ("b", "1", 11, 1)) == ["extra"]

    def test_an_entry_is_found_twice(self) -> None:
        assert self.found(self.told(), ("a", "1", 11, 2)) == ["extra"]

    def test_another_payload_is_found(self) -> None:
        assert self.found(self.told(), ("a", "1", 12, 1)) == ["damaged"]

    def test_half_a_unit_is_found(self) -> None:
        unit: list[object] = ["unit", [("u", "5", 1), ("v", "6", 2)]]
        assert self.found(self.told(unit), ("a", "1", 11, 1), ("u", "5", 1, 1)) == ["lost"]

    def test_a_dead_letter_is_gone_or_waits_as_well(self) -> None:
        buried = (["bury", "a"], ["buried", "a"])
        assert self.found(self.told(*buried), letters=["a"]) == []
        assert "lost" in self.found(self.told(*buried), ("a", "1", 11, 1))
        assert self.found(self.told(*buried), ("a", "1", 11, 1), letters=["a"]) == ["extra"]

    def test_damage_is_reported_that_is_no_torn_end(self) -> None:
        there = ("a", "1", 11, 1)
        assert self.found(self.told(), there, damage=["a write was cut short; nothing is lost"]) == []
        assert self.found(self.told(), there, damage=["bytes do not match their checksum"]) == ["damaged"]

    def test_the_ceiling_is_lower_than_it_was(self) -> None:
        assert self.found(self.told(["reserved", 9]), ("a", "1", 11, 1), ceiling=8) == ["lost"]

    def test_a_book_is_older_than_the_acknowledged_or_was_never_written(self) -> None:
        for title, how in (("first", ["lost"]), ("second", []), ("third", []), ("never", ["extra"])):
            truth = Truth()
            begun = [["begin", "1", "first"], ["done", "1"], ["begin", "1", "second"], ["done", "1"]]
            truth.hear([*begun, ["begin", "1", "third"]])
            truth.compare({"1": title})
            assert [problem.split(":")[0] for problem in truth.problems] == how

    def test_a_book_is_gone_that_nobody_began_to_delete(self) -> None:
        for deed, how in (([], ["lost"]), ([["begin", "1", ""]], [])):
            truth = Truth()
            truth.hear([["begin", "1", "first"], ["done", "1"], *deed, ["read", "1", ""]])
            assert [problem.split(":")[0] for problem in truth.problems] == how

    def test_a_deleted_book_comes_back(self) -> None:
        truth = Truth()
        truth.hear([["begin", "1", "first"], ["done", "1"], ["begin", "1", ""], ["done", "1"]])
        truth.compare({})
        assert truth.problems == []
        truth.compare({"1": "first"})
        assert len(truth.problems) == 1
