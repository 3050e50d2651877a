"""Adapters that write their statements down: what they ask, as texts with the values to bind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from octopus_async.adapters._sql import layout
from octopus_async.adapters._sql.base import SQLAdapter
from octopus_async.adapters._sql.dialect import SIDE, VERSION, Dialect
from octopus_async.adapters._sql.table import Table
from octopus_async.backend import Capabilities
from octopus_async.record import NO_VERSION, Fields, Kind, Mode, Operation
from octopus_async.schema import Schema

F = TypeVar("F")
_BURIED = f"SELECT id, version, born FROM {SIDE} WHERE deleted = 1 AND model = "


class Query(NamedTuple):
    """A statement, and the values that it binds."""

    sql: str
    values: Sequence[object]


class TextAdapter(SQLAdapter[Table, Query, F], Generic[F]):
    """Over a driver that takes texts.

    Parameters:
        name: the name by which strategies call it.
        capabilities: what it can do.
        dialect: how statements are written there.
    """

    def __init__(self, name: str, capabilities: Capabilities, dialect: Dialect) -> None:
        super().__init__(name, capabilities)
        self._dialect = dialect

    def _definitions(self, schema: Schema) -> Mapping[str, str]:
        return {SIDE: self._dialect.side, schema.table: layout.create_table(schema, self._dialect)}

    def _reading(self, table: Table, ids: Sequence[object]) -> Query:
        return Query(f"{table.read}({self._marks(ids)})", (*table.leading(), *ids))

    def _burials(self, table: Table, ids: Sequence[str]) -> Query:
        return Query(f"{_BURIED}{self._dialect.mark} AND id IN ({self._marks(ids)})", (table.model, *ids))

    def _page(self, table: Table, after: str, last: object | None, limit: int) -> Query:
        mark = self._dialect.mark
        conditions: dict[str, object] = {f"{table.version} > {mark}": after} if after else {}
        if last is not None:
            conditions[f"{table.id} > {mark}"] = last
        where = " AND ".join(conditions) or "1 = 1"
        sql = f"{table.page}{where} ORDER BY {table.id} LIMIT {limit:d}"
        return Query(sql, (*table.leading(), *conditions.values()))

    def _burial_page(self, table: Table, after: str, last: str, limit: int) -> Query:
        mark = self._dialect.mark
        sql = f"{_BURIED}{mark} AND version > {mark} AND id > {mark} ORDER BY id LIMIT {limit:d}"
        return Query(sql, (table.model, after, last))

    def _marks(self, values: Sequence[object]) -> str:
        return ", ".join([self._dialect.mark] * len(values))

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
