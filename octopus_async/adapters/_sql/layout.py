"""Checks that a model's table has what the model needs, and says what to do where it has not."""

from __future__ import annotations

from collections.abc import Collection

from octopus_async.adapters._sql.dialect import BORN, VERSION, Dialect
from octopus_async.errors import SchemaMismatch
from octopus_async.schema import Schema


def create_table(schema: Schema, dialect: Dialect) -> str:
    """The statement that creates a model's table with typed columns, a key, and our two columns."""
    columns = [f"{dialect.quote(schema.id_column)} {dialect.id_types[schema.id_type]} NOT NULL PRIMARY KEY"]
    for column in schema.columns:
        null = "" if column.nullable else " NOT NULL"
        columns.append(f"{dialect.quote(column.name)} {dialect.column_type(column)}{null}")
    columns += [f"{dialect.quote(name)} {dialect.version_type}" for name in (VERSION, BORN)]
    table = dialect.quote(schema.table)
    return f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(columns)}){dialect.suffix}"


def check_columns(backend: str, schema: Schema, dialect: Dialect, columns: Collection[str]) -> bool:
    """Check a table that exists.

    Parameters:
        backend: the backend's name.
        schema: what the model needs.
        dialect: how statements are written there.
        columns: the columns that the table has.

    Returns:
        Whether it has our two columns.

    Raises:
        SchemaMismatch: it lacks columns of the model, or one of our two.
    """
    there = {name.lower() for name in columns}
    ours = {VERSION, BORN} & there
    needed = {schema.id_column: dialect.id_types[schema.id_type]}
    needed |= {column.name: dialect.column_type(column) for column in schema.columns}
    if ours:
        needed |= dict.fromkeys((VERSION, BORN), dialect.version_type)
    missing = {name: type_ for name, type_ in needed.items() if name.lower() not in there}
    if missing:
        names = ", ".join(missing)
        alter = "; ".join(
            f"ALTER TABLE {dialect.quote(schema.table)} ADD COLUMN {dialect.quote(name)} {type_}"
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
