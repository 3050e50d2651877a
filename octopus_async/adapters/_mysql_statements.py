"""The statements that MySQL and MariaDB are sent, written out with their values.

How writers of one key contend: the side table has a fixed number of lock rows, and each key has
one of them. Who deletes, replays, or writes to a mapped table locks it exclusively, looks at what is
stored, and commits; who creates locks it shared. So between the moment when a create has found no
tombstone and its commit none can appear, and nothing that was deleted comes back. These are locks
on rows that exist: locks on the gap where a tombstone is not yet would be granted to one create
after the other, past a delete that waits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from zlib import crc32

from octopus_async.adapters._sql.base import split
from octopus_async.adapters._sql.batch import Change, Writes, side_rows_of, writes_of
from octopus_async.adapters._sql.dialect import SIDE
from octopus_async.adapters._sql.table import Table
from octopus_async.errors import InvalidRecord
from octopus_async.record import Key

LOCKS = 4096
"""Lock rows: the more, the seldomer two keys share one."""

_ROW_BYTES = 256 * 1024  # of rows in one statement; a record that is larger has one of its own
_SIDE_INSERT = f"INSERT INTO {SIDE} (model, id, version, born, deleted) VALUES "
_SIDE_UPSERT = (
    " ON DUPLICATE KEY UPDATE version = VALUES(version), born = VALUES(born), deleted = VALUES(deleted)"
)
MAKE_LOCKS = tuple(
    f"INSERT IGNORE INTO {SIDE} (model, id, version, born, deleted) VALUES "
    + ", ".join(f"('', 'lock {number}', '', '', 1)" for number in part)
    for part in split(range(LOCKS), 1024)
)
COUNT_LOCKS = f"SELECT COUNT(*) FROM {SIDE} WHERE model = '' AND id LIKE 'lock %'"


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


def written(sql: str, values: Iterable[object]) -> str:
    """A statement with its values."""
    return sql % tuple(map(literal, values))


def lock(keys: Iterable[Key], *, exclusive: bool) -> tuple[str, int]:
    """The statement that takes the lock rows of keys, and how many rows it has to count.

    They are taken in the order of the index, so that two batches never wait for each other.
    """
    names = {lock_name(key) for key in keys}
    how = "FOR UPDATE" if exclusive else "LOCK IN SHARE MODE"
    return f"SELECT COUNT(*) FROM {SIDE} WHERE model = '' AND id IN {_listed(names)} {how}", len(names)


def states(table: Table, ids: Sequence[object]) -> Iterator[str]:
    """The statements that select what is stored for ids: of the table under lock, of the side table."""
    for part in split(ids):
        yield f"{table.states % ()}{_listed(part)} FOR UPDATE"
        yield (
            f"SELECT id, version, born, deleted FROM {SIDE} WHERE model = {literal(table.model)} "
            f"AND id IN {_listed(map(str, part))}"
        )


def writes(changes: Sequence[Change]) -> list[str]:
    """The statements that write changes, whose locks are held."""
    statements: list[str] = []
    for part in writes_of(changes):
        statements += _written_to(part.table, part)
    statements += _in_rows(_SIDE_INSERT, side_rows_of(changes), _SIDE_UPSERT)
    return statements


def _written_to(table: Table, part: Writes) -> Iterator[str]:
    yield from (written(table.delete, table.condition(id_)) for id_ in part.deletes)
    if table.plain:
        yield from _in_rows(table.insert % (), part.updates, table.overwrite % ())
    else:
        yield from (written(table.update, table.update_values(row)) for row in part.updates)
    yield from _in_rows(table.insert % (), part.inserts)


def _in_rows(head: str, rows: Sequence[Sequence[object]], tail: str = "") -> Iterator[str]:
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


def probe(mark: str) -> str:
    """The statement that writes the reserved row."""
    (statement,) = _in_rows(_SIDE_INSERT, [("", "probe", mark, "", False)], _SIDE_UPSERT)
    return statement


def lock_name(key: Key) -> str:
    """The id of a key's lock row."""
    return f"lock {crc32(repr(tuple(key)).encode()) % LOCKS}"


def _listed(values: Iterable[object]) -> str:
    return f"({', '.join(sorted(map(literal, values)))})"
