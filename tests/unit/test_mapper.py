"""What a mapper accepts comes back as it was; anything else is refused by the field's name."""

# ruff: noqa: ANN401 - annotations and stored values are of any kind

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from ipaddress import IPv4Address
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple, Self
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AfterValidator,
    AnyUrl,
    AwareDatetime,
    BaseModel,
    Field,
    FutureDate,
    FutureDatetime,
    Json,
    NaiveDatetime,
    PastDate,
    PastDatetime,
    PlainSerializer,
    PositiveInt,
    SecretStr,
    StringConstraints,
    computed_field,
    create_model,
    model_validator,
)
from typing_extensions import TypedDict

from octopus_async.codec import MAX_DEPTH
from octopus_async.errors import ConfigurationError, InvalidRecord
from octopus_async.mapper import MAX_ID_BYTES, Mapper, schema_of
from octopus_async.model import KeyedModel, Model
from octopus_async.record import Key, Record, Value
from octopus_async.schema import Column, Type

MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = datetime(2026, 2, 1, tzinfo=UTC)


class Everything(Model):
    text: str = "x"
    short: str = Field(default="x", max_length=3)
    integer: int = 1
    real: float = 1.5
    boolean: bool = True
    binary: bytes = b"\x00\xff"
    moment: datetime = MOMENT
    local: NaiveDatetime = datetime(2026, 1, 31, 12)  # noqa: DTZ001 - naive on purpose
    day: date = date(2026, 1, 31)
    clock: time = time(12, 0, 1, 5)
    decimal: Decimal = Decimal("1.50")
    uuid: UUID = UUID(int=7)
    numbers: list[int] = Field(default=[1])
    anything: Any = None
    maybe: str | None = None


class Numbered(KeyedModel):
    id: int


class Named(KeyedModel):
    id: str


everything: Mapper[Everything] = Mapper(Everything)


def field_of(annotation: Any, **options: Any) -> Mapper[Any]:
    """A mapper of a model that has one field ``x`` of this type."""
    return Mapper(create_model("Thing", __base__=Model, x=(annotation, Field(**options))))


def stored(mapper: Mapper[Any], model: Any) -> Record:
    """The record of a model as it comes back from a durable backend: through JSON."""
    fields, payload = mapper.encode(model, LATER, create=True)
    assert json.loads(payload) == fields
    return Record(mapper.key_of(model), "v", "b", json.loads(payload))


def returned(mapper: Mapper[Any], value: object) -> Any:
    """What becomes of a value of the field ``x``."""
    return mapper.decode(stored(mapper, mapper.model(x=value))).x


def refusal(encode: Callable[[], object]) -> str:
    with pytest.raises(InvalidRecord) as caught:
        encode()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def refused(field: str, value: object) -> str:
    """Why a value that was set after construction is refused; the field is named in any case."""
    model = Everything()
    setattr(model, field, value)
    message = refusal(lambda: everything.encode(model, LATER, create=True))
    assert message.startswith(f"Everything.{field} ")
    return message.removeprefix(f"Everything.{field} ")


def read(**changes: Value) -> Everything:
    """A record of which others changed some fields."""
    record = stored(everything, Everything())
    return everything.decode(record._replace(fields={**(record.fields or {}), **changes}))


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("text", "a\0b", "holds a NUL, which not every database stores"),
        ("text", "\ud800", "holds a lone surrogate, which is no text in UTF-8"),
        ("text", b"x", "holds a bytes where str is declared"),
        ("text", None, "holds a NoneType where str is declared"),
        ("short", "four", "has 4 characters, over its limit of 3"),
        ("integer", 1 << 63, "is past 64 bits"),
        ("integer", -(1 << 63) - 1, "is past 64 bits"),
        ("integer", 1.5, "holds a float where int is declared"),
        ("real", float("nan"), "is nan, which not every database stores"),
        ("real", float("-inf"), "is -inf, which not every database stores"),
        ("real", "1.5", "holds a str where float or int is declared"),
        ("boolean", 1, "holds a int where bool is declared"),
        ("binary", "x", "holds a str where bytes is declared"),
        ("moment", datetime(2026, 1, 1), "is a naive datetime"),  # noqa: DTZ001 - that is the point
        ("moment", "2026-01-01", "holds a str where datetime is declared"),
        ("moment", datetime(999, 1, 1, tzinfo=UTC), "is before the year 1000"),
        ("local", MOMENT, "is an aware datetime where a naive one is declared"),
        ("day", MOMENT, "holds a datetime where date is declared"),
        ("day", date(999, 12, 31), "is before the year 1000"),
        ("clock", time(12, tzinfo=UTC), "is a time of day with a zone"),
        ("decimal", Decimal("1e35"), "has over 35 digits before the point or 30 after it"),
        ("decimal", Decimal("1e-31"), "has over 35 digits before the point or 30 after it"),
        ("decimal", Decimal("sNaN"), "is sNaN, which not every database stores"),
        ("decimal", 1.5, "holds a float where Decimal is declared"),
        ("uuid", "x", "holds a str where UUID is declared"),
        ("maybe", 5, "holds a int where str is declared"),
    ],
    ids=str,
)
def test_what_a_durable_backend_cannot_keep_is_refused_by_the_fields_name(
    field: str, value: object, why: str
) -> None:
    assert refused(field, value).startswith(why)


