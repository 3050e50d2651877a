"""Checks that a model's table has what the model needs, and says what to do where it has not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from octopus_async.adapters._sql.dialect import BORN, VERSION, Dialect
from octopus_async.errors import SchemaMismatch
from octopus_async.schema import Schema


def create_table(schema: Schema, dialect: Dialect) -> str:
    """The statement that creates a model's table with typed columns, a key, and our two columns."""
    columns = [f"{dialect.quote(name)} {type_}" for name, type_ in types_of(schema, dialect).items()]
    columns[0] += " NOT NULL PRIMARY KEY"
    for number, column in enumerate(schema.columns, 1):
        columns[number] += "" if column.nullable else " NOT NULL"
    table = dialect.quote(schema.table)
    return f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(columns)}){dialect.suffix}"


def types_of(schema: Schema, dialect: Dialect) -> dict[str, str]:
    """The types of the columns that a table of ours has."""
    types = {schema.id_column: dialect.id_types[schema.id_type]}
    types |= {column.name: dialect.column_type(column) for column in schema.columns}
    return types | dict.fromkeys((VERSION, BORN), dialect.version_type)


def check_columns(backend: str, schema: Schema, dialect: Dialect, columns: Iterable[str]) -> bool:
    """Whether a table that exists has our two columns. Raises `SchemaMismatch` as `check_types`."""
    return check_types(backend, schema, types_of(schema, dialect), columns, quote=dialect.quote)


def check_types(
    backend: str,
    schema: Schema,
    types: Mapping[str, str],
    columns: Iterable[str],
    *,
    quote: Callable[[str], str],
) -> bool:
    """Check a table that exists.

    Parameters:
        backend: the backend's name.
        schema: what the model needs.
        types: what a table of ours has, as `types_of` says it.
        columns: the columns that the table has.
        quote: writes an identifier.

    Returns:
        Whether it has our two columns.

    Raises:
        SchemaMismatch: it lacks columns of the model, or one of our two.
    """
    there = {name.lower() for name in columns}
    ours = {VERSION, BORN} & there
    needed = {name: type_ for name, type_ in types.items() if ours or name not in (VERSION, BORN)}
    missing = {name: type_ for name, type_ in needed.items() if name.lower() not in there}
    if missing:
        names = ", ".join(missing)
        alter = "; ".join(
            f"ALTER TABLE {quote(schema.table)} ADD COLUMN {quote(name)} {type_}"
            for name, type_ in missing.items()
        )
        raise SchemaMismatch(
            f"{backend}: the table {schema.table} of model {schema.model} lacks {names}; run: {alter}",
            backend=backend,
        )
    return bool(ours)


def no_table(backend: str, model: str, table: str, statement: str) -> SchemaMismatch:
    """The error for a table that is not there, and was not to be created."""
    return SchemaMismatch(
        f"{backend}: there is no table {table}, which model {model} needs: set create_tables=True, "
        f"or run: {statement}",
        backend=backend,
    )


def no_transactions(backend: str, schema: Schema, dialect: Dialect, engine: str) -> SchemaMismatch:
    """The error for a table whose engine can't take a batch back."""
    table = dialect.quote(schema.table)
    return SchemaMismatch(
        f"{backend}: the table {schema.table} of model {schema.model} has the engine {engine}, which knows "
        f"no transactions; run: ALTER TABLE {table} ENGINE=InnoDB",
        backend=backend,
    )
