# pyright: basic, reportMissingTypeStubs=false
"""aiomysql's connections made safe, for a pool that is not aiomysql's own.

Written against aiomysql 0.3, whose private parts it uses.
"""

from __future__ import annotations

from typing import Any

import aiomysql
from pymysql.constants import CLIENT
from pymysql.converters import decoders
from pymysql.err import MySQLError, OperationalError

from octopus_async.adapters._mysql_errors import NO_PLUGIN, NO_SSL, faults
from octopus_async.adapters._mysql_session import OURS_ALONE, Session, as_written, opened, password_of
from octopus_async.adapters._sql.server import Address

_DECODERS = as_written(decoders)
FAULTS = faults(MySQLError)


class Connection(aiomysql.Connection):  # type: ignore[misc]  # the driver is not typed
    """One of aiomysql's."""

    _reader: Any
    _writer: Any

    @property
    def result(self) -> Any:  # noqa: ANN401 - the driver's
        """The reply that was read last."""
        return self._result

    @property
    def broken(self) -> bool:
        """Whether it is closed, or the server has closed it."""
        reader = self._reader
        return self.closed or reader is None or reader.eof_received or reader.exception() is not None

    def abort(self) -> None:
        """Break it off at once; closing politely waits for a server that may have stopped reading."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._writer = self._reader = None

    async def _request_authentication(self) -> None:
        # The driver would go on without TLS if the server, or whoever is in between, says it has none.
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
        db=address.database,
        charset="utf8mb4",
        autocommit=True,
        conv=_DECODERS,
        client_flag=CLIENT.FOUND_ROWS,
        ssl=address.tls,
    )
    return await opened(connection, connection._connect(), FAULTS)  # noqa: SLF001 - as its own pool does