def test_an_integer_of_thousands_of_digits_is_refused_before_it_is_written_out() -> None:
    huge = 10**5000
    assert refused("integer", huge) == "is past 64 bits"
    assert refused("real", huge) == "is past the range of a double"
    assert refused("anything", {"x": [huge]}) == "is past 64 bits"
    assert refusal(lambda: Mapper(Numbered).key(huge)) == "Numbered.id is past 64 bits"


def test_a_field_that_was_deleted_is_missing() -> None:
    model = Everything()
    del model.text
    message = refusal(lambda: everything.encode(model, LATER, create=True))
    assert message == "Everything.text is missing"


def test_a_record_over_the_limit_is_refused_by_its_size() -> None:
    small = Mapper(Everything, max_bytes=2000)
    message = refusal(lambda: small.encode(Everything(text="x" * 3000), LATER, create=True))
    assert message.startswith("Everything: the record has 3")
    assert message.endswith(" bytes, over the limit of 2000")


# -- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "id_", ["", "a\0b", "x" * (MAX_ID_BYTES + 1), "é" * MAX_ID_BYTES, "\ud800", 5, None, b"x"], ids=repr
)
def test_what_no_index_keeps_is_no_text_id(id_: object) -> None:
    assert refusal(lambda: Mapper(Named).key(id_)).startswith("Named.id ")


@pytest.mark.parametrize("id_", [1 << 63, -(1 << 63) - 1, "5", True, 1.0, None], ids=repr)
def test_what_is_no_integer_of_64_bits_is_no_number_id(id_: object) -> None:
    assert refusal(lambda: Mapper(Numbered).key(id_)).startswith("Numbered.id ")


@pytest.mark.parametrize("id_", ["", "x", "\ud800", 5, None], ids=repr)
def test_what_is_no_uuid_is_no_generated_id(id_: object) -> None:
    assert refusal(lambda: everything.key(id_)).startswith("Everything.id ")


def test_a_uuid_may_be_given_as_text_in_any_form() -> None:
    id_ = UUID("01a20908-f820-7c84-8ba2-17108c30ed0a")
    forms: list[object] = [id_, str(id_), str(id_).upper(), id_.hex, f"{{{id_}}}", id_.urn]
    assert {everything.key(form).id for form in forms} == {str(id_)}


def test_a_model_without_its_id_is_refused() -> None:
    assert refusal(lambda: Mapper(Named).key_of(Named.model_construct())).startswith("Named.id ")


@pytest.mark.parametrize("id_", ["a b", "\x01\x7f", "𝄞" * 256, "x" * MAX_ID_BYTES, " ", "Ä"], ids=ascii)
def test_any_other_text_is_an_id(id_: str) -> None:
    mapper = Mapper(Named)
    assert mapper.decode(stored(mapper, Named(id=id_))).id == id_


# -- records that others wrote, or an older form of the class ------------------------------------


