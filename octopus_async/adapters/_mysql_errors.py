"""The errors of drivers of MySQL and MariaDB."""

from __future__ import annotations

from octopus_async.adapters._sql.codes import MYSQL_CODES
from octopus_async.adapters._sql.faults import Faults

NO_SUCH_TABLE = 1146
NO_HOST, NO_SSL, NO_PLUGIN = 2003, 2026, 2059
_SERVER_CODES = 1000
_CLIENT_CODES = range(2000, 3000)


def answer_code(error: BaseException, base: type[Exception]) -> int | None:
    """The code with which the server itself answered; None for what the driver made up.

    Parameters:
        error: what was raised.
        base: the root of the driver's own errors.
    """
    code = error.args[0] if isinstance(error, base) and error.args else None
    if not isinstance(code, int) or code < _SERVER_CODES or code in _CLIENT_CODES:
        return None
    return code


def faults(base: type[Exception]) -> Faults:
    """How the errors of a driver are translated whose own ones have that root."""

    def reason_of(error: BaseException | None) -> str:
        if isinstance(error, base):
            return ", ".join(str(part) for part in reversed(error.args)) or type(error).__name__
        # What is not the driver's own may quote what it was given, a password for instance.
        return type(error).__name__

    return Faults(MYSQL_CODES, lambda error: answer_code(error, base), reason_of)
