"""Servers that somebody else runs, named by a URL in the environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import ClassVar, Protocol

from octopus_async.errors import BackendTimeout, ConfigurationError
from octopus_async.testing.servers.find import ServerKind
from octopus_async.testing.servers.private import START_SECONDS, PrivateServer, answers
from octopus_async.url import BackendURL

_RETRY_SECONDS = 0.1


class Server(Protocol):
    """What can be done with any server, be it ours or not.

    Attributes:
        external: whether somebody else runs it, so that it cannot be killed, paused or restarted.
    """

    external: ClassVar[bool]

    @property
    def url(self) -> str:
        """The URL of the server for `DaoManager`."""
        ...

    async def wait_ready(self, timeout: float = ...) -> None:
        """Wait until the server answers; raises `Unavailable` when it does not."""
        ...


class ExternalServer:
    """A server that somebody else runs.

    Args:
        kind: which server it is.
        url: its URL.

    Raises:
        ConfigurationError: that is no URL of a server.
    """

    external: ClassVar[bool] = True

    def __init__(self, kind: ServerKind, url: str) -> None:
        self.kind = kind
        self.url = url
        self._parsed = BackendURL.parse(url)
        if not self._parsed.hosts:
            raise ConfigurationError(f"{kind.variable} names no host")

    def __repr__(self) -> str:
        return f"<ExternalServer {self._parsed}>"

    async def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """Wait until every host of the URL answers.

        Args:
            timeout: seconds until they have to.

        Raises:
            BackendTimeout: one did not in time.
        """
        try:
            async with asyncio.timeout(timeout):
                for host, port in self._parsed.hosts:
                    while not await answers(self.kind, host, port or self.kind.port):  # noqa: ASYNC110 - it is elsewhere
                        await asyncio.sleep(_RETRY_SECONDS)
        except TimeoutError:
            msg = f"{self.kind.variable} names {self._parsed}, which did not answer within {timeout:g} s"
            raise BackendTimeout(msg, backend=self.kind.name) from None


@asynccontextmanager
async def open_server(private: type[PrivateServer]) -> AsyncGenerator[Server]:
    """The server whose URL the environment gives, or else a private one, ready to be used.

    Raises:
        ConfigurationError: it is not to be had; the message says what to install.
        Unavailable: it does not answer.
    """
    url = os.environ.get(private.kind.variable)
    if url:
        server = ExternalServer(private.kind, url)
        await server.wait_ready()
        yield server
    else:
        async with private() as started:
            yield started
