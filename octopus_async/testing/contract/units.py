"""What keeps units of work: all of it is applied, or nothing is."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from octopus_async.backend import UnitAdapter
from octopus_async.errors import DuplicateRecord, RecordNotFound, StaleRecord
from octopus_async.record import APPLIED, WITHHELD, Kind, Mode, Operation, Outcome, Status
from octopus_async.testing.contract.common import Suite
from octopus_async.testing.contract.subject import Subject, record_by
from octopus_async.testing.operations import fields_of

MODES = pytest.mark.parametrize("mode", [Mode.LIVE, Mode.REPLAY], ids=lambda mode: mode.value)


class UnitContract(Suite):
    """Of every backend that has transactions."""

    @MODES
    async def test_a_unit_creates_updates_and_deletes_together(self, subject: Subject, mode: Mode) -> None:
        first, second = await _have(subject), await _have(subject)
        unit = [_changed(subject, first), _created(subject), _deleted(subject, second)]
        assert await _apply(subject, unit, mode) == [APPLIED] * 3
        assert [await subject.find(it.key) for it in unit] == [
            record_by(unit[0]),
            record_by(unit[1]),
            None,
        ]

    @MODES
    @pytest.mark.parametrize("what", ["changed", "deleted", "created"])
    async def test_what_somebody_else_has_touched_meanwhile_stops_all_of_it(
        self, subject: Subject, what: str, mode: Mode
    ) -> None:
        mine, theirs = await _have(subject), await _have(subject)
        unit = [_created(subject), _changed(subject, mine), _changed(subject, theirs)]
        if what == "changed":
            await subject.apply(subject.update(theirs.key, fields_of(title="theirs")))
        elif what == "deleted":
            await subject.apply(subject.delete(theirs.key))
        else:
            unit[2] = _created(subject)._replace(key=theirs.key)
        unit = _at(unit, subject.clock.next())
        outcomes = await _apply(subject, unit, mode)
        assert outcomes[:2] == [WITHHELD, WITHHELD]
        kinds = {"changed": StaleRecord, "deleted": RecordNotFound, "created": DuplicateRecord}
        assert isinstance(outcomes[2].error, kinds[what])
        assert await subject.find(unit[0].key) is None
        assert await subject.find(mine.key) == record_by(mine)

    @MODES
    async def test_a_unit_that_was_applied_may_come_again(self, subject: Subject, mode: Mode) -> None:
        unit = _at([_created(subject), _changed(subject, await _have(subject))], subject.clock.next())
        assert await _apply(subject, unit, mode) == [APPLIED] * 2
        assert await _apply(subject, unit, mode) == [APPLIED] * 2
        assert await subject.find(unit[1].key) == record_by(unit[1])

    async def test_what_was_written_after_a_unit_is_no_conflict_when_it_is_replayed_again(
        self, subject: Subject
    ) -> None:
        first, second = await _have(subject), await _have(subject)
        unit = _at([_changed(subject, first), _changed(subject, second)], subject.clock.next())
        assert await _apply(subject, unit, Mode.REPLAY) == [APPLIED] * 2
        later = subject.update(second.key, fields_of(title="later"), born=second.born)
        await subject.apply(later)
        outcomes = await _apply(subject, unit, Mode.REPLAY)
        assert outcomes == [APPLIED, Outcome(Status.SUPERSEDED, stored=later.version)]
        assert await subject.find(second.key) == record_by(later)

    async def test_what_was_written_before_a_unit_could_be_replayed_is_a_conflict(
        self, subject: Subject
    ) -> None:
        first, second = await _have(subject), await _have(subject)
        unit = _at([_changed(subject, first), _changed(subject, second)], subject.clock.next())
        later = subject.update(second.key, fields_of(title="later"), born=second.born)
        await subject.apply(later)
        outcomes = await _apply(subject, unit, Mode.REPLAY)
        assert outcomes[0] == WITHHELD
        assert isinstance(outcomes[1].error, StaleRecord)
        assert await subject.find(first.key) == record_by(first)
        assert await subject.find(second.key) == record_by(later)

    async def test_a_large_unit_is_one_too(self, subject: Subject) -> None:
        unit = _at([_created(subject) for _ in range(700)], subject.clock.next())
        assert await _apply(subject, unit, Mode.LIVE) == [APPLIED] * 700
        again = _at([*[_created(subject) for _ in range(700)], unit[350]], subject.clock.next())
        outcomes = await _apply(subject, again, Mode.LIVE)
        assert outcomes[:-1] == [WITHHELD] * 700
        assert isinstance(outcomes[-1].error, DuplicateRecord)
        assert await subject.find(again[0].key) is None

    async def test_of_units_at_the_same_time_over_one_record_one_is_applied(self, subject: Subject) -> None:
        shared = await _have(subject)
        units = [_at([_created(subject), _changed(subject, shared)], subject.clock.next()) for _ in range(4)]
        results = await asyncio.gather(*(_apply(subject, unit, Mode.LIVE) for unit in units))
        won = [unit for unit, outcomes in zip(units, results, strict=True) if outcomes == [APPLIED] * 2]
        assert len(won) == 1
        found = [await subject.find(unit[0].key) for unit in units]
        assert [record for record in found if record is not None] == [record_by(won[0][0])]
        assert await subject.find(shared.key) == record_by(won[0][1])


async def _have(subject: Subject) -> Operation:
    return await subject.have(subject.key(), fields_of(title="stored"))


def _created(subject: Subject) -> Operation:
    return subject.create(subject.key(), fields_of(title="created"))


def _changed(subject: Subject, stored: Operation) -> Operation:
    return subject.update(stored.key, fields_of(title="changed"), born=stored.born, if_version=stored.version)


def _deleted(subject: Subject, stored: Operation) -> Operation:
    return subject.delete(stored.key, born=stored.born, if_version=stored.version)


def _at(unit: list[Operation], version: str) -> list[Operation]:
    """A unit as sessions write it: of one version."""
    return [it._replace(version=version, born=version if it.kind is Kind.CREATE else it.born) for it in unit]


async def _apply(subject: Subject, unit: list[Operation], mode: Mode) -> list[Outcome]:
    async with subject._writing:  # noqa: SLF001 - no more calls at once than the adapter allows
        return list(await cast("UnitAdapter", subject.adapter).apply_unit(unit, mode))
