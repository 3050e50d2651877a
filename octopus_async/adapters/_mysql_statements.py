"""The statements that MySQL and MariaDB are sent, written out with their values.

How writers of one key contend: the side table has a fixed number of lock rows, and each key has
one of them. Who deletes, replays, or writes to a mapped table locks it exclusively, looks at what is
stored, and commits; who creates locks it shared. So between the moment when a create has found no
tombstone and its commit none can appear, and nothing that was deleted comes back. These are locks
on rows that exist: locks on the gap where a tombstone is not yet would be granted to one create
after the other, past a delete that waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from octopus_async.adapters._mysql_dialect import MYSQL
from octopus_async.adapters._sql.base import split
from octopus_async.adapters._sql.dialect import SIDE
from octopus_async.adapters._sql.locks import LOCKS, name_of, row_name
from octopus_async.adapters._sql.script import listed
from octopus_async.adapters._sql.table import Table
from octopus_async.record import Key

MAKE_LOCKS = tuple(
    f"INSERT IGNORE INTO {SIDE} (model, id, version, born, deleted) VALUES "
    + ", ".join(f"('', '{row_name(number)}', '', '', 1)" for number in part)
    for part in split(range(LOCKS), 1024)
)
COUNT_LOCKS = f"SELECT COUNT(*) FROM {SIDE} WHERE model = '' AND id LIKE 'lock %'"


def lock(keys: Iterable[Key], *, exclusive: bool) -> tuple[str, int]:
    """The statement that takes the lock rows of keys, and how many rows it has to count.

    They are taken in the order of the index, so that two batches never wait for each other.
    """
    names = {name_of(key) for key in keys}
    how = "FOR UPDATE" if exclusive else "LOCK IN SHARE MODE"
    return f"SELECT COUNT(*) FROM {SIDE} WHERE model = '' AND id IN {listed(MYSQL, names)} {how}", len(names)


def states(table: Table, ids: Sequence[object]) -> Iterator[str]:
    """The statements that select what is stored for ids: of the table under lock, of the side table."""
    for part in split(ids):
        yield f"{table.states % ()}{listed(MYSQL, part)} FOR UPDATE"
        yield (
            f"SELECT id, version, born, deleted FROM {SIDE} WHERE model = {MYSQL.literal(table.model)} "
            f"AND id IN {listed(MYSQL, map(str, part))}"
        )
