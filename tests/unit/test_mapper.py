"""What a mapper accepts comes back as it was; anything else is refused by the field's name."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Self
from uuid import UUID

import pytest
from pydantic import (
    Field,
    model_validator,
)

from octopus_async.mapper import MAX_ID_BYTES, Mapper
from octopus_async.model import KeyedModel, Model
from octopus_async.record import Key, Value
from tests.unit.mapping import (
    LATER,
    MOMENT,
    Colour,
    Everything,
    Named,
    Numbered,
    Size,
    everything,
    refusal,
    refused,
    stored,
)


def read(**changes: Value) -> Everything:
    """A record of which others changed some fields."""
    record = stored(everything, Everything())
    return everything.decode(record._replace(fields={**(record.fields or {}), **changes}))


# -- what is refused -------------------------------------------------------------------------------


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


# -- ids -------------------------------------------------------------------------------------------


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


def test_an_enumeration_may_be_an_id() -> None:
    class Paint(KeyedModel):
        id: Colour

    class Shirt(KeyedModel):
        id: Size

    assert Mapper(Paint).decode(stored(Mapper(Paint), Paint(id=Colour.RED))).id is Colour.RED
    assert Mapper(Shirt).decode(stored(Mapper(Shirt), Shirt(id=Size.SMALL))).id is Size.SMALL


# -- records that others wrote, or an older form of the class --------------------------------------


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
