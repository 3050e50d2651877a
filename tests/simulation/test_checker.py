"""The checker on histories made by hand: it finds each broken promise, and none where there is none."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from octopus_async.testing.simulation import (
    Call,
    Final,
    History,
    Row,
    Terms,
    check,
    checker,
    history,
    is_linearizable,
    linearizability,
)

TERMS = Terms(
    healthy=False,
    alone=True,
    steady_caches=True,
    fresh_reads=True,
    early_caches=True,
    replicas_kept=True,
    journalled=True,
    journal_failed=False,
)


def call(number: int, kind: str, **known: object) -> Call:
    made = Call(
        number,
        "p0",
        0,
        kind,
        "k",
        f"v{number}" if kind in ("create", "update") else None,
        float(number),
        number + 1.0,
        responded=number + 0.5,
        result="ok",
    )
    return replace(made, **known)  # type: ignore[arg-type]


CREATE = call(1, "create", version="1")
UPDATE = call(2, "update", version="2")
DELETE = call(3, "delete", version="3")


def broken(calls: list[Call], terms: Terms = TERMS, **final: object) -> set[str]:
    return {violation.promise for violation in check(History(calls, Final(**final), terms))}  # type: ignore[arg-type]


def test_nothing_is_wrong_with_a_record_that_is_there() -> None:
    assert broken([CREATE, UPDATE], primary={"k": Row("2", "1", "v2")}) == set()


def test_an_acknowledged_write_that_the_primary_lacks_is_lost() -> None:
    assert broken([CREATE]) == {"C1"}
    assert broken([CREATE, UPDATE], primary={"k": Row("1", "1", "v1")}) == {"C1"}


def test_what_was_deleted_must_not_be_there() -> None:
    assert broken([CREATE, DELETE], primary={"k": Row("4", "1", "v1")}) >= {"C3"}


def test_what_was_rejected_leaves_no_trace() -> None:
    rejected = call(2, "update", result="rejected")
    assert broken([CREATE, rejected], primary={"k": Row("2", "1", "v2")}) >= {"C4"}


def test_one_of_two_creates_made_at_the_same_moment_may_be_a_dead_letter() -> None:
    other = call(2, "create", invoked=CREATE.invoked, journalled=True, provisional=True, version="2")
    dead = [history.Dead("primary", "k", "2", "DuplicateRecord")]
    assert broken([CREATE, other], primary={"k": Row("1", "1", "v1")}, dead=dead) == set()
    assert broken([other], dead=dead) == {"C1"}


def test_what_was_refused_is_read_only_from_a_cache_that_came_back_with_it_and_in_its_time_to_live() -> None:
    refused = call(2, "create", result="rejected", error="DuplicateRecord: v1")
    seen = call(5, "read", seen="v2", version="2")
    row = {"k": Row("1", "1", "v1")}
    lenient = replace(TERMS, fresh_reads=False)
    assert broken([CREATE, refused, seen], lenient, primary=row) == {"C4"}
    relapsed = replace(lenient, relapses=((2.2, 4.0),), ttl=3.0)
    assert broken([CREATE, refused, seen], relapsed, primary=row) == set()
    for relapse, ttl in (((1.8, 4.0), 3.0), ((2.2, 5.6), 3.0), ((2.2, 4.0), 2.0)):
        other = replace(lenient, relapses=(relapse,), ttl=ttl)
        assert broken([CREATE, refused, seen], other, primary=row) == {"C4"}
    told_late = replace(relapsed, early_caches=False)
    assert broken([CREATE, refused, seen], told_late, primary=row) == {"C4"}


def test_an_unknown_write_may_land() -> None:
    unknown = call(2, "update", result="unknown")
    assert broken([CREATE, unknown], primary={"k": Row("2", "1", "v2")}) == set()
    assert broken([CREATE, unknown], primary={"k": Row("1", "1", "v1")}) == set()


def test_an_unknown_write_does_not_land_over_a_newer_acknowledged_one() -> None:
    unknown = call(2, "update", result="unknown")
    later = call(5, "update", version="3")
    assert broken([CREATE, unknown, later], primary={"k": Row("4", "1", "v2")}) >= {"C3"}


def test_a_process_reads_what_it_wrote() -> None:
    stale = call(3, "read", seen="v1", version="1")
    assert broken([CREATE, UPDATE, stale], primary={"k": Row("2", "1", "v2")}) == {"C2"}
    nothing = call(3, "read", seen=None)
    assert broken([CREATE, UPDATE, nothing], primary={"k": Row("2", "1", "v2")}) == {"C2"}


def test_a_cache_and_a_replica_are_as_new_as_the_primary() -> None:
    old, new = Row("1", "1", "v1"), Row("2", "1", "v2")
    primary = {"k": new}
    assert broken([CREATE, UPDATE], primary=primary, caches_at_once={"cache": {"k": old}}) == {"C5"}
    assert broken([CREATE, UPDATE], primary=primary, replicas={"replica": {"k": old}}) == {"C5"}


def test_a_cache_that_replay_did_not_tell_is_found() -> None:
    journalled = replace(UPDATE, journalled=True)
    old, new = Row("1", "1", "v1"), Row("2", "1", "v2")
    stale: dict[str, object] = {"primary": {"k": new}, "caches_at_once": {"cache": {"k": old}}}
    terms = replace(TERMS, alone=False, steady_caches=False, told_caches=("cache",))
    assert broken([CREATE, journalled], terms, **stale) == {"C5"}
    assert broken([CREATE, UPDATE], terms, **stale) == set()
    assert broken([CREATE, journalled], terms, **stale, forgotten={"k"}) == set()


def test_a_unit_of_work_is_there_as_a_whole_or_not_at_all() -> None:
    units = [("k", "other")]
    assert broken([CREATE], primary={"k": Row("1", "1", "v1")}, units=units) == {"C1"}
    both = {"k": Row("1", "1", "v1"), "other": Row("1", "1", "v1")}
    assert broken([CREATE], primary=both, units=units) == set()


def test_a_late_answer_is_late() -> None:
    assert broken([replace(CREATE, responded=9.0)], primary={"k": Row("1", "1", "v1")}) == {"deadline"}


@pytest.mark.parametrize(
    ("calls", "explained"),
    [
        ([CREATE, call(2, "read", seen="v1")], True),
        ([CREATE, call(2, "read", seen=None)], False),
        ([CREATE, call(2, "create", result="rejected", error="DuplicateRecord")], True),
        ([call(2, "create", result="rejected", error="DuplicateRecord")], False),
        ([CREATE, call(2, "update", result="cancelled"), call(4, "read", seen="v2")], True),
        (
            [
                CREATE,
                call(2, "update", result="cancelled"),
                call(4, "read", seen="v2"),
                call(5, "read", seen="v1"),
            ],
            False,
        ),
        ([CREATE, DELETE, call(4, "update", result="not found"), call(5, "read", seen=None)], True),
        ([CREATE, call(2, "update", conditional=True, expects="v9")], False),
    ],
)
def test_a_history_is_linearizable_if_some_order_explains_it(calls: list[Call], *, explained: bool) -> None:
    assert is_linearizable(calls) is explained


@pytest.mark.parametrize("module", [checker, history, linearizability])
def test_the_judge_shares_no_code_with_what_it_judges(module: object) -> None:
    """Not even through what it imports: only the standard library, and its own three modules."""
    path = Path(str(module.__file__))  # type: ignore[attr-defined]
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module))
    own = {f"octopus_async.testing.simulation.{name}" for name in ("history", "linearizability")}
    assert {name for name in imported if name.startswith("octopus_async")} <= own
    assert imported <= own | {"__future__", "collections.abc", "dataclasses", "math"}
