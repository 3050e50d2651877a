"""What became of a call to Redis, in the errors of our tree.

Nothing here is the record's fault: a cache takes any record. A server that is full, read-only, loading
its data or asking for a password is unavailable.
"""

from __future__ import annotations

from redis import exceptions

from octopus_async.errors import BackendFailed, BackendRefused, BackendTimeout, Unavailable


class Answered(BackendFailed):
    """The server itself said that it has not done it."""


def is_answer(error: BaseException) -> bool:
    """Whether the server itself said so, and the connection is as good as before."""
    if isinstance(error, exceptions.ResponseError):
        return True
    return isinstance(error, exceptions.RedisError) and error.status_code is not None


def translate_connecting(error: BaseException | None, where: str, backend: str) -> Unavailable:
    """The error of our tree for a connection that could not be made."""
    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        return BackendTimeout(f"{where}: connecting took too long", backend=backend, sent=False)
    refused = isinstance(error, exceptions.BusyLoadingError) or (
        error is not None and isinstance(error.__context__, ConnectionRefusedError)
    )
    kind = BackendRefused if refused else BackendFailed
    return kind(f"{where}: could not connect: {_reason(error)}", backend=backend, sent=False)


def translate(error: BaseException, where: str, backend: str) -> Unavailable:
    """The error of our tree for whatever the server answered, or the driver raised after sending."""
    answered = is_answer(error)
    kind = Answered if answered else BackendFailed
    return kind(f"{where}: {_reason(error)}", backend=backend, sent=not answered)


def _reason(error: BaseException | None) -> str:
    if isinstance(error, exceptions.RedisError | exceptions.RedisClusterException) and str(error):
        code = getattr(error, "status_code", None)
        return f"{code} {error}" if code else str(error)
    # What is not the driver's own may quote what it was given, a password for instance.
    return type(error).__name__
