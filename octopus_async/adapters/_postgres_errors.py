"""What became of a call to Postgres, in the errors of our tree.

Only what is listed here is the record's fault. Everything else is unavailability: a server that is
read-only or full, a permission, a deadlock, whatever the driver makes up.
"""

from __future__ import annotations

import errno

import asyncpg

from octopus_async.adapters._sql.pool import ConnectFailed
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    ConstraintViolated,
    OctopusError,
    SchemaMismatch,
)

NOT_NULL = "23502"
_STARTING_UP = "57P03"  # or shutting down
_COLLISIONS = {
    "40001",  # changed since it was read
    "40P01",  # deadlock
    "55P03",  # waited too long for a lock
}
_SCHEMA_FAULTS = {
    "3F000",  # no such schema
    "42703",  # unknown column
    "42804",  # a column of another type
    "42883",  # as above, where they are compared
    "428C9",  # a column that the database generates
    "42P01",  # no such table
    "54011",  # too many columns
}
_RECORD_FAULTS = {
    "22001",  # too long
    "22003",  # out of range
    "22007",  # wrong date or time
    "22008",  # date or time out of range
    "22021",  # bytes that are no text
    "22P02",  # wrong value for the column
    "22P05",  # text that the database's encoding lacks, \u0000 in jsonb
    "23000",  # a constraint
    "23001",  # foreign key: has children
    "23502",  # null where there may be none
    "23503",  # foreign key: no such parent, or has children
    "23505",  # duplicate in a unique index
    "23514",  # check
    "23P01",  # exclusion
    "44000",  # a view's own check
    "54000",  # too long for an index, or too wide a row
    "P0001",  # a trigger's own refusal
}
_LOGIN_FAULTS = {
    "28000",  # not this user, from this host, to this database
    "28P01",  # wrong password
}
_LOOK_AT_SERVER = ": see that the server runs, and that host and port in its URL are right"
_LOOK_AT_LOGIN = ": see that user and password in its URL are right"
_UNDECIDED = {"40003", "57P01", "57P02"}
"""Not known whether it completed; shut down or crashed, perhaps after the commit."""


class Collision(BackendFailed):
    """Another transaction was in the way; a further try may pass."""


def translate(error: Exception, backend: str, *, sent: bool) -> OctopusError:
    """The error of our tree for whatever the driver raised.

    Parameters:
        error: what was raised.
        backend: the backend's name.
        sent: whether a statement had been sent that may take effect.
    """
    if isinstance(error, ConnectFailed):
        return _translate_connecting(error.__cause__, backend)
    code = answer_code(error)
    if code is None:
        kind = Collision if _is_outdated(error) else BackendFailed
        return kind(f"{backend}: {_reason(error)}", backend=backend, sent=sent and kind is BackendFailed)
    if code in _RECORD_FAULTS:
        return ConstraintViolated(f"{backend} refused the record: {_reason(error)}")
    if code in _SCHEMA_FAULTS:
        return SchemaMismatch(f"{backend}: {_reason(error)}", backend=backend)
    kind = Collision if code in _COLLISIONS or _is_outdated(error) else BackendFailed
    return kind(f"{backend}: {_reason(error)}", backend=backend, sent=sent and code in _UNDECIDED)


def answer_code(error: BaseException) -> str | None:
    """The SQLSTATE with which the server answered; None for what the driver made up."""
    code = getattr(error, "sqlstate", None) if isinstance(error, asyncpg.PostgresError) else None
    # Class 08: the driver lost the connection, or the server one to somewhere else.
    return None if not isinstance(code, str) or code.startswith("08") else code


def _is_outdated(error: Exception) -> bool:
    # A statement was prepared before its table changed: the driver has forgotten it by now.
    outdated = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
    return isinstance(error, outdated)


def _translate_connecting(error: BaseException | None, backend: str) -> OctopusError:
    if isinstance(error, TimeoutError):
        return BackendTimeout(f"{backend}: connecting took too long", backend=backend, sent=False)
    # All addresses of a name may have refused, each in its own words.
    refused = isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error)
    if refused:
        return BackendRefused(f"{backend}: the connection was refused{_LOOK_AT_SERVER}", backend=backend)
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate == _STARTING_UP:
        return BackendRefused(f"{backend}: {_reason(error)}", backend=backend)
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in _LOGIN_FAULTS:
        return BackendFailed(
            f"{backend}: could not log in: {_reason(error)}{_LOOK_AT_LOGIN}", backend=backend, sent=False
        )
    reason = str(error) if isinstance(error, OSError) else _reason(error)
    return BackendFailed(f"{backend}: could not connect: {reason}", backend=backend, sent=False)


def _reason(error: BaseException | None) -> str:
    if isinstance(error, asyncpg.PostgresError):
        # Without its detail, which quotes the row.
        message = getattr(error, "message", None) or str(error) or type(error).__name__
        code = getattr(error, "sqlstate", None)
        return f"{message} ({code})" if code else str(message)
    # What is not the driver's own may quote what it was given, a password for instance.
    return type(error).__name__
