"""What became of a call to SQLite, in the errors of our tree.

Only what is listed here is the record's fault. Everything else is unavailability: a lock, a full
disk, a file that is read-only, gone or damaged, whatever the driver makes up.
"""

from __future__ import annotations

import re
import sqlite3

from octopus_async.adapters._sqlite_lanes import primary_code
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    ConstraintViolated,
    InvalidRecord,
    OctopusError,
    SchemaMismatch,
)

DRIVER_ERRORS = (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError)
_RECORD_FAULTS = (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG)
_NOTHING_WRITTEN = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
)
_SCHEMA_FAULT = re.compile(r"no such table|no such column|has no column named|no such view")


def translate(error: Exception, backend: str, *, sent: bool) -> OctopusError:
    """The error of our tree for whatever sqlite3, aiosqlite or a thread of theirs raised.

    Parameters:
        error: what was raised.
        backend: the backend's name.
        sent: whether a commit had begun.
    """
    code, text = primary_code(error), f"{backend}: {error}"
    if code in _RECORD_FAULTS:
        return ConstraintViolated(f"{backend} refused the record: {error}")
    if isinstance(error, OverflowError | UnicodeError) or _is_binding(error):
        return InvalidRecord(f"{backend} can't store the record: {error}")
    if code == sqlite3.SQLITE_ERROR and _SCHEMA_FAULT.search(str(error)):
        return SchemaMismatch(f"{text}; the table was changed since it was checked", backend=backend)
    if code == sqlite3.SQLITE_CANTOPEN:
        return BackendRefused(text, backend=backend)
    if isinstance(error, TimeoutError):
        return BackendTimeout(f"{backend}: connecting took too long", backend=backend, sent=sent)
    unsent = code in _NOTHING_WRITTEN
    return BackendFailed(f"{text} ({type(error).__name__})", backend=backend, sent=sent and not unsent)


def _is_binding(error: Exception) -> bool:
    return isinstance(error, sqlite3.InterfaceError | sqlite3.ProgrammingError) and "binding" in str(error)
