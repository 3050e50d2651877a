"""A model's table as it is: the texts of its statements, written once."""

from __future__ import annotations

from collections.abc import Sequence

from octopus_async.adapters._sql.dialect import BORN, SIDE, VERSION, Dialect
from octopus_async.adapters._sql.rows import Rows
from octopus_async.schema import Schema


class Table(Rows):
    """One model's table in one database.

    Parameters:
        schema: how the model is stored.
        dialect: how statements are written there.
        versioned: whether it has our columns; otherwise its versions live in the side table.
        exact: whether its id column tells apart any two ids; otherwise each condition says so.
        plain: whether it is as we create it, so that an insert over a row can do nothing unexpected.

    Attributes:
        read: selects rows for `record`, to be followed by a list of ids.
        page: the same, to be followed by further conditions, order and limit.
        states: selects id, version and born; to be followed by a list of ids.
        insert: up to and without the row, which is `row`.
        create: inserts one row unless a tombstone is as new.
        update: sets everything, born to the later one, and ends with the condition on the id.
        delete: ends with the condition on the id.
        overwrite: what follows the rows of an insert that is to change the rows that are there.
    """

    def __init__(
        self, schema: Schema, dialect: Dialect, *, versioned: bool, exact: bool = True, plain: bool = False
    ) -> None:
        super().__init__(schema, dialect.codecs, versioned=versioned)
        self.plain = plain
        self._write_statements(dialect, exact=exact)

    def _write_statements(self, dialect: Dialect, *, exact: bool) -> None:
        quote, mark = dialect.quote, dialect.mark
        table, id_ = quote(self.schema.table), quote(self.schema.id_column)
        fields = [quote(column.name) for column in self.schema.columns]
        ours = [quote(VERSION), quote(BORN)] if self.versioned else []
        own = [*fields, *ours]
        as_text = dialect.text_of.format(f"m.{id_}")
        self.id = f"m.{id_}"
        self.version = f"m.{ours[0]}" if ours else "s.version"
        self._joins_side = not ours
        born = f"m.{ours[1]}" if ours else "CASE WHEN s.deleted = 1 THEN NULL ELSE s.born END"
        side = "" if ours else f" LEFT JOIN {SIDE} s ON s.model = {mark} AND s.id = {as_text}"
        columns = "".join(f", m.{name}" for name in fields)
        self.page = f"SELECT {self.id}{columns}, {self.version}, {born} FROM {table} m{side} WHERE "
        self.read = f"{self.page}{self.id} IN "
        self.states = f"SELECT {id_}, {', '.join(ours) or 'NULL, NULL'} FROM {table} WHERE {id_} IN "
        self.insert = f"INSERT INTO {table} ({', '.join([id_, *own])}) VALUES "
        self.row = ", ".join([mark] * (len(own) + 1))
        self.create = f"INSERT INTO {table} ({', '.join([id_, *own])}) SELECT {self.row}{dialect.unless_dead}"
        self._set_statements(dialect, table, id_, own, exact=exact)

    def _set_statements(self, dialect: Dialect, table: str, id_: str, own: list[str], *, exact: bool) -> None:
        mark, exactly = dialect.mark, "" if exact else f" AND {dialect.exactly.format(id_)}"
        self._marks_per_id = 1 if exact else 2
        where = f" WHERE {id_} = {mark}{exactly}"
        set_ = [f"{name} = {mark}" for name in own] or [f"{id_} = {id_}"]
        if self.versioned:
            set_[-1] = f"{own[-1]} = {dialect.later.format(own[-1])}"
        self.update = f"UPDATE {table} SET {', '.join(set_)}{where}"
        self.delete = f"DELETE FROM {table}{where}"
        self.overwrite = dialect.overwrite(id_, own)

    def leading(self) -> tuple[object, ...]:
        """The values that `read` and `page` bind before all others."""
        return (self.model,) if self._joins_side else ()

    def condition(self, id_: object) -> tuple[object, ...]:
        """The values that the condition of `update` and `delete` binds."""
        return (id_,) * self._marks_per_id

    def update_values(self, row: Sequence[object]) -> tuple[object, ...]:
        """The values that `update` binds for a row that begins with its id."""
        return (*row[1:], *self.condition(row[0]))
