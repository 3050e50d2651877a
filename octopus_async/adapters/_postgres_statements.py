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

from collections.abc import Iterable, Sequence
from functools import cache

from octopus_async.adapters._postgres_dialect import POSTGRES, PostgresTable
from octopus_async.adapters._sql.dialect import SIDE
from octopus_async.adapters._sql.locks import LOCKS, number_of
from octopus_async.adapters._sql.script import written
from octopus_async.record import Key, Operation

BATCH = 128

_OURS = 0x0C709005  # the first half of our locks' numbers, so that they are not an application's own
_TABLES = LOCKS  # the lock of who creates tables
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


def numbered(sql: str, count: int) -> str:
    """A query with marks for ``count`` values that travel beside it."""
    return sql % _marks(count)


@cache
def _marks(count: int) -> tuple[str, ...]:
    return tuple(f"${number}" for number in range(1, count + 1))


def lock(keys: Iterable[Key], *, exclusive: bool) -> str:
    """The statement that takes the locks of keys."""
    numbers = sorted({number_of(key) for key in keys})
    return _lock(numbers, exclusive=exclusive)


def _lock(numbers: Sequence[int], *, exclusive: bool) -> str:
    function = f"pg_advisory_xact_lock{'' if exclusive else '_shared'}"
    if len(numbers) == 1:
        return f"SELECT {function}({_OURS}, {numbers[0]})"
    array = ",".join(map(str, numbers))
    return f"SELECT {function}({_OURS}, n) FROM unnest('{{{array}}}'::int[]) AS n"


def burial(table: PostgresTable, operation: Operation) -> list[str]:
    """The statements of a delete of one record: they affect one row, or have no effect."""
    key, version = operation.key, operation.version
    id_ = table.condition(table.id_of(key))
    values = (*id_, version, *key, version, *key, version, operation.born, *id_, version)
    return [
        lock([key], exclusive=True),
        written(POSTGRES, table.lock_row, id_),
        written(POSTGRES, table.bury, values),
    ]


def states(table: PostgresTable) -> str:
    """The query for what is stored: of the table under lock, of the side table; the latter have a flag."""
    return f"WITH m AS ({table.locked % '$1'}) SELECT * FROM m UNION ALL {_SIDE_STATES}"


def creation(statements: Iterable[str]) -> list[str]:
    """What creates tables; of two who do that at once the second finds them."""
    return [_lock([_TABLES], exclusive=True), *statements]
