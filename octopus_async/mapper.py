"""Turns models into operations' fields and records back into models: strictly, and only once.

What `Mapper.encode` accepts is storable in every durable backend; anything else is refused with
an `InvalidRecord` that names the field, before anything is sent.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

from pydantic import (
    AwareDatetime,
    FutureDate,
    FutureDatetime,
    NaiveDatetime,
    PastDate,
    PastDatetime,
    PydanticUndefinedAnnotation,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json

from octopus_async.codec import INTEGER_LIMIT, LONE_SURROGATE, decoder_of, encoder_of, kept_as
from octopus_async.errors import ConfigurationError, InvalidRecord
from octopus_async.model import Builder, KeyedModel, Stamp, id_was_generated, set_stamp, stamp_of
from octopus_async.record import Key, Record, Value
from octopus_async.schema import Column, Schema, Type

M = TypeVar("M", bound=KeyedModel)

MAX_RECORD_BYTES = 4 * 1024 * 1024
"""A record's fields as JSON: below the smallest default packet limit of the servers we write to."""
MAX_ID_BYTES = 1024
"""An id's text in UTF-8: what fits an index of every SQL server."""

_SCALARS: dict[Any, Type] = {
    str: Type.TEXT,
    int: Type.INTEGER,
    float: Type.REAL,
    bool: Type.BOOLEAN,
    bytes: Type.BINARY,
    datetime: Type.TIMESTAMP,
    AwareDatetime: Type.TIMESTAMP,
    PastDatetime: Type.TIMESTAMP,
    FutureDatetime: Type.TIMESTAMP,
    NaiveDatetime: Type.LOCAL_TIMESTAMP,
    date: Type.DATE,
    PastDate: Type.DATE,
    FutureDate: Type.DATE,
    time: Type.TIME,
    Decimal: Type.DECIMAL,
    UUID: Type.UUID,
}

