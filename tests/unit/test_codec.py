"""A field's value comes back as it was, or is refused by the field's name."""

# ruff: noqa: ANN401 - annotations and stored values are of any kind

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, auto
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    Field,
    FutureDate,
    FutureDatetime,
    Json,
    PastDate,
    PastDatetime,
    PlainSerializer,
    SecretStr,
    computed_field,
)
from typing_extensions import TypedDict

from octopus_async.codec import MAX_DEPTH
from tests.unit.mapping import (
    LATER,
    MOMENT,
    Colour,
    Mixed,
    Size,
    Word,
    field_of,
    refusal,
    refused,
    returned,
    stored,
)


class Point(BaseModel):
    x: int
    y: int | None = None


class Odd(Enum):
    NOTHING = None
    TEXT = "text"


class Access(Flag):
    READ = auto()
    WRITE = auto()


class Aliased(BaseModel):
    x: int = Field(alias="ex")


class SaysAliases(BaseModel, serialize_by_alias=True):
    x: int = Field(validation_alias="in", serialization_alias="out")


class Strict(BaseModel, strict=True):
    moment: datetime
    size: Size
    pair: tuple[int, int]


class Computing(BaseModel, extra="forbid"):
    x: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.x


class Cat(BaseModel):
    kind: Literal["cat"] = Field(default="cat", alias="type")
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = Field(default="dog", alias="type")


class Pair(NamedTuple):
    x: int
    y: str


class Shape(TypedDict):
    sides: int


@dataclass
class Plain:
    moment: datetime


HOUR_THAT_COMES_TWICE = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))


def shown(value: object) -> str:
    """A value in the name of its test, the same in each process: without addresses, and sets in order."""
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Colour, Colour.RED),
        (Colour | None, None),
        (Colour | None, Colour.BLUE),
        (Size, Size.SMALL),
        (Word, Word.YES),
        (Odd, Odd.NOTHING),
        (Odd, Odd.TEXT),
        (Mixed, Mixed.TEXT),
        (Mixed, Mixed.NUMBER),
        (Access, Access.READ | Access.WRITE),
        (list[Colour], [Colour.RED]),
        (Literal["a", "b"], "a"),
        (Literal[1, "1"], "1"),
        (Literal["a"] | None, None),
        (Literal[True], True),
        (int | str, 5),
        (int | str, "5"),
        (float | int, 3),
        (float | int, 3.0),
        (str | UUID, UUID(int=7)),
        (datetime | date, date(2026, 1, 1)),
        (datetime | str, "soon"),
        (timedelta, timedelta(days=-3, microseconds=5)),
        (timedelta, timedelta.max),
        (list[Decimal], [Decimal("1.50")]),
        (list[bytes], [b"abc"]),
        (list[datetime], [HOUR_THAT_COMES_TWICE, HOUR_THAT_COMES_TWICE.replace(fold=1)]),
        (set[int], {1, 2}),
        (frozenset[str], frozenset("ab")),
        (tuple[int, str], (1, "a")),
        (tuple[Decimal, ...], (Decimal(1), Decimal(2))),
        (deque[int], deque([1, 2])),
        (dict[int, str], {1: "a"}),
        (dict[UUID, int], {UUID(int=1): 1}),
        (dict[date, Colour], {date(2026, 1, 1): Colour.RED}),
        (dict[Colour, Point], {Colour.RED: Point(x=1)}),
        (Point, Point(x=1, y=2)),
        (Point | None, None),
        (Aliased, Aliased(ex=1)),
        (SaysAliases, SaysAliases.model_validate({"in": 1})),
        (Strict, Strict(moment=MOMENT, size=Size.SMALL, pair=(1, 2))),
        (Computing, Computing(x=2)),
        (Annotated[Cat | Dog, Field(discriminator="kind")], Dog(type="dog")),
        (Pair, Pair(1, "b")),
        (Shape, {"sides": 4}),
        (Plain, Plain(MOMENT)),
        (Json[list[int]], [1, 2]),
        (AnyUrl, AnyUrl("http://example.org/")),
        (Path, Path("a/b")),
        (IPv4Address, IPv4Address("127.0.0.1")),
        (FutureDatetime, MOMENT),
        (PastDatetime, MOMENT),
        (FutureDate, date(2000, 1, 1)),
        (PastDate, date(2000, 1, 1)),
        (Any, {"a": [1, 2.5, None, True, "x", {}]}),
        (Any, Word.YES),
        (object, [1]),
    ],
    ids=shown,
)
def test_what_is_accepted_comes_back_as_it_was(annotation: Any, value: object) -> None:
    mapper = field_of(annotation)
    model = mapper.model.model_construct(x=value)
    found = mapper.decode(stored(mapper, model)).x
    if not isinstance(value, list) or HOUR_THAT_COMES_TWICE not in value:
        assert (found, type(found)) == (value, type(value) if annotation is not Any else type(found))
    else:
        assert [moment.timestamp() for moment in found] == [moment.timestamp() for moment in value]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Any, (1, 2)),
        (Any, MOMENT),
        (Any, b"x"),
        (Any, float("nan")),
        (Any, [float("inf")]),
        (Any, Decimal("NaN")),
        (list[Decimal], [Decimal("NaN")]),
        (dict[Any, int], {1: 1, "1": 2}),
        (dict[Any, int], {None: 1}),
        (dict[tuple[int, int], int], {(1, 2): 3}),
        (SecretStr, SecretStr("hunter2")),
        (UUID | str, str(UUID(int=7))),
        (datetime | str, "2026-01-01T00:00:00Z"),
        (Literal[Colour.RED], Colour.RED),
        (Literal[b"a"], b"a"),
        (list[Annotated[int, Field(gt=0)]], [-1]),
        (Annotated[list[int], Field(max_length=1)], [1, 2]),
        (Annotated[list[int], AfterValidator(lambda value: [*value, 1])], [1]),
        (list[bytes], [b"\xff"]),
        (list[datetime], [datetime(1933, 1, 1, tzinfo=timezone(timedelta(hours=1, seconds=36)))]),
        (Any, b"\xff"),
    ],
    ids=shown,
)
def test_what_would_not_come_back_as_it_was_is_refused(annotation: Any, value: object) -> None:
    mapper = field_of(annotation)
    model = mapper.model.model_construct(x=value)
    message = refusal(lambda: mapper.encode(model, LATER, create=True))
    assert message.startswith("Thing.x ")
    assert "hunter2" not in message