@pytest.mark.parametrize(
    "field", [column.field for column in everything.schema.columns if not column.nullable], ids=str
)
def test_null_in_a_column_that_takes_none_is_no_record_of_the_class(field: str) -> None:
    message = refusal(lambda: read(**{field: None}))
    assert message.endswith(f"does not fit the class Everything: {field}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 5),
        ("text", [1]),
        ("integer", "x"),
        ("integer", 1.5),
        ("real", "x"),
        ("real", {}),
        ("boolean", "maybe"),
        ("boolean", 7),
        ("binary", 5),
        ("moment", "x"),
        ("local", "2026-01-01T00:00:00.000000Z"),
        ("day", "2026-13-01"),
        ("clock", 1 << 40),
        ("decimal", "x"),
        ("decimal", [1]),
        ("uuid", 5),
        ("uuid", "x"),
        ("numbers", ["x"]),
        ("maybe", 5),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_never_passed_on(field: str, value: Value) -> None:
    message = refusal(lambda: read(**{field: value}))
    assert message.endswith(f"does not fit the class Everything: {field}")


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        ("integer", "12", 12),
        ("real", 1, 1.0),
        ("boolean", "false", False),
        ("boolean", 0, False),
        ("binary", "no base64!", b"no base64!"),
        ("moment", "2026-01-31T13:00:00+01:00", MOMENT),
        ("decimal", 5, Decimal(5)),
        ("uuid", str(UUID(int=9)).upper(), UUID(int=9)),
    ],
    ids=str,
)
def test_a_value_of_another_type_that_can_be_understood_is(field: str, value: Value, meant: object) -> None:
    found = getattr(read(**{field: value}), field)
    assert (found, type(found)) == (meant, type(meant))


def test_a_field_that_was_added_has_its_default() -> None:
    class Old(Model, name="Book"):
        title: str

    class New(Model, name="Book"):
        title: str
        pages: int = 100
        tags: list[str] = Field(default_factory=lambda: ["new"])

    record = stored(Mapper(Old), Old(title="Emma"))
    book = Mapper(New).decode(record)
    assert (book.title, book.pages, book.tags, book.version) == ("Emma", 100, ["new"], "v")


def test_a_field_that_was_added_without_a_default_is_named() -> None:
    class Old(Model, name="Book"):
        title: str

    class New(Model, name="Book"):
        title: str
        pages: int

    record = stored(Mapper(Old), Old(title="Emma"))
    assert refusal(lambda: Mapper(New).decode(record)).endswith("does not fit the class New: pages")


def test_a_field_that_was_removed_is_left_out_even_where_extra_ones_are_forbidden() -> None:
    class Old(Model, name="Book"):
        title: str
        pages: int

    class New(Model, name="Book", extra="forbid"):
        title: str

    book = Mapper(New).decode(stored(Mapper(Old), Old(title="Emma", pages=1)))
    assert "pages" not in vars(book)


def test_an_older_form_is_understood_by_names_whatever_the_aliases() -> None:
    class Old(Model, name="Book"):
        title: str = Field(alias="headline")

    class New(Model, name="Book"):
        title: str = Field(alias="headline")
        pages: int = 100

    book = Mapper(New).decode(stored(Mapper(Old), Old(headline="Emma")))
    assert (book.title, book.pages) == ("Emma", 100)


def test_an_older_form_is_understood_by_a_strict_model() -> None:
    class Old(Model, name="Book", strict=True):
        read_at: datetime = MOMENT
        dates: list[date] = Field(default=[date(2026, 1, 1)])

    class New(Old, name="Book", strict=True):
        pages: int = 100

    book = Mapper(New).decode(stored(Mapper(Old), Old()))
    assert (book.read_at, book.dates, book.pages) == (MOMENT, [date(2026, 1, 1)], 100)


def test_a_validator_of_the_whole_model_is_named_when_an_older_form_does_not_pass_it() -> None:
    class Old(Model, name="Book"):
        title: str

    class New(Old, name="Book"):
        pages: int = 0

        @model_validator(mode="after")
        def has_pages(self) -> Self:
            assert self.pages, "a secret of the record"
            return self

    record = stored(Mapper(Old), Old(title="Emma"))
    message = refusal(lambda: Mapper(New).decode(record))
    assert message.endswith("does not fit the class New: its validators refuse it")


def test_a_key_that_is_no_id_of_the_class_is_no_record_of_it() -> None:
    record = stored(everything, Everything())
    strange = record._replace(key=Key("Everything", "no uuid"))
    assert refusal(lambda: everything.decode(strange)).endswith("does not fit the class Everything: id")


