"""In what SQLite and MySQL differ when a statement is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from octopus_async.adapters._sql import values
from octopus_async.adapters._sql.values import Codec
from octopus_async.schema import Column, Type

SIDE = "octopus_versions"
"""The side table: tombstones, the versions of mapped tables, and the reserved rows."""
VERSION, BORN = "octopus_version", "octopus_born"
"""The columns that a table of ours has beside the model's."""
OURS = "made by octopus_async"
"""The comment of a table of ours, in MySQL."""

_VARCHAR_LIMIT = 500  # characters; a few dozen of them fit MySQL's limit for a row


@dataclass(frozen=True)
class Dialect:
    """How statements are written for one kind of server.

    Attributes:
        quote: writes an identifier.
        mark: stands for a bound value.
        text_of: how an id's column is written as text that compares with the side table's ids.
        exactly: a condition on an id's column whose collation takes different ids for one.
        codecs: how values are written and read.
        column_type: the type of a column of ours.
        id_types: the type of an id's column of ours.
        version_type: the type of a version's column of ours.
        later: the later of a born that is stored and a bound one, each empty where it is not known.
        suffix: what ends a statement that creates a table.
        side: the statement that creates the side table.
        unless_dead: ends an INSERT .. SELECT, so that it inserts nothing where a tombstone is as new.
    """

    quote: Callable[[str], str]
    mark: str
    text_of: str
    exactly: str
    codecs: Mapping[Type, Codec]
    column_type: Callable[[Column], str]
    id_types: Mapping[Type, str]
    version_type: str
    later: str
    suffix: str
    side: str
    unless_dead: str


def _quote_sqlite(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quote_mysql(name: str) -> str:
    # A doubled percent sign, as the statement is a format for its values.
    return "`" + name.replace("`", "``").replace("%", "%%") + "`"


_SQLITE_TYPES = {
    Type.INTEGER: "INTEGER",
    Type.BOOLEAN: "INTEGER",
    Type.REAL: "REAL",
    Type.BINARY: "BLOB",
}

SQLITE = Dialect(
    quote=_quote_sqlite,
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
    column_type=lambda column: _SQLITE_TYPES.get(column.type, "TEXT"),
    id_types={Type.INTEGER: "INTEGER", Type.TEXT: "TEXT", Type.UUID: "TEXT"},
    version_type="TEXT",
    later="NULLIF(MAX(COALESCE({}, ''), ?), '')",
    suffix="",
    side=(
        f"CREATE TABLE IF NOT EXISTS {SIDE} (model TEXT NOT NULL, id TEXT NOT NULL, version TEXT NOT NULL, "
        "born TEXT NOT NULL, deleted INTEGER NOT NULL, PRIMARY KEY (model, id)) WITHOUT ROWID"
    ),
    unless_dead=f" WHERE NOT EXISTS (SELECT 1 FROM {SIDE} WHERE model = ? AND id = ? AND version >= ?)",
)

_ASCII = "CHARACTER SET ascii COLLATE ascii_bin"
_UNICODE = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_MYSQL_TYPES = {
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


def _mysql_type(column: Column) -> str:
    if column.type is Type.TEXT and column.max_length is not None and column.max_length <= _VARCHAR_LIMIT:
        return f"VARCHAR({column.max_length}) {_UNICODE}"
    # JSON as well: MariaDB's own type takes 31 levels of nesting, and MySQL's rewrites what it is given.
    return _MYSQL_TYPES.get(column.type, f"LONGTEXT {_UNICODE}")


MYSQL = Dialect(
    quote=_quote_mysql,
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
    column_type=_mysql_type,
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
)
