"""One field's value to its stored form and back, by `octopus_async.schema.Type`.

An encoder refuses what some durable backend could not give back as it was; a decoder takes what
an encoder gave. Both raise ValueError, an encoder with the rest of a sentence about the field.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Annotated, Any, cast, get_args
from uuid import UUID

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json

from octopus_async.errors import ConfigurationError
from octopus_async.record import Value
from octopus_async.schema import Column, Type

MAX_DEPTH = 64
"""Levels of nesting in a stored value: far below where any JSON reader gives up."""
INTEGER_LIMIT = 1 << 63
_DECIMAL_DIGITS = (35, 30)
_FIRST_YEAR = 1000  # MySQL's DATETIME begins there
LONE_SURROGATE = "holds a lone surrogate, which is no text in UTF-8"
_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"
_UNEXPECTED = re.compile(r"\(Expected `([^`]+)` - .*, input_type=([^\]]+)\]\)$", re.MULTILINE)
_ROUND_TRIP: Any = {"by_alias": False, "round_trip": True}


def encoder_of(column: Column, info: FieldInfo) -> Callable[[Any], Value]:
    """A function that gives a stored value, or raises ValueError with the rest of a sentence."""
    is_json = column.type is Type.JSON
    encode = _json_encoder(_type_adapter(column, info)) if is_json else _ENCODERS[column.type]
    if not is_json and _is_enumerated(info.annotation):
        encode = _of_member(encode)
    if column.max_length is not None:
        encode = _limited(encode, column.max_length)
    if not column.nullable:
        return encode
    return lambda value: None if value is None else encode(value)


def _of_member(encode: Callable[[Any], Value]) -> Callable[[Any], Value]:
    return lambda value: encode(value.value if isinstance(value, Enum) else value)


def _limited(encode: Callable[[Any], Value], limit: int) -> Callable[[Any], Value]:
    def encode_limited(value: Any) -> Value:  # noqa: ANN401 - checked in `encode`
        text = encode(value)
        if len(cast("str", text)) > limit:
            msg = f"has {len(cast('str', text))} characters, over its limit of {limit}"
            raise ValueError(msg)
        return text

    return encode_limited


def _json_encoder(adapter: TypeAdapter[Any]) -> Callable[[Any], Value]:
    def encode(value: Any) -> Value:  # noqa: ANN401 - whatever the annotation allows
        try:
            plain = adapter.dump_python(value, mode="json", warnings="error", **_ROUND_TRIP)
        except (RecursionError, ValueError) as error:
            raise ValueError(_reason(error)) from None
        check_nested(plain)
        if not _comes_back(adapter, value, _json(plain)):
            msg = "would not come back from JSON as it is: declare its type more closely"
            raise ValueError(msg)
        return cast("Value", plain)

    return encode


def _json(plain: Value) -> bytes:
    try:
        return to_json(plain)
    except ValueError:
        raise ValueError(LONE_SURROGATE) from None


def _reason(error: Exception) -> str:
    """What pydantic says, without the value that it shows."""
    if isinstance(error, UnicodeEncodeError):
        return LONE_SURROGATE
    if isinstance(error, UnicodeDecodeError):
        return "holds bytes that are no UTF-8"
    if not isinstance(error, PydanticSerializationError):
        return _TOO_DEEP
    unexpected = _UNEXPECTED.search(str(error))
    if unexpected is None:
        return "holds a value that cannot be written as JSON"
    return f"holds a {unexpected[2]} where {unexpected[1]} is declared"


def _json_decoder(adapter: TypeAdapter[Any]) -> Callable[[Any], Any]:
    return lambda value: _from_json(adapter, to_json(value))


def _from_json(adapter: TypeAdapter[Any], text: bytes) -> Any:  # noqa: ANN401 - as annotated
    # JSON rather than Python objects: a strict model takes a date's text only from there.
    return adapter.validate_json(text, by_alias=False, by_name=True)


def _comes_back(adapter: TypeAdapter[Any], value: object, text: bytes) -> bool:
    try:
        found = _from_json(adapter, text)
    except ValueError:
        return False
    before, after = (adapter.dump_python(it, warnings=False, **_ROUND_TRIP) for it in (value, found))
    return _is_same(before, after)


def _is_same(before: Any, after: Any) -> bool:  # noqa: ANN401 - what pydantic dumps
    if before == after:
        return True
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_is_same(before[name], after[name]) for name in before)
    if isinstance(before, list | tuple) and type(before) is type(after):
        return len(before) == len(after) and all(map(_is_same, before, after))
    return isinstance(before, datetime) and isinstance(after, datetime) and _is_same_moment(before, after)


def _is_same_moment(before: datetime, after: datetime) -> bool:
    # An hour that comes twice a year equals no moment of another zone by == (PEP 495).
    aware = before.utcoffset() is not None and after.utcoffset() is not None
    return aware and before.timestamp() == after.timestamp()


def _type_adapter(column: Column, info: FieldInfo) -> TypeAdapter[Any]:
    annotation: Any = info.annotation
    if info.metadata:
        annotation = Annotated[annotation, *info.metadata]
    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError):
        msg = f"the field {column.field!r} has a type that cannot be kept as JSON"
        raise ConfigurationError(msg) from None


def check_nested(value: Value, depth: int = MAX_DEPTH) -> None:
    """Raise ValueError for a value that some durable backend could not give back as it was."""
    if isinstance(value, str):
        _encode_text(value)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        _encode_integer(value)
    elif isinstance(value, float):
        _encode_real(value)
    elif depth == 0:
        raise ValueError(_TOO_DEEP)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _encode_text(name)
            check_nested(item, depth - 1)
    else:
        for item in value:
            check_nested(item, depth - 1)


def _expect(value: object, *kinds: type) -> None:
    if not isinstance(value, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        msg = f"holds a {type(value).__name__} where {names} is declared"
        raise ValueError(msg)  # noqa: TRY004 - the caller turns ValueError into InvalidRecord


def _encode_text(value: Any) -> str:  # noqa: ANN401 - checked here
    if type(value) is not str:  # as nearly all are
        _expect(value, str)
    if "\0" in value:
        msg = "holds a NUL, which not every database stores"
        raise ValueError(msg)
    return value if type(value) is str else str.__str__(value)


def _encode_integer(value: Any) -> int:  # noqa: ANN401 - checked here
    if type(value) is not int:
        _expect(value, int)
    if not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        msg = "is past 64 bits"
        raise ValueError(msg)
    return int(value)


def _encode_real(value: Any) -> float:  # noqa: ANN401 - checked here
    _expect(value, float, int)
    try:
        real = float(value)
    except OverflowError:
        msg = "is past the range of a double"
        raise ValueError(msg) from None
    if not math.isfinite(real):
        msg = f"is {real}, which not every database stores"
        raise ValueError(msg)
    return real


def _encode_boolean(value: Any) -> bool:  # noqa: ANN401 - checked here
    _expect(value, bool)
    return cast("bool", value)


def _encode_binary(value: Any) -> str:  # noqa: ANN401 - checked here
    _expect(value, bytes)
    return base64.b64encode(value).decode()


def _encode_timestamp(value: Any) -> str:  # noqa: ANN401 - checked here
    if type(value) is not datetime:
        _expect(value, datetime)
    if value.tzinfo is None:
        msg = "is a naive datetime: give it a time zone, or declare the field as NaiveDatetime"
        raise ValueError(msg)
    if value.tzinfo is not UTC:
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            msg = "is out of the range of years in UTC"
            raise ValueError(msg) from None
    _expect_year(value.year)
    return f"{value.isoformat(timespec='microseconds')[:-6]}Z"


def _encode_local_timestamp(value: Any) -> str:  # noqa: ANN401 - checked here
    _expect(value, datetime)
    if value.tzinfo is not None:
        msg = "is an aware datetime where a naive one is declared"
        raise ValueError(msg)
    _expect_year(value.year)
    return cast("str", value.isoformat(timespec="microseconds"))


def _encode_date(value: Any) -> str:  # noqa: ANN401 - checked here
    _expect(value, date)
    if isinstance(value, datetime):
        msg = "holds a datetime where date is declared"
        raise ValueError(msg)  # noqa: TRY004 - the caller turns ValueError into InvalidRecord
    _expect_year(value.year)
    return cast("str", value.isoformat())


def _expect_year(year: int) -> None:
    if year < _FIRST_YEAR:
        msg = f"is before the year {_FIRST_YEAR}, which not every database stores"
        raise ValueError(msg)


def _encode_time(value: Any) -> str:  # noqa: ANN401 - checked here
    _expect(value, time)
    if value.tzinfo is not None:
        msg = "is a time of day with a zone, which not every database stores"
        raise ValueError(msg)
    return cast("str", value.isoformat(timespec="microseconds"))


def _encode_decimal(value: Any) -> str:  # noqa: ANN401 - checked here
    _expect(value, Decimal)
    if not value.is_finite():
        msg = f"is {value}, which not every database stores"
        raise ValueError(msg)
    whole, fraction = _DECIMAL_DIGITS
    _, digits, exponent = value.as_tuple()
    if len(digits) + exponent > whole or -exponent > fraction:
        msg = f"has over {whole} digits before the point or {fraction} after it"
        raise ValueError(msg)
    return format(value, "f")


def _encode_uuid(value: Any) -> str:  # noqa: ANN401 - checked here
    _expect(value, UUID)
    return str(value)


_ENCODERS: dict[Type, Callable[[Any], Value]] = {
    Type.TEXT: _encode_text,
    Type.INTEGER: _encode_integer,
    Type.REAL: _encode_real,
    Type.BOOLEAN: _encode_boolean,
    Type.BINARY: _encode_binary,
    Type.TIMESTAMP: _encode_timestamp,
    Type.LOCAL_TIMESTAMP: _encode_local_timestamp,
    Type.DATE: _encode_date,
    Type.TIME: _encode_time,
    Type.DECIMAL: _encode_decimal,
    Type.UUID: _encode_uuid,
}


def decoder_of(column: Column, info: FieldInfo) -> Callable[[Any], Any]:
    """A function that gives the model's value of what `encoder_of` made, or raises ValueError."""
    if column.type is Type.JSON or _is_enumerated(info.annotation):
        return _json_decoder(_type_adapter(column, info))
    decode = _DECODERS[column.type]
    if not column.nullable:
        return decode
    return lambda value: None if value is None else decode(value)


