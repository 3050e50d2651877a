# mypy: disable-error-code="no-untyped-call, assignment"
"""The statements that SQLAlchemy writes for databases of which no server is at hand, as they were read.

OCTOPUS_WRITE_GOLDEN=1 writes the files anew: read what has changed in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mssql, oracle
from sqlalchemy.schema import CreateTable

from octopus_async.adapters import _sqlalchemy_tables as core
from octopus_async.adapters._sqlalchemy_tables import CoreTable
from octopus_async.record import Key
from octopus_async.testing.operations import ALL_TYPES, Author, fields_of

FOLDER = Path(__file__).with_name("golden")


def sql_server() -> sa.Dialect:
    """As it is once connected to SQL Server 2019."""
    dialect = mssql.dialect(deprecate_large_types=True)
    dialect.server_version_info = (15, 0, 2000)
    dialect._setup_version_attributes()
    return dialect


DIALECTS: dict[str, sa.Dialect] = {"mssql": sql_server(), "oracle": oracle.dialect()}


def statements(dialect: str) -> Iterator[tuple[str, sa.Executable]]:
    yield "create the side table", CreateTable(core.side)
    yield "create a table", CreateTable(core.table_of(ALL_TYPES, dialect))
    yield "take locks", core.LOCK
    yield "which locks are there", core.LOCKS_THERE
    yield "what the side table has", core.SIDE_STATES
    yield "tombstones", core.BURIALS
    yield "a page of tombstones", core.BURIAL_PAGE
    for kind, versioned in (("ours", True), ("mapped", False)):
        table = CoreTable(ALL_TYPES, dialect, versioned=versioned, exact=True)
        yield f"read, {kind}", table.read
        yield f"what is stored, {kind}", table.states
        yield f"a page, {kind}", table.page("0", "1", 2).core
        yield f"insert, {kind}", table._insert
        yield f"update, {kind}", table._update
        yield f"delete, {kind}", table._delete
    author = Author()
    update = author.update(Key(ALL_TYPES.model, "1"), fields_of(), born="0")
    table = CoreTable(ALL_TYPES, dialect, versioned=True, exact=True)
    alone = table.update_alone(update.key, update.fields or {}, update.version, update.born, "0")
    yield "update alone", alone.core
    for number, statement in enumerate(core.side_writes([("model", "id", "version", "born", True)])):
        yield f"side write {number}", statement.core
    yield "probe", core.PROBE
    yield "first probe", core.PROBE_FIRST


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_statements_are_those_that_were_read(dialect: str) -> None:
    parts = []
    for title, statement in statements(dialect):
        text = str(statement.compile(dialect=DIALECTS[dialect]))  # type: ignore[attr-defined]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        parts.append(f"-- {title}\n" + "\n".join(lines) + "\n")
    written = "\n".join(parts)
    path = FOLDER / f"{dialect}.sql"
    if os.environ.get("OCTOPUS_WRITE_GOLDEN"):
        path.write_text(written, encoding="utf-8")
    assert written == path.read_text(encoding="utf-8")
