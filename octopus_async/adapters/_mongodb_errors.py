"""What became of a call to MongoDB, in the errors of our tree.

Only what is listed here is the record's fault. Everything else is unavailability: a server that was stepped
down or is full, a permission, a time limit, whatever the driver makes up.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from bson.errors import BSONError
from pymongo import errors

from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    ConstraintViolated,
    InvalidRecord,
    OctopusError,
)

DUPLICATE = 11000
REFUSED = 241
"""What the guard of a write gives where the write is not to be applied."""
_RECORD_FAULTS = {
    121,  # the collection's own validation
    10334,  # larger than any document
    17280,  # a key too long for an index
    17419,  # as above, larger
    257,  # a unit of work larger than any transaction
    313,  # as above, than the cache
    DUPLICATE,  # in a unique index
}
_UNDECIDED = {
    50,  # took too long
    64,  # written, and not by a majority in time
    79,  # as above, of an unknown concern
    91,  # shutting down
    100,  # as above, no majority in reach
    189,  # stepped down
    262,  # took too long
    11600,  # interrupted by a shutdown
    11602,  # interrupted by a step-down
}
"""It is not known whether it was done."""
_NOT_SENT = (
    errors.ServerSelectionTimeoutError,
    errors.WaitQueueTimeoutError,
    errors.ConfigurationError,
    errors.InvalidOperation,
)


def translate(error: BaseException, backend: str, *, writing: bool) -> OctopusError:
    """The error of our tree for whatever the driver raised.

    Parameters:
        error: what was raised.
        backend: the backend's name.
        writing: whether what was sent, if it was, may take effect.
    """
    if isinstance(error, errors.DocumentTooLarge | BSONError):
        return InvalidRecord(f"{backend} cannot store the record: {_first_line(error)}")
    if isinstance(error, errors.OperationFailure | errors.NotPrimaryError):
        details: Any = error.details
        details = details if isinstance(details, Mapping) else {}
        code = error.code if isinstance(error, errors.OperationFailure) else details.get("code")
        return translate_code(code, details, backend, writing=writing)
    refused = _is_refusal(error)
    sent = writing and not refused and not isinstance(error, _NOT_SENT)
    if refused:
        return BackendRefused(f"{backend}: the connection was refused", backend=backend)
    late = isinstance(error, errors.NetworkTimeout | errors.ServerSelectionTimeoutError)
    kind = BackendTimeout if late else BackendFailed
    return kind(f"{backend}: {_reason(error)}", backend=backend, sent=sent)


def translate_code(
    code: int | None, details: Mapping[str, Any], backend: str, *, writing: bool
) -> OctopusError:
    """The error of our tree for what the server answered, about a call or about one of its writes."""
    name = details.get("codeName") or ""
    said = f"{name or 'error'} ({code})"
    if code in _RECORD_FAULTS:
        index = details.get("keyPattern")
        where = f" in {', '.join(map(str, index))}" if isinstance(index, Mapping) else ""
        return ConstraintViolated(f"{backend} refused the record: {said}{where}")
    return BackendFailed(f"{backend}: {said}", backend=backend, sent=writing and code in _UNDECIDED)


def is_race(write_error: Mapping[str, Any]) -> bool:
    """Whether two writers have tried to insert the same key: one of them may try again."""
    return write_error.get("code") == DUPLICATE and list(write_error.get("keyPattern", ())) == ["_id"]


def _is_refusal(error: BaseException) -> bool:
    if not isinstance(error, errors.ConnectionFailure):
        return False
    return f"[Errno {errno.ECONNREFUSED}]" in str(error)


def _reason(error: BaseException) -> str:
    if isinstance(error, errors.ConnectionFailure):
        return f"{type(error).__name__}: {_first_line(error)}"
    # What is not about the connection may quote what it was given: a record, a password.
    return type(error).__name__


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].partition(", Timeout:")[0][:200]
