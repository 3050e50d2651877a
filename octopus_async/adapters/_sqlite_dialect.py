"""How statements and values are written for SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from octopus_async.adapters._sql import values
from octopus_async.adapters._sql.dialect import SIDE, Dialect
from octopus_async.adapters._sql.values import Codec
from octopus_async.schema import Type

_STRICT_SINCE = (3, 37)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _overwrite(key: str, columns: Sequence[str]) -> str:
    set_ = ", ".join(f"{column} = excluded.{column}" for column in columns)
    return f" ON CONFLICT ({key}) DO UPDATE SET {set_}"


_TYPES = {
    Type.INTEGER: "INTEGER",
    Type.BOOLEAN: "INTEGER",
    Type.REAL: "REAL",
    Type.BINARY: "BLOB",
}

SQLITE = Dialect(
    quote=_quote,
    mark="?",
    text_of="CAST({} AS TEXT)",
    exactly="{} = ? COLLATE BINARY",
    codecs={
        Type.REAL: Codec(float, float),
        Type.BOOLEAN: Codec(int, bool),
        Type.BINARY: Codec(values.encode_binary, values.decode_binary),
        Type.TIMESTAMP: Codec(None, values.decode_timestamp),
        Type.DECIMAL: Codec(None, str),
        Type.JSON: Codec(values.encode_json, values.decode_json),
    },
    column_type=lambda column: _TYPES.get(column.type, "TEXT"),
    id_types={Type.INTEGER: "INTEGER", Type.TEXT: "TEXT", Type.UUID: "TEXT"},
    version_type="TEXT",
    later="NULLIF(MAX(COALESCE({}, ''), ?), '')",
    suffix=" STRICT" if sqlite3.sqlite_version_info >= _STRICT_SINCE else "",
    side=(
        f"CREATE TABLE IF NOT EXISTS {SIDE} (model TEXT NOT NULL, id TEXT NOT NULL, version TEXT NOT NULL, "
        "born TEXT NOT NULL, deleted INTEGER NOT NULL, PRIMARY KEY (model, id)) WITHOUT ROWID"
    ),
    unless_dead=f" WHERE NOT EXISTS (SELECT 1 FROM {SIDE} WHERE model = ? AND id = ? AND version >= ?)",
    overwrite=_overwrite,
)
