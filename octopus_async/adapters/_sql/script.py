"""Statements written out with their values, as the servers are sent them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from octopus_async.adapters._sql.batch import Change, Writes, side_rows_of, writes_of
from octopus_async.adapters._sql.dialect import SIDE, ServerDialect
from octopus_async.adapters._sql.table import Table

_ROW_BYTES = 256 * 1024  # of rows in one statement; a record that is larger has one of its own
_SIDE_INSERT = f"INSERT INTO {SIDE} (model, id, version, born, deleted) VALUES "


def written(dialect: ServerDialect, sql: str, values: Iterable[object]) -> str:
    """A statement with its values. Raises `InvalidRecord`."""
    return sql % tuple(map(dialect.literal, values))


def listed(dialect: ServerDialect, values: Iterable[object]) -> str:
    """Values in parentheses, in the order of their literals."""
    return f"({', '.join(sorted(map(dialect.literal, values)))})"


def writes(dialect: ServerDialect, changes: Sequence[Change[Table]]) -> list[str]:
    """The statements that write changes, whose locks are held. Raises `InvalidRecord`."""
    statements: list[str] = []
    for part in writes_of(changes):
        statements += _written_to(dialect, part)
    statements += _side_writes(dialect, side_rows_of(changes))
    return statements


def probe(dialect: ServerDialect, mark: str) -> str:
    """The statement that writes the reserved row."""
    (statement,) = _side_writes(dialect, [("", "probe", mark, "", False)])
    return statement


def _side_writes(dialect: ServerDialect, rows: Sequence[Sequence[object]]) -> Iterator[str]:
    overwrite = dialect.overwrite("model, id", ("version", "born", "deleted"))
    return _in_rows(dialect, _SIDE_INSERT, rows, overwrite)


def _written_to(dialect: ServerDialect, part: Writes[Table]) -> Iterator[str]:
    table = part.table
    insert = table.insert % ()
    yield from (written(dialect, table.delete, table.condition(id_)) for id_ in part.deletes)
    if table.plain:
        yield from _in_rows(dialect, insert, part.updates, table.overwrite % ())
    else:
        yield from (written(dialect, table.update, table.update_values(row)) for row in part.updates)
    yield from _in_rows(dialect, insert, part.inserts)


def _in_rows(
    dialect: ServerDialect, head: str, rows: Sequence[Sequence[object]], tail: str = ""
) -> Iterator[str]:
    literal = dialect.literal
    parts: list[str] = []
    size = 0
    for row in rows:
        part = f"({', '.join(map(literal, row))})"
        if parts and size + len(part) > _ROW_BYTES:
            yield f"{head}{', '.join(parts)}{tail}"
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        yield f"{head}{', '.join(parts)}{tail}"
