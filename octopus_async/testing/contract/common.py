"""What durable backends and caches have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

import pytest
import pytest_asyncio

from octopus_async.backend import Adapter
from octopus_async.errors import Unavailable
from octopus_async.record import APPLIED, Fields, Key, Mode, Operation, Outcome, Record, Status
from octopus_async.schema import Column, Schema, Type
from octopus_async.testing.cancellation import Moment, cancel_at
from octopus_async.testing.contract.subject import Subject, descriptors, eventually, record_by
from octopus_async.testing.contract.values import LONG_IDS, LOOKALIKES, VALUES, comparable
from octopus_async.testing.operations import ALL_TYPES, fields_of

T = TypeVar("T")
_STEPS = 60
_PROBES = 50


class Suite:
    """What all suites have: a fixture ``adapter`` is theirs to be given, and gives them a subject."""

    pytestmark = pytest.mark.asyncio

    def make_subject(self, adapter: Adapter) -> Subject:
        """Wrap the adapter; for a suite to override."""
        return Subject(adapter)

    @pytest_asyncio.fixture
    async def subject(self, adapter: Adapter) -> Subject:
        """The adapter, prepared."""
        await adapter.prepare(ALL_TYPES, create=True)
        return self.make_subject(adapter)

    # --- create, update, delete


class AdapterContract(Suite):
    """Of every adapter."""

    async def test_what_was_created_is_read(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="A Tale of Two Cities", count=3))
        assert await subject.read(created.key) == [record_by(created)]

    async def test_an_update_replaces_the_whole_record(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="old", count=3))
        update = subject.update(created.key, fields_of(title="new"), born=created.born)
        assert await subject.apply(update) == [APPLIED]
        assert await subject.read(created.key) == [record_by(update)]

    async def test_an_update_by_who_never_read_the_record_keeps_its_birth(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="old"))
        update = subject.update(created.key, fields_of(title="new"))
        assert await subject.apply(update) == [APPLIED]
        assert await subject.read(created.key) == [record_by(update)._replace(born=created.born)]

    @pytest.mark.parametrize("company", ["alone", "among others"])
    @pytest.mark.parametrize("mode", [Mode.LIVE, Mode.MIRROR], ids=lambda mode: mode.value)
    async def test_an_update_by_who_read_an_earlier_record_keeps_the_later_birth(
        self, subject: Subject, mode: Mode, company: str
    ) -> None:
        first = await subject.have(subject.key(), fields_of(title="first"))
        await subject.apply(subject.delete(first.key))
        again = await subject.have(first.key, fields_of(title="again"))
        update = subject.update(first.key, fields_of(title="late"), born=first.born)
        others = [] if company == "alone" else [subject.create(subject.key(), fields_of(count=1))]
        assert await subject.apply(update, *others, mode=mode) == [APPLIED] * (1 + len(others))
        assert await subject.read(first.key) == [record_by(update)._replace(born=again.born)]

    async def test_an_update_by_who_knows_a_later_birth_brings_it(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="old"))
        update = subject.update(created.key, fields_of(title="new"), born=subject.clock.next())
        assert await subject.apply(update) == [APPLIED]
        assert await subject.read(created.key) == [record_by(update)]

    async def test_a_deleted_record_is_gone(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="gone"))
        assert await subject.apply(subject.delete(created.key)) == [APPLIED]
        assert await subject.find(created.key) is None

    async def test_a_deleted_record_can_be_created_again(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="first"))
        await subject.apply(subject.delete(created.key))
        again = await subject.have(created.key, fields_of(title="second"))
        assert await subject.read(created.key) == [record_by(again)]

    async def test_applying_twice_changes_nothing(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="once"))
        for mode in Mode:
            assert await subject.apply(created, mode=mode) == [APPLIED]
        assert await subject.read(created.key) == [record_by(created)]

    async def test_the_older_never_replaces_the_newer(self, subject: Subject) -> None:
        older = subject.update(subject.key(), fields_of(title="older"))
        newer = await subject.have(older.key, fields_of(title="newer"))
        outcomes = [await subject.apply(older, mode=mode) for mode in Mode]
        assert outcomes == [[Outcome(Status.SUPERSEDED, stored=newer.version)]] * len(Mode)
        assert await subject.read(older.key) == [record_by(newer)]

    # --- batches

    async def test_answers_come_in_the_order_of_the_keys(self, subject: Subject) -> None:
        created = [subject.create(subject.key(), fields_of(count=number)) for number in range(100)]
        assert await subject.apply(*created) == [APPLIED] * 100
        keys = [key for operation in reversed(created) for key in (operation.key, subject.key())]
        answers = await subject.read(*keys)
        assert answers[0::2] == [record_by(operation) for operation in reversed(created)]
        assert [answer for answer in answers[1::2] if isinstance(answer, Record)] == []

    async def test_operations_of_one_key_in_one_batch_follow_their_order(self, subject: Subject) -> None:
        key = subject.key()
        created = subject.create(key, fields_of(count=1))
        update = subject.update(key, fields_of(count=2), born=created.born)
        assert await subject.apply(created, update) == [APPLIED] * 2
        assert await subject.read(key) == [record_by(update)]
        deleted = subject.delete(key)
        again = subject.create(key, fields_of(count=3))
        assert await subject.apply(deleted, again) == [APPLIED] * 2
        assert await subject.read(key) == [record_by(again)]

    async def test_a_batch_may_be_empty(self, subject: Subject) -> None:
        assert await subject.read() == []
        assert await subject.apply() == []

    async def test_a_full_batch_is_taken(self, subject: Subject) -> None:
        most = min(subject.adapter.capabilities.write_batch, subject.adapter.capabilities.read_batch)
        created = [subject.create(subject.key(), fields_of(count=number)) for number in range(most)]
        assert await subject.apply(*created) == [APPLIED] * most
        assert await subject.read(*[operation.key for operation in created]) == [
            record_by(operation) for operation in created
        ]

    # --- keys and values

    @pytest.mark.parametrize("ends", [LOOKALIKES, LONG_IDS], ids=["lookalikes", "long"])
    async def test_different_ids_are_different_records(self, subject: Subject, ends: Sequence[str]) -> None:
        start = subject.key().id
        keys = [Key(subject.model, start + end) for end in ends]
        for number, key in enumerate(keys):
            await subject.have(key, fields_of(count=number))
        answers = await subject.read(*keys)
        assert [answer.key for answer in answers if isinstance(answer, Record)] == keys
        counts = [answer.fields for answer in answers if isinstance(answer, Record)]
        assert counts == [fields_of(count=number) for number in range(len(keys))]

    async def test_a_delete_touches_no_lookalike(self, subject: Subject) -> None:
        start = subject.key().id
        keys = [Key(subject.model, start + end) for end in LOOKALIKES]
        await subject.apply(*[subject.create(key, fields_of()) for key in keys])
        await subject.apply(subject.delete(keys[0]))
        assert [await subject.find(key) is None for key in keys] == [True] + [False] * (len(keys) - 1)

    async def test_an_absent_lookalike_is_not_found(self, subject: Subject) -> None:
        start = subject.key().id
        await subject.have(Key(subject.model, start + LOOKALIKES[0]), fields_of())
        found = [await subject.find(Key(subject.model, start + end)) for end in LOOKALIKES[1:]]
        assert found == [None] * (len(LOOKALIKES) - 1)

    @pytest.mark.parametrize("fields", VALUES.values(), ids=VALUES)
    async def test_a_value_comes_back_as_it_was(self, subject: Subject, fields: Fields) -> None:
        created = await subject.have(subject.key(), fields)
        (answer,) = await subject.read(created.key)
        assert isinstance(answer, Record)
        assert comparable(answer.fields) == comparable(fields)

    async def test_an_update_to_nulls_leaves_nothing_behind(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), VALUES["nested JSON"])
        await subject.apply(subject.update(created.key, fields_of()))
        found = await subject.find(created.key)
        assert found is not None
        assert found.fields == fields_of()

    async def test_results_are_fresh_objects(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(tree={"list": [1]}))
        first = await subject.find(created.key)
        assert first is not None
        cast("Any", first.fields)["tree"]["list"].append(2)
        second = await subject.find(created.key)
        assert second is not None
        assert second.fields == fields_of(tree={"list": [1]})

    @pytest.mark.parametrize(
        ("id_type", "ids"),
        [
            (Type.INTEGER, ["0", "7", "-7", "9223372036854775807", "-9223372036854775808"]),
            (Type.UUID, ["0190b3b0-0000-7000-8000-000000000001", "0190b3b0-0000-7000-8000-000000000002"]),
        ],
        ids=["integer", "uuid"],
    )
    async def test_ids_of_other_types_stay_text_in_the_key(
        self, subject: Subject, id_type: Type, ids: list[str]
    ) -> None:
        model = f"Contract{id_type.value.title()}"
        column = Column("title", "title", Type.TEXT, nullable=True, max_length=40)
        schema = Schema(model, f"contract_{id_type.value}", "id", id_type, (column,))
        await subject.adapter.prepare(schema, create=True)
        operations = [subject.update(Key(model, key_id), {"title": key_id}) for key_id in ids]
        assert await subject.apply(*operations, mode=Mode.MIRROR) == [APPLIED] * len(ids)
        keys = [operation.key for operation in operations]
        assert await subject.read(*keys) == [record_by(operation) for operation in operations]
        assert await subject.apply(*[subject.delete(key) for key in keys]) == [APPLIED] * len(ids)

    async def test_models_do_not_share_ids(self, subject: Subject) -> None:
        column = Column("title", "title", Type.TEXT, nullable=False)
        other = Schema("ContractOther", "contract_others", "id", Type.TEXT, (column,))
        await subject.adapter.prepare(other, create=True)
        created = await subject.have(subject.key(), fields_of(title="this"))
        twin = subject.create(Key(other.model, created.key.id), {"title": "that"})
        assert await subject.apply(twin) == [APPLIED]
        assert await subject.apply(subject.delete(created.key)) == [APPLIED]
        assert await subject.read(twin.key) == [record_by(twin)]

    # --- life

    async def test_preparing_twice_harms_nothing(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="kept"))
        await subject.adapter.prepare(ALL_TYPES, create=True)
        await subject.adapter.prepare(ALL_TYPES, create=False)
        assert await subject.read(created.key) == [record_by(created)]

    async def test_ping_and_probe_succeed_again_and_again(self, subject: Subject) -> None:
        for _ in range(3):
            await subject.adapter.ping()
            await subject.adapter.probe()

    async def test_a_closed_adapter_can_be_opened_again(self, subject: Subject) -> None:
        created = await subject.have(subject.key(), fields_of(title="before"))
        await subject.adapter.close()
        await subject.adapter.open()
        await subject.adapter.prepare(ALL_TYPES, create=True)
        assert await subject.have(subject.key(), fields_of(title="after"))
        if subject.adapter.capabilities.durable:
            assert await subject.read(created.key) == [record_by(created)]

    async def test_a_closed_adapter_says_that_it_is_unavailable(self, subject: Subject) -> None:
        key = subject.key()
        await subject.adapter.close()
        await subject.adapter.close()
        for call in (subject.adapter.ping, subject.adapter.probe, lambda: subject.read(key)):
            with pytest.raises(Unavailable):
                await call()
        (outcome,) = await subject.apply(subject.create(key, fields_of()))
        assert outcome.status is Status.UNAVAILABLE
        assert isinstance(outcome.error, Unavailable)

    # --- concurrency

    async def test_concurrent_calls_get_their_own_answers(self, subject: Subject) -> None:
        created = [subject.create(subject.key(), fields_of(count=number)) for number in range(_PROBES)]
        outcomes = await asyncio.gather(*[subject.apply(operation) for operation in created])
        assert outcomes == [[APPLIED]] * _PROBES
        await _get_their_own_answers(subject, created)

    @pytest.mark.parametrize("moment", Moment, ids=lambda moment: moment.name.lower())
    @pytest.mark.parametrize("call", ["read", "miss", "create", "update", "delete", "batch", "ping", "probe"])
    async def test_a_call_cancelled_at_any_await_leaves_the_others_their_answers(
        self, subject: Subject, call: str, moment: Moment
    ) -> None:
        created = [subject.create(subject.key(), fields_of(count=number)) for number in range(_PROBES)]
        await subject.apply(*created)
        await _get_their_own_answers(subject, created)
        before = asyncio.all_tasks()
        for step in range(1, _STEPS):
            victim = subject.create(subject.key(), fields_of(title="whole"))
            if call in ("update", "delete"):
                await subject.apply(victim)
            if not await cancel_at(_call(subject, call, victim, created), step, moment):
                break
            await _get_their_own_answers(subject, created)
            found = await subject.find(victim.key)
            assert found is None or found.fields in (fields_of(title="whole"), fields_of(title="changed"))
        else:
            pytest.fail(f"more than {_STEPS} awaits")
        await eventually(lambda: asyncio.all_tasks() <= before)

    async def test_cancelled_calls_leave_no_descriptor_behind(self, subject: Subject) -> None:
        await subject.adapter.close()
        before = descriptors()
        await subject.adapter.open()
        await subject.adapter.prepare(ALL_TYPES, create=True)
        created = [await subject.have(subject.key(), fields_of(count=number)) for number in range(3)]
        for step in range(1, 6):
            for call in ("read", "batch"):
                await cancel_at(_call(subject, call, created[0], created), step, Moment.SUSPENDING)
        await subject.adapter.close()
        await eventually(lambda: descriptors() <= before)


def _call(
    subject: Subject, call: str, victim: Operation, others: Sequence[Operation]
) -> Coroutine[Any, Any, object]:
    adapter = subject.adapter
    update = subject.update(victim.key, fields_of(title="changed"), born=victim.born)
    more = [subject.update(other.key, other.fields or {}, born=other.born) for other in others[:3]]
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "read": lambda: adapter.read([other.key for other in others]),
        "miss": lambda: adapter.read([victim.key]),
        "create": lambda: adapter.apply([victim], Mode.LIVE),
        "update": lambda: adapter.apply([update], Mode.LIVE),
        "delete": lambda: adapter.apply([subject.delete(victim.key)], Mode.LIVE),
        "batch": lambda: adapter.apply([victim, *more], Mode.REPLAY),
        "ping": adapter.ping,
        "probe": adapter.probe,
    }
    return _awaited(calls[call]())


async def _awaited(call: Awaitable[T]) -> T:
    return await call


async def _get_their_own_answers(subject: Subject, created: Sequence[Operation]) -> None:
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*[subject.read(operation.key) for operation in created])
    found = [(answer.key, answer.fields) for (answer,) in answers if isinstance(answer, Record)]
    assert found == [(operation.key, operation.fields) for operation in created]
