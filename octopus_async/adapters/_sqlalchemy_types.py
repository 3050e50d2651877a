# mypy: disable-error-code="no-untyped-call"
"""The columns of each kind of database, and how values travel to them: exactly, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql, oracle
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

from octopus_async.adapters._sql import values
from octopus_async.adapters._sql.values import Codec
from octopus_async.record import Value
from octopus_async.schema import Column, Type

MYSQL = ("mysql", "mariadb")
_KEY_LENGTH = 1024
_BYTEWISE = {"postgresql": "C", "mssql": "Latin1_General_100_BIN2"}
_INTEGER_LIMIT = 1 << 63
_VARCHAR_LIMIT = 500
_DECIMAL_LENGTH = 67  # 35 digits, 30 more, a sign and a point
_EMPTY = "-"  # sorts before any version, as the empty text does


class Exact(TypeDecorator[str]):
    """A text that compares by its bytes, trailing blanks included: a key or a version.

    Parameters:
        length: its most bytes.
        ascii_only: whether it is of that alone, as versions are.
    """

    impl = sa.String
    cache_ok = True

    def __init__(self, length: int = _KEY_LENGTH, *, ascii_only: bool = False) -> None:
        super().__init__(length)
        self.length = length
        self.ascii_only = ascii_only

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        """The type of the column."""
        if dialect.name in MYSQL and not self.ascii_only:
            return _AsText(f"VARBINARY({self.length})")
        if dialect.name == "mssql" and not self.ascii_only:
            return dialect.type_descriptor(sa.VARBINARY(self.length))
        if dialect.name in MYSQL:
            return dialect.type_descriptor(mysql.CHAR(self.length, charset="ascii", collation="ascii_bin"))
        return dialect.type_descriptor(sa.String(self.length, collation=_BYTEWISE.get(dialect.name)))

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> Any:  # noqa: ANN401 - the driver's
        """What the driver is given."""
        if value is None:
            return None
        if dialect.name == "mssql" and not self.ascii_only:
            return value.encode()
        # Oracle takes an empty text for a null.
        return _EMPTY if dialect.name == "oracle" and not value else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:  # noqa: ANN401 - the driver's
        """What the driver gave, as text."""
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value).decode(errors="replace")
        return "" if dialect.name == "oracle" and value == _EMPTY else value


class _AsText(UserDefinedType[str]):
    """A type that takes its values as texts, and whose values are left as the driver has them.

    Parameters:
        name: what stands in a CREATE TABLE.
    """

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        """What stands in a CREATE TABLE."""
        return self.name


class _Blob(_AsText):
    """Bytes, written as hexadecimal text: aiomysql can't write bytes since PyMySQL 1.2."""

    cache_ok = True

    def bind_expression(self, bindvalue: sa.BindParameter[str]) -> sa.ColumnElement[Any]:
        """How a value stands in a statement."""
        return sa.func.unhex(sa.type_coerce(bindvalue, sa.String()))


def _long_text(dialect: str) -> TypeEngine[Any]:
    if dialect in MYSQL:
        return mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin")
    return sa.Text() if dialect in ("sqlite", "postgresql") else sa.UnicodeText()


def _text(column: Column, dialect: str) -> TypeEngine[Any]:
    if column.max_length is None or (dialect in MYSQL and column.max_length > _VARCHAR_LIMIT):
        return _long_text(dialect)
    if dialect in MYSQL:
        return mysql.VARCHAR(column.max_length, charset="utf8mb4", collation="utf8mb4_bin")
    return (
        sa.String(column.max_length) if dialect in ("sqlite", "postgresql") else sa.Unicode(column.max_length)
    )


_ELSEWHERE: dict[Type, TypeEngine[Any]] = {
    Type.INTEGER: sa.BigInteger(),
    Type.REAL: sa.Double(),
    Type.BOOLEAN: sa.Boolean(),
    Type.BINARY: sa.LargeBinary(),
    Type.TIMESTAMP: sa.DateTime(timezone=True),
    Type.LOCAL_TIMESTAMP: sa.DateTime(),
    Type.DATE: sa.Date(),
    Type.TIME: sa.Time(),
    Type.DECIMAL: sa.String(_DECIMAL_LENGTH),  # 38 digits are the most of many a NUMERIC
    Type.UUID: sa.String(36),
}
_OWN: dict[str, dict[Type, TypeEngine[Any]]] = {
    "sqlite": dict.fromkeys(
        (Type.TIMESTAMP, Type.LOCAL_TIMESTAMP, Type.DATE, Type.TIME, Type.DECIMAL, Type.UUID), sa.Text()
    ),
    "postgresql": {Type.DECIMAL: sa.Numeric(), Type.UUID: sa.Uuid(as_uuid=False)},
    "mysql": {
        Type.REAL: mysql.DOUBLE(asdecimal=False),
        Type.BINARY: _Blob("LONGBLOB"),
        Type.TIMESTAMP: mysql.DATETIME(fsp=6),
        Type.LOCAL_TIMESTAMP: mysql.DATETIME(fsp=6),
        Type.TIME: mysql.TIME(fsp=6),
        Type.DECIMAL: sa.Numeric(65, 30),
        Type.UUID: mysql.CHAR(36, charset="ascii", collation="ascii_bin"),
    },
    "mssql": {
        Type.BOOLEAN: mssql.BIT(),
        Type.TIMESTAMP: mssql.DATETIMEOFFSET(6),
        Type.LOCAL_TIMESTAMP: mssql.DATETIME2(6),
        Type.TIME: mssql.TIME(6),
    },
    "oracle": {
        Type.REAL: oracle.BINARY_DOUBLE(),
        Type.TIMESTAMP: oracle.TIMESTAMP(timezone=True),
        Type.LOCAL_TIMESTAMP: oracle.TIMESTAMP(),
        Type.TIME: sa.String(15),  # it has no type for a time of day
    },
}
_OWN["mariadb"] = _OWN["mysql"]


