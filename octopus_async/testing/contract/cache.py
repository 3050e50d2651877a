"""What may forget: versions, leases and fills, invalidations, tombstones."""

from __future__ import annotations

import math

import pytest

from octopus_async.backend import PeekAdapter
from octopus_async.record import APPLIED, Key, Miss, Mode, Operation, Outcome, Record, Status
from octopus_async.testing.contract.common import AdapterContract
from octopus_async.testing.contract.subject import Subject, record_by
from octopus_async.testing.operations import fields_of


class CacheContract(AdapterContract):
    """Of every cache."""

    # --- versions

    @pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
    async def test_it_looks_at_versions_alone_whatever_the_mode(self, subject: Subject, mode: Mode) -> None:
        key = subject.key()
        for operation in (
            subject.update(key, fields_of(count=1)),
            subject.create(key, fields_of(count=2)),
            subject.create(key, fields_of(count=3)),
            subject.update(key, fields_of(count=4), if_version="0" * 26),
        ):
            assert await subject.apply(operation, mode=mode) == [APPLIED]
            found = await subject.find(key)
            assert found is not None
            assert (found.version, found.fields) == (operation.version, operation.fields)

    @pytest.mark.parametrize("make", ["create", "update", "delete"])
    @pytest.mark.parametrize("over", ["a record", "a tombstone"])
    async def test_the_older_is_superseded_by_what_is_stored(
        self, subject: Subject, make: str, over: str
    ) -> None:
        key, older = subject.key(), subject.clock.next()
        stored = subject.create(key, fields_of(count=1)) if over == "a record" else subject.delete(key)
        assert await subject.apply(stored) == [APPLIED]
        operation = _make(subject, make, key, older)
        assert await subject.apply(operation) == [Outcome(Status.SUPERSEDED, stored=stored.version)]
        assert await subject.read(key) == [record_by(stored)]

    @pytest.mark.parametrize("make", ["create", "update", "delete"])
    @pytest.mark.parametrize("over", ["nothing", "a miss", "a record", "a tombstone"])
    async def test_the_newer_replaces_what_is_stored(self, subject: Subject, make: str, over: str) -> None:
        key = subject.key()
        if over == "a miss":
            await subject.read(key)
        elif over != "nothing":
            record = subject.create(key, fields_of(count=1))
            await subject.apply(record if over == "a record" else subject.delete(key))
        operation = _make(subject, make, key, subject.clock.next())
        assert await subject.apply(operation) == [APPLIED]
        assert await subject.read(key) == [record_by(operation)]

    async def test_a_delete_leaves_a_tombstone_that_readers_see(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="gone"))
        deleted = subject.delete(created.key, born=created.born)
        await subject.apply(deleted)
        assert await subject.read(created.key) == [Record(created.key, deleted.version, created.born, None)]

    # --- misses and fills

    async def test_a_reader_that_missed_may_fill(self, subject: Subject) -> None:
        record = record_by(subject.create(subject.key(), fields_of(title="from the primary")))
        await subject.fill(record, await _miss(subject, record.key))
        assert await subject.read(record.key) == [record]

    async def test_a_record_without_a_version_can_be_filled(self, subject: Subject) -> None:
        record = Record(subject.key(), "", "", fields_of(title="written by others"))
        await subject.fill(record, await _miss(subject, record.key))
        assert await subject.read(record.key) == [record]

    async def test_a_tombstone_can_be_filled(self, subject: Subject) -> None:
        record = record_by(subject.delete(subject.key(), born=subject.clock.next()))
        await subject.fill(record, await _miss(subject, record.key))
        assert await subject.read(record.key) == [record]

    async def test_a_slow_reader_cannot_put_back_what_a_writer_replaced(self, subject: Subject) -> None:
        old = record_by(subject.create(subject.key(), fields_of(title="old")))
        miss = await _miss(subject, old.key)
        new = subject.update(old.key, fields_of(title="new"), born=old.born)
        await subject.apply(new)
        await subject.fill(old, miss)
        assert await subject.read(old.key) == [record_by(new)]

    async def test_a_slow_reader_cannot_bring_back_what_was_deleted(self, subject: Subject) -> None:
        old = record_by(subject.create(subject.key(), fields_of(title="old")))
        miss = await _miss(subject, old.key)
        await subject.apply(subject.delete(old.key))
        await subject.fill(old, miss)
        assert await subject.find(old.key) is None

    @pytest.mark.parametrize("forget", ["invalidate", "retract"])
    async def test_a_lease_ends_with_a_write_even_if_that_was_forgotten(
        self, subject: Subject, forget: str
    ) -> None:
        old = record_by(subject.create(subject.key(), fields_of(title="old")))
        miss = await _miss(subject, old.key)
        new = subject.update(old.key, fields_of(title="new"))
        await subject.apply(new)
        await subject.apply(_make(subject, forget, old.key, new.version))
        await subject.fill(old, miss)
        assert isinstance(await _answer(subject, old.key), Miss)

    async def test_a_look_leaves_no_lease_and_sees_no_marker(self, subject: Subject) -> None:
        kept = await subject.have(subject.key(), fields_of(title="kept"))
        gone, forgotten = subject.delete(subject.key(), born=subject.clock.next()), subject.key()
        await subject.apply(gone, _make(subject, "invalidate", forgotten, subject.clock.next()))
        absent = subject.create(subject.key(), fields_of(title="not there"))
        assert isinstance(subject.adapter, PeekAdapter)
        found = await subject.adapter.peek([kept.key, gone.key, forgotten, absent.key])
        assert list(found) == [record_by(kept), record_by(gone), None, None]

    async def test_of_two_readers_the_first_fills(self, subject: Subject) -> None:
        key = subject.key()
        first, second = await _miss(subject, key), await _miss(subject, key)
        record = record_by(subject.create(key, fields_of(title="first")))
        await subject.fill(record, first)
        await subject.fill(record_by(subject.create(key, fields_of(title="second"))), second)
        assert await subject.read(key) == [record]

    async def test_a_lease_of_somebody_else_fills_nothing(self, subject: Subject) -> None:
        record = record_by(subject.create(subject.key(), fields_of()))
        for lease in (None, object(), b"1"):
            await subject.fill(record, Miss(lease))
        assert isinstance(await _answer(subject, record.key), Miss)

    # --- invalidations

    async def test_an_invalidated_record_is_missed(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="stale"))
        for version in (created.version, subject.clock.next()):
            assert await subject.apply(subject.invalidate(created.key, version)) == [APPLIED]
            assert isinstance(await _answer(subject, created.key), Miss)

    async def test_an_invalidation_spares_the_newer(self, subject: Subject) -> None:
        version = subject.clock.next()
        created = await subject.have(subject.key(), fields_of(title="newer"))
        outcomes = await subject.apply(subject.invalidate(created.key, version))
        assert outcomes == [Outcome(Status.SUPERSEDED, stored=created.version)]
        assert await subject.read(created.key) == [record_by(created)]

    @pytest.mark.parametrize("over", ["nothing", "a record", "a tombstone", "a miss", "a marker"])
    async def test_an_invalidated_key_takes_nothing_older(self, subject: Subject, over: str) -> None:
        key, older = subject.key(), subject.clock.next()
        first = subject.clock.next()
        await _put(subject, key, over, first)
        floor = subject.clock.next()
        assert await subject.apply(subject.invalidate(key, floor)) == [APPLIED]
        write = subject.update(key, fields_of(title="old"), version=older)
        assert await subject.apply(write) == [Outcome(Status.SUPERSEDED, stored=floor)]
        await subject.fill(record_by(write), await _miss(subject, key))
        again = subject.invalidate(key, older)
        assert await subject.apply(again) == [Outcome(Status.SUPERSEDED, stored=floor)]
        assert isinstance(await _answer(subject, key), Miss)

    async def test_an_invalidated_key_takes_that_version_and_newer(self, subject: Subject) -> None:
        for step in range(2):
            key, floor = subject.key(), subject.clock.next()
            version = floor if step == 0 else subject.clock.next()
            write = subject.create(key, fields_of(title="new enough"), version=version)
            await subject.apply(subject.invalidate(key, floor))
            assert await subject.apply(write) == [APPLIED]
            assert await subject.read(key) == [record_by(write)]
            other = subject.key()
            await subject.apply(subject.invalidate(other, floor))
            await subject.fill(record_by(write)._replace(key=other), await _miss(subject, other))
            assert await subject.read(other) == [record_by(write)._replace(key=other)]

    # --- retractions

    @pytest.mark.parametrize("make", ["create", "delete"])
    async def test_a_retracted_version_is_missed_and_may_be_filled_with_an_older(
        self, subject: Subject, make: str
    ) -> None:
        old = record_by(subject.create(subject.key(), fields_of(title="in the primary")))
        rejected = _make(subject, make, old.key, subject.clock.next())
        await subject.apply(rejected)
        assert await subject.apply(subject.retract(old.key, rejected.version)) == [APPLIED]
        await subject.fill(old, await _miss(subject, old.key))
        assert await subject.read(old.key) == [old]

    async def test_a_retraction_spares_every_other_version(self, subject: Subject) -> None:
        before = subject.clock.next()
        created = await subject.have(subject.key(), fields_of(title="other"))
        for version in (before, subject.clock.next()):
            await subject.apply(subject.retract(created.key, version))
            assert await subject.read(created.key) == [record_by(created)]

    async def test_a_retraction_lifts_no_invalidation(self, subject: Subject) -> None:
        key, older, floor = subject.key(), subject.clock.next(), subject.clock.next()
        await subject.apply(subject.invalidate(key, floor))
        assert await subject.apply(subject.retract(key, floor)) == [APPLIED]
        write = subject.update(key, fields_of(), version=older)
        assert await subject.apply(write) == [Outcome(Status.SUPERSEDED, stored=floor)]

    async def test_a_retraction_of_nothing_is_done(self, subject: Subject) -> None:
        key = subject.key()
        assert await subject.apply(subject.retract(key, subject.clock.next())) == [APPLIED]
        assert isinstance(await _answer(subject, key), Miss)

    async def test_every_kind_can_share_a_batch(self, subject: Subject) -> None:
        kept, gone, taken_back = subject.key(), subject.key(), subject.key()
        operations = [subject.create(key, fields_of(count=1)) for key in (kept, gone, taken_back)]
        update = subject.update(kept, fields_of(count=2), born=operations[0].born)
        batch = [
            *operations,
            subject.invalidate(gone, operations[1].version),
            subject.retract(taken_back, operations[2].version),
            update,
        ]
        assert await subject.apply(*batch) == [APPLIED] * 6
        answers = await subject.read(kept, gone, taken_back)
        assert answers[0] == record_by(update)
        assert [type(answer) for answer in answers[1:]] == [Miss, Miss]

    async def test_its_time_to_live_is_finite(self, subject: Subject) -> None:
        capabilities = subject.adapter.capabilities
        assert not capabilities.durable
        assert capabilities.ttl is not None
        assert 0 < capabilities.ttl < math.inf


def _make(subject: Subject, kind: str, key: Key, version: str) -> Operation:
    if kind == "create":
        return subject.create(key, fields_of(title="made"), version=version)
    if kind == "update":
        return subject.update(key, fields_of(title="made"), version=version, born=version)
    if kind == "delete":
        return subject.delete(key, version=version, born=version)
    return subject.invalidate(key, version) if kind == "invalidate" else subject.retract(key, version)


async def _put(subject: Subject, key: Key, what: str, version: str) -> None:
    if what == "a miss":
        await subject.read(key)
    elif what == "a record":
        await subject.apply(_make(subject, "create", key, version))
    elif what == "a tombstone":
        await subject.apply(_make(subject, "delete", key, version))
    elif what == "a marker":
        await subject.apply(_make(subject, "invalidate", key, version))


async def _answer(subject: Subject, key: Key) -> object:
    (answer,) = await subject.read(key)
    return answer


async def _miss(subject: Subject, key: Key) -> Miss:
    answer = await _answer(subject, key)
    assert isinstance(answer, Miss)
    return answer
