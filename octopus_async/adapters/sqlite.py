"""Records in a SQLite file, through aiosqlite: one connection that writes, and others that read.

A batch is one transaction, from BEGIN IMMEDIATE to COMMIT in one call on the writer's thread. That
keeps every other writer out, so that nothing else has to contend for a key.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, Self, TypeVar

from octopus_async.adapters._sql import layout
from octopus_async.adapters._sql.base import split
from octopus_async.adapters._sql.batch import Batch, Change, side_rows_of, writes_of
from octopus_async.adapters._sql.dialect import SIDE
from octopus_async.adapters._sql.rows import Row
from octopus_async.adapters._sql.table import Table
from octopus_async.adapters._sql.text import Query, TextAdapter
from octopus_async.adapters._sqlite_dialect import SQLITE
from octopus_async.adapters._sqlite_errors import DRIVER_ERRORS, translate
from octopus_async.adapters._sqlite_lanes import Function, Job, Lanes
from octopus_async.backend import Capabilities
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    ConfigurationError,
    InvalidRecord,
    OctopusError,
    RecordRejected,
)
from octopus_async.record import APPLIED, Mode, Operation, Outcome, rejected
from octopus_async.schema import Schema
from octopus_async.url import BackendURL

T = TypeVar("T")

_CLOSE_SECONDS = 1.0
_SIDE_STATES = f"SELECT id, version, born, deleted FROM {SIDE} WHERE model = ? AND id IN "
_SIDE_WRITE = (
    f"INSERT INTO {SIDE} (model, id, version, born, deleted) VALUES (?, ?, ?, ?, ?)"
    + SQLITE.overwrite("model, id", ("version", "born", "deleted"))
)


class Found(NamedTuple):
    """A table that exists: its columns, and whether its texts compare exactly."""

    columns: list[str]
    exact: bool


class SQLiteAdapter(TextAdapter[Found]):
    """A SQLite database in a file, which any number of processes may share.

    Parameters:
        path: the file; its folder has to exist.
        name: the name by which strategies call it.
        readers: connections that read; they run beside the writer.
        synchronous: FULL makes each commit survive a power cut; NORMAL lets a power cut forget
            the last ones, and is several times faster.
        busy_timeout: seconds to wait for a lock that another process holds.
        timeout: seconds that connecting may take.

    Raises:
        ConfigurationError: a parameter makes no sense.
    """

    def __init__(  # noqa: PLR0913 - options, by keyword
        self,
        path: str,
        *,
        name: str = "sqlite",
        readers: int = 4,
        synchronous: str = "FULL",
        busy_timeout: float = 0.5,
        timeout: float = 5.0,
    ) -> None:
        if not path or path == ":memory:" or path.startswith("file:"):
            raise ConfigurationError(f"{name}: needs the path of a file: its connections share no memory")
        if synchronous not in ("FULL", "NORMAL"):
            raise ConfigurationError(f"{name}: synchronous is FULL or NORMAL, not {synchronous[:40]!r}")
        capabilities = Capabilities(durable=True, transactional=True, read_concurrency=readers, scan=True)
        super().__init__(name, capabilities, SQLITE)
        self._path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._timeout = timeout
        self._closings: set[asyncio.Future[None]] = set()
        self._writer: Lanes | None = None
        self._readers: Lanes | None = None

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "sqlite") -> Self:
        """Make one of ``sqlite:///shop.db?synchronous=NORMAL``. Raises `ConfigurationError`.

        A fourth slash begins an absolute path.
        """
        url.check_options("readers", "synchronous", "busy_timeout", "timeout")
        if url.hosts or url.user:
            raise ConfigurationError(
                f"{url}: a file has no host: write sqlite:///shop.db, with three slashes"
            )
        return cls(
            url.path,
            name=name,
            readers=url.integer("readers", 4),
            synchronous=url.choice("synchronous", "FULL", "FULL", "NORMAL"),
            busy_timeout=url.number("busy_timeout", 0.5),
            timeout=url.number("timeout", 5.0),
        )

    # -- opening and closing ---------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and create the file if it is not there. Raises `Unavailable`."""
        if self._writer is not None:
            return
        self._writer = Lanes(self._path, self._set_up_writer, 1)
        self._readers = Lanes(self._path, _set_up_reader, self.capabilities.read_concurrency)
        try:
            async with asyncio.timeout(self._timeout):
                await self._connect()
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise translate(error, self.name, sent=False) from error
            raise

    async def _connect(self) -> None:
        try:
            await self._write(lambda _raw, _job: None)
        except (BackendFailed, BackendRefused):
            await self.ping()  # what can't be written may be readable

    async def close(self) -> None:
        """Give up what is running and close all connections, within a few seconds.

        A cancelled caller stops waiting, and nothing else: a connection that is left open is a thread.
        """
        lanes = [lanes for lanes in (self._writer, self._readers) if lanes is not None]
        self._writer = self._readers = None
        for lane in lanes:
            closing = asyncio.ensure_future(lane.close(_CLOSE_SECONDS))
            self._closings.add(closing)
            closing.add_done_callback(self._closings.discard)
        await asyncio.shield(asyncio.gather(*self._closings))

    def _set_up_writer(self, raw: sqlite3.Connection, job: Job) -> None:
        # In another journal mode readers would keep the writer out.
        job.patiently(lambda: raw.execute("PRAGMA journal_mode = WAL").fetchone(), self._busy_timeout)
        raw.execute(f"PRAGMA synchronous = {self._synchronous}")
        raw.execute("PRAGMA foreign_keys = ON")

    # -- models ----------------------------------------------------------------------------------

    async def _found(self, names: Sequence[str]) -> Mapping[str, Found]:
        return await self._read(lambda raw, _: _tables_of(raw, names))

    async def _create(self, schema: Schema, definitions: Mapping[str, str]) -> None:
        del schema  # the statements say it all
        await self._write(lambda raw, _: [raw.execute(text) for text in definitions.values()])

    async def _fit(self, schema: Schema, found: Found) -> Table:
        versioned = layout.check_columns(self.name, schema, SQLITE, found.columns)
        return Table(schema, SQLITE, versioned=versioned, exact=found.exact)

    # -- reading ---------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Read from the file. Raises `Unavailable`."""
        await self._select([Query("SELECT 1 FROM sqlite_master LIMIT 1", ())])

    async def _select(self, queries: Sequence[Query]) -> Sequence[Sequence[Row]]:
        return await self._read(lambda raw, _: [raw.execute(*query).fetchall() for query in queries])

    async def _read(self, function: Function[T]) -> T:
        def patiently(raw: sqlite3.Connection, job: Job) -> T:
            return job.patiently(lambda: function(raw, job), self._busy_timeout)

        return await self._run(self._readers, patiently)

    # -- writing ---------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Write the reserved row. Raises `Unavailable`."""
        row = ("", "probe", secrets.token_hex(13), "", False)  # changed each time: the same is not written
        await self._write(lambda raw, _: raw.execute(_SIDE_WRITE, row))

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply operations in one transaction. Raises `Unavailable`; then none of them was applied."""
        return await self._run(self._writer, lambda raw, job: self._apply(raw, job, operations, mode))

    async def apply_unit(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply all operations or none of them. Raises `Unavailable`."""
        return await self._run(self._writer, lambda raw, job: self._apply_unit(raw, job, operations, mode))

    def _apply_unit(
        self, raw: sqlite3.Connection, job: Job, operations: Sequence[Operation], mode: Mode
    ) -> list[Outcome]:
        # First all together, as one may free a value that another takes; then one by one, to say who it is.
        try:
            return self._attempt(raw, job, Batch(operations, self._table, mode, whole=True), singly=False)
        except RecordRejected:
            pass
        try:
            return self._attempt(raw, job, Batch(operations, self._table, mode, whole=True), singly=True)
        except RecordRejected as error:  # by what is checked at the commit alone
            return [rejected(error) for _ in operations]

    def _apply(
        self, raw: sqlite3.Connection, job: Job, operations: Sequence[Operation], mode: Mode
    ) -> list[Outcome]:
        alone = len(operations) == 1
        try:
            if alone and self._apply_alone(raw, job, operations[0], mode):
                return [APPLIED]
            return self._attempt(raw, job, Batch(operations, self._table, mode), singly=alone)
        except RecordRejected as error:
            # A single one is refused like this by what is checked at its commit alone.
            if alone:
                return [rejected(error)]
        try:
            return self._attempt(raw, job, Batch(operations, self._table, mode), singly=True)
        except RecordRejected:
            return [self._apply(raw, job, [operation], mode)[0] for operation in operations]

    def _apply_alone(self, raw: sqlite3.Connection, job: Job, operation: Operation, mode: Mode) -> bool:
        """Try the one statement; if it has no effect the transaction finds out why."""
        try:
            query = self._alone(operation, mode)
            if query is None:
                return False
            job.committing = True
            return job.patiently(lambda: raw.execute(*query), self._busy_timeout).rowcount == 1
        except InvalidRecord:
            return False
        except DRIVER_ERRORS as error:
            if isinstance(translate(error, self.name, sent=True), RecordRejected):
                return False
            raise

    def _attempt(
        self, raw: sqlite3.Connection, job: Job, batch: Batch[Table], *, singly: bool
    ) -> list[Outcome]:
        with suppress(_WithheldError), self._transaction(raw, job):
            for table, keys in batch.keys.items():
                _load(raw, batch, table, list(keys.values()))
            for indices in batch.rounds:
                changes = batch.decide(indices)
                for part in ([change] for change in changes) if singly else (changes,):
                    self._settle(raw, batch, part, singly=singly)
            if batch.withholds:
                raise _WithheldError
        return batch.outcomes

    def _settle(
        self, raw: sqlite3.Connection, batch: Batch[Table], changes: Sequence[Change[Table]], *, singly: bool
    ) -> None:
        try:
            _write(raw, changes)
        except DRIVER_ERRORS as error:
            fault = translate(error, self.name, sent=False)
            if not singly or not isinstance(fault, RecordRejected):
                raise
            batch.refuse(changes[0], fault)
        else:
            batch.applied(changes)

    async def _write(self, function: Function[T]) -> T:
        def in_transaction(raw: sqlite3.Connection, job: Job) -> T:
            with self._transaction(raw, job):
                return function(raw, job)

        return await self._run(self._writer, in_transaction)

    @contextmanager
    def _transaction(self, raw: sqlite3.Connection, job: Job) -> Generator[None]:
        job.committing = False
        job.patiently(lambda: raw.execute("BEGIN IMMEDIATE"), self._busy_timeout)
        try:
            yield
            job.committing = True
            job.patiently(lambda: raw.execute("COMMIT"), self._busy_timeout)
        except BaseException as error:
            if raw.in_transaction:
                raw.rollback()
            if isinstance(error, DRIVER_ERRORS):
                fault = translate(error, self.name, sent=False)
                if isinstance(fault, RecordRejected):
                    raise fault from error
            raise

    async def _run(self, lanes: Lanes | None, function: Function[T]) -> T:
        if lanes is None:
            raise BackendRefused(f"{self.name} is not open", backend=self.name)
        job = Job()
        try:
            return await lanes.run(function, job)
        except OctopusError:
            raise
        except Exception as error:
            raise translate(error, self.name, sent=job.committing) from error


