"""What an error of this library is over HTTP: a status and problem details (RFC 9457). No framework."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from http import HTTPStatus

from octopus_async.errors import (
    DuplicateRecord,
    ManagerClosed,
    OctopusError,
    RecordNotFound,
    RecordRejected,
    StaleRecord,
    Unavailable,
    WriteUnavailable,
)

MEDIA_TYPE = "application/problem+json"

_STATUSES: tuple[tuple[type[OctopusError], HTTPStatus], ...] = (
    (RecordNotFound, HTTPStatus.NOT_FOUND),
    (DuplicateRecord, HTTPStatus.CONFLICT),
    (StaleRecord, HTTPStatus.CONFLICT),
    (RecordRejected, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (ManagerClosed, HTTPStatus.SERVICE_UNAVAILABLE),
)

ANSWERED = tuple(error for error, _ in _STATUSES)
"""The errors that a client is told of. Others are faults of the service, and its framework's to answer."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem details.

    Attributes:
        status: the HTTP status.
        title: the error's name, the same for each error of its kind.
        detail: what is wrong, for the client. Of a failing backend it says nothing: that is the operator's.
        retry_after: after how many seconds (at least 1) to try again; None where that changes nothing.
    """

    status: HTTPStatus
    title: str
    detail: str
    retry_after: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that belong to it, its media type aside."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    @property
    def body(self) -> bytes:
        """The JSON object to answer."""
        return json.dumps(
            {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        ).encode()


def problem_of(error: OctopusError) -> Problem:
    """The problem details of one of the errors `ANSWERED`; anything else is an internal error."""
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
    if status is None:
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "OctopusError", "The service failed.")
    if status is not HTTPStatus.SERVICE_UNAVAILABLE:
        return Problem(status, type(error).__name__, str(error))
    seconds = max(1, math.ceil(getattr(error, "retry_after", None) or 1))
    detail = (
        "This could not be stored now, and may or may not have taken effect."
        if isinstance(error, WriteUnavailable) and _may_land(error)
        else "The service cannot do this now."
    )
    return Problem(status, type(error).__name__, f"{detail} Try again in {seconds} s.", seconds)


def _may_land(error: WriteUnavailable) -> bool:
    """Whether something was sent that may take effect all the same."""
    causes = error.causes.values()
    return not causes or any(isinstance(cause, Unavailable) and cause.sent for cause in causes)
