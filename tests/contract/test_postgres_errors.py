"""Every exception of asyncpg, and every SQLSTATE, becomes an error of our tree, without a secret."""

from __future__ import annotations

import inspect
from typing import Any

import asyncpg
import pytest
from asyncpg import exceptions
from asyncpg.exceptions import _base

from octopus_async.adapters import _postgres_errors
from octopus_async.adapters._sql.faults import Collision
from octopus_async.adapters._sql.pool import ConnectFailed
from octopus_async.adapters.postgres import PostgresAdapter
from octopus_async.config import adapter_for
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    ConfigurationError,
    ConstraintViolated,
    OctopusError,
    SchemaMismatch,
    Unavailable,
)
from octopus_async.url import BackendURL

RECORD_CODES = {
    "22001", "22003", "22007", "22008", "22021", "22P02", "22P05", "23000", "23001", "23502", "23503",
    "23505", "23514", "23P01", "44000", "54000", "P0001",
}  # fmt: skip
SCHEMA_CODES = {"3F000", "42703", "42804", "42883", "428C9", "42P01", "54011"}
COLLISION_CODES = {"40001", "40P01", "55P03"}
UNDECIDED_CODES = {"40003", "57P01", "57P02"}
STRANGE = [
    asyncpg.InterfaceError("connection is closed"),
    AttributeError("'NoneType' object has no attribute 'query'"),
    BrokenPipeError(32, "Broken pipe"),
    ConnectionResetError(104, "Connection reset by peer"),
    EOFError(),
    IndexError("index out of range"),
    MemoryError(),
    RuntimeError("unable to perform operation on a closed transport"),
    TypeError("expected str, got int"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    ValueError("buffer overread"),
]


def classes() -> list[type[Exception]]:
    found = [
        value
        for module in (exceptions, _base)
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Exception)
    ]
    return list(dict.fromkeys(found))


def translated(error: Exception, *, sent: bool = True) -> OctopusError:
    return _postgres_errors.FAULTS.translate(error, "shop", sent=sent)


def from_connecting(cause: Exception) -> OctopusError:
    failed = ConnectFailed()
    failed.__cause__ = cause
    return translated(failed)


def expected_of(code: str) -> type[OctopusError]:
    if code in RECORD_CODES:
        return ConstraintViolated
    if code in SCHEMA_CODES:
        return SchemaMismatch
    return Collision if code in COLLISION_CODES else BackendFailed


def test_every_class_of_the_driver_has_its_place() -> None:
    found = classes()
    codes = set()
    for kind in found:
        code: Any = getattr(kind, "sqlstate", None)
        codes.add(code)
        error = translated(kind("what it says"))
        if isinstance(code, str) and not issubclass(kind, asyncpg.InvalidCachedStatementError):
            assert isinstance(error, expected_of(code)), kind
        else:
            assert isinstance(error, BackendFailed), kind
        assert "shop" in str(error)
        if isinstance(error, Unavailable):
            assert error.backend == "shop"
            assert not translated(kind("what it says"), sent=False).sent  # type: ignore[attr-defined]
    assert len(found) > 250
    assert codes >= RECORD_CODES | SCHEMA_CODES | COLLISION_CODES | UNDECIDED_CODES


@pytest.mark.parametrize("code", ["25006", "53100", "53200", "53300", "42501", "57014", "58030", "XX000"])
def test_what_ails_the_server_is_never_the_records_fault_and_did_not_happen(code: str) -> None:
    error = translated(asyncpg.PostgresError.new({"C": code, "M": "what the server says", "S": "ERROR"}))
    assert type(error) is BackendFailed
    assert not error.sent
    assert "what the server says" in str(error)


@pytest.mark.parametrize("code", sorted(UNDECIDED_CODES))
def test_who_was_shut_down_may_have_committed(code: str) -> None:
    error = translated(asyncpg.PostgresError.new({"C": code, "M": "terminating", "S": "FATAL"}))
    assert type(error) is BackendFailed
    assert error.sent