def type_of(column: Column, dialect: str) -> TypeEngine[Any]:
    """The type of a model's column in a table of ours."""
    if column.type is Type.TEXT:
        return _text(column, dialect)
    if column.type is Type.JSON:
        # SQLAlchemy's own would not give back every float as one.
        return _AsText("JSONB") if dialect == "postgresql" else _long_text(dialect)
    return _OWN.get(dialect, {}).get(column.type, _ELSEWHERE[column.type])


def id_type(type_: Type, dialect: str) -> TypeEngine[Any]:
    """The type of a model's id in a table of ours."""
    if type_ is Type.TEXT:
        return Exact()
    return type_of(Column("id", "id", type_, nullable=False), dialect)


# -- values --------------------------------------------------------------------------------------


def codecs_of(dialect: str) -> Mapping[Type, Codec]:
    """How values are written and read by the drivers of that kind of database."""
    as_text: Mapping[Type, Codec] = _SQLITE if dialect == "sqlite" else {}
    naive = dialect in MYSQL
    no_nul = dialect in ("postgresql", "cockroachdb")
    json = (
        Codec(values.encode_jsonb, values.decode_jsonb)
        if no_nul
        else Codec(values.encode_json, values.decode_json)
    )
    ours = {
        Type.TEXT: Codec(_plain_text if no_nul else _any_text),
        Type.INTEGER: Codec(_integer),
        Type.REAL: Codec(float, float),
        Type.BOOLEAN: Codec(_boolean, bool),
        Type.BINARY: Codec(_hexadecimal if naive else values.encode_binary, _decode_binary),
        Type.TIMESTAMP: Codec(_naive_moment if naive else datetime.fromisoformat, _decode_moment),
        Type.LOCAL_TIMESTAMP: Codec(datetime.fromisoformat, _decode_local_moment),
        Type.DATE: Codec(date.fromisoformat, _decode_date),
        Type.TIME: Codec(_any_text if dialect == "oracle" else time.fromisoformat, _decode_time),
        Type.DECIMAL: Codec(Decimal if _has_decimals(dialect) else _any_text, _decode_decimal),
        Type.UUID: Codec(_any_text, _decode_uuid),
        Type.JSON: json,
    }
    return {**ours, **as_text}


def _has_decimals(dialect: str) -> bool:
    return isinstance(type_of(Column("", "", Type.DECIMAL, nullable=True), dialect), sa.Numeric)


def _any_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("it is no text")
    value.encode()  # a lone surrogate is no text
    return value


def _plain_text(value: str) -> str:
    if "\0" in _any_text(value):
        raise ValueError("it holds a NUL")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
        raise ValueError("it is no integer of 64 bits")
    return value


def _boolean(value: object) -> bool:
    return bool(value)


def _naive_moment(value: str) -> datetime:
    return datetime.fromisoformat(value).replace(tzinfo=None)


def _hexadecimal(value: str) -> str:
    return values.encode_binary(value).hex()


def _decode_binary(value: Any) -> str:  # noqa: ANN401 - the driver's
    return values.decode_binary(bytes(value))


def _decode_moment(value: Any) -> str:  # noqa: ANN401 - the driver's
    if isinstance(value, str):
        return values.decode_timestamp(value)
    if value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return str(value.isoformat(timespec="microseconds")) + "Z"


def _decode_local_moment(value: Any) -> str:  # noqa: ANN401 - the driver's
    if isinstance(value, str):
        return values.decode_local_timestamp(value)
    return str(value.replace(tzinfo=None).isoformat(timespec="microseconds"))


def _decode_date(value: Any) -> str:  # noqa: ANN401 - the driver's
    return str(value.date() if isinstance(value, datetime) else value)


def _decode_time(value: Any) -> str:  # noqa: ANN401 - the driver's
    if isinstance(value, str):
        return values.decode_time(value)
    return str(value.replace(tzinfo=None).isoformat(timespec="microseconds"))


def _decode_decimal(value: Any) -> str:  # noqa: ANN401 - the driver's
    return values.decode_decimal(f"{value:f}" if isinstance(value, Decimal) else str(value))


def _decode_uuid(value: Any) -> Value:  # noqa: ANN401 - the driver's
    return str(value).strip().lower()


# As the adapter of SQLite has them, so that either can follow the other.
_SQLITE: Mapping[Type, Codec] = {
    Type.TIMESTAMP: Codec(_any_text, values.decode_timestamp),
    Type.LOCAL_TIMESTAMP: Codec(_any_text),
    Type.DATE: Codec(_any_text),
    Type.TIME: Codec(_any_text),
    Type.DECIMAL: Codec(_any_text, str),
    Type.UUID: Codec(_any_text),
}
