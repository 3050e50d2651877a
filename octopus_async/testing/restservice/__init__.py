"""A service that speaks the protocol of `docs/backends/rest.md`: a reference to read, and to test against.

`RestService` is an ASGI application over a `Store` in a SQLite file. Run it by any ASGI server::

    OCTOPUS_REST_DATABASE=shop.db uvicorn --factory octopus_async.testing.restservice:application

It asks nobody for a password: put it behind something that does, or on a loopback address.
"""

from __future__ import annotations

import os

from octopus_async.testing.restservice.app import RestService
from octopus_async.testing.restservice.store import Store

__all__ = ["RestService", "Store", "application"]


def application() -> RestService:
    """The service over the SQLite file that ``OCTOPUS_REST_DATABASE`` names."""
    synchronous = os.environ.get("OCTOPUS_REST_SYNCHRONOUS", "FULL")
    return RestService(Store(os.environ["OCTOPUS_REST_DATABASE"], synchronous=synchronous))