@pytest.mark.parametrize("code", ["08000", "08003", "08006", "08P01"])
def test_a_lost_connection_is_no_answer(code: str) -> None:
    error = translated(asyncpg.PostgresError.new({"C": code, "M": "closed in the middle", "S": "FATAL"}))
    assert type(error) is BackendFailed
    assert error.sent


def test_a_code_that_nobody_knows_yet_is_unavailability() -> None:
    error = translated(asyncpg.PostgresError.new({"C": "ZZ999", "M": "new in Postgres 30", "S": "ERROR"}))
    assert type(error) is BackendFailed


@pytest.mark.parametrize("error", STRANGE, ids=lambda error: type(error).__name__)
def test_what_is_not_the_servers_own_is_a_failure_and_is_not_quoted(error: Exception) -> None:
    found = translated(error)
    assert type(found) is BackendFailed
    assert found.sent
    assert type(error).__name__ in str(found)
    assert not str(error) or str(error) not in str(found)


def test_a_statement_that_was_prepared_for_another_form_of_its_table_is_tried_again() -> None:
    for error in (asyncpg.InvalidCachedStatementError("cached plan"), asyncpg.OutdatedSchemaCacheError("x")):
        assert isinstance(translated(error), Collision)


def test_the_row_that_a_detail_quotes_is_not_shown() -> None:
    fields = {"C": "23505", "M": "duplicate key", "D": "Key (title)=(the secret title) already exists."}
    assert "secret" not in str(translated(asyncpg.PostgresError.new({**fields, "S": "ERROR"})))


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (ConnectionRefusedError(111, "Connect call failed"), BackendRefused),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] ..."), BackendRefused),
        (asyncpg.CannotConnectNowError("the database system is starting up"), BackendRefused),
        (OSError(113, "No route to host"), BackendFailed),
        (ConnectionError("rejected SSL upgrade"), BackendFailed),
        (asyncpg.InvalidPasswordError("password authentication failed"), BackendFailed),
        (asyncpg.TooManyConnectionsError("sorry, too many clients already"), BackendFailed),
        (TimeoutError(), BackendTimeout),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_no_connection_means_that_nothing_was_sent(cause: Exception, expected: type[Unavailable]) -> None:
    error = from_connecting(cause)
    assert type(error) is expected
    assert isinstance(error, Unavailable)
    assert not error.sent


def test_what_is_not_the_drivers_own_is_not_quoted_either() -> None:
    assert "s3cret" not in str(from_connecting(ValueError("the password s3cret has a letter too many")))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("postgres://app:s3cret@one,two/shop", "one host"),
        ("postgres://app:s3cret@db", "database"),
        ("postgres://db/shop", "user"),
        ("postgres://app:s3cret@db/shop?tls=maybe", "tls"),
        ("postgres://app:s3cret@db/shop?tls=verify&tls_ca=/no/such/file", "TLS"),
        ("postgres://app:s3cret@db/shop?sslmode=require", "unknown option 'sslmode'"),
        ("postgres://app:s3cret@db/shop?pgbouncer=perhaps", "pgbouncer"),
    ],
)
def test_a_url_that_makes_no_sense_says_why_and_keeps_its_password(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        PostgresAdapter.from_url(BackendURL.parse(text))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_options_reach_the_adapter_and_no_repr_shows_a_password(scheme: str) -> None:
    url = f"{scheme}://app:s3cret@db/shop?connections=4&timeout=0.5&tls=insecure&pgbouncer=true&name=shop"
    shop = adapter_for(url)
    assert isinstance(shop, PostgresAdapter)
    assert shop.name == "shop"
    assert (shop._address.port, shop._timeout, shop._pooled) == (5432, 0.5, True)
    assert shop._address.tls is not None
    assert shop.capabilities.write_concurrency == 2
    assert "s3cret" not in repr(shop) + repr(shop._address) + str(vars(shop))
