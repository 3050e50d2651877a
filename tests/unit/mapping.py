"""Models to map, and the way of a value to a durable backend and back."""

# ruff: noqa: ANN401 - annotations and stored values are of any kind

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from pydantic import (
    Field,
    NaiveDatetime,
    create_model,
)

from octopus_async.errors import InvalidRecord
from octopus_async.mapper import Mapper
from octopus_async.model import KeyedModel, Model
from octopus_async.record import Record

MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = datetime(2026, 2, 1, tzinfo=UTC)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1


class Word(StrEnum):
    YES = "yes"


class Mixed(Enum):
    TEXT = "1"
    NUMBER = 1


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
