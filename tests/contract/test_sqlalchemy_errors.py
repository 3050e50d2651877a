"""Whatever SQLAlchemy or a driver below it raises becomes an error of our tree, without a secret."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import aiosqlite
import asyncmy.errors
import asyncpg
import pymysql.err
import pytest
import sqlalchemy as sa
from pymysql.constants import ER
from sqlalchemy import event, exc
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.ext.asyncio import exc as async_exc

from octopus_async.adapters._sql.codes import MSSQL_CODES, ORACLE_CODES
from octopus_async.adapters._sql.pool import ConnectFailed
from octopus_async.adapters._sqlalchemy_connection import ClosedMeanwhile
from octopus_async.adapters._sqlalchemy_errors import faults_of
from octopus_async.adapters.sqlalchemy import SQLAlchemyAdapter
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    ConstraintViolated,
    OctopusError,
    RecordRejected,
    SchemaMismatch,
    Unavailable,
)
from octopus_async.record import APPLIED, Mode, Outcome
from tests.contract.sql import BOOK, Books
from tests.contract.test_postgres_errors import classes, expected_of
from tests.contract.test_sql_errors import RECORD_CODES, SCHEMA_CODES, STRANGE

SECRET = "s3cret"  # noqa: S105 - of nobody
DIALECTS = ["sqlite", "mysql", "mariadb", "postgresql", "cockroachdb", "mssql", "oracle", "firebird"]
ENGINES = {
    "sqlite": "sqlite+aiosqlite://",
    "mysql": "mysql+aiomysql://app@db/shop",
    "postgresql": "postgresql+asyncpg://app@db/shop",
}


class FirebirdError(Exception):
    """Of a driver that nobody here has heard of."""


class ODBCError(Exception):
    """As pyodbc raises them: SQLSTATE and message."""


class OracleError(Exception):
    """As oracledb raises them: one object with a code."""


class OracleDetails:
    def __init__(self, code: int) -> None:
        self.code = code
        self.message = f"ORA-{code:05}: what the server says"


def exceptions_of(*modules: ModuleType) -> list[type[Exception]]:
    found = [found for module in modules for _, found in inspect.getmembers(module, inspect.isclass)]
    return [*dict.fromkeys(kind for kind in found if issubclass(kind, Exception))]


def made(kind: type[Exception]) -> Exception:
    """One of SQLAlchemy's, as it raises them itself, with the statement and the values in it."""
    statement, values = f"INSERT INTO books VALUES ('{SECRET}')", {"title": SECRET}
    if issubclass(kind, exc.DBAPIError):
        return kind(statement, values, FirebirdError("what the driver says"))
    if issubclass(kind, exc.StatementError):
        return kind("what it says", statement, values, ValueError(SECRET))
    arguments: dict[type[Exception], tuple[Any, ...]] = {
        exc.CircularDependencyError: (SECRET, set(), set()),
        exc.NoReferencedColumnError: (SECRET, "books", "title"),
        exc.NoReferencedTableError: (SECRET, "books"),
        exc.UnsupportedCompilationError: (sa.select(1).compile(), sa.Integer, SECRET),
    }
    ours = issubclass(kind, exc.SQLAlchemyError | Warning)
    return kind(*arguments.get(kind, (SECRET if ours else "what the driver says",)))


def translated(error: Exception, dialect: str, *, sent: bool = True) -> OctopusError:
    found = faults_of(dialect).translate(error, "shop", sent=sent)
    assert "shop" in str(found)
    assert SECRET not in str(found)
    return found


@cache
def dialect_of(name: str) -> Any:  # noqa: ANN401 - each has its own
    return create_async_engine(ENGINES[name]).dialect


def wrapped(error: Exception, name: str) -> Exception:
    """What SQLAlchemy raises when a driver has raised that."""
    dialect, statement = dialect_of(name), f"INSERT INTO books VALUES ('{SECRET}')"
    base = dialect.loaded_dbapi.Error
    found = exc.DBAPIError.instance(statement, {"title": SECRET}, error, base, dialect=dialect)
    assert isinstance(found, Exception)
    return found