def nested(depth: int) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value


def a_cycle() -> object:
    value: list[object] = []
    value.append(value)
    return value


def raise_it(_: object) -> object:
    raise TypeError("a secret")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        pytest.param({"a\0": 1}, "holds a NUL, which not every database stores", id="key with NUL"),
        pytest.param(["a\0"], "holds a NUL, which not every database stores", id="NUL"),
        pytest.param(
            {"\ud800": 1}, "holds a lone surrogate, which is no text in UTF-8", id="key with surrogate"
        ),
        pytest.param(["\ud800"], "holds a lone surrogate, which is no text in UTF-8", id="surrogate"),
        pytest.param({"x": 1 << 63}, "is past 64 bits", id="65 bits"),
        pytest.param(nested(MAX_DEPTH + 1), "is nested deeper than 64 levels", id="65 levels"),
        pytest.param(nested(10_000), "is nested deeper than 64 levels", id="10000 levels"),
        pytest.param(a_cycle(), "is nested deeper than 64 levels", id="cycle"),
        pytest.param(object(), "holds a value that cannot be written as JSON", id="object"),
        pytest.param([b"\xff"], "holds bytes that are no UTF-8", id="bytes"),
        pytest.param(
            [float("nan")], "would not come back from JSON as it is: declare its type more closely", id="nan"
        ),
    ],
)
def test_a_nested_value_that_cannot_be_kept_is_refused_by_the_fields_name(value: object, why: str) -> None:
    assert refused("anything", value) == why


def test_the_deepest_value_that_is_taken_comes_back() -> None:
    assert returned(field_of(Any), nested(MAX_DEPTH)) == nested(MAX_DEPTH)


@pytest.mark.parametrize(
    ("annotation", "value", "why"),
    [
        (list[int], ["a secret"], "holds a str where int is declared"),
        (list[int], "a secret", "holds a str where list[int] is declared"),
        (list[int], ["(Expected `a secret` [input_type=secret])"], "holds a str where int is declared"),
        (Point, {"x": 1}, "holds a dict where Point is declared"),
        (Point, Point.model_construct(x="a secret"), "holds a str where int is declared"),
        (list[float], [float("nan")], "is nan, which not every database stores"),
        (int | bytes, [1], "holds a list where int is declared"),
        (
            list[Annotated[int, PlainSerializer(raise_it)]],
            [1],
            "holds a value that cannot be written as JSON",
        ),
    ],
    ids=shown,
)
def test_a_refusal_says_what_is_wrong_inside_and_shows_no_value(
    annotation: Any, value: object, why: str
) -> None:
    mapper = field_of(annotation)
    model = mapper.model.model_construct(x=value)
    message = refusal(lambda: mapper.encode(model, LATER, create=True))
    assert message == f"Thing.x {why}"