def kept_as(column: Column, info: FieldInfo) -> type | None:
    """The class whose values are stored as they are, and need no decoder; None if there is none."""
    return None if _is_enumerated(info.annotation) else _KEPT.get(column.type)


def _is_enumerated(annotation: Any) -> bool:  # noqa: ANN401 - annotations have no type
    parts = get_args(annotation) or (annotation,)
    return any(isinstance(part, type) and issubclass(part, Enum) for part in parts)


def _exactly(kind: type) -> Callable[[Any], Any]:
    def decode(value: Any) -> Any:  # noqa: ANN401 - a stored value
        if type(value) is not kind:
            raise ValueError
        return value

    return decode


def _from_text(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    def decode(value: Any) -> Any:  # noqa: ANN401 - a stored value
        if type(value) is not str:
            raise ValueError
        return parse(value)

    return decode


def _decode_real(value: Any) -> float:  # noqa: ANN401 - a stored value
    if type(value) not in (float, int):
        raise ValueError
    return _encode_real(value)


def _decode_binary(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _decode_timestamp(text: Any) -> datetime:  # noqa: ANN401 - a stored value
    # In one piece: every record has two of these.
    if type(text) is not str:
        raise ValueError
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _decode_local_timestamp(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        raise ValueError
    return moment


def _decode_decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError from error


_DECODERS: dict[Type, Callable[[Any], Any]] = {
    Type.TEXT: _exactly(str),
    Type.INTEGER: _exactly(int),
    Type.REAL: _decode_real,
    Type.BOOLEAN: _exactly(bool),
    Type.BINARY: _from_text(_decode_binary),
    Type.TIMESTAMP: _decode_timestamp,
    Type.LOCAL_TIMESTAMP: _from_text(_decode_local_timestamp),
    Type.DATE: _from_text(date.fromisoformat),
    Type.TIME: _from_text(time.fromisoformat),
    Type.DECIMAL: _from_text(_decode_decimal),
    Type.UUID: _from_text(UUID),
}

_KEPT: dict[Type, type] = {Type.TEXT: str, Type.INTEGER: int, Type.BOOLEAN: bool}