def from_asyncpg(error: Exception) -> Exception:
    """What SQLAlchemy's layer over asyncpg makes of its errors, before it wraps them."""
    dbapi = dialect_of("postgresql").loaded_dbapi
    with pytest.raises(type(error).__mro__[-2]) as caught:  # Exception: it is another one, or the same
        AsyncAdapt_asyncpg_connection._handle_exception_no_connection(dbapi, error)
    assert isinstance(caught.value, Exception)
    return caught.value


class TestWhatSQLAlchemyRaises:
    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_every_class_of_its_own_has_its_place(self, dialect: str) -> None:
        found = exceptions_of(exc, async_exc)
        assert len(found) > 50
        believed = {exc.IntegrityError, exc.DataError} if dialect == "firebird" else set()
        for kind in found:
            error = translated(made(kind), dialect)
            assert type(error) is (ConstraintViolated if kind in believed else BackendFailed), kind
            if isinstance(error, Unavailable):
                assert error.backend == "shop"
                quiet = translated(made(kind), dialect, sent=False)
                assert isinstance(quiet, Unavailable)
                assert not quiet.sent

    @pytest.mark.parametrize("dialect", DIALECTS)
    @pytest.mark.parametrize("error", [*STRANGE, ClosedMeanwhile()], ids=lambda error: type(error).__name__)
    def test_what_is_neither_its_own_nor_a_drivers_is_a_failure(self, dialect: str, error: Exception) -> None:
        for raised in (error, exc.StatementError("what it says", SECRET, {"title": SECRET}, error)):
            found = translated(raised, dialect)
            assert type(found) is BackendFailed
            assert found.sent

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_a_connection_that_was_lost_is_no_answer_whatever_the_code(self, dialect: str) -> None:
        for origin in (pymysql.err.IntegrityError(1062, "Duplicate"), ODBCError("23000", "Duplicate")):
            lost = exc.IntegrityError(SECRET, {}, origin, connection_invalidated=True)
            error = translated(lost, dialect)
            assert type(error) is BackendFailed
            assert error.sent

    @pytest.mark.parametrize(
        ("cause", "expected"),
        [
            (ConnectionRefusedError(111, "Connect call failed"), BackendRefused),
            (OSError(113, "No route to host"), BackendFailed),
            (TimeoutError(), BackendTimeout),
            (exc.TimeoutError("QueuePool limit of size 4 overflow 0 reached"), BackendFailed),
            (exc.NoSuchModuleError(SECRET), BackendFailed),
            (TypeError(f"connect() got an unexpected keyword argument '{SECRET}'"), BackendFailed),
        ],
        ids=lambda value: getattr(value, "__name__", type(value).__name__),
    )
    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_no_connection_means_that_nothing_was_sent(
        self, dialect: str, cause: Exception, expected: type[Unavailable]
    ) -> None:
        failed = ConnectFailed()
        failed.__cause__ = cause
        error = translated(failed, dialect)
        assert type(error) is expected
        assert isinstance(error, Unavailable)
        assert not error.sent