def test_a_tombstone_is_no_model() -> None:
    record = stored(everything, Everything())._replace(fields=None)
    assert refusal(lambda: everything.decode(record)).endswith("is a tombstone")


# -- nested values: kept as JSON -----------------------------------------------------------------


class Point(BaseModel):
    x: int
    y: int | None = None


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1


class Word(StrEnum):
    YES = "yes"


class Odd(Enum):
    NOTHING = None
    TEXT = "text"


class Mixed(Enum):
    TEXT = "1"
    NUMBER = 1


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
    ids=repr,
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
        (Any, b"\xff"),
    ],
    ids=repr,
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
    ids=repr,
)
def test_a_refusal_says_what_is_wrong_inside_and_shows_no_value(
    annotation: Any, value: object, why: str
) -> None:
    mapper = field_of(annotation)
    model = mapper.model.model_construct(x=value)
    message = refusal(lambda: mapper.encode(model, LATER, create=True))
    assert message == f"Thing.x {why}"


# -- how a class is stored -----------------------------------------------------------------------


def test_an_enumeration_may_be_an_id() -> None:
    class Paint(KeyedModel):
        id: Colour

    class Shirt(KeyedModel):
        id: Size

    assert Mapper(Paint).decode(stored(Mapper(Paint), Paint(id=Colour.RED))).id is Colour.RED
    assert Mapper(Shirt).decode(stored(Mapper(Shirt), Shirt(id=Size.SMALL))).id is Size.SMALL


def a_column(annotation: Any, **options: Any) -> Column:
    return field_of(annotation, **options).schema.by_field["x"]


@pytest.mark.parametrize(
    ("annotation", "type_", "nullable"),
    [
        (str, Type.TEXT, False),
        (str | None, Type.TEXT, True),
        (int, Type.INTEGER, False),
        (PositiveInt, Type.INTEGER, False),
        (float, Type.REAL, False),
        (bool, Type.BOOLEAN, False),
        (bytes | None, Type.BINARY, True),
        (datetime, Type.TIMESTAMP, False),
        (AwareDatetime, Type.TIMESTAMP, False),
        (NaiveDatetime | None, Type.LOCAL_TIMESTAMP, True),
        (date, Type.DATE, False),
        (time, Type.TIME, False),
        (Decimal, Type.DECIMAL, False),
        (UUID, Type.UUID, False),
        (Word, Type.TEXT, False),
        (Size | None, Type.INTEGER, True),
        (Mixed, Type.JSON, False),
        (Literal["a", "b"], Type.TEXT, False),
        (Literal[1, "a"], Type.JSON, False),
        (int | str | None, Type.JSON, True),
        (list[int], Type.JSON, False),
        (Any, Type.JSON, True),
    ],
    ids=repr,
)
def test_a_columns_type_follows_from_the_annotation(annotation: Any, type_: Type, *, nullable: bool) -> None:
    column = a_column(annotation)
    assert (column.type, column.nullable) == (type_, nullable)


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[str, Field(max_length=3)],
        Annotated[str, Field(max_length=3)] | None,
        Annotated[str | None, Field(max_length=3)],
        Annotated[str, StringConstraints(max_length=3)] | None,
        Annotated[Annotated[str, Field(max_length=9)], Field(max_length=3)],
    ],
    ids=repr,
)
def test_a_texts_limit_is_found_wherever_it_is_declared(annotation: Any) -> None:
    assert a_column(annotation).max_length == 3


def test_the_limit_of_a_list_is_no_columns_length() -> None:
    assert a_column(list[str], max_length=3).max_length is None


def test_a_class_declared_before_its_types_is_stored_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("declared_in_parts")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("from octopus_async.model import Model\nclass Book(Model):\n    kind: 'Kind'\n", vars(module))  # noqa: S102 - a module whose order matters
    assert wrong(lambda: module.Book) == "Book: the type of a field is not known: Kind"
    exec("from enum import StrEnum\nclass Kind(StrEnum):\n    NOVEL = 'novel'\n", vars(module))  # noqa: S102 - as above
    assert schema_of(module.Book).by_field["kind"].type is Type.TEXT


