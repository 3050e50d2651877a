"""What SQLAlchemy and the drivers below it raise, in the errors of our tree."""

from __future__ import annotations

import re

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from octopus_async.adapters._sql import codes
from octopus_async.adapters._sql.codes import OUTDATED
from octopus_async.adapters._sql.faults import Codes, Faults

_RECORD = "record"
_OTHERS = Codes(record={_RECORD}, schema=set(), collisions=set(), undecided=set())
_CODES = {
    "sqlite": codes.SQLITE_CODES,
    "mysql": codes.MYSQL_CODES,
    "mariadb": codes.MYSQL_CODES,
    "postgresql": codes.POSTGRES_CODES,
    "cockroachdb": codes.POSTGRES_CODES,
    "mssql": codes.MSSQL_CODES,
    "oracle": codes.ORACLE_CODES,
}
_PRIMARY_CODE = 0xFF
_SERVER_CODES = 1000
_CLIENT_CODES = range(2000, 3000)
_SQLSTATE_LENGTH = 5
_NO_SUCH = re.compile(r"no such table|no such column|has no column named")


def faults_of(dialect: str) -> Faults:
    """How errors are translated for a kind of database.

    One whose codes are not known here is believed what its driver says of them.
    """

    def code_of(error: BaseException) -> int | str | None:
        if not isinstance(error, DBAPIError) or error.orig is None or error.connection_invalidated:
            return None
        if dialect not in _CODES:
            return _RECORD if isinstance(error, IntegrityError | DataError) else ""
        return _own_code(error.orig, dialect)

    return Faults(_CODES.get(dialect, _OTHERS), code_of, _reason)


def _own_code(error: BaseException, dialect: str) -> int | str | None:
    if dialect == "sqlite":
        code = getattr(error, "sqlite_errorcode", None)
        return OUTDATED if _NO_SUCH.search(str(error)) else code and code & _PRIMARY_CODE
    first = error.args[0] if error.args else None
    if dialect in ("mysql", "mariadb"):
        is_code = isinstance(first, int) and first >= _SERVER_CODES and first not in _CLIENT_CODES
        return first if is_code else None
    if dialect == "oracle":
        return getattr(first, "code", None)
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or first
    known = isinstance(state, str) and len(state) == _SQLSTATE_LENGTH and not state.startswith("08")
    return state if known else None


def _reason(error: BaseException | None) -> str:
    if not isinstance(error, DBAPIError) or error.orig is None:
        # What is not the driver's own may quote what it was given, a password for instance.
        return type(error).__name__
    # Without the statement, its values, and the detail that quotes the row.
    origin = error.orig.__cause__ or error.orig
    message = getattr(origin, "message", None) or ", ".join(map(str, reversed(origin.args)))
    return f"{type(origin).__name__}: {str(message).partition(chr(10))[0]}"