class TestWhatDriversRaiseThroughIt:
    def test_every_class_of_sqlites_has_its_place(self) -> None:
        found = exceptions_of(sqlite3, aiosqlite)
        assert len(found) >= 10
        for kind in found:
            assert type(translated(wrapped(kind("what it says"), "sqlite"), "sqlite")) is BackendFailed, kind

    def test_only_three_codes_of_sqlites_are_the_records_fault(self) -> None:
        primaries = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}
        for kind in (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.OperationalError):
            for code in [code for code in range(1, 1 << 12) if code & 255 in range(1, 29)]:
                raised = kind("what SQLite says")
                raised.sqlite_errorcode = code
                error = translated(wrapped(raised, "sqlite"), "sqlite")
                assert isinstance(error, RecordRejected) == (code & 255 in primaries), code

    @pytest.mark.parametrize("module", [pymysql.err, asyncmy.errors], ids=["aiomysql", "asyncmy"])
    def test_every_class_of_mysqls_has_its_place(self, module: ModuleType) -> None:
        found = exceptions_of(module)
        assert len(found) >= 11
        for kind in found:
            for arguments in (("(0, 'Not connected')",), (2013, "Lost connection"), (1317, "interrupted")):
                error = translated(wrapped(kind(*arguments), "mysql"), "mysql")
                assert type(error) is BackendFailed, kind
                assert error.sent

    def test_of_all_codes_of_mysqls_only_the_listed_ones_are_the_records_fault(self) -> None:
        names = {value: name for name, value in vars(ER).items() if isinstance(value, int)}
        assert len(names) > 400
        for kind in (pymysql.err.IntegrityError, pymysql.err.DataError, pymysql.err.OperationalError):
            for code in {*names, *range(1000, 2000), *range(3000, 5000)}:
                error = translated(wrapped(kind(code, "what the server says"), "mysql"), "mysql")
                expected = (
                    ConstraintViolated if code in RECORD_CODES
                    else SchemaMismatch if code in SCHEMA_CODES
                    else BackendFailed
                )  # fmt: skip
                assert isinstance(error, expected), names.get(code, code)

    def test_every_class_of_asyncpg_has_its_place(self) -> None:
        found = classes()
        codes = set()
        for kind in found:
            code = getattr(kind, "sqlstate", None)
            codes.add(code)
            error = translated(wrapped(from_asyncpg(kind("what it says")), "postgresql"), "postgresql")
            assert isinstance(error, expected_of(code) if isinstance(code, str) else BackendFailed), kind
        assert len(found) > 250
        assert len(codes) > 200

    def test_the_row_that_postgres_quotes_is_not_shown(self) -> None:
        fields = {"C": "23505", "S": "ERROR", "M": "duplicate key", "D": f"Key (title)=({SECRET}) exists."}
        raised = from_asyncpg(asyncpg.PostgresError.new(fields))
        assert isinstance(translated(wrapped(raised, "postgresql"), "postgresql"), ConstraintViolated)

    def test_of_all_sqlstates_of_sql_server_only_the_listed_ones_are_the_records_fault(self) -> None:
        states = [
            f"{kind}{n:03}" for kind in ("01", "08", "21", "22", "23", "24", "25", "28") for n in range(30)
        ]
        for state in {*states, "40001", "42000", "42S02", "42S22", "HY000", "HY008", "HYT00"}:
            raised = exc.IntegrityError(SECRET, {}, ODBCError(state, "what the server says"))
            error = translated(raised, "mssql")
            assert isinstance(error, RecordRejected) == (state in MSSQL_CODES.record), state
            assert isinstance(error, SchemaMismatch) == (state in MSSQL_CODES.schema), state

    def test_of_all_codes_of_oracles_only_the_listed_ones_are_the_records_fault(self) -> None:
        for code in range(1, 13_000):
            raised = exc.IntegrityError(SECRET, {}, OracleError(OracleDetails(code)))
            error = translated(raised, "oracle")
            assert isinstance(error, RecordRejected) == (code in ORACLE_CODES.record), code
            assert isinstance(error, SchemaMismatch) == (code in ORACLE_CODES.schema), code


