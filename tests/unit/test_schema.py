"""How a class is stored follows from its declaration; one that cannot be stored says why."""

# ruff: noqa: ANN401 - annotations and stored values are of any kind

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from types import ModuleType
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

import pytest
from pydantic import (
    AwareDatetime,
    Field,
    NaiveDatetime,
    PositiveInt,
    StringConstraints,
    create_model,
)

from octopus_async.errors import ConfigurationError
from octopus_async.mapper import Mapper, schema_of
from octopus_async.model import KeyedModel, Model
from octopus_async.schema import Column, Type
from tests.unit.mapping import Mixed, Size, Word, field_of, stored

MaybeByField: TypeAlias = Annotated[str, Field(max_length=3)] | None
MaybeByConstraints: TypeAlias = Annotated[str, StringConstraints(max_length=3)] | None


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
        MaybeByField,
        Annotated[str | None, Field(max_length=3)],
        MaybeByConstraints,
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


# -- the fingerprint ---------------------------------------------------------------------------------


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