_ID_CLASSES: dict[Type, type] = {Type.TEXT: str, Type.INTEGER: int, Type.UUID: UUID}


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
            column.field: encoder_of(column, model.model_fields[column.field])
            for column in self.schema.columns
        }
        self._decoders = {
            column.field: decoder_of(column, model.model_fields[column.field])
            for column in self.schema.columns
        }
        self._kept = [
            (name, kept_as(column, model.model_fields[name]), self._decoders[name])
            for name, column in self.schema.by_field.items()
            if name in self._decoders
        ]
        self._id_class = _ID_CLASSES[self.schema.id_type]
        # An id that needs no decoding can be the caller's own: a UUID never changes.
        self._has_plain_uuids = model.model_fields["id"].annotation is UUID
        id_column = Column("id", self.schema.id_column, self.schema.id_type, nullable=False)
        self._decode_stored_id = decoder_of(id_column, model.model_fields["id"])

    def key(self, id_: object) -> Key:
        """The key of an id. Raises `InvalidRecord` if it cannot be one."""
        wanted = self._id_class
        if type(id_) is UUID and wanted is UUID:
            return Key(self.schema.model, str(id_))
        if isinstance(id_, Enum):
            id_ = id_.value
        if wanted is UUID and isinstance(id_, str):
            id_ = self._parse_uuid(id_)
        if not isinstance(id_, wanted) or isinstance(id_, bool):
            raise self._invalid("id", f"is a {wanted.__name__}, not {type(id_).__name__}")
        return Key(self.schema.model, self._id_text(id_))

    def key_of(self, model: M) -> Key:
        """The key of a model."""
        return self.key(model.__dict__.get("id"))

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

    def decode(self, record: Record, id_: object = None) -> M:
        """Make a model of a living record.

        Parameters:
            record: what a backend holds.
            id_: what the record was asked for by, if it was.

        Raises:
            InvalidRecord: it does not fit the class.
        """
        fields = record.fields
        if fields is None:
            msg = f"{record.key} is a tombstone"
            raise InvalidRecord(msg)
        values: dict[str, Any] = {}
        try:
            asked = self._has_plain_uuids and type(id_) is UUID
            values["id"] = id_ if asked else self._decode_id(record.key.id)
            for name, kept, decode in self._kept:
                value = fields[name]
                values[name] = value if type(value) is kept else decode(value)
        except (KeyError, ValueError):
            values = self._validate_anew(record.key, fields)
        return cast("M", self._builder.build(values, Stamp(record.version, record.born)))

    def restamped(self, model: M, fields: Mapping[str, Value], stamp: Stamp, updated_at: datetime) -> None:
        """Tell a model what was stored of it: its moments and its version.

        Parameters:
            model: the model that was written.
            fields: what `encode` made of it.
            stamp: its version, and that of its create.
            updated_at: the moment that `encode` was given.
        """
        created = fields["created_at"]
        same = created == fields["updated_at"]
        values = vars(model)
        values["updated_at"] = updated_at
        values["created_at"] = updated_at if same else datetime.fromisoformat(cast("str", created))
        set_stamp(model, stamp)

    def names(self, fields: Iterable[str]) -> set[str]:
        """Names of fields that can be changed. Raises `InvalidRecord` for any other."""
        names = set(fields)
        wrong = sorted(names - self._encoders.keys())
        if wrong:
            known = ", ".join(self._encoders)
            raise self._invalid(wrong[0], f"is no field that can be changed; these are {known}")
        return names

    def merged(self, record: Record, model: M, names: Iterable[str]) -> M:
        """A stored record as a model, in which some fields are those of another. Raises `InvalidRecord`."""
        state = self.decode(record)
        vars(state).update((name, vars(model)[name]) for name in names)
        return state

    def is_unchanged(self, record: Record, fields: Mapping[str, Value], updated_at: datetime) -> bool:
        """Whether ``fields``, as encoded at a moment, are what was stored, but for that moment."""
        stored = record.fields or {}
        changed = [name for name, value in fields.items() if name not in stored or stored[name] != value]
        if set(changed) <= {"updated_at"}:
            return True
        # Of an older form of the class, or by others: what is stored may be written otherwise today.
        today, _ = self.encode(self.decode(record), updated_at, create=False)
        return today == fields

    def become(self, model: M, state: M) -> None:
        """Give a model another's fields and stamp; the object stays the same."""
        vars(model).update(vars(state))
        set_stamp(model, stamp_of(state))

    def may_be_refused(self, model: M) -> bool:
        """Whether the primary has a reason to refuse a create of this model."""
        known = bool(stamp_of(model).version) or not id_was_generated(model)
        return known or self.schema.constrained

    def stamp(self, model: M) -> Stamp:
        """What is known of the model's stored record."""
        return stamp_of(model)

    def _validate_anew(self, key: Key, fields: Mapping[str, Value]) -> dict[str, Any]:
        """A record written under an older form of the class, or by others, goes the long way."""
        stored = {**fields, "id": key.id}
        values: dict[str, Any] = {}
        for name, decode in {"id": self._decode_id, **self._decoders}.items():
            if name in stored:
                try:
                    values[name] = decode(stored[name])
                except ValueError:
                    values[name] = stored[name]  # pydantic may still see a meaning in it
        try:
            model = self.model.model_validate(values, by_alias=False, by_name=True)
        except ValidationError as error:
            at_fault = ", ".join(sorted({str(item["loc"][0]) for item in error.errors() if item["loc"]}))
            problem = at_fault or "its validators refuse it"
            msg = f"the stored {key} does not fit the class {self.model.__name__}: {problem}"
            raise InvalidRecord(msg) from None
        return dict(model.__dict__)

    def _payload(self, fields: dict[str, Value]) -> bytes:
        try:
            payload = to_json(fields)
        except (PydanticSerializationError, UnicodeEncodeError):
            name = next(name for name, value in fields.items() if not _encodable(value))
            raise self._invalid(name, LONE_SURROGATE) from None
        if len(payload) > self.max_bytes:
            problem = f"the record has {len(payload)} bytes, over the limit of {self.max_bytes}"
            msg = f"{self.schema.model}: {problem}"
            raise InvalidRecord(msg)
        return payload

    def _id_text(self, id_: object) -> str:
        if self.schema.id_type is Type.INTEGER and not -INTEGER_LIMIT <= cast("int", id_) < INTEGER_LIMIT:
            raise self._invalid("id", "is past 64 bits")
        text = str(id_)
        try:
            length = len(text.encode())
        except UnicodeEncodeError:
            raise self._invalid("id", LONE_SURROGATE) from None
        if not text or length > MAX_ID_BYTES or "\0" in text:
            raise self._invalid("id", f"has 1 to {MAX_ID_BYTES} bytes of UTF-8 without NUL")
        return text

    def _decode_id(self, text: Any) -> Any:  # noqa: ANN401 - to the class's own id type
        return self._decode_stored_id(int(text) if self.schema.id_type is Type.INTEGER else text)

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
    _complete(model, name)
    _check_fields(model, name)
    id_type, _ = _type_of(model.model_fields["id"].annotation)
    if id_type not in _ID_CLASSES:
        msg = f"{name}.id has to be a UUID, str or int"
        raise ConfigurationError(msg)
    schema = Schema(
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
    _check_columns(schema)
    return schema


def _complete(model: type[KeyedModel], name: str) -> None:
    """Make sure that types which the class was declared before are known by now."""
    try:
        model.model_rebuild(_parent_namespace_depth=0)
    except PydanticUndefinedAnnotation as error:
        msg = f"{name}: the type of a field is not known: {error.name}"
        raise ConfigurationError(msg) from None


def _check_fields(model: type[KeyedModel], name: str) -> None:
    if "id" not in model.model_fields:
        msg = f"{name} declares no id: derive it from Model, or declare `id: str`, int or UUID"
        raise ConfigurationError(msg)
    if model.model_config.get("extra") == "allow":
        msg = f"{name} allows extra fields, which no backend could type: declare them, as a dict for instance"
        raise ConfigurationError(msg)
    unknown = sorted(set(model.__octopus_mapping__.columns) - set(model.model_fields))
    if unknown:
        msg = f"{name}: columns names {unknown[0]!r}, which is no field of it"
        raise ConfigurationError(msg)
    if "version" in model.model_fields:
        msg = (
            f"{name}: a field called version would hide the record's: call it otherwise, "
            "for instance `revision` with columns={'revision': 'version'}"
        )
        raise ConfigurationError(msg)


def _check_columns(schema: Schema) -> None:
    taken = {schema.id_column.lower(): "id"}
    for column in schema.columns:
        # SQL does not tell the case of columns.
        other = taken.setdefault(column.name.lower(), column.field)
        if other != column.field:
            msg = f"{schema.model}: {other} and {column.field} are both kept in the column {column.name!r}"
            raise ConfigurationError(msg)
    for field in ("created_at", "updated_at"):
        column = schema.by_field[field]
        if column.type is not Type.TIMESTAMP or column.nullable:
            msg = f"{schema.model}.{field} has to be a datetime, as it is in Model"
            raise ConfigurationError(msg)


def _column(field: str, info: FieldInfo, name: str) -> Column:
    type_, nullable = _type_of(info.annotation)
    limit = min(_lengths(info.annotation, info.metadata), default=None) if type_ is Type.TEXT else None
    return Column(field, name, type_, nullable, limit)


def _lengths(annotation: Any, metadata: Iterable[Any]) -> Iterator[int]:  # noqa: ANN401 - annotations have no type
    """Every limit that is declared for a text, of which one member of a union may be."""
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _lengths(None, item.metadata)
        elif getattr(item, "max_length", None) is not None:
            yield item.max_length
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _lengths(annotation.__origin__, annotation.__metadata__)
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _lengths(member, ())


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
        values = [member.value for member in annotation]
        return (Type.JSON, True) if None in values else _type_of_constants(values)
    return _SCALARS.get(annotation, Type.JSON), annotation in (Any, object, None)


def _type_of_constants(values: Any) -> tuple[Type, bool]:  # noqa: ANN401 - any constants at all
    kinds = {type(value) for value in values}
    nullable = type(None) in kinds
    kinds.discard(type(None))
    if len(kinds) == 1 and (kind := kinds.pop()) in (str, int):
        return _SCALARS[kind], nullable
    return Type.JSON, nullable


def _encodable(value: Value) -> bool:
    try:
        to_json(value)
    except (PydanticSerializationError, UnicodeEncodeError):
        return False
    return True
