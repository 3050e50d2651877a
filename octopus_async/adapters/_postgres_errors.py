"""The errors of asyncpg."""

from __future__ import annotations

import asyncpg

from octopus_async.adapters._sql.codes import OUTDATED, POSTGRES_CODES
from octopus_async.adapters._sql.faults import Faults


def _answer_code(error: BaseException) -> str | None:
    if isinstance(error, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError):
        return OUTDATED
    code = getattr(error, "sqlstate", None) if isinstance(error, asyncpg.PostgresError) else None
    # Class 08: the driver lost the connection, or the server one to somewhere else.
    return None if not isinstance(code, str) or code.startswith("08") else code


def _reason(error: BaseException | None) -> str:
    if isinstance(error, asyncpg.PostgresError):
        # Without its detail, which quotes the row.
        message = getattr(error, "message", None) or str(error) or type(error).__name__
        code = getattr(error, "sqlstate", None)
        return f"{message} ({code})" if code else str(message)
    # What is not the driver's own may quote what it was given, a password for instance.
    return type(error).__name__


FAULTS = Faults(POSTGRES_CODES, _answer_code, _reason)
