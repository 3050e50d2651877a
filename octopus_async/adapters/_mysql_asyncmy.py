# pyright: basic, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false, reportCallIssue=false
"""asyncmy's connections made safe, for a pool that is not asyncmy's own.

Written against asyncmy 0.2.18, whose private parts it uses.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncmy.connection
from asyncmy.connection import _MySQLProtocol
from asyncmy.constants import CLIENT
from asyncmy.converters import conversions
from asyncmy.errors import MySQLError, OperationalError

from octopus_async.adapters._mysql_errors import NO_HOST, NO_PLUGIN, NO_SSL, faults
from octopus_async.adapters._mysql_session import OURS_ALONE, Session, as_written, opened, password_of
from octopus_async.adapters._sql.server import Address

_DECODERS = as_written(conversions)
FAULTS = faults(MySQLError)


class Connection(asyncmy.connection.Connection):  # type: ignore[misc]  # its stubs are not followed
    """One of asyncmy's."""

    _transport: Any

    async def connect(self) -> None:
        """Log in. Raises whatever the driver raises."""
        # Not by the driver's own method: it connects under asyncio.wait_for, which was seen to swallow a
        # cancellation in Python 3.11, so that nobody would ever give up on a server that has stopped.
        loop = asyncio.get_running_loop()
        try:
            self._transport, protocol = await loop.create_connection(
                lambda: _MySQLProtocol(loop), self._host, self._port
            )
        except OSError as error:
            raise OperationalError(NO_HOST, f"Can't connect to MySQL server on {self._host!r}") from error
        self._proto = protocol
        self._set_keep_alive()
        self._set_nodelay(True)  # noqa: FBT003 - the driver's own
        self._next_seq_id = 0
        await self._get_server_information()
        await self._request_authentication()
        self._connected = True

    @property
    def result(self) -> Any:  # noqa: ANN401 - the driver's
        """The reply that was read last."""
        return self._result

    @property
    def broken(self) -> bool:
        """Whether it is closed, the server has closed it, or has said what nobody asked for."""
        return bool(self._stream_broken) or self._proto.length != self._proto.pos

    def close(self) -> None:
        """Break it off at once: whenever the driver closes it, a reply may be under way."""
        transport, self._transport = self._transport, None
        self._connected = False
        if transport is not None:
            transport.abort()

    def abort(self) -> None:
        """Break it off at once; closing politely waits for a server that may have stopped reading."""
        self.close()

    async def _request_authentication(self) -> None:
        # The driver would begin with TLS all the same, and its error would say nothing of that.
        if self._ssl_context and not self.server_capabilities & CLIENT.SSL:
            raise OperationalError(NO_SSL, "TLS is asked for, but the server does not offer it")
        await super()._request_authentication()

    async def _process_auth(self, plugin_name: bytes, auth_packet: Any) -> Any:  # noqa: ANN401 - the driver's
        if plugin_name in OURS_ALONE and not self._secure:
            raise OperationalError(NO_PLUGIN, f"{plugin_name.decode()} is not used without TLS")
        return await super()._process_auth(plugin_name, auth_packet)


async def connect(address: Address) -> Session:
    """Log in and set the session up. Raises whatever the driver raises, and leaves nothing behind then."""
    connection = Connection(
        host=address.host,
        port=address.port,
        user=address.user,
        password=password_of(address),
        database=address.database,
        charset="utf8mb4",
        conv=_DECODERS,
        client_flag=CLIENT.FOUND_ROWS,
        ssl=address.tls,
    )
    return await opened(connection, connection.connect(), FAULTS)
