"""The drill's own judgement, on histories made by hand: it finds what is planted, and nothing else."""

from __future__ import annotations

from uuid import uuid4

import pytest

from octopus_async.cli.drill.judge import compare
from octopus_async.cli.drill.ledger import Deed, Fate, Fault, History, Ledger, Name
from octopus_async.cli.drill.stage import Held

ONE = Name(1, 1)


def ledger_of(*steps: tuple[Deed, Fate]) -> tuple[Ledger, History]:
    ledger = Ledger()
    history = ledger.open(ONE, uuid4())
    for deed, fate in steps:
        history.begin(deed)
        if fate is not Fate.UNDER_WAY:
            ledger.end(history, fate)
    return ledger, history


CREATED = (Deed.CREATE, Fate.ACKNOWLEDGED)
UPDATED = (Deed.UPDATE, Fate.ACKNOWLEDGED)
DELETED = (Deed.DELETE, Fate.ACKNOWLEDGED)


class TestOfAReadIsSaid:
    @pytest.mark.parametrize(
        ("steps", "given"),
        [
            ([], None),
            ([CREATED], 1),
            ([CREATED, UPDATED], 2),
            ([CREATED, DELETED], None),
            ([CREATED, DELETED, CREATED], 3),
            ([CREATED, (Deed.UPDATE, Fate.UNDER_WAY)], 1),
            ([CREATED, (Deed.UPDATE, Fate.UNDER_WAY)], 2),
            ([CREATED, (Deed.DELETE, Fate.UNDER_WAY)], None),
            ([CREATED, (Deed.UPDATE, Fate.UNKNOWN)], 1),
            ([CREATED, (Deed.UPDATE, Fate.UNKNOWN)], 2),
            ([(Deed.CREATE, Fate.UNKNOWN)], None),
            ([CREATED, (Deed.UPDATE, Fate.REFUSED)], 1),
        ],
    )
    def test_nothing_where_it_gave_what_was_promised(
        self, steps: list[tuple[Deed, Fate]], given: int | None
    ) -> None:
        ledger, history = ledger_of(*steps)
        ledger.read(history, history.floor, given)
        assert not ledger.faults

    @pytest.mark.parametrize(
        ("steps", "given"),
        [
            ([CREATED], None),
            ([CREATED, UPDATED], 1),
            ([CREATED, DELETED], 1),
            ([CREATED, DELETED, CREATED], None),
            ([CREATED, DELETED, CREATED], 1),
            ([CREATED], 2),
            ([CREATED, (Deed.UPDATE, Fate.REFUSED)], 2),
            ([CREATED, (Deed.UPDATE, Fate.UNKNOWN), UPDATED], 2),
        ],
    )
    def test_that_it_was_stale_where_it_did_not(
        self, steps: list[tuple[Deed, Fate]], given: int | None
    ) -> None:
        ledger, history = ledger_of(*steps)
        ledger.read(history, history.floor, given)
        assert ledger.faults == {Fault.STALE: 1}
        assert "record 1/1" in ledger.examples[Fault.STALE][0]

    def test_nothing_where_the_write_was_acknowledged_after_it_began(self) -> None:
        ledger, history = ledger_of(CREATED)
        floor = history.floor
        history.begin(Deed.UPDATE)
        history.end(Fate.ACKNOWLEDGED)
        ledger.read(history, floor, 1)
        ledger.read(history, floor, 2)
        assert not ledger.faults

    def test_that_it_was_stale_where_an_earlier_one_saw_more(self) -> None:
        ledger, history = ledger_of(CREATED, (Deed.UPDATE, Fate.UNDER_WAY))
        ledger.read(history, history.floor, 2)
        ledger.read(history, history.floor, 1)
        assert ledger.faults == {Fault.STALE: 1}

    def test_nothing_where_what_was_seen_was_not_acknowledged_in_the_end(self) -> None:
        ledger, history = ledger_of(CREATED, (Deed.UPDATE, Fate.UNDER_WAY))
        ledger.read(history, history.floor, 2)
        floor = history.floor
        ledger.end(history, Fate.UNKNOWN)
        ledger.read(history, floor, 1)
        assert not ledger.faults


class TestInTheEndThePrimaryIsFound:
    @pytest.mark.parametrize(
        ("steps", "held"),
        [
            ([CREATED], 1),
            ([CREATED, UPDATED], 2),
            ([CREATED, DELETED], None),
            ([CREATED, (Deed.UPDATE, Fate.UNKNOWN)], 1),
            ([CREATED, (Deed.UPDATE, Fate.UNKNOWN)], 2),
            ([CREATED, (Deed.DELETE, Fate.UNKNOWN)], None),
            ([(Deed.CREATE, Fate.REFUSED)], None),
        ],
    )
    def test_to_have_kept_every_promise(self, steps: list[tuple[Deed, Fate]], held: int | None) -> None:
        ledger, _ = ledger_of(*steps)
        compare(ledger, [] if held is None else [Held(ONE, held, intact=True)])
        assert not ledger.faults

    @pytest.mark.parametrize(
        ("steps", "held", "fault"),
        [
            ([CREATED], None, Fault.LOST),
            ([CREATED, UPDATED], 1, Fault.LOST),
            ([CREATED, (Deed.UPDATE, Fate.UNKNOWN), UPDATED], 2, Fault.LOST),
            ([CREATED, (Deed.UPDATE, Fate.REFUSED)], 2, Fault.LOST),
            ([CREATED, DELETED, CREATED], None, Fault.LOST),
            ([CREATED, DELETED], 1, Fault.RESURRECTED),
            ([(Deed.CREATE, Fate.REFUSED)], 1, Fault.RESURRECTED),
            ([CREATED], 7, Fault.RESURRECTED),
        ],
    )
    def test_to_have_broken_one(self, steps: list[tuple[Deed, Fate]], held: int | None, fault: Fault) -> None:
        ledger, _ = ledger_of(*steps)
        compare(ledger, [] if held is None else [Held(ONE, held, intact=True)])
        assert ledger.faults[fault] == 1

    def test_to_hold_what_nobody_wrote(self) -> None:
        ledger, _ = ledger_of(CREATED)
        compare(ledger, [Held(ONE, 1, intact=True), Held(Name(9, 9), 1, intact=True)])
        assert ledger.faults == {Fault.RESURRECTED: 1}

    def test_to_hold_a_record_twice(self) -> None:
        ledger, _ = ledger_of(CREATED)
        compare(ledger, [Held(ONE, 1, intact=True), Held(ONE, 1, intact=True)])
        assert ledger.faults == {Fault.RESURRECTED: 1}

    def test_to_hold_other_contents(self) -> None:
        ledger, _ = ledger_of(CREATED)
        compare(ledger, [Held(ONE, 1, intact=False)])
        assert ledger.faults == {Fault.LOST: 1}

    def test_to_lack_what_is_a_dead_letter_and_thus_not_lost(self) -> None:
        ledger, history = ledger_of(CREATED)
        compare(ledger, [], dead={str(history.id)})
        assert not ledger.faults


def test_only_the_first_faults_of_a_kind_are_kept_as_examples() -> None:
    ledger = Ledger()
    for number in range(1000):
        ledger.note(Fault.LOST, str(number))
    assert ledger.faults[Fault.LOST] == 1000
    assert len(ledger.examples[Fault.LOST]) == 20
