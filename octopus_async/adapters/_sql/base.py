"""What all SQL adapters do alike: they know their tables, read, look and scan, however they ask."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from octopus_async.adapters._sql import layout
from octopus_async.adapters._sql.rows import Row, Rows
from octopus_async.backend import Answer, Capabilities
from octopus_async.errors import InvalidRecord, SchemaMismatch
from octopus_async.record import Key, Record
from octopus_async.schema import Schema

T = TypeVar("T")
R = TypeVar("R", bound=Rows)
Q = TypeVar("Q")
F = TypeVar("F")

KEYS_PER_STATEMENT = 500
"""Below the number of variables that any SQLite takes in a statement."""


class SQLAdapter(abc.ABC, Generic[R, Q, F]):
    """Reads and scans over whatever way a driver has of running queries.

    Its subclasses say what a table (R), a query (Q) and a table that was found (F) are to them.

    Parameters:
        name: the name by which strategies call it.
        capabilities: what it can do.
    """

    def __init__(self, name: str, capabilities: Capabilities) -> None:
        self._name = name
        self._capabilities = capabilities
        self._tables: dict[str, R] = {}

    @property
    def name(self) -> str:
        """The name by which strategies, receipts and messages call it."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    # -- what a way of asking has to bring -------------------------------------------------------

    @abc.abstractmethod
    def _definitions(self, schema: Schema) -> Mapping[str, str]:
        """The statements that create the side table and a model's table, in this order, by their names."""

    @abc.abstractmethod
    async def _found(self, names: Sequence[str]) -> Mapping[str, F]:
        """Those tables that exist, by their names. Raises `Unavailable`."""

    @abc.abstractmethod
    async def _create(self, schema: Schema, definitions: Mapping[str, str]) -> None:
        """Create tables. Raises `Unavailable`."""

    @abc.abstractmethod
    async def _fit(self, schema: Schema, found: F) -> R:
        """A table that exists, for the model. Raises `SchemaMismatch` where they don't go together."""

    @abc.abstractmethod
    async def _select(self, queries: Sequence[Q]) -> Sequence[Sequence[Row]]:
        """Run queries; the rows of each. Raises `Unavailable`."""

    @abc.abstractmethod
    def _reading(self, table: R, ids: Sequence[object]) -> Q:
        """The records of ids."""

    @abc.abstractmethod
    def _burials(self, table: R, ids: Sequence[str]) -> Q:
        """The tombstones of ids: id, version, born."""

    @abc.abstractmethod
    def _page(self, table: R, after: str, last: object | None, limit: int) -> Q:
        """The next records of versions above ``after``, in the order of ids, behind the id ``last``."""

    @abc.abstractmethod
    def _burial_page(self, table: R, after: str, last: str, limit: int) -> Q:
        """The next tombstones of versions above ``after``, as `_burials`, behind the id ``last``."""

    # -- models ----------------------------------------------------------------------------------

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        """Check a model's table, or create it with typed columns.

        Raises:
            SchemaMismatch: it is missing, lacks columns, or has what can't work; the message says
                what to run.
            Unavailable: the backend failed.
        """
        self._tables.pop(schema.model, None)
        definitions = self._definitions(schema)
        found = await self._found([*definitions])
        missing = {name: text for name, text in definitions.items() if name not in found}
        for name, text in missing.items():
            if not create:
                raise layout.no_table(self._name, schema.model, name, text)
        if missing:
            await self._create(schema, missing)
            found = await self._found([*definitions])
        self._tables[schema.model] = await self._fit(schema, found[schema.table])

    def _table(self, model: str) -> R:
        table = self._tables.get(model)
        if table is None:
            raise SchemaMismatch(
                f"{self._name}: model {model} was not prepared, or its table did not fit", backend=self._name
            )
        return table

    # -- reading ---------------------------------------------------------------------------------

    async def read(self, keys: Sequence[Key]) -> Sequence[Answer]:
        """Look up keys, one statement for each model; tombstones are not looked for."""
        asked: dict[R, list[object]] = {}
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
        asked: dict[R, list[str]] = {}
        for key in keys:
            with contextlib.suppress(InvalidRecord):  # no record can have such an id
                table = self._table(key.model)
                table.id_of(key)
                asked.setdefault(table, []).append(key.id)
        parts = [(table, part) for table, ids in asked.items() for part in split(ids)]
        results = await self._select([self._burials(table, part) for table, part in parts]) if parts else ()
        graves = (_grave(table, row) for (table, _), rows in zip(parts, results, strict=True) for row in rows)
        return {grave.key: grave for grave in graves}

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
        self, table: R, after: str, batch: int, beyond: Key | None
    ) -> AsyncIterator[Record]:
        last = None if beyond is None else table.id_of(beyond)
        while True:
            (rows,) = await self._select([self._page(table, after, last, batch)])
            for row in rows:
                yield table.record(row)
            if len(rows) < batch:
                return
            last = rows[-1][0]

    async def _scan_tombstones(
        self, table: R, after: str, batch: int, beyond: Key | None
    ) -> AsyncIterator[Record]:
        last = "" if beyond is None else beyond.id
        while True:
            (rows,) = await self._select([self._burial_page(table, after, last, batch)])
            graves = [_grave(table, row) for row in rows]
            # A key that was created again has an older tombstone still.
            living = await self.read([grave.key for grave in graves])
            for grave, alive in zip(graves, living, strict=True):
                if alive is None:
                    yield grave
            if len(rows) < batch:
                return
            last = graves[-1].key.id


def split(items: Sequence[T], size: int = KEYS_PER_STATEMENT) -> Iterator[Sequence[T]]:
    """Parts of at most ``size`` items."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _grave(table: Rows, row: Row) -> Record:
    id_ = row[0].decode(errors="replace") if isinstance(row[0], bytes) else row[0]
    return Record(Key(table.model, id_), row[1], row[2], None)
