"""How statements and values are written for Postgres.

Everything stored is text on its way there: a literal takes the type of its column, whichever that
is. What comes back is the driver's own objects, which no setting of a session changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from octopus_async.adapters._sql import values
from octopus_async.adapters._sql.dialect import BORN, SIDE, VERSION, Dialect, ServerDialect
from octopus_async.adapters._sql.rows import Row
from octopus_async.adapters._sql.table import Table
from octopus_async.adapters._sql.values import Codec
from octopus_async.errors import InvalidRecord
from octopus_async.record import Fields, Key, Record
from octopus_async.schema import Column, Type

_TEXT = 'text COLLATE "C"'  # bytes decide, whatever the database's own collation takes for one or for less
_STORED = (str, int, float, bool, list, dict, type(None))


def quote(name: str) -> str:
    """An identifier; its percent signs are doubled, as the statement is a format for its values."""
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def _decode_timestamp(value: datetime | str) -> str:
    if isinstance(value, str):
        return values.decode_timestamp(value)
    if value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return value.isoformat(timespec="microseconds") + "Z"


def _decode_local_timestamp(value: datetime | str) -> str:
    if isinstance(value, str):
        return values.decode_local_timestamp(value)
    return value.replace(tzinfo=None).isoformat(timespec="microseconds")


def _decode_time(value: time | str) -> str:
    if isinstance(value, str):
        return values.decode_time(value)
    return value.replace(tzinfo=None).isoformat(timespec="microseconds")


def _decode_decimal(value: Any) -> str:  # noqa: ANN401 - whatever the column's own type is
    return values.decode_decimal(f"{value:f}" if isinstance(value, Decimal) else str(value))


_TYPES = {
    Type.INTEGER: "bigint",
    Type.REAL: "double precision",
    Type.BOOLEAN: "boolean",
    Type.BINARY: "bytea",
    Type.TIMESTAMP: "timestamp with time zone",
    Type.LOCAL_TIMESTAMP: "timestamp without time zone",
    Type.DATE: "date",
    Type.TIME: "time without time zone",
    Type.DECIMAL: "numeric",
    Type.UUID: "uuid",
    Type.JSON: "jsonb",
}


def _column_type(column: Column) -> str:
    if column.type is Type.TEXT and column.max_length is not None:
        return f"character varying({column.max_length})"
    return _TYPES.get(column.type, "text")


def literal(value: object) -> str:
    """A value as it stands in a script. Raises `InvalidRecord` for what has no such form."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        # The form whose backslashes mean the same whatever the session's settings.
        return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    if isinstance(value, int):
        return str(int(value))
    raise InvalidRecord(f"a column can't be given a {type(value).__name__} such as {str(value)[:40]}")


def _overwrite(key: str, columns: Sequence[str]) -> str:
    set_ = ", ".join(f"{column} = EXCLUDED.{column}" for column in columns)
    return f" ON CONFLICT ({key}) DO UPDATE SET {set_}"


POSTGRES = ServerDialect(
    quote=quote,
    mark="%s",
    text_of="{}::text",
    exactly='{}::text COLLATE "C" = %s',
    codecs={
        Type.INTEGER: Codec(str),
        Type.REAL: Codec(lambda value: repr(float(value)), float),
        Type.BOOLEAN: Codec(lambda value: "true" if value else "false", bool),
        Type.BINARY: Codec(lambda value: "\\x" + values.encode_binary(value).hex(), values.decode_binary),
        Type.TIMESTAMP: Codec(None, _decode_timestamp),
        Type.LOCAL_TIMESTAMP: Codec(None, _decode_local_timestamp),
        Type.DATE: Codec(None, str),
        Type.TIME: Codec(None, _decode_time),
        Type.DECIMAL: Codec(None, _decode_decimal),
        Type.UUID: Codec(None, str),
        Type.JSON: Codec(values.encode_jsonb, values.decode_jsonb),
    },
    column_type=_column_type,
    id_types={Type.INTEGER: "bigint", Type.TEXT: _TEXT, Type.UUID: "uuid"},
    version_type=_TEXT,
    later="NULLIF(GREATEST(COALESCE({}, ''), %s), '')",
    suffix="",
    side=(
        f"CREATE TABLE IF NOT EXISTS {SIDE} (model {_TEXT} NOT NULL, id {_TEXT} NOT NULL, "
        f"version {_TEXT} NOT NULL, born {_TEXT} NOT NULL, deleted smallint NOT NULL, "
        "PRIMARY KEY (model, id))"
    ),
    unless_dead=f" WHERE NOT EXISTS (SELECT 1 FROM {SIDE} WHERE model = %s AND id = %s AND version >= %s)",
    overwrite=_overwrite,
    literal=literal,
)


