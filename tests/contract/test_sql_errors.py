"""Every exception of the SQL drivers, and every code, becomes an error of our tree, without a secret."""

from __future__ import annotations

import inspect
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from types import ModuleType
from typing import Any, ClassVar

import aiosqlite
import asyncmy.errors
import pymysql.err
import pytest
from pymysql.constants import CR, ER

from octopus_async.adapters import _mysql_aiomysql, _mysql_asyncmy, _sqlite_errors
from octopus_async.adapters._sql.faults import Faults
from octopus_async.adapters._sql.pool import ConnectFailed
from octopus_async.adapters._sqlite_lanes import GivenUp
from octopus_async.adapters.mysql import MySQLAdapter
from octopus_async.adapters.sqlite import SQLiteAdapter
from octopus_async.config import adapter_for
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    ConfigurationError,
    ConstraintViolated,
    InvalidRecord,
    OctopusError,
    RecordRejected,
    SchemaMismatch,
    Unavailable,
)
from octopus_async.url import BackendURL

STRANGE = [
    AssertionError("Protocol error, expecting EOF"),
    AttributeError("'NoneType' object has no attribute 'readexactly'"),
    BrokenPipeError(32, "Broken pipe"),
    ConnectionResetError(104, "Connection reset by peer"),
    EOFError(),
    IndexError("index out of range"),
    KeyError(0),
    MemoryError(),
    OSError(5, "Input/output error"),
    RuntimeError("Received LOAD_LOCAL packet but local_infile option is false."),
    TypeError("no default type converter defined"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ValueError("Connection closed"),
    struct.error("unpack requires a buffer of 4 bytes"),
]
RECORD_CODES = {
    1048, 1062, 1118, 1216, 1217, 1264, 1265, 1292, 1366, 1406, 1451, 1452, 1586, 1644, 1690, 3819, 4025,
}  # fmt: skip
SCHEMA_CODES = {1054, 1146, 1364}


def exceptions_of(*modules: ModuleType) -> Iterator[type[Exception]]:
    for module in modules:
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, Exception):
                yield found


def sqlite_error(code: int, message: str = "what SQLite says") -> sqlite3.Error:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


