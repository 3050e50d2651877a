"""Turns models into operations' fields and records back into models: strictly, and only once.

What `Mapper.encode` accepts is storable in every durable backend; anything else is refused with
an `InvalidRecord` that names the field, before anything is sent.
"""

from __future__ import annotations

import base64
import math
import types
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

from pydantic import (
    AwareDatetime,
    NaiveDatetime,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json

from octopus_async.errors import ConfigurationError, InvalidRecord
from octopus_async.model import Builder, KeyedModel, Stamp, id_was_generated, stamp_of
from octopus_async.record import Key, Record, Value
from octopus_async.schema import Column, Schema, Type

M = TypeVar("M", bound=KeyedModel)

MAX_DEPTH = 64
"""Levels of nesting in a stored value: far below where any JSON reader gives up."""
MAX_RECORD_BYTES = 4 * 1024 * 1024
"""A record's fields as JSON: below the smallest default packet limit of the servers we write to."""
MAX_ID_BYTES = 1024
"""An id's text in UTF-8: what fits an index of every SQL server."""
_INTEGER_LIMIT = 1 << 63
_DECIMAL_DIGITS = (35, 30)
_FIRST_YEAR = 1000  # MySQL's DATETIME begins there

_SCALARS: dict[Any, Type] = {
    str: Type.TEXT,
    int: Type.INTEGER,
    float: Type.REAL,
    bool: Type.BOOLEAN,
    bytes: Type.BINARY,
    datetime: Type.TIMESTAMP,
    AwareDatetime: Type.TIMESTAMP,
    NaiveDatetime: Type.LOCAL_TIMESTAMP,
    date: Type.DATE,
    time: Type.TIME,
    Decimal: Type.DECIMAL,
    UUID: Type.UUID,
}


class Mapper(Generic[M]):
    """Translates one model class.

    Raises `ConfigurationError` for a class that cannot be stored.
    """

    def __init__(self, model: type[M], *, max_bytes: int = MAX_RECORD_BYTES) -> None:
        self.model = model
        self.max_bytes = max_bytes
        self.schema = schema_of(model)
        self._builder = Builder(model)
        self._encoders = {
            column.field: _encoder(column, model.model_fields[column.field]) for column in self.schema.columns
        }
        self._decoders = {
            column.field: _decoder(column, model.model_fields[column.field]) for column in self.schema.columns
        }
        self._decode_id = _ID_DECODERS[self.schema.id_type]

    def key(self, id_: object) -> Key:
        """The key of an id. Raises `InvalidRecord` if it cannot be one."""
        wanted = _ID_CLASSES[self.schema.id_type]
        if isinstance(id_, Enum):
            id_ = id_.value
        if wanted is UUID and isinstance(id_, str):
            id_ = self._parse_uuid(id_)
        if not isinstance(id_, wanted) or isinstance(id_, bool):
            raise self._invalid("id", f"is a {wanted.__name__}, not {type(id_).__name__}")
        return Key(self.schema.model, self._id_text(id_))

    def key_of(self, model: M) -> Key:
        """The key of a model."""
        return self.key(model.__dict__["id"])

    def encode(self, model: M, updated_at: datetime, *, create: bool) -> tuple[dict[str, Value], bytes]:
        """Take a snapshot of a model as fields and as JSON.

        Parameters:
            model: the model; it is not changed.
            updated_at: the moment of the write.
            create: whether the moment is that of the create as well, where the caller gave none.

        Raises:
            InvalidRecord: a field holds what cannot be stored everywhere.
        """
        values = dict(model.__dict__)
        values["updated_at"] = updated_at
        if create and "created_at" not in model.model_fields_set:
            values["created_at"] = updated_at
        fields: dict[str, Value] = {}
        for name, encode in self._encoders.items():
            try:
                fields[name] = encode(values[name])
            except KeyError:
                raise self._invalid(name, "is missing") from None
            except ValueError as error:
                raise self._invalid(name, str(error)) from None
        return fields, self._payload(fields)

    def decode(self, record: Record) -> M:
        """Make a model of a living record. Raises `InvalidRecord` if it does not fit the class."""
        fields = record.fields
        if fields is None:
            msg = f"{record.key} is a tombstone"
            raise InvalidRecord(msg)
        values: dict[str, Any] = {"id": self._decode_id(record.key.id)}
        try:
            for name, decode in self._decoders.items():
                value = fields[name]
                values[name] = value if decode is None else decode(value)
        except (KeyError, TypeError, ValueError):
            values = self._validate_anew(record.key, fields)
        return cast("M", self._builder.build(values, Stamp(record.version, record.born)))

    def restamped(self, model: M, fields: Mapping[str, Value], stamp: Stamp) -> None:
        """Tell a model what was stored of it: its moments and its version."""
        for name in ("created_at", "updated_at"):
            vars(model)[name] = _decode_timestamp(fields[name])
        model._stamp = stamp  # noqa: SLF001 - the library's own attribute

    def may_be_refused(self, model: M) -> bool:
        """Whether the primary has a reason to refuse a create of this model."""
        return self.schema.constrained or not id_was_generated(model)

    def stamp(self, model: M) -> Stamp:
        """What is known of the model's stored record."""
        return stamp_of(model)

    def _validate_anew(self, key: Key, fields: Mapping[str, Value]) -> dict[str, Any]:
        """A record written under an older form of the class, or by others, goes the long way."""
        known = self._decoders
        stored = {name: value for name, value in fields.items() if name in known}
        for column in self.schema.columns:
            value = stored.get(column.field)
            if column.type is Type.BINARY and isinstance(value, str):
                stored[column.field] = base64.b64decode(value)
        try:
            model = self.model.model_validate({**stored, "id": self._decode_id(key.id)})
        except ValidationError as error:
            at_fault = sorted({str(item["loc"][0]) for item in error.errors() if item["loc"]})
            msg = f"the stored {key} does not fit the class {self.model.__name__}: {', '.join(at_fault)}"
            raise InvalidRecord(msg) from None
        return dict(model.__dict__)

    def _payload(self, fields: dict[str, Value]) -> bytes:
        try:
            payload = to_json(fields)
        except (PydanticSerializationError, UnicodeEncodeError):
            name = next(name for name, value in fields.items() if not _encodable(value))
            raise self._invalid(name, "holds a lone surrogate, which is no text in UTF-8") from None
        if len(payload) > self.max_bytes:
            msg = f"{self.schema.model}: the record has {len(payload)} bytes, over the limit of {self.max_bytes}"
            raise InvalidRecord(msg)
        return payload

    def _id_text(self, id_: object) -> str:
        text = str(id_)
        if self.schema.id_type is Type.INTEGER:
            if not -_INTEGER_LIMIT <= cast("int", id_) < _INTEGER_LIMIT:
                raise self._invalid("id", "is past 64 bits")
            return text
        try:
            length = len(text.encode())
        except UnicodeEncodeError:
            raise self._invalid("id", "holds a lone surrogate, which is no text in UTF-8") from None
        if not text or length > MAX_ID_BYTES or "\0" in text:
            raise self._invalid("id", f"has 1 to {MAX_ID_BYTES} bytes of UTF-8 without NUL")
        return text

    def _parse_uuid(self, text: str) -> UUID:
        try:
            return UUID(text)
        except ValueError:
            raise self._invalid("id", "is no UUID") from None

    def _invalid(self, field: str, problem: str) -> InvalidRecord:
        return InvalidRecord(f"{self.schema.model}.{field} {problem}")


def schema_of(model: type[KeyedModel]) -> Schema:
    """How a model class is stored. Raises `ConfigurationError` if it cannot be."""
    mapping = model.__octopus_mapping__
    name = mapping.name or model.__name__
    if "id" not in model.model_fields:
        msg = f"{name} declares no id: derive it from Model, or declare `id: str`, int or UUID"
        raise ConfigurationError(msg)
    if model.model_config.get("extra") == "allow":
        msg = f"{name} allows extra fields, which no backend could type: declare them, as a dict for instance"
        raise ConfigurationError(msg)
    unknown = sorted(set(mapping.columns) - set(model.model_fields))
    if unknown:
        msg = f"{name}: columns names {unknown[0]!r}, which is no field of it"
        raise ConfigurationError(msg)
    id_type, _ = _type_of(model.model_fields["id"].annotation)
    if id_type not in _ID_CLASSES:
        msg = f"{name}.id has to be a UUID, str or int"
        raise ConfigurationError(msg)
    return Schema(
        model=name,
        table=mapping.table or name.lower(),
        id_column=mapping.id_column or mapping.columns.get("id", "id"),
        id_type=id_type,
        columns=tuple(
            _column(field, info, mapping.columns.get(field, field))
            for field, info in model.model_fields.items()
            if field != "id"
        ),
    )


def _column(field: str, info: FieldInfo, name: str) -> Column:
    type_, nullable = _type_of(info.annotation)
    lengths = [item.max_length for item in info.metadata if getattr(item, "max_length", None) is not None]
    return Column(field, name, type_, nullable, min(lengths) if lengths and type_ is Type.TEXT else None)


def _type_of(annotation: Any) -> tuple[Type, bool]:  # noqa: ANN401 - annotations have no type
    """The stored type of an annotation, and whether it may be None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_of(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        nullable = len(members) < len(get_args(annotation))
        if len(members) == 1:
            return _type_of(members[0])[0], nullable
        return Type.JSON, nullable
    if origin is Literal:
        return _type_of_constants(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _type_of_constants([member.value for member in annotation])
    return _SCALARS.get(annotation, Type.JSON), annotation in (Any, object, None)


def _type_of_constants(values: Any) -> tuple[Type, bool]:  # noqa: ANN401 - any constants at all
    kinds = {type(value) for value in values}
    nullable = type(None) in kinds
    kinds.discard(type(None))
    if len(kinds) == 1 and (kind := kinds.pop()) in (str, int):
        return _SCALARS[kind], nullable
    return Type.JSON, nullable


def _encoder(column: Column, info: FieldInfo) -> Callable[[Any], Value]:
    """A function that gives a stored value, or raises ValueError with the rest of a sentence."""
    is_json = column.type is Type.JSON
    encode = _json_encoder(column, info) if is_json else _ENCODERS[column.type]
    if column.max_length is not None:
        encode = _limited(encode, column.max_length)
    if not column.nullable:
        return encode
    return lambda value: None if value is None else encode(value)


def _limited(encode: Callable[[Any], Value], limit: int) -> Callable[[Any], Value]:
    def encode_limited(value: Any) -> Value:  # noqa: ANN401 - checked in `encode`
        text = encode(value)
        if len(cast("str", text)) > limit:
            msg = f"has {len(cast('str', text))} characters, over its limit of {limit}"
            raise ValueError(msg)
        return text

    return encode_limited


def _json_encoder(column: Column, info: FieldInfo) -> Callable[[Any], Value]:
    adapter = _type_adapter(column, info)

    def encode(value: Any) -> Value:  # noqa: ANN401 - whatever the annotation allows
        try:
            plain = adapter.dump_python(value, mode="json", warnings="error")
        except (PydanticSerializationError, RecursionError, UnicodeDecodeError) as error:
            msg = f"cannot be kept as JSON: {str(error).splitlines()[0][:200]}"
            raise ValueError(msg) from None
        check_nested(plain)
        return cast("Value", plain)

    return encode


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
        msg = f"is nested deeper than {MAX_DEPTH} levels"
        raise ValueError(msg)
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
    if isinstance(value, Enum):
        value = value.value
    _expect(value, str)
    if "\0" in value:
        msg = "holds a NUL, which not every database stores"
        raise ValueError(msg)
    return value if type(value) is str else str.__str__(value)


def _encode_integer(value: Any) -> int:  # noqa: ANN401 - checked here
    if isinstance(value, Enum):
        value = value.value
    _expect(value, int)
    if not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
        msg = "is past 64 bits"
        raise ValueError(msg)
    return int(value)


def _encode_real(value: Any) -> float:  # noqa: ANN401 - checked here
    _expect(value, float, int)
    if not math.isfinite(value):
        msg = f"is {value}, which not every database stores"
        raise ValueError(msg)
    return float(value)


def _encode_boolean(value: Any) -> bool:  # noqa: ANN401 - checked here
    _expect(value, bool)
    return cast("bool", value)


def _encode_binary(value: Any) -> str:  # noqa: ANN401 - checked here
    _expect(value, bytes)
    return base64.b64encode(value).decode()


def _encode_timestamp(value: Any) -> str:  # noqa: ANN401 - checked here
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
    return cast("str", value.isoformat(timespec="microseconds"))[:-6] + "Z"


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


def _decoder(column: Column, info: FieldInfo) -> Callable[[Any], Any] | None:
    """A function that gives the model's value; None where the stored value is it already."""
    annotation = info.annotation
    scalar = _DECODERS.get(column.type)
    if column.type is Type.JSON or _is_enumerated(annotation):
        adapter = _type_adapter(column, info)
        return adapter.validate_python
    if column.nullable:
        return None if scalar is None else lambda value: None if value is None else scalar(value)
    return _not_none if scalar is None else scalar


def _is_enumerated(annotation: Any) -> bool:  # noqa: ANN401 - annotations have no type
    parts = get_args(annotation) or (annotation,)
    return any(isinstance(part, type) and issubclass(part, Enum) for part in parts)


def _not_none(value: Any) -> Any:  # noqa: ANN401 - any stored value
    if value is None:
        raise ValueError
    return value


def _decode_timestamp(value: Any) -> datetime:  # noqa: ANN401 - a stored value
    return datetime.fromisoformat(value)


_DECODERS: dict[Type, Callable[[Any], Any]] = {
    Type.BINARY: base64.b64decode,
    Type.TIMESTAMP: datetime.fromisoformat,
    Type.LOCAL_TIMESTAMP: datetime.fromisoformat,
    Type.DATE: date.fromisoformat,
    Type.TIME: time.fromisoformat,
    Type.DECIMAL: Decimal,
    Type.UUID: UUID,
    Type.REAL: float,
    Type.BOOLEAN: bool,
}

_ID_CLASSES: dict[Type, type] = {Type.TEXT: str, Type.INTEGER: int, Type.UUID: UUID}
_ID_DECODERS: dict[Type, Callable[[str], Any]] = {Type.TEXT: str, Type.INTEGER: int, Type.UUID: UUID}


def _encodable(value: Value) -> bool:
    try:
        to_json(value)
    except (PydanticSerializationError, UnicodeEncodeError):
        return False
    return True
