"""Many-forms: windows over lists and streams, and an outcome for each item."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from octopus_async import ConfigurationError, InvalidRecord, RecordNotFound, Result, each
from octopus_async.bulk import Call, in_windows
from tests.unit.stage import Country, stage


async def stream_of(countries: int) -> AsyncIterator[Country]:
    for number in range(countries):
        await asyncio.sleep(0)
        yield Country(id=f"c{number}", name=str(number))


async def test_many_forms_take_streams(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        receipts = (await it.countries.create_many(stream_of(3))).unwrap()
        assert [receipt.key.id for receipt in receipts] == ["c0", "c1", "c2"]
        found = await it.countries.read_many(country.id async for country in stream_of(4))
        assert [country and country.name for country in found.unwrap()] == ["0", "1", "2", None]
        assert (await it.countries.delete_many(stream_of(3))).errors == []
        assert (await it.countries.exists_many(["c0", "c1"])).unwrap() == [False, False]


async def test_each_gives_every_item_with_its_result_in_order(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.countries.create(Country(id="c1", name="there already"))
        pairs = [pair async for pair in each(it.countries.get_one, ["c0", "c1"])]
        assert [id_ for id_, _ in pairs] == ["c0", "c1"]
        assert isinstance(pairs[0][1].error, RecordNotFound)
        assert pairs[1][1].unwrap().name == "there already"


async def test_a_stream_is_read_no_further_than_its_window() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    async def call(number: int) -> int:
        return number

    async with aclosing(each(call, numbers(), window=3)) as pairs:
        assert await anext(pairs) == (0, Result(0, None))
        assert taken == [0, 1, 2]
    assert taken == [0, 1, 2], "who leaves early leaves the rest unread"
    assert [number async for number, _ in each(call, range(10), window=3)] == list(range(10))


async def test_a_window_is_bounded_by_bytes_too() -> None:
    began: list[int] = []

    async def call(item: int) -> None:
        began.append(item)

    heavy = 9 * 1024 * 1024
    pairs = in_windows(lambda item: Call(lambda: call(item), heavy), range(5))
    async with aclosing(pairs):
        await anext(pairs)
        assert began == [0, 1]
    assert began == [0, 1]


async def test_an_item_that_cannot_be_stored_does_not_stop_the_others(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        results = await it.countries.create_many(
            [Country(id="a", name="fine"), Country(id="b", name="NUL \0"), Country(id="c", name="fine")]
        )
        assert [type(result.error) for result in results] == [type(None), InvalidRecord, type(None)]


async def test_what_the_stream_itself_raises_is_raised_and_its_window_is_not_begun(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[Country]:
        yield Country(id="a", name="given")
        raise OSError("the file ends here")

    async with stage(tmp_path) as it:
        with pytest.raises(OSError, match="ends here"):
            await it.countries.create_many(broken())
        assert not await it.countries.exists("a")


@pytest.mark.parametrize("window", [0, -1])
async def test_a_window_has_room_for_one(window: int) -> None:
    with pytest.raises(ConfigurationError, match="window"):
        await anext(each(asyncio.sleep, [0.0], window=window))
