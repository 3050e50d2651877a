"""How statements and values are written for MySQL and MariaDB."""

from __future__ import annotations

import math
from collections.abc import Sequence

from octopus_async.adapters._sql import values
from octopus_async.adapters._sql.dialect import SIDE, ServerDialect
from octopus_async.adapters._sql.values import Codec
from octopus_async.errors import InvalidRecord
from octopus_async.schema import Column, Type

OURS = "made by octopus_async"
"""The comment of a table of ours."""

_VARCHAR_LIMIT = 500  # characters; a few dozen of them fit MySQL's limit for a row


def _quote(name: str) -> str:
    # A doubled percent sign, as the statement is a format for its values.
    return "`" + name.replace("`", "``").replace("%", "%%") + "`"


def literal(value: object) -> str:
    """A value as it stands in a statement. Raises `InvalidRecord` for what has no such form."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        # Doubled quotes stay quotes in whatever mode the server takes backslashes.
        return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        return text if "e" in text else f"{text}e0"  # without exponent it would be a DECIMAL
    if isinstance(value, bytes):
        return f"_binary X'{value.hex()}'"
    raise InvalidRecord(f"a column can't be given a {type(value).__name__} such as {str(value)[:40]}")


def _overwrite(_key: str, columns: Sequence[str]) -> str:
    # By a name for the new row it would be nicer, which MariaDB does not know.
    return " ON DUPLICATE KEY UPDATE " + ", ".join(f"{column} = VALUES({column})" for column in columns)


_ASCII = "CHARACTER SET ascii COLLATE ascii_bin"
_UNICODE = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_TYPES = {
    Type.INTEGER: "BIGINT",
    Type.BOOLEAN: "BOOLEAN",
    Type.REAL: "DOUBLE",
    Type.BINARY: "LONGBLOB",
    Type.TIMESTAMP: "DATETIME(6)",
    Type.LOCAL_TIMESTAMP: "DATETIME(6)",
    Type.DATE: "DATE",
    Type.TIME: "TIME(6)",
    Type.DECIMAL: "DECIMAL(65,30)",
    Type.UUID: f"CHAR(36) {_ASCII}",
}


def _column_type(column: Column) -> str:
    if column.type is Type.TEXT and column.max_length is not None and column.max_length <= _VARCHAR_LIMIT:
        return f"VARCHAR({column.max_length}) {_UNICODE}"
    # JSON as well: MariaDB's own type takes 31 levels of nesting, and MySQL's rewrites what it is given.
    return _TYPES.get(column.type, f"LONGTEXT {_UNICODE}")


MYSQL = ServerDialect(
    quote=_quote,
    mark="%s",
    text_of="CONVERT({} USING utf8mb4)",
    exactly="CAST(CONVERT({} USING utf8mb4) AS BINARY) = %s",
    codecs={
        Type.REAL: Codec(float, float),
        Type.BOOLEAN: Codec(int, bool),
        Type.BINARY: Codec(values.encode_binary, values.decode_binary),
        Type.TIMESTAMP: Codec(values.encode_timestamp, values.decode_timestamp),
        Type.LOCAL_TIMESTAMP: Codec(values.encode_timestamp, values.decode_local_timestamp),
        Type.TIME: Codec(None, values.decode_time),
        Type.DECIMAL: Codec(None, values.decode_decimal),
        Type.JSON: Codec(values.encode_json, values.decode_json),
    },
    column_type=_column_type,
    # Other collations take key, KEY, "key " and kéy for one id.
    id_types={Type.INTEGER: "BIGINT", Type.TEXT: "VARBINARY(1024)", Type.UUID: f"CHAR(36) {_ASCII}"},
    version_type=f"CHAR(26) {_ASCII}",
    later="NULLIF(GREATEST(COALESCE({}, ''), %s), '')",
    suffix=f" ENGINE=InnoDB COMMENT='{OURS}'",
    side=(
        f"CREATE TABLE IF NOT EXISTS {SIDE} (model VARBINARY(255) NOT NULL, id VARBINARY(1024) NOT NULL, "
        f"version CHAR(26) {_ASCII} NOT NULL, born CHAR(26) {_ASCII} NOT NULL, deleted BOOLEAN NOT NULL, "
        "PRIMARY KEY (model, id)) ENGINE=InnoDB"
    ),
    # Counting takes two locks, first that of the key's lock row, which is the one row to be found.
    unless_dead=(
        f" FROM DUAL WHERE 1 = (SELECT COUNT(*) FROM {SIDE} WHERE (model = '' AND id = %s) "
        "OR (model = %s AND id = %s AND version >= %s) LOCK IN SHARE MODE)"
    ),
    overwrite=_overwrite,
    literal=literal,
)
