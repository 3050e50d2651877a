"""Records in a SQLite file, each operation applied as `octopus_async.record.decide` says, in one step."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from octopus_async.cachevalue import decode_fields
from octopus_async.errors import ConstraintViolated
from octopus_async.record import (
    APPLIED,
    Key,
    Mode,
    Operation,
    Outcome,
    Record,
    Stored,
    born_after,
    decide,
    rejected,
)

_TABLES = """
    CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS records (
        model TEXT NOT NULL, id TEXT NOT NULL, version TEXT NOT NULL, born TEXT NOT NULL, fields BLOB,
        PRIMARY KEY (model, id)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS records_by_version ON records (model, version, id);
    CREATE TABLE IF NOT EXISTS probes (place INTEGER PRIMARY KEY, count INTEGER NOT NULL);
"""
_PROBE = "INSERT INTO probes VALUES (0, 1) ON CONFLICT (place) DO UPDATE SET count = count + 1"
_PAGE_BYTES = 4 * 1024**2


class Store:
    """Records, tombstones included, and the models that are known.

    Parameters:
        path: the SQLite file.
        check: raises `ConstraintViolated` for an operation that is to be refused.
        synchronous: SQLite's setting; with FULL what was applied outlives a power cut.
    """

    def __init__(
        self, path: str, check: Callable[[Operation], None] = lambda _: None, *, synchronous: str = "FULL"
    ) -> None:
        self._check = check
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute(f"PRAGMA synchronous = {synchronous}")
        self._database.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def knows(self, model: str) -> bool:
        """Whether a model was added."""
        return bool(self._rows("SELECT 1 FROM models WHERE name = ?", model))

    def add_model(self, model: str, document: bytes) -> None:
        """Take a model; or its new description."""
        self._database.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", (model, document))

    def probe(self) -> None:
        """Write something. Raises sqlite3.Error."""
        self._database.execute(_PROBE)

    def read(self, key: Key) -> Record | None:
        """A record or tombstone."""
        rows = self._rows(
            "SELECT id, version, born, fields FROM records WHERE model = ? AND id = ?", key.model, key.id
        )
        return _record(key.model, rows[0]) if rows else None

    def scan(self, model: str, after: str, limit: int, beyond: tuple[str, str]) -> list[Record]:
        """A page of a model's records, oldest first; shorter than ``limit`` where they are large."""
        rows = self._rows(
            "SELECT id, version, born, fields FROM records"
            " WHERE model = ? AND version >= ? AND version > ? AND (version, id) > (?, ?)"
            " ORDER BY version, id LIMIT ?",
            *(model, max(after, beyond[0]), after, *beyond, limit),
        )
        page: list[Record] = []
        room = _PAGE_BYTES
        for row in rows:
            page.append(_record(model, row))
            room -= len(row[3]) if isinstance(row[3], bytes) else 0
            if room < 0:
                break
        return page

    def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        """Apply operations, one after the other, in one transaction. Raises sqlite3.Error."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [self._apply(operation, mode) for operation in operations]
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")
        return outcomes

    def _apply(self, operation: Operation, mode: Mode) -> Outcome:
        record = self.read(operation.key)
        stored = None if record is None else Stored(record.version, record.born, record.fields is not None)
        outcome = decide(operation, stored, mode)
        if outcome is not None:
            return outcome
        try:
            self._check(operation)
        except ConstraintViolated as error:
            return rejected(error)
        self._database.execute(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)",
            (*operation.key, operation.version, born_after(operation, stored), operation.payload),
        )
        return APPLIED

    def _rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        return self._database.execute(query, values).fetchall()


def _record(model: str, row: Sequence[object]) -> Record:
    key_id, version, born, fields = row
    return Record(
        Key(model, str(key_id)),
        str(version),
        str(born),
        decode_fields(fields) if isinstance(fields, bytes) else None,
    )
