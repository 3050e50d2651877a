"""What a mapper accepts comes back as it was; anything else is refused by the field's name."""

# ruff: noqa: ANN401 - annotations and stored values are of any kind

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import Field, NaiveDatetime, create_model

from octopus_async.errors import InvalidRecord
from octopus_async.mapper import MAX_ID_BYTES, Mapper
from octopus_async.model import KeyedModel, Model
from octopus_async.record import Record, Value

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
