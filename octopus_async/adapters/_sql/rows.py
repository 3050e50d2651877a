"""Rows of a model's table, to and from records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from octopus_async.adapters._sql.values import Codec, decode_text, decoded
from octopus_async.errors import InvalidRecord
from octopus_async.record import NO_VERSION, Fields, Key, Record
from octopus_async.schema import Schema, Type

Row = Sequence[Any]
"""What the driver gives for a row."""

_MAX_ID_BYTES = 1024
_INTEGER = re.compile(r"(?:0|-?[1-9]\d{0,18})\Z", re.ASCII)
_INTEGER_LIMIT = 1 << 63


class Rows:
    """What a model's records are in a table of one database.

    Parameters:
        schema: how the model is stored.
        codecs: how values are written and read there.
        versioned: whether the table has our columns; otherwise its versions live in the side table.
    """

    def __init__(self, schema: Schema, codecs: Mapping[Type, Codec], *, versioned: bool) -> None:
        self.schema = schema
        self.model = schema.model
        self.versioned = versioned
        self._fields = [column.field for column in schema.columns]
        chosen = [codecs.get(column.type) for column in schema.columns]
        self._encoders = [
            (column.field, codec and codec.encode, column.type is Type.JSON and not column.nullable)
            for column, codec in zip(schema.columns, chosen, strict=True)
        ]
        self._decoders = [
            (column.field, codec.decode)
            for column, codec in zip(schema.columns, chosen, strict=True)
            if codec is not None and codec.decode is not None
        ]

    def id_of(self, key: Key) -> object:
        """The value of the id's column. Raises `InvalidRecord` if the key can't have one."""
        text = key.id
        if self.schema.id_type is Type.INTEGER:
            if _INTEGER.match(text) and -_INTEGER_LIMIT <= int(text) < _INTEGER_LIMIT:
                return int(text)
            raise InvalidRecord(f"{key} has no integer of 64 bits for an id")
        try:
            if len(text.encode()) <= _MAX_ID_BYTES:
                return text
        except UnicodeEncodeError:
            raise InvalidRecord(f"{key} has an id that is no text in UTF-8") from None
        raise InvalidRecord(f"{key.model}: an id has at most {_MAX_ID_BYTES} bytes in UTF-8")

    def id_text(self, value: Any) -> str:  # noqa: ANN401 - whatever the driver gave
        """The id, as in a `Key`, of a row."""
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        text = str(value)
        return text.lower() if self.schema.id_type is Type.UUID else text

    def values(self, fields: Fields) -> tuple[object, ...]:
        """The columns' values of a full state. Raises `InvalidRecord` for what no column takes."""
        try:
            return tuple(self._encoded(fields))
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise InvalidRecord(f"{self.model}: a value can't be stored: {error}") from None

    def _encoded(self, fields: Fields) -> Iterator[object]:
        for field, encode, keeps_null in self._encoders:
            value = fields.get(field)
            if encode is None or (value is None and not keeps_null):
                yield value
            else:
                yield encode(value)

    def record(self, row: Row) -> Record:
        """The living record of a row: its id, the fields' columns, version and born."""
        values = row[1:-2]
        fields: dict[str, Any] = dict(zip(self._fields, values, strict=True))
        for field, decode in self._decoders:
            value = fields[field]
            if value is not None:
                fields[field] = decoded(decode, value)
        if bytes in map(type, values):
            # Text of a binary column, or whatever others left in a column that takes anything.
            fields = {
                field: decoded(decode_text, value) if isinstance(value, bytes) else value
                for field, value in fields.items()
            }
        key = Key(self.model, self.id_text(row[0]))
        return Record(key, row[-2] or NO_VERSION, row[-1] or NO_VERSION, fields)
