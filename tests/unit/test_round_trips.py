"""Any value that a mapper accepts comes back equal; any other is refused, and by nothing but that."""

# ruff: noqa: ANN401 - annotations and stored values are of any kind

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, NaiveDatetime

from octopus_async.errors import InvalidRecord
from octopus_async.record import Key, Record
from tests.unit.mapping import LATER, Colour, Everything, Word, everything, field_of, returned, stored

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
INTEGER = st.integers(-(1 << 63), (1 << 63) - 1)
REAL = st.floats(allow_nan=False, allow_infinity=False)
FIRST = datetime(1000, 1, 2)  # noqa: DTZ001 - hypothesis adds the zone
LAST = datetime(9999, 12, 30)  # noqa: DTZ001 - as above
LOCAL = st.datetimes(FIRST, LAST)
MOMENT = st.datetimes(FIRST, LAST, timezones=st.timezones() | st.just(UTC))
# pydantic writes offsets in minutes, so that others are refused inside of JSON.
OFFSET = st.integers(-1000, 1000).map(lambda minutes: timezone(timedelta(minutes=minutes)))
PLAIN = st.recursive(
    st.none() | st.booleans() | INTEGER | REAL | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
HOSTILE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.datetimes()
    | st.times()
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([Colour.RED, Word.YES, object(), Ellipsis, int, 1j, range(3)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none() | st.binary(), inner, max_size=3)
    ),
    max_leaves=8,
)


class Leaf(BaseModel):
    name: str
    when: datetime | None = None
    price: Decimal = Decimal(0)


class Tree(BaseModel):
    leaves: dict[str, Leaf] = {}
    colours: set[Colour] = set()
    pair: tuple[int, bool] | None = None


DECIMAL = st.integers(-(10**35) + 1, 10**35 - 1).map(Decimal) | st.integers(-(10**50), 10**50).map(
    lambda number: Decimal(number).scaleb(-30)
)
NESTED_DECIMAL = st.decimals(allow_nan=False, allow_infinity=False)
LEAF = st.builds(
    Leaf, name=TEXT, when=st.none() | st.datetimes(FIRST, LAST, timezones=OFFSET), price=NESTED_DECIMAL
)
TREE = st.builds(
    Tree,
    leaves=st.dictionaries(TEXT, LEAF, max_size=2),
    colours=st.sets(st.sampled_from(Colour)),
    pair=st.none() | st.tuples(INTEGER, st.booleans()),
)

KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (str, TEXT),
    "integer": (int, INTEGER),
    "real": (float, REAL),
    "boolean": (bool, st.booleans()),
    "binary": (bytes, st.binary()),
    "moment": (datetime, MOMENT),
    "local": (NaiveDatetime, LOCAL),
    "day": (date, st.dates(date(1000, 1, 1))),
    "time": (time, st.times()),
    "decimal": (Decimal, DECIMAL),
    "uuid": (UUID, st.uuids()),
    "span": (timedelta, st.timedeltas()),
    "optional": (int | None, st.none() | INTEGER),
    "enumeration": (Colour | None, st.none() | st.sampled_from(Colour)),
    "union": (int | str | list[int], INTEGER | TEXT | st.lists(INTEGER)),
    "anything": (Any, PLAIN),
    "mapping": (
        dict[int, list[date]],
        st.dictionaries(INTEGER, st.lists(st.dates(), max_size=2), max_size=3),
    ),
    "sets": (set[UUID], st.sets(st.uuids(), max_size=3)),
    "tuple": (tuple[time, timedelta], st.tuples(st.times(), st.timedeltas())),
    "tree": (Tree, TREE),
}
MAPPERS = {name: field_of(annotation) for name, (annotation, _) in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_of_a_type_comes_back_equal(kind: str) -> None:
    @settings(max_examples=30, deadline=None, database=None)
    @given(KINDS[kind][1])
    def comes_back(value: object) -> None:
        found = returned(MAPPERS[kind], value)
        same = found == value or (isinstance(value, datetime) and found.timestamp() == value.timestamp())
        assert same, (found, value)
        assert type(found) is type(value)

    comes_back()


def refusal_of(call: Callable[[], object]) -> str | None:
    try:
        call()
    except InvalidRecord as error:
        return str(error)
    return None


@pytest.mark.parametrize("field", [column.field for column in everything.schema.columns])
def test_a_hostile_value_is_refused_by_the_fields_name_or_comes_back(field: str) -> None:
    @settings(max_examples=30, deadline=None, database=None)
    @given(HOSTILE)
    def judge(value: object) -> None:
        model = Everything()
        setattr(model, field, value)
        refusal = refusal_of(lambda: everything.encode(model, LATER, create=True))
        if refusal is None:
            found = everything.decode(stored(everything, model))
            assert getattr(found, field) == value or field in ("updated_at", "moment")
        else:
            assert refusal.startswith(f"Everything.{field} ")

    judge()


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_record_is_refused_or_understood(kind: str) -> None:
    moments = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}

    @settings(max_examples=30, deadline=None, database=None)
    @given(PLAIN)
    def judge(value: Any) -> None:
        record = Record(Key("Thing", str(UUID(int=1))), "v", "b", {**moments, "x": value})
        refusal = refusal_of(lambda: MAPPERS[kind].decode(record))
        assert refusal is None or refusal.endswith("does not fit the class Thing: x")

    judge()


@settings(max_examples=60, deadline=None, database=None)
@given(HOSTILE)
def test_a_hostile_id_is_refused_or_a_key(value: object) -> None:
    refusal = refusal_of(lambda: everything.key(value))
    assert refusal is None or refusal.startswith("Everything.id ")
