"""A loopback port that stays ours while nobody listens on it."""

from __future__ import annotations

import socket
import sys

LOOPBACK = "127.0.0.1"


class HeldPort:
    """A free port, held by a socket that is bound and does not listen: connections are refused.

    While a server is down its port would otherwise be free for anybody, even as the local end of the very
    connection a client tries to it, which then talks to itself. Linux lets a server listen beside the
    held socket, as both set SO_REUSEADDR; elsewhere the port is merely chosen.

    Attributes:
        number: the port.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((LOOPBACK, 0))
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    def release(self) -> None:
        """Let others have the port."""
        self._socket.close()