class TestNothingElseLeavesTheAdapter:
    """A real engine whose driver raises, at each of the adapter's calls."""

    @pytest.fixture
    async def books(self, tmp_path: Path) -> AsyncGenerator[Books]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.sqlite3")
        adapter = SQLAlchemyAdapter(engine, name="shop")
        await adapter.open()
        await adapter.prepare(BOOK, create=True)
        yield Books(adapter, BOOK)
        await adapter.close()
        await engine.dispose()

    def calls(self, books: Books) -> Iterator[Callable[[], Awaitable[object]]]:
        adapter, key = books.adapter, books.key()
        assert isinstance(adapter, SQLAlchemyAdapter)
        yield adapter.ping
        yield adapter.probe
        yield lambda: adapter.prepare(BOOK, create=True)
        yield lambda: adapter.read([key])
        yield lambda: adapter.peek([key])
        yield books.scan
        for mode in Mode:
            yield partial(self._apply, books, mode, 1)
            yield partial(self._apply, books, mode, 2)
            yield partial(self._apply_unit, books, mode)

    async def _apply(self, books: Books, mode: Mode, size: int) -> list[Outcome]:
        return await books.apply(*[books.new() for _ in range(size)], mode=mode)

    async def _apply_unit(self, books: Books, mode: Mode) -> Sequence[Outcome]:
        assert isinstance(books.adapter, SQLAlchemyAdapter)
        return await books.adapter.apply_unit([books.new(), books.delete(books.key())], mode)

    @pytest.mark.parametrize("moment", ["before_cursor_execute", "do_execute", "commit"])
    async def test_whatever_is_raised_at_any_statement_or_commit(self, books: Books, moment: str) -> None:
        errors = [*map(made, exceptions_of(exc, async_exc, sqlite3)), *STRANGE]
        calls = [*self.calls(books)]
        for number, error in enumerate(errors):
            # Each call meets many errors, and each error a read and two writes.
            for call in (calls[number % 6], calls[6 + number % 9], calls[6 + (number + 1) % 9]):
                said = await self._said(books, call, moment, error)
                assert SECRET not in said
                assert said or moment == "commit"  # a read commits nothing
        assert await books.apply(books.new()) == [APPLIED]

    async def _said(
        self, books: Books, call: Callable[[], Awaitable[object]], moment: str, error: Exception
    ) -> str:
        """What the call says of its trouble, in an error of ours or in outcomes; nothing if it had none."""

        def fail(*_: object) -> None:
            raise error

        assert isinstance(books.adapter, SQLAlchemyAdapter)
        engine = books.adapter._engine.sync_engine
        event.listen(engine, moment, fail)
        try:
            answer = await call()
        except OctopusError as caught:
            return str(caught)
        finally:
            event.remove(engine, moment, fail)
            if not books.adapter._tables:  # preparing it failed
                await books.adapter.prepare(BOOK, create=True)
        outcomes = [part for part in answer if isinstance(part, Outcome)] if isinstance(answer, list) else []
        return " ".join(str(outcome.error or outcome.status) for outcome in outcomes)

    @pytest.mark.parametrize("error", STRANGE, ids=lambda error: type(error).__name__)
    async def test_whatever_is_raised_where_there_is_no_connection(
        self, books: Books, error: Exception
    ) -> None:
        def fail(*_: object) -> None:
            raise error

        assert isinstance(books.adapter, SQLAlchemyAdapter)
        await books.adapter._engine.dispose()
        event.listen(books.adapter._engine.sync_engine, "do_connect", fail)
        for call in (books.adapter.ping, lambda: books.apply(books.new())):
            with pytest.raises(Unavailable) as caught:
                await call()
            assert not caught.value.sent

    async def test_a_type_that_the_database_has_no_form_for_is_a_mismatch(
        self, books: Books, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def has_none(*_: object, **__: object) -> None:
            raise exc.UnsupportedCompilationError(sa.select(1).compile(), sa.Column, SECRET)

        assert isinstance(books.adapter, SQLAlchemyAdapter)
        monkeypatch.setattr(books.adapter._engine.dialect.type_compiler_instance, "visit_BIGINT", has_none)
        with pytest.raises(SchemaMismatch, match=r"shop: .*Book") as caught:
            await books.adapter.prepare(BOOK, create=True)
        assert SECRET not in str(caught.value)