class _WithheldError(Exception):
    """Ends a transaction of which nothing is to be kept."""


def _set_up_reader(raw: sqlite3.Connection, _: Job) -> None:
    raw.execute("PRAGMA query_only = ON")


def _tables_of(raw: sqlite3.Connection, names: Sequence[str]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for name in names:
        sql = raw.execute("SELECT sql FROM sqlite_master WHERE name = ? COLLATE NOCASE", (name,)).fetchone()
        if sql is not None:
            columns = raw.execute("SELECT name FROM pragma_table_xinfo(?)", (name,)).fetchall()
            found[name] = Found([column for (column,) in columns], "COLLATE" not in (sql[0] or "").upper())
    return found


def _load(raw: sqlite3.Connection, batch: Batch[Table], table: Table, ids: Sequence[object]) -> None:
    rows: list[Row] = []
    side_rows: list[Row] = []
    for part in split(ids):
        marks = f"({', '.join('?' * len(part))})"
        rows += raw.execute(table.states + marks, part).fetchall()
        side_rows += raw.execute(_SIDE_STATES + marks, (table.model, *map(str, part))).fetchall()
    batch.load(table, rows, side_rows)


def _write(raw: sqlite3.Connection, changes: Sequence[Change[Table]]) -> None:
    for writes in writes_of(changes):
        table = writes.table
        if writes.deletes:
            raw.executemany(table.delete, map(table.condition, writes.deletes))
        if writes.updates:
            raw.executemany(table.update, map(table.update_values, writes.updates))
        if writes.inserts:
            raw.executemany(f"{table.insert}({table.row})", writes.inserts)
    if side_rows := side_rows_of(changes):
        raw.executemany(_SIDE_WRITE, side_rows)
