"""What became of a call to MySQL or MariaDB, in the errors of our tree.

Only what is listed here is the record's fault. Everything else is unavailability: a server that is
read-only or full, a permission, a deadlock, whatever the driver makes up.
"""

from __future__ import annotations

import errno

from pymysql.err import MySQLError

from octopus_async.adapters._mysql_pool import answer_code
from octopus_async.adapters._sql.pool import ConnectFailed
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    ConstraintViolated,
    OctopusError,
    SchemaMismatch,
)

NO_SUCH_TABLE = 1146
_COLLISIONS = {1020, 1205, 1213}  # changed since it was read, waited too long for a lock, deadlock
_SCHEMA_FAULTS = {
    1054,  # unknown column
    1146,  # no such table
    1364,  # a column that the model does not know has no default
}
_RECORD_FAULTS = {
    1048,  # null where there may be none
    1062,  # duplicate in a unique index
    1118,  # row too large
    1216,  # foreign key: no such parent
    1217,  # foreign key: has children
    1264,  # out of range
    1265,  # truncated
    1292,  # wrong date or time
    1366,  # wrong value for the column, as text that its character set lacks
    1406,  # too long
    1451,  # foreign key: has children
    1452,  # foreign key: no such parent
    1586,  # duplicate, with the index's name
    1644,  # a trigger's own refusal
    1690,  # out of range
    3819,  # check, MySQL
    4025,  # check, MariaDB
}
_LOGIN_FAULTS = {
    1044,  # not of this database
    1045,  # wrong user or password
    1698,  # a user who logs in without a password
}
_LOOK_AT_SERVER = ": see that the server runs, and that host and port in its URL are right"
_LOOK_AT_LOGIN = ": see that user and password in its URL are right"
_UNDECIDED = {1053, 1180, 1317, 1927, 1969, 3024, 4031}
"""Killed, interrupted or shut down, perhaps after the commit."""


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
        return BackendFailed(f"{backend}: {_reason(error)}", backend=backend, sent=sent)
    if code in _RECORD_FAULTS:
        return ConstraintViolated(f"{backend} refused the record: {_reason(error)}")
    if code in _SCHEMA_FAULTS:
        return SchemaMismatch(f"{backend}: {_reason(error)}", backend=backend)
    kind = Collision if code in _COLLISIONS else BackendFailed
    return kind(f"{backend}: {_reason(error)}", backend=backend, sent=sent and code in _UNDECIDED)


def _translate_connecting(error: BaseException | None, backend: str) -> OctopusError:
    if isinstance(error, TimeoutError):
        return BackendTimeout(f"{backend}: connecting took too long", backend=backend, sent=False)
    cause = error.__cause__ if error is not None else None
    # All addresses of a name may have refused, each in its own words.
    if isinstance(cause, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(cause):
        return BackendRefused(f"{backend}: the connection was refused{_LOOK_AT_SERVER}", backend=backend)
    code = None if error is None else answer_code(error)
    if code is not None and code in _LOGIN_FAULTS:
        return BackendFailed(
            f"{backend}: could not log in: {_reason(error)}{_LOOK_AT_LOGIN}", backend=backend, sent=False
        )
    reason = _reason(error) if cause is None else f"{_reason(error)} ({cause})"
    return BackendFailed(f"{backend}: could not connect: {reason}", backend=backend, sent=False)


def _reason(error: BaseException | None) -> str:
    if isinstance(error, MySQLError):
        return ", ".join(str(part) for part in reversed(error.args)) or type(error).__name__
    # What is not the driver's own may quote what it was given, a password for instance.
    return type(error).__name__
