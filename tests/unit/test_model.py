"""Models: ids of their own making, hooks and configurations of pydantic's, and what a write tells them."""

from __future__ import annotations

from datetime import UTC, datetime
from time import time
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    computed_field,
    create_model,
    field_validator,
)

from octopus_async.mapper import Mapper
from octopus_async.model import (
    UNSTAMPED,
    KeyedModel,
    Model,
    Stamp,
    id_was_generated,
    set_stamp,
    stamp_of,
    utc_now,
    uuid7,
)
from octopus_async.record import Record
from tests.unit.mapping import LATER, MOMENT, refusal, stored

STAMP = Stamp("v2", "v1")


class Book(Model):
    title: str


def read(model: KeyedModel) -> Any:  # noqa: ANN401 - of the class that was given
    """The model as another process reads it."""
    mapper: Mapper[Any] = Mapper(type(model))
    return mapper.decode(stored(mapper, model))


# -- ids -----------------------------------------------------------------------------------------


def test_a_generated_id_is_a_uuid_of_version_7_and_of_this_moment() -> None:
    before = int(time() * 1000)
    id_ = Book(title="Emma").id
    assert (id_.version, id_.variant) == (7, RFC_4122)
    assert before <= id_.int >> 80 <= time() * 1000


def test_generated_ids_sort_by_their_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [1, 2, 1_700_000_000_000, 1_700_000_000_001, (1 << 48) - 1]
    nanoseconds = iter([moment * 1_000_000 for moment in moments])
    monkeypatch.setattr("octopus_async.model.time.time_ns", lambda: next(nanoseconds))
    ids = [uuid7() for _ in moments]
    assert sorted(ids) == ids
    assert [id_.int >> 80 for id_ in ids] == moments


