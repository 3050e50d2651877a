"""aiohttp made safe for one base URL: addresses checked, no redirects, proxies or cookies, bounded answers.

A connection whose answer was not wholly read is closed, whatever the reason.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from types import SimpleNamespace
from weakref import WeakSet

import aiohttp
from aiohttp.connector import AddrInfoType
from yarl import URL

from octopus_async.adapters._rest_endpoint import Endpoint
from octopus_async.adapters._rest_protocol import H_PROTOCOL, PROTOCOL, Answer
from octopus_async.errors import BackendFailed, BackendRefused, BackendTimeout, Unavailable

_IDLE_SECONDS = 4.0
"""Less than the five after which the most hasty of the usual servers closes a connection."""
_CLOSE_SECONDS = 1.0
_ONE_PIECE = 512 * 1024
_REASON_LIMIT = 300


class AnswerTooLarge(Exception):
    """An answer's body is over the limit."""


class _Sending(SimpleNamespace):
    sent = False


class RestClient:
    """Requests to one service, over a bounded number of connections. Made within a running event loop."""

    def __init__(self, endpoint: Endpoint, backend: str) -> None:
        self._endpoint = endpoint
        self._backend = backend
        self._permits = asyncio.Semaphore(endpoint.connections)
        watch = aiohttp.TraceConfig()
        watch.on_request_headers_sent.append(_mark_sent)
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=endpoint.connections,
                keepalive_timeout=_IDLE_SECONDS,
                ssl=endpoint.tls or True,
                socket_factory=self._socket,
                resolver=aiohttp.ThreadedResolver(),
            ),
            headers={**endpoint.headers, H_PROTOCOL: PROTOCOL, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=endpoint.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[watch],
        )

    async def close(self) -> None:
        """Close every connection; one that a stopped server does not let end is broken off."""
        closing = asyncio.ensure_future(self._session.close())
        await asyncio.wait([closing], timeout=_CLOSE_SECONDS)
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        await closing

    async def ask(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Make one request.

        Parameters:
            method: of HTTP.
            path: below the base, percent-encoded.
            body: JSON.
            headers: beside those of every request.

        Raises:
            AnswerTooLarge: the answer is longer than it may be.
            Unavailable: there was no answer.
        """
        sending = _Sending()
        kind = {} if body is None else {"Content-Type": "application/json"}
        try:
            async with self._permits:
                return await self._ask(method, path, body, {**kind, **(headers or {})}, sending)
        except AnswerTooLarge:
            raise
        except Exception as error:
            raise translate(error, self._backend, sent=sending.sent) from error

    async def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], sending: _Sending
    ) -> Answer:
        response = await self._session.request(
            method,
            URL(self._endpoint.base + path, encoded=True),
            # Of a large one in bytes aiohttp warns, as it would be written in one piece.
            data=BytesIO(body) if body is not None and len(body) > _ONE_PIECE else body,
            headers=headers,
            allow_redirects=False,
            trace_request_ctx=sending,
        )
        try:
            content = await self._content(response)
        except BaseException:
            response.close()
            raise
        return Answer(
            response.status, {name.lower(): text for name, text in response.headers.items()}, content
        )

    async def _content(self, response: aiohttp.ClientResponse) -> bytes:
        limit = self._endpoint.max_answer
        if (response.content_length or 0) > limit:
            raise AnswerTooLarge
        chunks: list[bytes] = []
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            limit -= len(chunk)
            if limit < 0:
                raise AnswerTooLarge
        return b"".join(chunks)

    def _socket(self, info: AddrInfoType) -> socket.socket:
        """A socket for an address that is about to be connected to. Raises `AddressRefused`."""
        family, kind, protocol, _, address = info
        self._endpoint.addresses.check(str(address[0]))
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made


async def _mark_sent(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
    # aiohttp sends what is idempotent a second time where a connection that it had kept turns out dead: that
    # the second could not be sent says nothing about the first.
    context.trace_request_ctx.sent = True


def translate(error: Exception, backend: str, *, sent: bool) -> Unavailable:
    """The error of our tree for whatever the client raised.

    Parameters:
        error: what was raised.
        backend: the backend's name.
        sent: whether a request had been sent.
    """
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return BackendTimeout(f"{backend}: connecting took too long", backend=backend, sent=sent)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _translate_connecting(error, backend, sent=sent)
    # What it says may quote what it was given, the headers for instance.
    return BackendFailed(f"{backend}: {type(error).__name__}", backend=backend, sent=sent)


def _translate_connecting(error: aiohttp.ClientConnectorError, backend: str, *, sent: bool) -> Unavailable:
    cause = getattr(error, "certificate_error", None) or error.os_error
    # All addresses of a name may have refused, each in its own words.
    refused = error.os_error.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(cause)
    if refused and not sent:
        return BackendRefused(f"{backend}: the connection was refused", backend=backend)
    reason = str(cause)[:_REASON_LIMIT] or type(cause).__name__
    return BackendFailed(f"{backend}: could not connect: {reason}", backend=backend, sent=sent)
