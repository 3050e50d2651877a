"""A model's table as it is: the texts of its statements, written once, and rows to and from records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from octopus_async.adapters._sql.dialect import BORN, SIDE, VERSION, Dialect
from octopus_async.adapters._sql.values import decode_text, decoded
from octopus_async.errors import InvalidRecord
from octopus_async.record import NO_VERSION, Fields, Key, Record
from octopus_async.schema import Schema, Type

Row = Sequence[Any]
"""What the driver gives for a row."""

_MAX_ID_BYTES = 1024
_INTEGER = re.compile(r"(?:0|-?[1-9]\d{0,18})\Z", re.ASCII)
_INTEGER_LIMIT = 1 << 63


class Table:
    """One model's table in one database.

    Parameters:
        schema: how the model is stored.
        dialect: how statements are written there.
        versioned: whether it has our columns; otherwise its versions live in the side table.
        exact: whether its id column tells apart any two ids; otherwise each condition says so.
        plain: whether it is as we create it, so that an insert over a row can do nothing unexpected.

    Attributes:
        read: selects rows for `record`, to be followed by a list of ids.
        page: the same, to be followed by further conditions, order and limit.
        states: selects id, version and born; to be followed by a list of ids.
        insert: up to and without the row, which is `row`.
        create: inserts one row unless a tombstone is as new.
        update: sets everything, born to the later one, and ends with the condition on the id.
        delete: ends with the condition on the id.
        overwrite: what follows the rows of an insert that is to change the rows that are there.
    """

    def __init__(
        self, schema: Schema, dialect: Dialect, *, versioned: bool, exact: bool = True, plain: bool = False
    ) -> None:
        self.schema = schema
        self.model = schema.model
        self.versioned = versioned
        self.plain = plain
        self._fields = [column.field for column in schema.columns]
        codecs = [dialect.codecs.get(column.type) for column in schema.columns]
        self._encoders = [
            (column.field, codec and codec.encode, column.type is Type.JSON and not column.nullable)
            for column, codec in zip(schema.columns, codecs, strict=True)
        ]
        self._decoders = [
            (column.field, codec.decode)
            for column, codec in zip(schema.columns, codecs, strict=True)
            if codec is not None and codec.decode is not None
        ]
        self._write_statements(dialect, exact=exact)

    def _write_statements(self, dialect: Dialect, *, exact: bool) -> None:
        quote, mark = dialect.quote, dialect.mark
        table, id_ = quote(self.schema.table), quote(self.schema.id_column)
        fields = [quote(column.name) for column in self.schema.columns]
        ours = [quote(VERSION), quote(BORN)] if self.versioned else []
        own = [*fields, *ours]
        as_text = dialect.text_of.format(f"m.{id_}")
        self.id = f"m.{id_}"
        self.version = f"m.{ours[0]}" if ours else "s.version"
        self._joins_side = not ours
        born = f"m.{ours[1]}" if ours else "CASE WHEN s.deleted = 1 THEN NULL ELSE s.born END"
        side = "" if ours else f" LEFT JOIN {SIDE} s ON s.model = {mark} AND s.id = {as_text}"
        columns = "".join(f", m.{name}" for name in fields)
        self.page = f"SELECT {self.id}{columns}, {self.version}, {born} FROM {table} m{side} WHERE "
        self.read = f"{self.page}{self.id} IN "
        self.states = f"SELECT {id_}, {', '.join(ours) or 'NULL, NULL'} FROM {table} WHERE {id_} IN "
        self.insert = f"INSERT INTO {table} ({', '.join([id_, *own])}) VALUES "
        self.row = ", ".join([mark] * (len(own) + 1))
        self.create = f"INSERT INTO {table} ({', '.join([id_, *own])}) SELECT {self.row}{dialect.unless_dead}"
        self._set_statements(dialect, table, id_, own, exact=exact)

    def _set_statements(self, dialect: Dialect, table: str, id_: str, own: list[str], *, exact: bool) -> None:
        mark, exactly = dialect.mark, "" if exact else f" AND {dialect.exactly.format(id_)}"
        self._marks_per_id = 1 if exact else 2
        where = f" WHERE {id_} = {mark}{exactly}"
        set_ = [f"{name} = {mark}" for name in own] or [f"{id_} = {id_}"]
        if self.versioned:
            set_[-1] = f"{own[-1]} = {dialect.later.format(own[-1])}"
        self.update = f"UPDATE {table} SET {', '.join(set_)}{where}"
        self.delete = f"DELETE FROM {table}{where}"
        self.overwrite = " ON DUPLICATE KEY UPDATE " + ", ".join(f"{name} = VALUES({name})" for name in own)

    def leading(self) -> tuple[object, ...]:
        """The values that `read` and `page` bind before all others."""
        return (self.model,) if self._joins_side else ()

    def condition(self, id_: object) -> tuple[object, ...]:
        """The values that the condition of `update` and `delete` binds."""
        return (id_,) * self._marks_per_id

    def update_values(self, row: Sequence[object]) -> tuple[object, ...]:
        """The values that `update` binds for a row that begins with its id."""
        return (*row[1:], *self.condition(row[0]))

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
        """The living record of a row of `read` or `page`."""
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
