"""A TCP proxy between client and server that delays, slows, cuts, resets, swallows or refuses on demand."""

from __future__ import annotations

import asyncio
import enum
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from octopus_async.errors import ConfigurationError
from octopus_async.testing.servers.ports import LOOPBACK, HeldPort
from octopus_async.url import BackendURL

_CHUNK_BYTES = 65536
_SLOW_STEPS_PER_SECOND = 20
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER for no time at all: close sends RST
_HOST_IN_URL = re.compile(r"(?P<before>[^/]+://(?:[^/?]*@)?)[^/?]+(?P<after>.*)", re.DOTALL)


class Mode(enum.Enum):
    """What a proxy does with its connections."""

    PASS = enum.auto()
    DELAY = enum.auto()
    SLOW = enum.auto()
    CUT = enum.auto()
    RESET = enum.auto()
    SWALLOW = enum.auto()
    HALF_CLOSE = enum.auto()
    REFUSE = enum.auto()


_ENDINGS = (Mode.CUT, Mode.RESET)


class FaultyProxy:
    """A proxy on a free loopback port, whose faults are switched while it runs.

    Use it with ``async with``, and give clients its `url`. A mode holds, for connections that are open and
    for those to come, until the next one; `heal` goes back to passing everything on. A connection that has
    lost bytes is reset at the next change of mode, since no network hands over what follows a gap.

    A server that does not take the proxy's connection looks to the client like one that resets it.

    Args:
        url: the server's URL, with one host and its port.

    Attributes:
        mode: what it does at present.
        connections: how many connections clients have made, altogether.
        bytes_to_server: how many bytes were passed on to the server, altogether.
        bytes_to_client: how many bytes were passed on to clients, altogether.

    Raises:
        ConfigurationError: the URL does not name one host and port.
    """

    def __init__(self, url: str) -> None:
        hosts = BackendURL.parse(url).hosts
        if len(hosts) != 1 or hosts[0][1] is None:
            raise ConfigurationError("a proxy needs the URL of one host, with its port")
        self.mode = Mode.PASS
        self.connections = 0
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self._server_url = url
        self._server_address = (hosts[0][0], hosts[0][1])
        self._amount = 0.0
        self._changed = asyncio.Event()
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._held: HeldPort | None = None
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The TCP port that clients connect to."""
        if self._held is None:
            raise ConfigurationError("this proxy is not open: use it with `async with`")
        return self._held.number

    @property
    def url(self) -> str:
        """The server's URL by way of the proxy."""
        return _HOST_IN_URL.sub(rf"\g<before>{LOOPBACK}:{self.port}\g<after>", self._server_url)

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        self._held = HeldPort()
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop_listening()
        for task in self._links:
            task.cancel()
        await self._all_gone()
        if self._held is not None:
            self._held.release()
            self._held = None

    async def heal(self) -> None:
        """Pass everything on, at once, and listen."""
        await self._switch(Mode.PASS)

    async def delay(self, seconds: float) -> None:
        """Hold each piece of up to 64 KiB back for ``seconds``, in both directions."""
        await self._switch(Mode.DELAY, seconds)

    async def slow(self, bytes_per_second: float) -> None:
        """Pass on no more than so many bytes a second, in each direction of each connection."""
        await self._switch(Mode.SLOW, bytes_per_second)

    async def cut(self) -> None:
        """Close every connection (FIN), and each new one as soon as it is made."""
        await self._switch(Mode.CUT)
        await self._all_gone()

    async def reset(self) -> None:
        """Reset every connection (RST), and each new one as soon as it is made."""
        await self._switch(Mode.RESET)
        await self._all_gone()

    async def swallow(self) -> None:
        """Take connections and whatever is sent, and let nothing through in either direction."""
        await self._switch(Mode.SWALLOW)

    async def half_close(self) -> None:
        """End the stream to each client (FIN), and go on passing what clients send to the server."""
        await self._switch(Mode.HALF_CLOSE)

    async def refuse(self) -> None:
        """Stop listening: new connections are refused, open ones go on undisturbed."""
        await self._switch(Mode.REFUSE)

    async def _switch(self, mode: Mode, amount: float = 0.0) -> None:
        self.mode, self._amount = mode, amount
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if mode is Mode.REFUSE:
            self._stop_listening()
        elif self._listener is None:
            await self._listen()
        for task, link in self._links.items():
            if mode in _ENDINGS or link.lossy:
                link.end(reset=mode is not Mode.CUT)
                task.cancel()
            elif mode is Mode.HALF_CLOSE:
                link.half_close()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, LOOPBACK, self.port)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _all_gone(self) -> None:
        if self._links:
            await asyncio.wait(self._links)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(_Stream(reader, writer))
        task = asyncio.create_task(self._serve(link))
        self.connections += 1
        self._links[task] = link
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._links.pop(task).end(reset=False)

    async def _serve(self, link: _Link) -> None:
        try:
            await self._relay(link)
        except* OSError:
            link.end(reset=True)

    async def _relay(self, link: _Link) -> None:
        if self.mode in _ENDINGS or self._held is None:
            link.end(reset=self.mode is Mode.RESET)
            return
        if self.mode is Mode.HALF_CLOSE:
            link.half_close()
        await link.connect(*self._server_address)
        async with asyncio.TaskGroup() as flows:
            flows.create_task(self._flow(link, link.client, link.server, self._count_to_server))
            flows.create_task(self._flow(link, link.server, link.client, self._count_to_client))
        await link.close()

    async def _flow(self, link: _Link, source: _Stream, sink: _Stream, count: Callable[[int], None]) -> None:
        while data := await source.reader.read(_CHUNK_BYTES):
            while data:
                size, seconds = self._pace(len(data))
                await self._hold_back(seconds)
                if self.mode is Mode.SWALLOW:
                    link.lossy = True
                    break
                count(await sink.write(data[:size]))
                data = data[size:]
        if self.mode is Mode.SWALLOW:
            link.lossy = True  # the end of a stream is swallowed as well
        else:
            sink.write_eof()

    def _pace(self, size: int) -> tuple[int, float]:
        """How many of so many bytes may go next, and seconds until then."""
        if self.mode is Mode.DELAY:
            return size, self._amount
        if self.mode is Mode.SLOW:
            step = min(size, max(1, int(self._amount / _SLOW_STEPS_PER_SECOND)))
            return step, step / self._amount
        return size, 0.0

    async def _hold_back(self, seconds: float) -> None:
        if seconds:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    def _count_to_server(self, size: int) -> None:
        self.bytes_to_server += size

    def _count_to_client(self, size: int) -> None:
        self.bytes_to_client += size


class _Stream:
    """One end of a connection; what is written after its end was sent is dropped."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._eof_sent = False

    async def write(self, data: bytes) -> int:
        if self._eof_sent:
            return 0
        self.writer.write(data)
        await self.writer.drain()
        return len(data)

    def write_eof(self) -> None:
        if not self._eof_sent and not self.writer.is_closing():
            self._eof_sent = True
            self.writer.write_eof()

    def abort(self, *, reset: bool) -> None:
        if reset and not self.writer.is_closing():
            connection: socket.socket = self.writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


class _Link:
    """A client's connection and the one made for it to the server."""

    def __init__(self, client: _Stream) -> None:
        self.client = client
        self.server = client  # until it is connected
        self.lossy = False

    async def connect(self, host: str, port: int) -> None:
        self.server = _Stream(*await asyncio.open_connection(host, port))

    def half_close(self) -> None:
        self.client.write_eof()

    def end(self, *, reset: bool) -> None:
        self.client.abort(reset=reset)
        self.server.abort(reset=reset)

    async def close(self) -> None:
        await self.client.close()
        await self.server.close()