class PostgresTable(Table):
    """A table in Postgres, whose statements have ``%s`` where a literal, or a numbered mark, will be.

    Attributes:
        any_of: a condition on the id's column that binds an array of ids.
        locked: selects id, version and born of an array of ids, under locks taken in their order.
        lock_row: locks the row of an id.
        bury: puts a newer tombstone in the place of that row, or in that of nothing.
    """

    def _write_statements(self, dialect: Dialect, *, exact: bool) -> None:
        super()._write_statements(dialect, exact=exact)
        table, id_ = quote(self.schema.table), quote(self.schema.id_column)
        array = "::bigint[]" if self.schema.id_type is Type.INTEGER else ""
        ours = [quote(name) for name in (VERSION, BORN)] if self.versioned else []
        stamp = ", ".join(f"{name}::text" for name in ours or ("NULL", "NULL"))
        self.any_of = f"{id_} = ANY(%s{array})"
        self.read = f"{self.page}m.{self.any_of}"
        # No key changes: rows that refer to this one may be written meanwhile.
        self.locked = (
            f"SELECT {id_}::text, {stamp}, NULL::smallint FROM {table} WHERE {self.any_of} "
            f"ORDER BY {id_} FOR NO KEY UPDATE"
        )
        is_it = f"{id_} = %s" if exact else f"{id_} = %s AND {dialect.exactly.format(id_)}"
        self.lock_row = f"SELECT FROM {table} WHERE {is_it} FOR NO KEY UPDATE"
        self.bury = (
            f"WITH gone AS (DELETE FROM {table} WHERE {is_it} AND ({VERSION} IS NULL OR {VERSION} < %s) "
            f"AND NOT EXISTS (SELECT FROM {SIDE} WHERE model = %s AND id = %s AND version >= %s) "
            f"RETURNING {BORN}::text AS born) INSERT INTO {SIDE} (model, id, version, born, deleted) "
            f"SELECT %s, %s, %s, COALESCE(GREATEST(NULLIF(%s, ''), (SELECT born FROM gone)), ''), 1 "
            f"WHERE NOT EXISTS (SELECT FROM {table} WHERE {is_it} AND {VERSION} >= %s) "
            "ON CONFLICT (model, id) DO UPDATE SET version = EXCLUDED.version, born = EXCLUDED.born, "
            f"deleted = 1 WHERE {SIDE}.version < EXCLUDED.version"
        )

    def id_of(self, key: Key) -> object:
        """The value of the id's column. Raises `InvalidRecord` if the key can't have one."""
        id_ = super().id_of(key)
        if "\0" in key.id:
            raise InvalidRecord(f"{key.model}: an id holds a NUL")
        if self.schema.id_type is Type.UUID and not _is_uuid(key.id):
            raise InvalidRecord(f"{key} has no UUID for an id")
        return id_

    def values(self, fields: Fields) -> tuple[object, ...]:
        """The columns' values as texts. Raises `InvalidRecord` for what no column takes."""
        found = super().values(fields)
        for value in found:
            if isinstance(value, str):
                self._check(value)
        return found

    def _check(self, text: str) -> None:
        if "\0" in text:
            raise InvalidRecord(f"{self.model}: a value holds a NUL")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidRecord(f"{self.model}: a value holds a lone surrogate") from None

    def record(self, row: Row) -> Record:
        """The living record of a row of `read` or `page`."""
        record = super().record(row)
        fields = record.fields or {}
        if all(isinstance(value, _STORED) for value in fields.values()):
            return record
        # A column of a type that the model does not name: an address, an enumeration, an interval.
        plain = {name: value if isinstance(value, _STORED) else str(value) for name, value in fields.items()}
        return record._replace(fields=plain)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
