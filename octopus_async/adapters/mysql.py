"""Records in MySQL or MariaDB, through aiomysql or asyncmy.

A live create or update of a table with our columns is one statement. Everything else, and every
batch, is a transaction of two exchanges: one takes the locks and looks at what is stored, the other
writes and commits. `octopus_async.adapters._mysql_statements` says how writers of one key contend.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import chain
from types import ModuleType
from typing import NamedTuple, Self

from octopus_async.adapters import _mysql_statements as sql
from octopus_async.adapters._mysql_dialect import MYSQL, OURS
from octopus_async.adapters._mysql_errors import NO_SUCH_TABLE
from octopus_async.adapters._mysql_session import Session
from octopus_async.adapters._sql import layout, tls
from octopus_async.adapters._sql.batch import Batch
from octopus_async.adapters._sql.dialect import SIDE
from octopus_async.adapters._sql.locks import LOCKS, name_of
from octopus_async.adapters._sql.rows import Row
from octopus_async.adapters._sql.server import Address, ServerAdapter
from octopus_async.adapters._sql.table import Table
from octopus_async.adapters._sql.text import Query
from octopus_async.errors import ConfigurationError, OctopusError, RecordRejected, SchemaMismatch
from octopus_async.record import Operation
from octopus_async.schema import Schema, Type
from octopus_async.url import BackendURL

_DRIVERS = ("aiomysql", "asyncmy")
_NO_TRANSACTIONS = {"ARCHIVE", "ARIA", "CSV", "MEMORY", "MRG_MYISAM", "MYISAM"}


class Found(NamedTuple):
    """A table that exists: its columns with their types, its engine, whether it was made by us."""

    columns: dict[str, str]
    engine: str
    ours: bool


class MySQLAdapter(ServerAdapter[Found, Session]):
    """A database of a MySQL or MariaDB server, with InnoDB tables.

    Parameters:
        host: the server's name or address.
        port: its TCP port.
        user: who logs in.
        password: never shown.
        database: the name of the database.
        name: the name by which strategies call it.
        connections: how many at most; half of them serve reads, half writes.
        timeout: seconds that connecting may take.
        tls: how to encrypt; None for not at all.
        driver: ``aiomysql``, or the faster ``asyncmy``.

    Raises:
        ConfigurationError: there is no such driver.
        ModuleNotFoundError: the driver is not installed.
    """

    default_port = 3306
    example = "mysql://app@db/shop"

    def __init__(  # noqa: PLR0913 - options, by keyword
        self,
        *,
        database: str,
        user: str,
        password: str = "",
        host: str = "localhost",
        port: int = 3306,
        name: str = "mysql",
        connections: int = 8,
        timeout: float = 2.0,
        tls: ssl.SSLContext | None = None,
        driver: str = "aiomysql",
    ) -> None:
        self._driver = _module_of(driver)
        address = Address(host, port, user, password, database, tls)
        super().__init__(name, MYSQL, address, connections=connections, timeout=timeout)

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "mysql") -> Self:
        """Make one of ``mysql://user:password@host:3306/database?connections=8&tls=verify``.

        The scheme ``mysql+asyncmy`` chooses that driver. Options: ``connections``, ``timeout``,
        ``tls`` (``off``, ``verify``, or ``insecure`` for a certificate that nobody checks), and files
        ``tls_ca``, ``tls_cert``, ``tls_key``.

        Raises `ConfigurationError`, or ModuleNotFoundError where the driver is not installed.
        """
        url.check_options("connections", "timeout", *tls.OPTIONS)
        driver = url.scheme.partition("+")[2] or "aiomysql"
        _module_of(driver)  # who lacks it is told so before anything else
        return cls(**cls._options(url), name=name, driver=driver)

    async def _connect(self) -> Session:
        session: Session = await self._driver.connect(self._address)
        return session

    def _translated(self, error: Exception, *, sent: bool) -> OctopusError:
        fault: OctopusError = self._driver.FAULTS.translate(error, self.name, sent=sent)
        return fault

    # -- models ----------------------------------------------------------------------------------

    async def _found(self, names: Sequence[str]) -> Mapping[str, Found]:
        async def look(session: Session) -> Mapping[str, Found]:
            tables = {name: await _look_at(session, name) for name in names}
            return {name: found for name, found in tables.items() if found is not None}

        return await self._run(look)

    async def _create(self, schema: Schema, definitions: Mapping[str, str]) -> None:
        del schema  # the statements say it all
        try:
            await self._run(lambda session: session.run([*definitions.values()]))
        except RecordRejected as error:  # so many columns that no row would fit
            raise SchemaMismatch(str(error), backend=self.name) from error

    async def _fit(self, schema: Schema, found: Found) -> Table:
        if found.engine.upper() in _NO_TRANSACTIONS:
            raise layout.no_transactions(self.name, schema, MYSQL, found.engine)
        await self._insistently(self._make_locks)
        return Table(
            schema,
            MYSQL,
            versioned=layout.check_columns(self.name, schema, MYSQL, found.columns),
            exact=schema.id_type is not Type.TEXT or "binary" in found.columns[schema.id_column.lower()],
            plain=found.ours and len(found.columns) == len(schema.columns) + 3,
        )

    async def _make_locks(self) -> None:
        ((rows, _),) = await self._run(lambda session: session.run([sql.COUNT_LOCKS]))
        if rows[0][0] != LOCKS:
            await self._run(lambda session: session.run(sql.MAKE_LOCKS))

    # -- reading and writing ---------------------------------------------------------------------

    async def _select(self, queries: Sequence[Query]) -> Sequence[Sequence[Row]]:
        statements = [self._written(query) for query in queries]
        results = await self._run(lambda session: session.run(statements))
        return [result.rows for result in results]

    def _unless_dead(self, operation: Operation) -> tuple[object, ...]:
        return (name_of(operation.key), *super()._unless_dead(operation))

    async def _load(self, connection: Session, batch: Batch[Table], *, exclusive: bool) -> None:
        keys = [key for keys in batch.keys.values() for key in keys]
        locking, expected = sql.lock(keys, exclusive=exclusive)
        statements = ["START TRANSACTION", locking if exclusive or batch.touches_absent else "SELECT NULL"]
        selects = {table: list(sql.states(table, list(keys.values()))) for table, keys in batch.keys.items()}
        for table_selects in selects.values():
            statements += table_selects
        _, (locks, _), *results = await connection.run(statements)
        if locks[0][0] not in (None, expected):
            message = f"{self.name}: the table {SIDE} lacks reserved rows, which preparing a model makes"
            raise SchemaMismatch(message, backend=self.name)
        for table, table_selects in selects.items():
            found = [result.rows for result in results[: len(table_selects)]]
            results = results[len(table_selects) :]
            batch.load(table, chain.from_iterable(found[::2]), chain.from_iterable(found[1::2]))


def _module_of(driver: str) -> ModuleType:
    if driver not in _DRIVERS:
        raise ConfigurationError(f"mysql: the driver is one of {', '.join(_DRIVERS)}, not {driver[:40]!r}")
    return import_module(f"octopus_async.adapters._mysql_{driver}")


async def _look_at(session: Session, name: str) -> Found | None:
    table = "`" + name.replace("`", "``") + "`"
    try:
        columns, made = await session.run([f"SHOW COLUMNS FROM {table}", f"SHOW CREATE TABLE {table}"])
    except Exception as error:
        if session.faults.code_of(error) != NO_SUCH_TABLE:
            raise
        return None
    text = made.rows[0][1]
    engine = re.search(r"\) ENGINE=(\w+)", text)
    types = {field.lower(): type_.lower() for field, type_, *_ in columns.rows}
    return Found(types, engine[1] if engine else "", f"COMMENT='{OURS}'" in text)
