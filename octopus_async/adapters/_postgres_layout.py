"""What the catalogue says of tables, and whether a model can be kept in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from octopus_async.adapters._postgres_dialect import POSTGRES, PostgresTable, quote
from octopus_async.adapters._sql import layout
from octopus_async.adapters._sql.dialect import BORN, VERSION
from octopus_async.adapters._sql.rows import Row
from octopus_async.errors import SchemaMismatch
from octopus_async.schema import Schema, Type

_BYTEWISE = {None, "C", "POSIX", "ucs_basic", "C.UTF-8", "C.utf8"}
_TEXTS = {"text", "character varying", "citext"}
_ID_TYPES = {
    Type.TEXT: _TEXTS,
    Type.INTEGER: {"smallint", "integer", "bigint"},
    Type.UUID: {"uuid", "text", "character varying", "bpchar"},
}


class _Column(NamedTuple):
    type: str
    deterministic: bool
    collation: str | None
    unique: bool


@dataclass(frozen=True)
class Found:
    """A table that exists.

    Attributes:
        columns: by their names.
        simple: whether writing a row does nothing but that: a table without triggers and rules.
    """

    columns: dict[str, _Column]
    simple: bool

    def table(self, backend: str, schema: Schema) -> PostgresTable:
        """The model's table. Raises `SchemaMismatch` where the model can't be kept there."""
        versioned = layout.check_columns(backend, schema, POSTGRES, self.columns)
        id_ = self.columns.get(schema.id_column)
        if id_ is None or id_.type not in _ID_TYPES[schema.id_type]:
            raise _mismatch(backend, schema, schema.id_column, POSTGRES.id_types[schema.id_type])
        for name in (VERSION, BORN) if versioned else ():
            if self.columns[name].collation not in _BYTEWISE:
                raise _mismatch(backend, schema, name, POSTGRES.version_type)
        return PostgresTable(
            schema,
            POSTGRES,
            versioned=versioned,
            exact=id_.deterministic and id_.type != "citext",
            plain=self.simple and id_.unique and len(self.columns) == len(schema.columns) + 3,
        )


def found_of(rows: Iterable[Row]) -> dict[str, Found]:
    """The tables in the rows of the catalogue."""
    found: dict[str, Found] = {}
    for table, name, type_, kind, more, deterministic, collation, unique in rows:
        there = found.setdefault(table, Found({}, simple=kind == "r" and not more))
        there.columns[name] = _Column(type_, deterministic, collation, unique)
    return found


def _mismatch(backend: str, schema: Schema, column: str, type_: str) -> SchemaMismatch:
    """The error for a column whose type or collation can't work."""
    return SchemaMismatch(
        f"{backend}: the column {column} of the table {schema.table} has to be {type_}, for model "
        f"{schema.model}; run: ALTER TABLE {quote(schema.table) % ()} "
        f"ALTER COLUMN {quote(column) % ()} TYPE {type_}",
        backend=backend,
    )
