"""The part of a SQL adapter that needs no driver: it knows the tables, and how to ask them."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

from octopus_async.adapters._sql.dialect import SIDE, VERSION, Dialect
from octopus_async.adapters._sql.table import Row, Table
from octopus_async.backend import Answer, Capabilities
from octopus_async.errors import InvalidRecord, SchemaMismatch
from octopus_async.record import NO_VERSION, Fields, Key, Kind, Mode, Operation, Record

T = TypeVar("T")

KEYS_PER_STATEMENT = 500
"""Below the number of variables that any SQLite takes in a statement."""


class Query(NamedTuple):
    """A statement that selects rows, and the values that it binds."""

    sql: str
    values: Sequence[object]


class SQLAdapter(abc.ABC):
    """Reads and scans over whatever way a driver has of running queries.

    Parameters:
        name: the name by which strategies call it.
        capabilities: what it can do.
        dialect: how statements are written there.
    """

    def __init__(self, name: str, capabilities: Capabilities, dialect: Dialect) -> None:
        self._name = name
        self._capabilities = capabilities
        self._dialect = dialect
        self._tables: dict[str, Table] = {}

    @property
    def name(self) -> str:
        """The name by which strategies, receipts and messages call it."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    @abc.abstractmethod
    async def _select(self, queries: Sequence[Query]) -> Sequence[Sequence[Row]]:
        """Run queries; the rows of each. Raises `Unavailable`."""

    def _table(self, model: str) -> Table:
        table = self._tables.get(model)
        if table is None:
            raise SchemaMismatch(
                f"{self._name}: model {model} was not prepared, or its table did not fit", backend=self._name
            )
        return table

    async def read(self, keys: Sequence[Key]) -> Sequence[Answer]:
        """Look up keys, one statement for each model; tombstones are not looked for."""
        asked: dict[Table, list[object]] = {}
        for key in keys:
            table = self._table(key.model)
            try:
                asked.setdefault(table, []).append(table.id_of(key))
            except InvalidRecord:
                continue  # no record can have such an id
        parts = [(table, part) for table, ids in asked.items() for part in split(ids)]
        results = await self._select([self._reading(table, ids) for table, ids in parts])
        found: dict[Key, Record] = {}
        for (table, _), rows in zip(parts, results, strict=True):
            records = map(table.record, rows)
            found.update((record.key, record) for record in records)
        return [found.get(key) for key in keys]

    async def peek(self, keys: Sequence[Key]) -> list[Record | None]:
        """Look up keys, tombstones too."""
        living = await self.read(keys)
        graves = await self._graves([key for key, record in zip(keys, living, strict=True) if record is None])
        found = zip(keys, living, strict=True)
        return [record if isinstance(record, Record) else graves.get(key) for key, record in found]

    async def _graves(self, keys: Sequence[Key]) -> dict[Key, Record]:
        asked: dict[str, list[str]] = {}
        for key in keys:
            with contextlib.suppress(InvalidRecord):  # no record can have such an id
                self._table(key.model).id_of(key)
                asked.setdefault(key.model, []).append(key.id)
        sql = (
            f"SELECT model, id, version, born FROM {SIDE} WHERE deleted = 1 AND model = {self._dialect.mark}"
        )
        queries = [
            Query(f"{sql} AND id IN ({self._marks(part)})", (model, *part))
            for model, ids in asked.items()
            for part in split(ids)
        ]
        found = chain.from_iterable(await self._select(queries)) if queries else ()
        graves = [Record(Key(_text(row[0]), _text(row[1])), row[2], row[3], None) for row in found]
        return {grave.key: grave for grave in graves}

    def _alone(self, operation: Operation, mode: Mode) -> Query | None:
        """A live create or update as one statement that affects one row, or has no effect.

        A create inserts its row unless a tombstone is as new; an update changes a row that is older,
        and is the one expected. None for what needs a transaction. Raises `InvalidRecord`.
        """
        table = self._table(operation.key.model)
        if not table.versioned or mode in (Mode.REPLAY, Mode.MEND) or operation.fields is None:
            return None
        if_version = operation.if_version if mode is Mode.LIVE else None
        if operation.kind is Kind.UPDATE and if_version != NO_VERSION:
            return self._update_alone(table, operation, operation.fields, if_version)
        if operation.kind is Kind.CREATE and if_version is None:
            row = (table.id_of(operation.key), *table.values(operation.fields))
            stamp = (operation.version, operation.born or None)
            return Query(table.create, (*row, *stamp, *self._unless_dead(operation)))
        return None

    def _update_alone(
        self, table: Table, operation: Operation, fields: Fields, if_version: str | None
    ) -> Query:
        mark = self._dialect.mark
        condition = f" AND ({VERSION} IS NULL OR {VERSION} < {mark})"
        bounds: tuple[object, ...] = (operation.version,)
        if if_version is not None:
            condition += f" AND {VERSION} = {mark}"
            bounds = (operation.version, if_version)
        id_ = table.condition(table.id_of(operation.key))
        values = (*table.values(fields), operation.version, operation.born)
        return Query(table.update + condition, (*values, *id_, *bounds))

    def _unless_dead(self, operation: Operation) -> tuple[object, ...]:
        """The values that the dialect's ``unless_dead`` binds."""
        return (*operation.key, operation.version)

    def _reading(self, table: Table, ids: Sequence[object]) -> Query:
        return Query(f"{table.read}({self._marks(ids)})", (*table.leading(), *ids))

    def _marks(self, values: Sequence[object]) -> str:
        return ", ".join([self._dialect.mark] * len(values))

    async def scan(
        self, model: str, *, after: str = "", batch: int = 500, beyond: Record | None = None
    ) -> AsyncIterator[Record]:
        """All of a model's records, living ones and then tombstones, each in the order of ids.

        Whatever does not change meanwhile is seen exactly once.

        Parameters:
            model: the model's name.
            after: only records of versions above this one; all of them where it is empty.
            batch: how many to fetch at a time.
            beyond: only what comes behind this record of an earlier scan.

        Raises:
            Unavailable: the backend failed.
        """
        table = self._table(model)
        last = None if beyond is None else beyond.key
        among_graves = beyond is not None and beyond.fields is None
        if not among_graves:
            async for record in self._scan_living(table, after, batch, last):
                yield record
        async for record in self._scan_tombstones(table, after, batch, last if among_graves else None):
            yield record

    async def _scan_living(
        self, table: Table, after: str, batch: int, beyond: Key | None
    ) -> AsyncIterator[Record]:
        mark = self._dialect.mark
        bounds = {f"{table.version} > {mark}": after} if after else {}
        last = {} if beyond is None else {f"{table.id} > {mark}": table.id_of(beyond)}
        while True:
            conditions: dict[str, object] = {**bounds, **last}
            where = " AND ".join(conditions) or "1 = 1"
            sql = f"{table.page}{where} ORDER BY {table.id} LIMIT {batch:d}"
            (rows,) = await self._select([Query(sql, (*table.leading(), *conditions.values()))])
            for row in rows:
                yield table.record(row)
            if len(rows) < batch:
                return
            last = {f"{table.id} > {mark}": rows[-1][0]}

    async def _scan_tombstones(
        self, table: Table, after: str, batch: int, beyond: Key | None
    ) -> AsyncIterator[Record]:
        mark = self._dialect.mark
        sql = (
            f"SELECT id, version, born FROM {SIDE} WHERE model = {mark} AND deleted = 1 "
            f"AND version > {mark} AND id > {mark} ORDER BY id LIMIT {batch:d}"
        )
        last: object = "" if beyond is None else beyond.id
        while True:
            (rows,) = await self._select([Query(sql, (table.model, after, last))])
            graves = [Record(Key(table.model, _text(row[0])), row[1], row[2], None) for row in rows]
            # A key that was created again has an older tombstone still.
            living = await self.read([grave.key for grave in graves])
            for grave, alive in zip(graves, living, strict=True):
                if alive is None:
                    yield grave
            if len(rows) < batch:
                return
            last = rows[-1][0]


def split(items: Sequence[T], size: int = KEYS_PER_STATEMENT) -> Iterator[Sequence[T]]:
    """Parts of at most ``size`` items."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
