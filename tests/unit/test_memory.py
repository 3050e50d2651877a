"""The in-process cache: its budget, its time to live, and what it evicts first."""

from __future__ import annotations

import math

import pytest

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.errors import BackendRefused, ConfigurationError, OperationNotSupported
from octopus_async.record import APPLIED, Key, Miss, Mode, Outcome, Record, Status
from octopus_async.testing.operations import Author, fields_of
from octopus_async.url import BackendURL


class Time:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def author() -> Author:
    return Author()


async def cache(time: Time, *, max_bytes: int = 64 * 1024**2, ttl: float = 300.0) -> MemoryAdapter:
    adapter = MemoryAdapter(max_bytes=max_bytes, ttl=ttl, now=time)
    await adapter.open()
    return adapter


async def find(adapter: MemoryAdapter, key: Key) -> object:
    (answer,) = await adapter.read([key])
    return answer.fields if isinstance(answer, Record) else answer


async def test_a_value_is_forgotten_after_its_time_to_live(time: Time, author: Author) -> None:
    adapter = await cache(time, ttl=5)
    created = author.create(author.key(), {"n": 1})
    await adapter.apply([created], Mode.MIRROR)
    time.now += 4.99
    assert await find(adapter, created.key) == {"n": 1}
    time.now += 0.01
    assert isinstance(await find(adapter, created.key), Miss)


async def test_reading_a_value_does_not_prolong_its_life(time: Time, author: Author) -> None:
    adapter = await cache(time, ttl=5)
    created = author.create(author.key(), {"n": 1})
    await adapter.apply([created], Mode.MIRROR)
    for _ in range(5):
        await adapter.read([created.key])
        time.now += 1
    assert isinstance(await find(adapter, created.key), Miss)


async def test_an_expired_value_stops_no_older_write(time: Time, author: Author) -> None:
    adapter = await cache(time, ttl=5)
    older = author.create(author.key(), {"n": 1})
    await adapter.apply([author.update(older.key, {"n": 2})], Mode.MIRROR)
    time.now += 5
    assert await adapter.apply([older], Mode.MIRROR) == [APPLIED]


async def test_a_lease_is_short_and_expires_unfilled(time: Time, author: Author) -> None:
    adapter = await cache(time)
    created = author.create(author.key(), {"n": 1})
    (miss,) = await adapter.read([created.key])
    assert isinstance(miss, Miss)
    time.now += 10
    assert isinstance(await find(adapter, created.key), Miss)
    await adapter.fill([(Record(created.key, created.version, created.born, created.fields), miss)])
    assert isinstance(await find(adapter, created.key), Miss)


async def test_a_lease_of_an_evicted_marker_fills_nothing(time: Time, author: Author) -> None:
    adapter = await cache(time, max_bytes=2000)
    created = author.create(author.key(), {"n": 1})
    (miss,) = await adapter.read([created.key])
    assert isinstance(miss, Miss)
    for _ in range(10):
        await adapter.read([author.key()])
    await adapter.fill([(Record(created.key, created.version, created.born, created.fields), miss)])
    assert isinstance(await find(adapter, created.key), Miss)


async def test_the_budget_is_never_exceeded(time: Time, author: Author) -> None:
    adapter = await cache(time, max_bytes=100_000)
    for number in range(500):
        await adapter.apply([author.create(author.key(), {"text": "x" * (number * 7 % 3000)})], Mode.MIRROR)
        assert adapter.bytes <= 100_000
    assert 20 < len(adapter) < 250


async def test_what_was_not_used_for_longest_is_evicted_first(time: Time, author: Author) -> None:
    adapter = await cache(time, max_bytes=10_000)
    records = [author.create(author.key(), {"text": "x" * 1000}) for _ in range(6)]
    await adapter.apply(records, Mode.MIRROR)
    await adapter.read([records[0].key])
    for _ in range(2):
        await adapter.apply([author.create(author.key(), {"text": "x" * 1000})], Mode.MIRROR)
    assert await find(adapter, records[0].key) == records[0].fields
    assert isinstance(await find(adapter, records[1].key), Miss)


async def test_bytes_are_given_back_when_values_shrink(time: Time, author: Author) -> None:
    adapter = await cache(time)
    key = author.key()
    await adapter.apply([author.create(key, {"text": "x" * 10_000})], Mode.MIRROR)
    large = adapter.bytes
    await adapter.apply([author.delete(key)], Mode.MIRROR)
    assert 0 < adapter.bytes < large - 9_000
    await adapter.close()
    assert adapter.bytes == len(adapter) == 0


async def test_a_record_above_the_budget_is_invalidated_and_evicts_nobody(time: Time, author: Author) -> None:
    adapter = await cache(time, max_bytes=10_000)
    other = author.create(author.key(), {"n": 1})
    small = author.create(author.key(), {"n": 2})
    large = author.update(small.key, {"text": "x" * 10_000})
    assert await adapter.apply([other, small, large], Mode.MIRROR) == [APPLIED] * 3
    assert isinstance(await find(adapter, small.key), Miss)
    assert await adapter.apply([small], Mode.MIRROR) == [Outcome(Status.SUPERSEDED, stored=large.version)]
    assert await find(adapter, other.key) == {"n": 1}


async def test_a_fill_above_the_budget_is_dropped_and_evicts_nobody(time: Time, author: Author) -> None:
    adapter = await cache(time, max_bytes=10_000)
    other = author.create(author.key(), {"n": 1})
    await adapter.apply([other], Mode.MIRROR)
    large = author.create(author.key(), {"text": "x" * 10_000})
    (miss,) = await adapter.read([large.key])
    assert isinstance(miss, Miss)
    await adapter.fill([(Record(large.key, large.version, large.born, large.fields), miss)])
    assert isinstance(await find(adapter, large.key), Miss)
    assert await find(adapter, other.key) == {"n": 1}


async def test_a_closed_cache_has_forgotten_everything(time: Time, author: Author) -> None:
    adapter = await cache(time)
    created = author.create(author.key(), {"n": 1})
    await adapter.apply([created], Mode.MIRROR)
    await adapter.close()
    with pytest.raises(BackendRefused):
        await adapter.read([created.key])
    await adapter.open()
    assert isinstance(await find(adapter, created.key), Miss)


async def test_a_durable_one_keeps_everything_for_as_long_as_it_lives(time: Time, author: Author) -> None:
    adapter = MemoryAdapter(durable=True, max_bytes=1, ttl=1, now=time)
    await adapter.open()
    created = [author.create(author.key(), fields_of(title="x" * 1000)) for _ in range(50)]
    await adapter.apply(created, Mode.LIVE)
    time.now += 1e9
    await adapter.close()
    await adapter.open()
    answers = await adapter.read([operation.key for operation in created])
    assert [answer.fields for answer in answers if isinstance(answer, Record)] == [
        operation.fields for operation in created
    ]


async def test_a_cache_lists_nothing(time: Time) -> None:
    adapter = await cache(time)
    with pytest.raises(OperationNotSupported):
        [record async for record in adapter.scan("Book")]


def test_a_url_gives_its_options() -> None:
    adapter = MemoryAdapter.from_url(BackendURL.parse("memory://?max_bytes=1MB&ttl=2.5"), name="near")
    assert adapter.name == "near"
    assert adapter.capabilities.ttl == 2.5
    assert adapter._max_bytes == 1024**2


@pytest.mark.parametrize("options", [{"ttl": math.inf}, {"ttl": 0}, {"ttl": -1}, {"max_bytes": 0}])
def test_a_cache_without_bounds_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        MemoryAdapter(**options)  # type: ignore[arg-type]
