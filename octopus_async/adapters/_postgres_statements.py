"""The statements that Postgres is sent: queries with numbered marks, and scripts written out.

How writers of one key contend: by advisory locks, which end with their transaction and so pass a
pooler. Who deletes, replays, or writes to a mapped table takes the lock of its key, looks at what is
stored, and commits; who creates shares that lock. A statement sees what was committed before it
began: the lock is therefore a statement of its own, before the one that looks for a tombstone, and
both travel in one exchange. So nothing that was deleted comes back.

Rows of the side table, as MySQL has them for that, would not do as well here: a lock on a row is
written to its page, and who waited for one inside of a statement goes on with what it saw before.

There are 4096 locks, taken in their order so that two batches never wait for each other. Postgres
keeps locks in a table of fixed size, and who finds it full fails, whoever filled it. 128 operations a
batch leave room in a server of default size even if each of its connections holds a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from zlib import crc32

from octopus_async.adapters._postgres_dialect import PostgresTable
from octopus_async.adapters._sql.batch import Change, Writes, side_rows_of, writes_of
from octopus_async.adapters._sql.dialect import SIDE
from octopus_async.adapters._sql.table import Table
from octopus_async.errors import InvalidRecord
from octopus_async.record import Key, Operation

LOCKS = 4096
BATCH = 128

_OURS = 0x0C709005  # the first half of our locks' numbers, so that they are not an application's own
_TABLES = LOCKS  # the lock of who creates tables
_ROW_BYTES = 256 * 1024  # of rows in one statement; a record that is larger has one of its own
_SIDE_INSERT = f"INSERT INTO {SIDE} (model, id, version, born, deleted) VALUES "
_SIDE_UPSERT = (
    " ON CONFLICT (model, id) DO UPDATE SET version = EXCLUDED.version, born = EXCLUDED.born, "
    "deleted = EXCLUDED.deleted"
)
_SIDE_STATES = f"SELECT id, version, born, deleted FROM {SIDE} WHERE model = $2 AND id = ANY($3)"

COLUMNS = """\
SELECT n.name, a.attname, format_type(a.atttypid, -1), c.relkind::text,
       c.relhastriggers OR c.relhasrules OR c.relrowsecurity,
       coalesce(l.collisdeterministic, true),
       CASE WHEN l.collname <> 'default' THEN l.collname
            WHEN to_jsonb(d) ->> 'datlocprovider' = 'i' THEN 'icu' ELSE d.datcollate END,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
               AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
FROM unnest($1::text[]) AS n (name)
JOIN pg_class c ON c.oid = to_regclass(quote_ident(n.name))
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_collation l ON l.oid = a.attcollation
"""
"""The columns of tables that exist: table, name, type, kind of relation, whether writing a row may do
more than that, whether its collation tells texts apart and what it is called, whether it is unique."""


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


def written(sql: str, values: Iterable[object]) -> str:
    """A statement with its values."""
    return sql % tuple(map(literal, values))


def numbered(sql: str, count: int) -> str:
    """A query with marks for ``count`` values that travel beside it."""
    return sql % _marks(count)


@cache
def _marks(count: int) -> tuple[str, ...]:
    return tuple(f"${number}" for number in range(1, count + 1))


def lock(keys: Iterable[Key], *, exclusive: bool) -> str:
    """The statement that takes the locks of keys."""
    numbers = sorted({crc32(repr(tuple(key)).encode()) % LOCKS for key in keys})
    return _lock(numbers, exclusive=exclusive)


def _lock(numbers: Sequence[int], *, exclusive: bool) -> str:
    function = f"pg_advisory_xact_lock{'' if exclusive else '_shared'}"
    if len(numbers) == 1:
        return f"SELECT {function}({_OURS}, {numbers[0]})"
    array = ",".join(map(str, numbers))
    return f"SELECT {function}({_OURS}, n) FROM unnest('{{{array}}}'::int[]) AS n"


def burial(table: PostgresTable, operation: Operation) -> str:
    """The script of a delete of one record: it affects one row, or has no effect."""
    key, version = operation.key, operation.version
    id_ = table.condition(table.id_of(key))
    values = (*id_, version, *key, version, *key, version, operation.born, *id_, version)
    return "; ".join((lock([key], exclusive=True), written(table.lock_row, id_), written(table.bury, values)))


def states(table: PostgresTable) -> str:
    """The query for what is stored: of the table under lock, of the side table; the latter have a flag."""
    return f"WITH m AS ({table.locked % '$1'}) SELECT * FROM m UNION ALL {_SIDE_STATES}"


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


def creation(statements: Sequence[str]) -> str:
    """A script that creates tables; of two who do that at once the second finds them."""
    return "; ".join((_lock([_TABLES], exclusive=True), *statements))


def probe(mark: str) -> str:
    """The statement that writes the reserved row."""
    (statement,) = _in_rows(_SIDE_INSERT, [("", "probe", mark, "", False)], _SIDE_UPSERT)
    return statement