def wrong(make: Callable[[], type[KeyedModel]]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Mapper(make())
    return str(caught.value)


def test_a_model_without_an_id_is_told_what_to_derive_from() -> None:
    class Book(KeyedModel):
        title: str

    assert wrong(lambda: Book) == (
        "Book declares no id: derive it from Model, or declare `id: str`, int or UUID"
    )


@pytest.mark.parametrize("annotation", [float, bytes, datetime, list[int], int | str, Any, Mixed], ids=repr)
def test_an_id_is_a_uuid_a_str_or_an_int(annotation: Any) -> None:
    model = create_model("Book", __base__=KeyedModel, id=(annotation, ...))
    assert wrong(lambda: model) == "Book.id has to be a UUID, str or int"


def test_extra_fields_have_no_column() -> None:
    class Book(Model, extra="allow"):
        pass

    assert wrong(lambda: Book).startswith("Book allows extra fields, which no backend could type")


def test_columns_name_fields() -> None:
    class Book(Model, columns={"titel": "title"}):
        title: str

    assert wrong(lambda: Book) == "Book: columns names 'titel', which is no field of it"


@pytest.mark.parametrize(
    ("columns", "id_column"),
    [({"a": "b"}, None), ({"a": "B"}, None), ({"a": "id"}, None), ({"a": "Key"}, "key")],
    ids=repr,
)
def test_two_fields_cannot_share_a_column(columns: dict[str, str], id_column: str | None) -> None:
    class Book(Model, columns=columns, id_column=id_column):
        a: int
        b: int

    assert "are both kept in the column" in wrong(lambda: Book)


def test_a_field_cannot_hide_the_records_version() -> None:
    with pytest.warns(UserWarning, match="shadows an attribute"):

        class Book(Model):
            version: int = 1  # type: ignore[assignment]

    assert wrong(lambda: Book) == (
        "Book: a field called version would hide the record's: call it otherwise, "
        "for instance `revision` with columns={'revision': 'version'}"
    )


@pytest.mark.parametrize("annotation", [NaiveDatetime, str, datetime | None], ids=repr)
@pytest.mark.parametrize("name", ["created_at", "updated_at"])
def test_the_moments_of_a_record_are_aware_datetimes(name: str, annotation: Any) -> None:
    fields: dict[str, Any] = {name: (annotation, None)}
    model = create_model("Book", __base__=Model, **fields)
    assert wrong(lambda: model) == f"Book.{name} has to be a datetime, as it is in Model"


def test_a_type_that_has_no_json_form_is_named() -> None:
    class Shelf(Model, arbitrary_types_allowed=True):
        mapper: Mapper[Any]

    assert wrong(lambda: Shelf) == "the field 'mapper' has a type that cannot be kept as JSON"


def test_a_field_called_key_is_a_field_like_any_other() -> None:
    class Lock(Model):
        key: str
        born: int

    lock = Mapper(Lock).decode(stored(Mapper(Lock), Lock(key="k", born=3)))
    assert (lock.key, lock.born, lock.version) == ("k", 3, "v")


# -- the fingerprint -----------------------------------------------------------------------------


class Base(Model, name="Book"):
    title: str
    pages: int = 1


class Reordered(Model, name="Book", table="tomes", columns={"title": "headline"}, id_column="isbn"):
    pages: int = 2
    title: str = Field(max_length=5, alias="headline")


class Renamed(Model, name="Tome"):
    title: str
    pages: int = 1


class Retyped(Model, name="Book"):
    title: str
    pages: float = 1


class Nullable(Model, name="Book"):
    title: str
    pages: int | None = 1


class Wider(Base, name="Book"):
    more: int = 1


class Keyed(KeyedModel, name="Book"):
    id: str
    title: str
    pages: int = 1


def test_the_fingerprint_stays_where_stored_values_mean_the_same() -> None:
    assert schema_of(Reordered).fingerprint == schema_of(Base).fingerprint


def test_the_fingerprint_changes_where_a_stored_value_could_mean_something_else() -> None:
    models: list[type[KeyedModel]] = [Base, Renamed, Retyped, Nullable, Wider, Keyed]
    assert len({schema_of(model).fingerprint for model in models}) == len(models)
