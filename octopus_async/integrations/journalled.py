"""How an answer says that a write is in the journal alone, for now. No framework."""

from __future__ import annotations

from enum import Enum
from http import HTTPStatus

from octopus_async.strategies.receipt import Receipt

HEADER = "Octopus-Write"


class Journalled(Enum):
    """What a client sees of a write that the primary has not taken yet."""

    SILENT = "silent"
    """Nothing: it is as durable as any other."""
    HEADER = "header"
    """A header ``Octopus-Write: journalled``, or ``provisional`` if the primary may still refuse it."""
    ACCEPTED = "accepted"
    """The header, and 202 Accepted in place of another success."""


def header_of(receipt: Receipt, policy: Journalled) -> dict[str, str]:
    """The headers for the answer to a write."""
    if policy is Journalled.SILENT or not receipt.journalled:
        return {}
    return {HEADER: "provisional" if receipt.provisional else "journalled"}


def status_of(receipt: Receipt, policy: Journalled) -> HTTPStatus | None:
    """The status for the answer to a write; None to leave it as it is."""
    return HTTPStatus.ACCEPTED if policy is Journalled.ACCEPTED and receipt.journalled else None
