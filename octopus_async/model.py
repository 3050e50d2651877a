"""Models: pydantic classes whose fields go to backends and come back as they were.

A `Model` gets an id of its own making; a `KeyedModel` declares the id that the application gives.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple, cast
from uuid import UUID

from pydantic import BaseModel, Field, PrivateAttr

from octopus_async.record import NO_VERSION

_UUID7_FIXED = 0x7 << 76 | 0x2 << 62
_RANDOM_A = 0xFFF
_RANDOM_B = (1 << 62) - 1


def uuid7() -> UUID:
    """A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then 74 random bits."""
    random = int.from_bytes(os.urandom(10), "big")
    moment = time.time_ns() // 1_000_000
    return UUID(int=moment << 80 | (random >> 62 & _RANDOM_A) << 64 | random & _RANDOM_B | _UUID7_FIXED)


def utc_now() -> datetime:
    """This moment, aware, in UTC."""
    return datetime.now(UTC)


class Stamp(NamedTuple):
    """What the library knows of a model's stored record."""

    version: str
    born: str


UNSTAMPED = Stamp(NO_VERSION, NO_VERSION)


class TableMapping(NamedTuple):
    """How a class is stored, as its class statement says."""

    name: str | None = None
    table: str | None = None
    id_column: str | None = None
    columns: Mapping[str, str] = {}
    provisional: bool = True


class KeyedModel(BaseModel):
    """A model whose ``id`` the application gives: declare it as ``str``, ``int`` or ``UUID``.

    Class arguments, all optional::

        class User(KeyedModel, table="users", columns={"mail": "email"}, id_column="user_id"):
            id: str
            mail: str

    Parameters:
        name: the model's name in keys, journal and caches; the class's name where not given.
            Keep it when you rename the class.
        table: the table in SQL backends; the model's name in lower case where not given.
        columns: column names of fields that are called otherwise in the table.
        id_column: the column of the id.
        provisional: whether a write that an outage cannot check (a create with an id of its own, an
            update of a record that was never read, unique columns) may be accepted at once and
            refused later; with False it is refused at once.
    """

    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now)

    # None rather than UNSTAMPED: pydantic copies any other default deeply, for each object.
    _stamp: Stamp | None = PrivateAttr(default=None)
    __octopus_mapping__: ClassVar[TableMapping] = TableMapping()

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        table: str | None = None,
        columns: Mapping[str, str] | None = None,
        id_column: str | None = None,
        provisional: bool = True,
        **config: Any,  # noqa: ANN401 - pydantic's own class arguments, whatever they are
    ) -> None:
        super().__init_subclass__(**config)
        cls.__octopus_mapping__ = TableMapping(name, table, id_column, columns or {}, provisional)

    @property
    def version(self) -> str | None:
        """The version of the stored record this object was read from or written as.

        None before its first acknowledged write. Changes with every write: good as an ETag.
        """
        return stamp_of(self).version or None

    @classmethod
    def persisted_fields(cls) -> tuple[str, ...]:
        """The names of the fields that backends keep, the id first."""
        return ("id", *(name for name in cls.model_fields if name != "id"))


class Model(KeyedModel):
    """A model with a generated id (a UUID of version 7), and the moments of create and update.

    Fields are declared as in any pydantic model. Nested values are kept as JSON.
    See `KeyedModel` for the class arguments, and for ids that the application gives.
    """

    id: UUID = Field(default_factory=uuid7)


def stamp_of(model: KeyedModel) -> Stamp:
    """The stamp of a model; `UNSTAMPED` if it was never stored."""
    private = model.__pydantic_private__
    return cast("Stamp", private["_stamp"] or UNSTAMPED) if private else UNSTAMPED


def set_stamp(model: KeyedModel, stamp: Stamp) -> None:
    """Note what is stored of ``model`` now."""
    private = model.__pydantic_private__
    if private is None:
        model._stamp = stamp  # noqa: SLF001 - the library's own attribute, in the model's own module
    else:
        private["_stamp"] = stamp  # the short way of the same, after each write


def id_was_generated(model: KeyedModel) -> bool:
    """Whether the id came from the field's default rather than from the caller."""
    return "id" not in model.model_fields_set


class Builder:
    """Makes models of a class out of values that were valid when they were stored.

    Nothing is validated again: what the class's own hooks do at validation was done before.
    """

    def __init__(self, model: type[KeyedModel]) -> None:
        self._model = model
        self._fields_set = set(model.model_fields)
        only_ours = set(model.__private_attributes__) == {"_stamp"}
        # pydantic's own function of this name does no more than the short way below.
        plain = model.model_post_init.__name__ == "init_private_attributes"
        self._plain = only_ours and plain

    def build(self, values: dict[str, Any], stamp: Stamp) -> Any:  # noqa: ANN401 - the caller's class
        """A new object that takes these values as its own."""
        model = self._model.__new__(self._model)
        put = object.__setattr__
        put(model, "__dict__", values)
        put(model, "__pydantic_fields_set__", self._fields_set.copy())
        put(model, "__pydantic_extra__", None)
        put(model, "__pydantic_private__", {"_stamp": stamp} if self._plain else None)
        if not self._plain:
            model.model_post_init(None)
            set_stamp(model, stamp)
        return model