@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_random_bits_touch_neither_version_nor_variant(byte: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octopus_async.model.os.urandom", lambda count: bytes([byte]) * count)
    id_ = uuid7()
    assert (id_.version, id_.variant) == (7, RFC_4122)
    assert (id_.int & ((1 << 80) - 1)).bit_count() == (4 if byte == 0 else 74 + 4)


def test_many_ids_of_one_moment_differ() -> None:
    assert len({uuid7() for _ in range(10_000)}) == 10_000


def test_whether_the_id_was_generated_is_known() -> None:
    assert id_was_generated(Book(title="Emma"))
    assert not id_was_generated(Book(id=UUID(int=1), title="Emma"))
    assert not id_was_generated(read(Book(title="Emma")))


def test_only_a_generated_id_cannot_be_refused_as_taken() -> None:
    mapper = Mapper(Book)
    assert not mapper.may_be_refused(Book(title="Emma"))
    assert mapper.may_be_refused(Book(id=UUID(int=1), title="Emma"))


def test_the_id_is_the_first_of_the_persisted_fields() -> None:
    assert Book.persisted_fields() == ("id", "created_at", "updated_at", "title")


def test_the_moments_of_a_new_model_are_aware_and_in_utc() -> None:
    book = Book(title="Emma")
    assert book.created_at.tzinfo is UTC
    assert abs((utc_now() - book.updated_at).total_seconds()) < 5


# -- version and stamp ---------------------------------------------------------------------------


def test_a_new_model_has_no_version() -> None:
    book = Book(title="Emma")
    assert book.version is None
    assert stamp_of(book) is UNSTAMPED
    assert stamp_of(Book.model_construct(title="Emma")) == UNSTAMPED


def test_no_input_sets_the_version() -> None:
    assert Book.model_validate({"title": "Emma", "version": "x", "_stamp": STAMP}).version is None
    with pytest.raises(AttributeError):
        Book(title="Emma").version = "x"  # type: ignore[misc]


def test_a_copy_knows_what_is_stored() -> None:
    book = Book(title="Emma")
    set_stamp(book, STAMP)
    assert book.model_copy().version == book.model_copy(deep=True).version == "v2"


def test_encoding_does_not_change_the_model() -> None:
    book = Book(title="Emma")
    before = book.model_copy(deep=True)
    fields, _ = Mapper(Book).encode(book, LATER, create=True)
    assert fields["created_at"] == fields["updated_at"] == "2026-02-01T00:00:00.000000Z"
    assert book == before
    assert book.version is None


def test_a_create_keeps_the_moment_that_the_caller_gave() -> None:
    fields, _ = Mapper(Book).encode(Book(title="Emma", created_at=MOMENT), LATER, create=True)
    assert fields["created_at"] == "2026-01-31T12:00:00.000000Z"
    assert fields["updated_at"] == "2026-02-01T00:00:00.000000Z"


def test_an_update_keeps_the_moment_of_the_create() -> None:
    book = Book(title="Emma")
    created_at = book.created_at
    fields, _ = Mapper(Book).encode(book, LATER, create=False)
    assert datetime.fromisoformat(str(fields["created_at"])) == created_at


def test_the_acknowledgement_tells_a_model_what_was_stored() -> None:
    mapper = Mapper(Book)
    book = Book(title="Emma")
    fields, _ = mapper.encode(book, LATER, create=True)
    mapper.restamped(book, fields, STAMP, LATER)
    assert (book.created_at, book.updated_at, book.version) == (LATER, LATER, "v2")
    assert mapper.stamp(book) == STAMP


# -- pydantic's configurations -------------------------------------------------------------------


class Frozen(Model):
    model_config = ConfigDict(frozen=True)

    title: str


class Assigning(Model, validate_assignment=True):
    title: str = Field(min_length=1)

    @field_validator("updated_at")
    @classmethod
    def refuse(cls, value: datetime) -> datetime:
        assert value < LATER, "a validator must not keep an acknowledged write from being told"
        return value


@pytest.mark.parametrize("kind", [Frozen, Assigning])
def test_an_acknowledgement_reaches_models_that_guard_their_fields(kind: type[Frozen | Assigning]) -> None:
    mapper: Mapper[Any] = Mapper(kind)
    model = kind(title="Emma", updated_at=MOMENT)
    fields, _ = mapper.encode(model, LATER, create=True)
    mapper.restamped(model, fields, STAMP, LATER)
    assert (model.updated_at, model.version) == (LATER, "v2")


def test_what_is_read_guards_its_fields_as_before() -> None:
    frozen = read(Frozen(title="Emma"))
    assigning = read(Assigning(title="Emma", updated_at=MOMENT))
    with pytest.raises(ValidationError, match="frozen"):
        frozen.title = "x"
    with pytest.raises(ValidationError, match="at least 1 character"):
        assigning.title = ""
    assert hash(frozen) == hash(frozen.model_copy())


def test_validators_see_a_value_once_and_not_at_reads() -> None:
    class Account(Model):
        login: str

        @field_validator("login")
        @classmethod
        def hashed(cls, value: str) -> str:
            return f"hash({value})"

    assert read(Account(login="p")).login == "hash(p)"


def test_fields_are_kept_by_their_names_and_not_by_their_aliases() -> None:
    class Aliased(Model):
        title: str = Field(alias="headline")
        pages: int = Field(validation_alias="in", serialization_alias="out", default=1)

    model = Aliased.model_validate({"headline": "Emma", "in": 3})
    fields, _ = Mapper(Aliased).encode(model, LATER, create=True)
    assert (fields["title"], fields["pages"]) == ("Emma", 3)
    assert read(model).model_dump(exclude={"created_at", "updated_at"}) == model.model_dump(
        exclude={"created_at", "updated_at"}
    )


def test_computed_fields_and_cached_ones_are_not_stored() -> None:
    class Square(Model):
        side: int

        @computed_field  # type: ignore[prop-decorator]
        @property
        def area(self) -> int:
            return self.side**2

    square = Square(side=3)
    vars(square)["cached"] = 1
    fields, _ = Mapper(Square).encode(square, LATER, create=True)
    assert set(fields) == {"created_at", "updated_at", "side"}
    assert read(square).area == 9


def test_a_field_left_out_of_dumps_is_stored_all_the_same() -> None:
    class Account(Model):
        login: str = Field(exclude=True)

    assert read(Account(login="x")).login == "x"


def test_what_is_read_counts_as_set() -> None:
    assert read(Book(title="Emma")).model_fields_set == {"id", "created_at", "updated_at", "title"}


def test_what_is_read_shares_nothing_with_another_read() -> None:
    class Shelf(Model):
        titles: list[str]

    mapper = Mapper(Shelf)
    record = stored(mapper, Shelf(titles=["Emma"]))
    one, other = mapper.decode(record), mapper.decode(record)
    one.titles.append("Persuasion")
    one.model_fields_set.clear()
    assert other.titles == ["Emma"]
    assert other.model_fields_set


# -- private attributes and hooks ----------------------------------------------------------------


class Hooked(Model):
    title: str
    _words: list[str] = PrivateAttr(default_factory=list)
    _count: int = 7

    def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401, ARG002 - pydantic's own signature
        self._words.extend(self.title.split())


class DerivedHook(Hooked):
    pages: int = 1


@pytest.mark.parametrize("kind", [Hooked, DerivedHook])
def test_private_attributes_are_made_anew_at_each_read(kind: type[Hooked]) -> None:
    model = kind(title="Jane Eyre")
    model._words.append("not stored")
    found = read(model)
    assert (found._words, found._count, found.version) == (["Jane", "Eyre"], 7, "v")


def test_private_attributes_without_a_hook_have_their_defaults() -> None:
    class Noted(Model):
        _note: str = "none"

    noted = Noted()
    noted._note = "some"
    assert (read(noted)._note, read(noted).version) == ("none", "v")


def test_a_hook_without_private_attributes_is_called() -> None:
    class Slugged(Model):
        title: str
        slug: str = ""

        def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401, ARG002 - pydantic's own signature
            self.slug = self.title.lower()

    mapper = Mapper(Slugged)
    record = stored(mapper, Slugged(title="Emma"))
    changed = record._replace(fields={**(record.fields or {}), "slug": "old"})
    assert mapper.decode(changed).slug == "emma"
    assert mapper.decode(changed).version == "v"


def test_what_is_read_can_be_pickled_and_compared() -> None:
    book = Book(title="Emma", created_at=LATER, updated_at=LATER)
    mapper = Mapper(Book)
    record = stored(mapper, book)
    assert mapper.decode(record) == mapper.decode(record)
    assert mapper.decode(record).model_copy(update={"title": "x"}).version == "v"


# -- the class statement -------------------------------------------------------------------------


def test_the_class_statement_says_how_it_is_stored() -> None:
    class User(
        KeyedModel,
        name="Person",
        table="users",
        columns={"mail": "email"},
        id_column="user_id",
        provisional=False,
        str_to_upper=True,
    ):
        id: str
        mail: str

    schema = Mapper(User).schema
    assert (schema.model, schema.table, schema.id_column) == ("Person", "users", "user_id")
    assert [column.name for column in schema.columns] == ["created_at", "updated_at", "email"]
    assert not User.__octopus_mapping__.provisional
    assert User.model_config.get("str_to_upper")


def test_a_derived_class_is_stored_by_a_name_and_a_table_of_its_own() -> None:
    class User(Model, name="Person", table="users", columns={"mail": "email"}):
        mail: str

    class Admin(User):
        pass

    schema = Mapper(Admin).schema
    assert (schema.model, schema.table) == ("Admin", "admin")
    assert schema.by_field["mail"].name == "mail"


def test_the_id_may_be_mapped_among_the_columns() -> None:
    class User(Model, columns={"id": "user_id"}):
        pass

    assert Mapper(User).schema.id_column == "user_id"


def test_an_unknown_class_argument_is_a_mistake() -> None:
    with pytest.raises(TypeError):
        create_model("User", __base__=Model, __cls_kwargs__={"tabel": "users"})


def test_a_record_of_another_id_type_is_none_of_the_class() -> None:
    record = stored(Mapper(Book), Book(title="Emma"))
    other = Record(record.key._replace(id="7"), "v", "b", record.fields)
    assert refusal(lambda: Mapper(Book).decode(other)).endswith("does not fit the class Book: id")
