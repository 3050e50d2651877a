"""What keeps records: the table of operations over stored states, cell by cell, and scans."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

import pytest

from octopus_async.backend import PeekAdapter, ScanAdapter
from octopus_async.errors import DuplicateRecord, OperationNotSupported, RecordNotFound, StaleRecord
from octopus_async.record import APPLIED, NO_VERSION, Key, Kind, Mode, Operation, Outcome, Record, Status
from octopus_async.testing.contract.common import AdapterContract
from octopus_async.testing.contract.subject import Subject, record_by
from octopus_async.testing.contract.values import comparable
from octopus_async.testing.operations import ALL_TYPES, Reference, fields_of

KINDS = (Kind.CREATE, Kind.UPDATE, Kind.DELETE)
STATES = ("nothing", "a tombstone", "the same born", "another born")
AGES = ("newer", "the same", "older")
COMPANY = ("alone", "among others", "behind what it meets")


class DurableContract(AdapterContract):
    """Of every durable backend."""

    @pytest.mark.parametrize("company", COMPANY)
    @pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
    @pytest.mark.parametrize("state", STATES)
    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
    async def test_every_cell_of_the_table(
        self, subject: Subject, kind: Kind, state: str, mode: Mode, company: str
    ) -> None:
        for age, operation_born in product(AGES, _births(kind, state, mode)):
            past, operation = _cell(subject, kind, state, age)
            if operation_born == "with it":
                operation = operation._replace(born=operation.version)
            reference = Reference()
            if company == "alone":
                await _set_up(subject, reference, past)
                await _check(subject, reference, [operation], mode)
            elif company == "among others":
                others = [subject.create(subject.key(), fields_of(count=number)) for number in range(4)]
                await _set_up(subject, reference, past)
                await _check(subject, reference, [*others[:2], operation, *others[2:]], mode)
            else:
                await _check(subject, reference, [*past, operation], mode)

    @pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
    @pytest.mark.parametrize("state", STATES)
    @pytest.mark.parametrize("kind", [Kind.UPDATE, Kind.DELETE], ids=lambda kind: kind.value)
    async def test_every_cell_of_conditional_operations(
        self, subject: Subject, kind: Kind, state: str, mode: Mode
    ) -> None:
        for age, matches in product(AGES, (True, False)):
            past, operation = _cell(subject, kind, state, age)
            wanted = past[-1].version if past and matches else subject.clock.next()
            reference = Reference()
            await _set_up(subject, reference, past)
            await _check(subject, reference, [operation._replace(if_version=wanted)], mode)

    @pytest.mark.parametrize("mode", [Mode.LIVE, Mode.REPLAY], ids=lambda mode: mode.value)
    async def test_a_rejected_record_does_not_stop_the_others_of_its_batch(
        self, subject: Subject, mode: Mode
    ) -> None:
        created = await subject.have(subject.key(), fields_of(title="first"))
        others = [subject.create(subject.key(), fields_of(count=number)) for number in range(9)]
        duplicate = subject.create(created.key, fields_of(title="second"))
        outcomes = await subject.apply(*others[:5], duplicate, *others[5:], mode=mode)
        assert outcomes[:5] + outcomes[6:] == [APPLIED] * 9
        assert isinstance(outcomes[5].error, DuplicateRecord)
        assert await subject.read(created.key) == [record_by(created)]
        assert await subject.read(*[other.key for other in others]) == [record_by(other) for other in others]

    async def test_a_second_create_is_a_duplicate(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="first"))
        (outcome,) = await subject.apply(subject.create(created.key, fields_of(title="second")))
        assert outcome.status is Status.REJECTED
        assert isinstance(outcome.error, DuplicateRecord)
        assert created.key.id in str(outcome.error)

    async def test_a_live_update_of_nothing_is_not_found(self, subject: Subject) -> None:
        (outcome,) = await subject.apply(subject.update(subject.key(), fields_of()))
        assert outcome.status is Status.REJECTED
        assert isinstance(outcome.error, RecordNotFound)

    async def test_a_stale_condition_names_the_stored_version(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="read"))
        changed = subject.update(created.key, fields_of(title="changed"))
        await subject.apply(changed)
        late = subject.update(created.key, fields_of(title="late"), if_version=created.version)
        (outcome,) = await subject.apply(late)
        assert isinstance(outcome.error, StaleRecord)
        assert outcome.error.stored_version == changed.version

    @pytest.mark.parametrize("state", ["a record", "a tombstone"])
    @pytest.mark.parametrize("make", ["update", "delete"])
    async def test_a_repair_writes_over_exactly_the_version_that_it_met(
        self, subject: Subject, make: str, state: str
    ) -> None:
        key, older = subject.key(), subject.clock.next()
        stored = await subject.have(key, fields_of(title="ahead"))
        if state == "a tombstone":
            stored = subject.delete(key)
            await subject.apply(stored)
        repair = subject.update(key, fields_of(title="mended"), version=older, born=older)
        if make == "delete":
            repair = subject.delete(key, version=older)
        superseded = Outcome(Status.SUPERSEDED, stored=stored.version)
        assert await subject.apply(repair._replace(if_version=older), mode=Mode.MEND) == [superseded]
        assert await subject.apply(repair._replace(if_version=stored.version), mode=Mode.MEND) == [APPLIED]
        found = await subject.find(key)
        if make == "delete":
            assert found is None
        else:
            assert found is not None
            assert (found.version, found.fields) == (older, fields_of(title="mended"))

    async def test_a_repair_may_write_other_contents_under_the_same_version(self, subject: Subject) -> None:
        stored = await subject.have(subject.key(), fields_of(title="changed by others"))
        version = stored.version
        repair = subject.update(stored.key, fields_of(title="mended"), version=version, if_version=version)
        assert await subject.apply(repair, mode=Mode.MIRROR) == [APPLIED]  # done already, by its version
        assert await subject.find(stored.key) == record_by(stored)
        assert await subject.apply(repair, mode=Mode.MEND) == [APPLIED]
        found = await subject.find(stored.key)
        assert found is not None
        assert (found.version, found.fields) == (version, fields_of(title="mended"))

    @pytest.mark.parametrize("seed", range(8))
    async def test_a_random_history_ends_as_the_table_says(self, subject: Subject, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - a seed repeats the history
        keys = [subject.key() for _ in range(4)]
        versions = sorted(subject.clock.next() for _ in range(40))
        reference = Reference()
        for _ in range(15):
            mode = chance.choice(list(Mode))
            batch = [_any_operation(subject, chance, keys, versions) for _ in range(chance.randint(1, 7))]
            await _check(subject, reference, batch, mode)

    @pytest.mark.parametrize("kind", [Kind.INVALIDATE, Kind.RETRACT], ids=lambda kind: kind.value)
    async def test_what_only_a_cache_can_do_is_refused(self, subject: Subject, kind: Kind) -> None:
        created = await subject.have(subject.key(), fields_of(title="kept"))
        (outcome,) = await subject.apply(created._replace(kind=kind, fields=None, payload=None))
        assert outcome.status is Status.REJECTED
        assert isinstance(outcome.error, OperationNotSupported)
        assert await subject.read(created.key) == [record_by(created)]

    async def test_it_says_that_it_is_durable(self, subject: Subject) -> None:
        assert subject.adapter.capabilities.durable
        assert subject.adapter.capabilities.ttl is None


class ScanContract:
    """Of a durable backend that can list its records."""

    async def test_a_scan_gives_records_and_tombstones(self, subject: Subject) -> None:
        start = subject.clock.next()
        created = [subject.create(subject.key(), fields_of(count=number)) for number in range(7)]
        await subject.apply(*created)
        deleted = subject.delete(created[0].key)
        await subject.apply(deleted)
        found = {record.key: record for record in await _scan(subject, after=start)}
        assert found.pop(deleted.key)[1::2] == (deleted.version, None)
        assert found == {operation.key: record_by(operation) for operation in created[1:]}

    async def test_a_scan_begins_above_a_version(self, subject: Subject) -> None:
        first = await subject.have(subject.key(), fields_of(count=1))
        second = await subject.have(subject.key(), fields_of(count=2))
        assert await _scan(subject, after=first.version) == [record_by(second)]

    async def test_a_scan_in_small_batches_misses_nothing(self, subject: Subject) -> None:
        start = subject.clock.next()
        created = [subject.create(subject.key(), fields_of(count=number)) for number in range(23)]
        await subject.apply(*created)
        found = await _scan(subject, after=start, batch=5)
        assert sorted(found) == sorted(record_by(operation) for operation in created)

    async def test_a_scan_goes_on_behind_any_record_of_an_earlier_one(self, subject: Subject) -> None:
        start = subject.clock.next()
        created = [subject.create(subject.key(), fields_of(count=number)) for number in range(8)]
        await subject.apply(*created)
        await subject.apply(
            *[subject.delete(operation.key, born=operation.born) for operation in created[:4]]
        )
        whole = await _scan(subject, after=start, batch=3)
        assert len(whole) == 8
        for place, record in enumerate(whole):
            assert await _scan(subject, after=start, batch=3, beyond=record) == whole[place + 1 :]

    async def test_a_look_finds_records_and_tombstones(self, subject: Subject) -> None:
        kept = await subject.have(subject.key(), fields_of(title="kept"))
        gone = await subject.have(subject.key(), fields_of(title="gone"))
        deleted = subject.delete(gone.key, born=gone.born)
        await subject.apply(deleted)
        again = await subject.have(subject.key(), fields_of(title="first"))
        await subject.apply(subject.delete(again.key))
        again = await subject.have(again.key, fields_of(title="second"))
        assert isinstance(subject.adapter, PeekAdapter)
        found = await subject.adapter.peek([kept.key, gone.key, subject.key(), again.key])
        assert list(found) == [record_by(kept), record_by(deleted), None, record_by(again)]

    async def test_a_scan_of_one_model_gives_no_other(self, subject: Subject) -> None:
        await subject.have(subject.key(), fields_of(count=1))
        assert {record.key.model for record in await _scan(subject)} == {subject.model}

    async def test_a_probe_leaves_no_visible_record(self, subject: Subject) -> None:
        before = await _scan(subject)
        await subject.adapter.probe()
        assert await _scan(subject) == before


async def _scan(
    subject: Subject, *, after: str = "", batch: int = 500, beyond: Record | None = None
) -> list[Record]:
    assert isinstance(subject.adapter, ScanAdapter)
    assert subject.adapter.capabilities.scan
    scan = subject.adapter.scan(ALL_TYPES.model, after=after, batch=batch, beyond=beyond)
    return [record async for record in scan]


def _births(kind: Kind, state: str, mode: Mode) -> Sequence[str]:
    """A create is born with its version; one that the journal has coalesced with updates, earlier."""
    if kind is not Kind.CREATE or state not in ("nothing", "a tombstone"):
        return ("earlier",)
    return ("with it",) if mode is Mode.LIVE else ("with it", "earlier")


def _cell(subject: Subject, kind: Kind, state: str, age: str) -> tuple[list[Operation], Operation]:
    """What makes the state, and the operation that meets it."""
    key = subject.key()
    other_born, born, older, stored, newer = (subject.clock.next() for _ in range(5))
    past = []
    if state != "nothing":
        past.append(subject.create(key, fields_of(title="stored"), version=stored, born=born))
    if state == "a tombstone":
        past[0] = past[0]._replace(version=born)
        past.append(subject.delete(key, version=stored, born=born))
    version = {"newer": newer, "the same": stored, "older": older}[age]
    own_born = other_born if state == "another born" else born
    if kind is Kind.DELETE:
        return past, subject.delete(key, version=version, born=own_born)
    make = subject.create if kind is Kind.CREATE else subject.update
    return past, make(key, fields_of(title="tried"), version=version, born=own_born)


def _any_operation(
    subject: Subject, chance: random.Random, keys: Sequence[Key], versions: Sequence[str]
) -> Operation:
    key, version = chance.choice(keys), chance.choice(versions)
    born = chance.choice([version, *versions[:3]])
    condition = chance.choice([None, None, None, chance.choice(versions)])
    fields = fields_of(count=chance.randint(0, 9))
    return chance.choice(
        [
            subject.create(key, fields, version=version, born=born),
            subject.update(
                key, fields, version=version, born=chance.choice([born, NO_VERSION]), if_version=condition
            ),
            subject.delete(key, version=version, born=born, if_version=condition),
        ]
    )


async def _set_up(subject: Subject, reference: Reference, past: Sequence[Operation]) -> None:
    for operation in past:
        assert await subject.apply(operation, mode=Mode.MIRROR) == [APPLIED]
        reference.apply([operation], Mode.MIRROR)


async def _check(subject: Subject, reference: Reference, operations: Sequence[Operation], mode: Mode) -> None:
    """Apply operations to both, and compare what they report and what they hold afterwards."""
    expected = reference.apply(operations, mode)
    actual = await subject.apply(*operations, mode=mode)
    assert [_gist(outcome) for outcome in actual] == [_gist(outcome) for outcome in expected]
    for key in {operation.key for operation in operations}:
        await _check_record(subject, key, reference.records.get(key))


def _gist(outcome: Outcome) -> tuple[object, ...]:
    stored = outcome.stored if outcome.status is Status.SUPERSEDED else None
    return outcome.status, type(outcome.error), stored


async def _check_record(subject: Subject, key: Key, expected: Record | None) -> None:
    found = await subject.find(key)
    if expected is None or expected.fields is None:
        assert found is None
    else:
        assert found is not None
        assert found._replace(fields=comparable(found.fields)) == expected._replace(  # type: ignore[arg-type]
            fields=comparable(expected.fields)  # type: ignore[arg-type]
        )
    if expected is not None:
        # Too old for anything, it tells the version that is stored, of a tombstone too.
        oldest = subject.update(key, fields_of(), version="0" * 26)
        (outcome,) = await subject.apply(oldest, mode=Mode.MIRROR)
        assert outcome == Outcome(Status.SUPERSEDED, stored=expected.version)