class TestSQLite:
    def translated(self, error: Exception, *, sent: bool = True) -> OctopusError:
        return _sqlite_errors.translate(error, "archive", sent=sent)

    def test_every_class_of_the_driver_has_its_place(self) -> None:
        classes = set(exceptions_of(sqlite3, aiosqlite)) | {GivenUp}
        assert len(classes) >= 11
        for found in classes:
            error = self.translated(found("what it says"))
            assert type(error) is BackendFailed
            assert "archive" in str(error)
            assert error.backend == "archive"
            assert error.sent

    @pytest.mark.parametrize("error", STRANGE, ids=lambda error: type(error).__name__)
    def test_what_is_not_the_drivers_own_is_a_failure_or_the_records(self, error: Exception) -> None:
        wanted = InvalidRecord if isinstance(error, UnicodeError) else BackendFailed
        assert type(self.translated(error)) is wanted

    def test_only_three_of_its_codes_are_the_records_fault(self) -> None:
        codes = {
            value: name
            for name, value in vars(sqlite3).items()
            if name.startswith("SQLITE_") and isinstance(value, int) and 0 < value < 1 << 16
        }
        primaries = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}
        for code in range(1, 1 << 16):
            if code & 255 in range(1, 29) and code >> 8 < 16:
                is_rejected = isinstance(self.translated(sqlite_error(code)), RecordRejected)
                assert is_rejected == (code & 255 in primaries), codes.get(code, code)

    @pytest.mark.parametrize(
        "message",
        ["no such table: books", "no such column: pages", "table books has no column named pages"],
    )
    def test_a_missing_table_or_column_is_a_schema_mismatch(self, message: str) -> None:
        error = self.translated(sqlite_error(sqlite3.SQLITE_ERROR, message))
        assert isinstance(error, SchemaMismatch)
        assert error.alive
        assert message in str(error)

    def test_a_lock_means_that_nothing_was_sent(self) -> None:
        error = self.translated(sqlite_error(sqlite3.SQLITE_BUSY))
        assert isinstance(error, BackendFailed)
        assert not error.sent

    def test_a_file_that_can_not_be_opened_is_a_refusal(self) -> None:
        assert isinstance(self.translated(sqlite_error(sqlite3.SQLITE_CANTOPEN)), BackendRefused)

    def test_values_that_python_can_not_bind_are_the_records_fault(self) -> None:
        for error in (OverflowError("too large"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate")):
            assert isinstance(self.translated(error), InvalidRecord)
        with closing(sqlite3.connect(":memory:")) as raw, pytest.raises(sqlite3.Error) as caught:
            raw.execute("SELECT ?", ({},))
        assert isinstance(self.translated(caught.value), InvalidRecord)


class MySQLErrors:
    """Of both drivers, which have their classes each for itself."""

    errors: ClassVar[Any]
    faults: ClassVar[Faults]

    def translated(self, error: Exception, *, sent: bool = True) -> OctopusError:
        return self.faults.translate(error, "shop", sent=sent)

    def test_every_class_of_the_driver_has_its_place(self) -> None:
        classes = set(exceptions_of(self.errors))
        assert len(classes) >= 11
        for found in classes:
            for arguments in (
                (),
                ("(0, 'Not connected')",),
                (2013, "Lost connection"),
                (1317, "interrupted"),
            ):
                error = self.translated(found(*arguments))
                assert type(error) is BackendFailed
                assert "shop" in str(error)
                assert error.backend == "shop"
                assert error.sent
                quiet = self.translated(found(*arguments), sent=False)
                assert isinstance(quiet, Unavailable)
                assert not quiet.sent

    @pytest.mark.parametrize("error", STRANGE, ids=lambda error: type(error).__name__)
    def test_what_is_not_the_drivers_own_is_a_failure(self, error: Exception) -> None:
        assert type(self.translated(error)) is BackendFailed

    def test_of_all_codes_of_the_server_only_the_listed_ones_are_the_records_fault(self) -> None:
        names = {value: name for name, value in vars(ER).items() if isinstance(value, int)}
        assert len(names) > 400
        for code in {*names, *range(1000, 2000), *range(3000, 5000)}:
            error = self.translated(self.errors.OperationalError(code, "what the server says"), sent=False)
            expected = (
                ConstraintViolated if code in RECORD_CODES
                else SchemaMismatch if code in SCHEMA_CODES
                else BackendFailed
            )  # fmt: skip
            assert isinstance(error, expected), names.get(code, code)
            assert "what the server says" in str(error)

    def test_an_answer_means_that_nothing_took_effect_unless_it_was_interrupted(self) -> None:
        for code, sent in (
            (1290, False),
            (1213, False),
            (1040, False),
            (1114, False),
            (1317, True),
            (1053, True),
        ):
            error = self.translated(self.errors.OperationalError(code, "no"), sent=True)
            assert isinstance(error, BackendFailed)
            assert error.sent is sent

    def test_no_code_of_the_client_is_an_answer(self) -> None:
        codes = [value for value in vars(CR).values() if isinstance(value, int)]
        assert len(codes) > 40
        for code in codes:
            error = self.translated(self.errors.OperationalError(code, "lost"), sent=True)
            assert type(error) is BackendFailed
            assert error.sent

    @pytest.mark.parametrize(
        ("cause", "expected"),
        [
            (ConnectionRefusedError(111, "Connect call failed"), BackendRefused),
            (
                OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] ..."),
                BackendRefused,
            ),
            (OSError(113, "No route to host"), BackendFailed),
            (OSError(-2, "Name or service not known"), BackendFailed),
        ],
        ids=lambda value: getattr(value, "__name__", str(value)[:30]),
    )
    def test_no_connection_means_that_nothing_was_sent(
        self, cause: Exception, expected: type[Unavailable]
    ) -> None:
        refused = self.errors.OperationalError(2003, "Can't connect to MySQL server on 'db'")
        refused.__cause__ = cause
        failed = ConnectFailed()
        failed.__cause__ = refused
        error = self.translated(failed)
        assert type(error) is expected
        assert not error.sent

    def test_a_connect_that_takes_too_long_is_a_timeout(self) -> None:
        failed = ConnectFailed()
        failed.__cause__ = TimeoutError()
        error = self.translated(failed)
        assert type(error) is BackendTimeout
        assert not error.sent

    def test_what_is_not_the_drivers_own_is_not_quoted(self) -> None:
        failed = ConnectFailed()
        failed.__cause__ = ValueError("the password s3cret has a letter too many")
        assert "s3cret" not in str(self.translated(failed))


class TestMySQL(MySQLErrors):
    errors = pymysql.err
    faults = _mysql_aiomysql.FAULTS


class TestMySQLThroughAsyncmy(MySQLErrors):
    errors = asyncmy.errors
    faults = _mysql_asyncmy.FAULTS


class TestURLs:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("sqlite://shop.db", "three slashes"),
            ("sqlite:///", "path of a file"),
            ("sqlite:///:memory:", "path of a file"),
            ("sqlite:///shop.db?synchronous=OFF", "synchronous"),
            ("sqlite:///shop.db?readers=0", "readers"),
            ("sqlite:///shop.db?pool=3", "unknown option 'pool'"),
        ],
    )
    def test_a_sqlite_url_that_makes_no_sense_says_why(self, text: str, problem: str) -> None:
        with pytest.raises(ConfigurationError, match=problem):
            SQLiteAdapter.from_url(BackendURL.parse(text))

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("mysql://app:s3cret@one,two/shop", "one host"),
            ("mysql://app:s3cret@db", "database"),
            ("mysql://db/shop", "user"),
            ("mysql://app:s3cret@db/shop?tls=maybe", "tls"),
            ("mysql://app:s3cret@db/shop?tls=verify&tls_ca=/no/such/file", "TLS"),
            ("mysql://app:s3cret@db/shop?readers=3", "unknown option 'readers'"),
            ("mysql+mysqldb://app:s3cret@db/shop", "the driver is one of aiomysql, asyncmy"),
        ],
    )
    def test_a_mysql_url_that_makes_no_sense_says_why_and_keeps_its_password(
        self, text: str, problem: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=problem) as caught:
            MySQLAdapter.from_url(BackendURL.parse(text))
        assert "s3cret" not in str(caught.value)

    def test_options_reach_the_adapter(self) -> None:
        archive = SQLiteAdapter.from_url(
            BackendURL.parse("sqlite:////var/shop.db?readers=2&synchronous=normal")
        )
        assert (archive._path, archive._synchronous) == ("/var/shop.db", "NORMAL")
        assert archive.capabilities.read_concurrency == 2
        shop = MySQLAdapter.from_url(
            BackendURL.parse("mysql://app:s3cret@db/shop?connections=4&timeout=0.5&tls=insecure"), name="shop"
        )
        assert shop.name == "shop"
        assert (shop._address.port, shop._timeout) == (3306, 0.5)
        assert shop._address.tls is not None
        assert shop.capabilities.write_concurrency == 2

    @pytest.mark.parametrize(
        ("scheme", "driver"),
        [
            ("mysql", _mysql_aiomysql),
            ("mariadb", _mysql_aiomysql),
            ("mysql+asyncmy", _mysql_asyncmy),
            ("mariadb+asyncmy", _mysql_asyncmy),
        ],
    )
    def test_the_scheme_chooses_the_driver(self, scheme: str, driver: ModuleType) -> None:
        shop = adapter_for(f"{scheme}://app:s3cret@db/shop")
        assert isinstance(shop, MySQLAdapter)
        assert shop.name == "mysql"
        assert shop._driver is driver

    def test_no_repr_shows_a_password(self) -> None:
        shop = MySQLAdapter(database="shop", user="app", password="s3cret")  # noqa: S106 - not a real one
        assert "s3cret" not in repr(shop) + repr(shop._address) + str(vars(shop))
