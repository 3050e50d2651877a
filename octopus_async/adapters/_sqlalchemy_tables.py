"""A model's table and the side table in SQLAlchemy Core: the statements, each built once.

How writers of one key contend: the side table has a fixed number of lock rows, and each key has one of
them. Whoever creates, deletes, replays or writes a batch locks the rows of its keys, in their order,
in a statement of its own; then it looks at what is stored, and writes. A live update of one record is
one statement that changes a row which is older, and so needs no lock: whoever has looked at that row
in order to write it holds the row itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from octopus_async.adapters._sql.batch import Change, Writes, side_rows_of, writes_of
from octopus_async.adapters._sql.dialect import BORN, SIDE, VERSION
from octopus_async.adapters._sql.rows import Rows
from octopus_async.adapters._sqlalchemy_types import MYSQL, Exact, codecs_of, id_type, type_of
from octopus_async.errors import InvalidRecord
from octopus_async.record import Fields, Key
from octopus_async.schema import Schema, Type

_MODEL_LENGTH, _VERSION_LENGTH = 255, 26
_UPDATE_LOCK = "WITH (UPDLOCK, ROWLOCK)"  # SQL Server's FOR UPDATE

METADATA = sa.MetaData()
side = sa.Table(
    SIDE,
    METADATA,
    sa.Column("model", Exact(_MODEL_LENGTH), nullable=False),
    sa.Column("id", Exact(), nullable=False),
    sa.Column("version", Exact(_VERSION_LENGTH, ascii_only=True), nullable=False),
    sa.Column("born", Exact(_VERSION_LENGTH, ascii_only=True), nullable=False),
    sa.Column("deleted", sa.SmallInteger, nullable=False),
    sa.PrimaryKeyConstraint("model", "id", mssql_clustered=False),  # longer than a clustered key may be
    mysql_engine="InnoDB",
    mariadb_engine="InnoDB",
)


class Statement(NamedTuple):
    """A statement, and the values that it binds; a list of them for many rows."""

    core: sa.Executable
    values: Any = None


def _ids(name: str = "ids") -> sa.BindParameter[Any]:
    return sa.bindparam(name, expanding=True)


def _for_update(select: Any, table: sa.Table) -> sa.Select[Any]:  # noqa: ANN401 - of any columns
    locking: sa.Select[Any] = select.with_for_update().with_hint(table, _UPDATE_LOCK, "mssql")
    return locking


LOCK = _for_update(
    sa.select(side.c.id).where(side.c.model == "", side.c.id.in_(_ids())).order_by(side.c.id), side
)
"""Takes lock rows, in the order of their ids."""
TOUCH = sa.update(side).where(side.c.model == "", side.c.id == sa.bindparam("lock")).values(deleted=1)
"""Takes the lock of SQLite, which is one for the whole file, before anything is read."""
LOCKS_THERE = sa.select(side.c.id).where(side.c.model == "")
SIDE_STATES = sa.select(side.c.id, side.c.version, side.c.born, side.c.deleted).where(
    side.c.model == sa.bindparam("model"), side.c.id.in_(_ids())
)
BURIED = sa.select(side.c.id, side.c.version, side.c.born).where(
    side.c.model == sa.bindparam("model"), side.c.deleted == 1
)
BURIALS = BURIED.where(side.c.id.in_(_ids()))
BURIAL_PAGE = (
    BURIED.where(side.c.version > sa.bindparam("after"), side.c.id > sa.bindparam("last"))
    .order_by(side.c.id)
    .limit(sa.bindparam("limit"))
)
PROBE = sa.update(side).where(side.c.model == "", side.c.id == "probe").values(version=sa.bindparam("mark"))
PROBE_FIRST = sa.insert(side).values(model="", id="probe", version=sa.bindparam("mark"), born="", deleted=0)
DEFINITION = sa.text("SELECT sql FROM sqlite_master WHERE name = :name COLLATE NOCASE")
_SIDE_DELETE = sa.delete(side).where(side.c.model == sa.bindparam("m"), side.c.id == sa.bindparam("i"))
_SIDE_INSERT = sa.insert(side)


def side_writes(rows: Sequence[Sequence[Any]]) -> list[Statement]:
    """What puts rows into the side table: model, id, version, born, deleted."""
    if not rows:
        return []
    names = ("model", "id", "version", "born", "deleted")
    inserts = [{**dict(zip(names, row, strict=True)), "deleted": int(row[4])} for row in rows]
    # Their locks are held, so that this does what each kind of database has an own word for.
    return [
        Statement(_SIDE_DELETE, [{"m": row[0], "i": row[1]} for row in rows]),
        Statement(_SIDE_INSERT, inserts),
    ]


class CoreTable(Rows):
    """One model's table in one database.

    Parameters:
        schema: how the model is stored.
        dialect: the kind of database.
        versioned: whether it has our columns; otherwise its versions live in the side table.
        exact: whether its id column tells apart any two ids.

    Attributes:
        table: the columns; their keys are of our own, whatever they are called.
        read: the records of ids.
        states: id, version and born of ids, under lock.
    """

    def __init__(self, schema: Schema, dialect: str, *, versioned: bool, exact: bool) -> None:
        super().__init__(schema, codecs_of(dialect), versioned=versioned)
        self.exact = exact
        self.table = table_of(schema, dialect, versioned=versioned)
        self._no_nul = dialect in ("postgresql", "cockroachdb")
        self._write_statements(dialect)

    def _write_statements(self, dialect: str) -> None:
        c = self.table.c
        version: sa.ColumnElement[Any]
        born: sa.ColumnElement[Any]
        source: sa.FromClause = self.table
        fields = [c[_field(number)] for number in range(len(self.schema.columns))]
        self._names = [column.key for column in (c.id, *fields)]
        if self.versioned:
            self._names += ["version", "born"]
            version, born = c.version, c.born
        else:
            version = side.c.version
            born = sa.case((side.c.deleted == 1, None), else_=side.c.born)
            source = self.table.outerjoin(
                side, sa.and_(side.c.model == self.model, side.c.id == _as_key(c.id, dialect))
            )
        self._records = sa.select(c.id, *fields, version, born).select_from(source)
        self._version = version
        self.read = self._records.where(c.id.in_(_ids()))
        stamp = (c.version, c.born) if self.versioned else (sa.null(), sa.null())
        self.states = _for_update(sa.select(c.id, *stamp).where(c.id.in_(_ids())), self.table)
        self._insert = sa.insert(self.table)
        self._delete = sa.delete(self.table).where(c.id == sa.bindparam("key"))
        set_: dict[str, Any] = {name: sa.bindparam(f"to_{name}") for name in self._names[1:]} or {"id": c.id}
        self._update = sa.update(self.table).where(c.id == sa.bindparam("key")).values(set_)
        if self.versioned:
            given = sa.bindparam("to_born", type_=c.born.type)
            later = sa.case((sa.or_(given.is_(None), c.born > given), c.born), else_=given)
            self._update = self._update.values({**set_, "born": later})

    def page(self, after: str, last: object | None, limit: int) -> Statement:
        """The next records of versions above ``after``, in the order of ids, behind the id ``last``."""
        select = self._records.order_by(self.table.c.id).limit(sa.bindparam("limit"))
        values: dict[str, object] = {"limit": limit}
        if after:
            select = select.where(self._version > sa.bindparam("after"))
            values["after"] = after
        if last is not None:
            select = select.where(self.table.c.id > sa.bindparam("last"))
            values["last"] = last
        return Statement(select, values)

    def update_alone(
        self, key: Key, fields: Fields, version: str, born: str, if_version: str | None
    ) -> Statement:
        """The statement that updates a record which is older, and is the one expected; or has no effect."""
        c = self.table.c
        row = (self.id_of(key), *self.values(fields), version, born or None)
        older = sa.or_(c.version.is_(None), c.version < sa.bindparam("before"))
        update = self._update.where(older)
        values = {**self._updated(row), "before": version}
        if if_version is not None:
            update = update.where(c.version == sa.bindparam("expected"))
            values["expected"] = if_version
        return Statement(update, values)

    def written(self, part: Writes[CoreTable]) -> list[Statement]:
        """What writes the changes of this table."""
        statements: list[Statement] = []
        if part.deletes:
            statements.append(Statement(self._delete, [{"key": id_} for id_ in part.deletes]))
        if part.updates:
            statements.append(Statement(self._update, [self._updated(row) for row in part.updates]))
        if part.inserts:
            rows = [dict(zip(self._names, row, strict=True)) for row in part.inserts]
            statements.append(Statement(self._insert, rows))
        return statements

    def _updated(self, row: Sequence[object]) -> dict[str, object]:
        named = zip(self._names[1:], row[1:], strict=True)
        return {"key": row[0], **{f"to_{name}": value for name, value in named}}

    def id_of(self, key: Key) -> object:
        """The value of the id's column. Raises `InvalidRecord` if the key can't have one."""
        id_ = super().id_of(key)
        if self._no_nul and "\0" in key.id:
            raise InvalidRecord(f"{key.model}: an id holds a NUL")
        return id_


def writes(changes: Sequence[Change[CoreTable]]) -> list[Statement]:
    """What writes changes, whose locks are held."""
    statements: list[Statement] = []
    for part in writes_of(changes):
        statements += part.table.written(part)
    return statements + side_writes(side_rows_of(changes))


def table_of(schema: Schema, dialect: str, *, versioned: bool = True) -> sa.Table:
    """The columns of a model's table, with ours."""
    stamp = Exact(_VERSION_LENGTH, ascii_only=True)
    ours = {VERSION: "version", BORN: "born"} if versioned else {}
    columns = [
        sa.Column(column.name, type_of(column, dialect), key=_field(number), nullable=column.nullable)
        for number, column in enumerate(schema.columns)
    ]
    id_ = sa.Column(
        schema.id_column,
        id_type(schema.id_type, dialect),
        key="id",
        nullable=False,
        autoincrement=False,
    )
    return sa.Table(
        schema.table,
        sa.MetaData(),
        id_,
        *columns,
        *(sa.Column(name, stamp, key=key) for name, key in ours.items()),
        sa.PrimaryKeyConstraint("id", mssql_clustered=schema.id_type is not Type.TEXT),
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )


def _field(number: int) -> str:
    return f"field_{number}"


def _as_key(id_: sa.ColumnElement[Any], dialect: str) -> sa.ColumnElement[Any]:
    """A column of any type, so that it compares with the ids of the side table."""
    if dialect in MYSQL:
        return sa.cast(id_, mysql.CHAR(charset="utf8mb4"))
    if dialect == "mssql":
        as_utf8 = sa.cast(id_, sa.String(1024)).collate("Latin1_General_100_BIN2_UTF8")
        return sa.cast(as_utf8, sa.VARBINARY(1024))
    return sa.cast(id_, sa.String(1024))
