"""aiobotocore's client for a queue, made without stopping the event loop; what became of its calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore import exceptions

from octopus_async.errors import BackendFailed, BackendRefused, BackendTimeout, Unavailable

LONGEST_POLL = 20
_CLOSE_SECONDS = 1.0
_WARMED = ("partitions", "endpoints", "_retry", "sdk-default-configuration")


@dataclass(frozen=True)
class QueueAddress:
    """Where a queue is, and who asks for it.

    Attributes:
        region: of AWS.
        queue: its name, which ends in ``.fifo``.
        account: whose it is; empty for one's own.
        endpoint: another URL than the region's.
        access_key: with its secret; empty for what AWS's tools use (environment, files, the machine's role).
    """

    region: str
    queue: str
    account: str = ""
    endpoint: str | None = None
    access_key: str = ""
    secret: str = field(default="", repr=False)


async def connect(address: QueueAddress, *, timeout: float, connections: int) -> Any:  # noqa: ANN401 - aiobotocore makes its classes when it runs
    """A client. Raises whatever the driver raises."""
    session = get_session()
    # What it reads from disk takes a third of a second, for which no event loop may stand still.
    await asyncio.to_thread(_warm, session)
    config = AioConfig(
        retries={"total_max_attempts": 1},  # the breaker and the shipper know when to try again
        connect_timeout=timeout,
        read_timeout=LONGEST_POLL + timeout,
        max_pool_connections=connections,
    )
    context = session.create_client(
        "sqs",
        region_name=address.region,
        endpoint_url=address.endpoint,
        aws_access_key_id=address.access_key or None,
        aws_secret_access_key=address.secret or None,
        config=config,
    )
    return await context.__aenter__()


async def close(client: Any) -> None:  # noqa: ANN401 - see `connect`
    """Close a client, within a second."""
    await asyncio.wait([asyncio.ensure_future(client.close())], timeout=_CLOSE_SECONDS)


def translate(error: Exception, backend: str) -> Unavailable:
    """The error of our tree for whatever the driver raised; without what it says, which may quote a URL."""
    if isinstance(error, Unavailable):
        return error
    if isinstance(error, exceptions.ClientError):
        code = str(error.response.get("Error", {}).get("Code", "an error"))[:120]
        return BackendFailed(f"{backend}: SQS answered {code}", backend=backend)
    if isinstance(error, exceptions.ConnectTimeoutError):
        return BackendTimeout(f"{backend}: connecting took too long", backend=backend, sent=False)
    if isinstance(error, exceptions.ReadTimeoutError):
        return BackendTimeout(f"{backend}: no answer in time", backend=backend)
    if isinstance(error, exceptions.EndpointConnectionError) and _was_refused(error):
        return BackendRefused(f"{backend}: the connection was refused", backend=backend)
    return BackendFailed(f"{backend}: {type(error).__name__}", backend=backend)


def _was_refused(error: BaseException | None) -> bool:
    # The same class stands for a connection that broke when all was sent.
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _warm(session: AioSession) -> None:
    loader = session.get_component("data_loader")
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("sqs", kind)
    for name in _WARMED:
        loader.load_data(name)
