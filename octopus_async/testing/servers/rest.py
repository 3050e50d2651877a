"""The reference REST service as a private process, run by uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from octopus_async.testing.servers.find import ServerKind
from octopus_async.testing.servers.ports import LOOPBACK
from octopus_async.testing.servers.python import PythonServer

_BASE = "/records"


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(f"GET {_BASE} HTTP/1.0\r\nOctopus-Protocol: 1\r\n\r\n".encode())
    return b" 200 " in await reader.readline()


REST = ServerKind(
    name="uvicorn",
    program="uvicorn",
    package="python3-uvicorn",
    variable="OCTOPUS_TEST_REST_URL",
    port=80,
    tells_version=("--version",),
    greet=_greet,
)


class RestServer(PythonServer):
    """A private `octopus_async.testing.restservice.RestService`; what it holds outlives a kill.

    Needs the package uvicorn.

    Args:
        tls: a folder with ``certificate.pem`` and ``key.pem``, to speak TLS; None for plain HTTP.
        options: further arguments for uvicorn's command line.
    """

    kind: ClassVar[ServerKind] = REST

    def __init__(self, *, tls: Path | None = None, options: Sequence[str] = ()) -> None:
        super().__init__(options=options)
        self._tls = tls

    @property
    def url(self) -> str:
        """``rest+http://127.0.0.1:PORT/records`` with what it offers, and leave to connect to loopback."""
        scheme = "rest+http" if self._tls is None else "rest+https"
        return f"{scheme}://{LOOPBACK}:{self.port}{_BASE}?allow={LOOPBACK}&bulk=true&scan=true"

    def _command(self, program: Path) -> list[str]:
        return [
            *(str(program), "-m", "uvicorn", "--factory", "octopus_async.testing.restservice:application"),
            *(f"--host={LOOPBACK}", f"--port={self.port}", "--log-level=warning", "--no-access-log"),
            *self._tls_options(),
        ]

    def _tls_options(self) -> list[str]:
        if self._tls is None:
            return []
        return [f"--ssl-certfile={self._tls / 'certificate.pem'}", f"--ssl-keyfile={self._tls / 'key.pem'}"]

    def _environment(self) -> dict[str, str]:
        database = str(self.folder / "records.sqlite3")
        # Killed, it loses nothing all the same, and nobody cuts its power.
        settings = {"OCTOPUS_REST_DATABASE": database, "OCTOPUS_REST_SYNCHRONOUS": "NORMAL"}
        return super()._environment() | settings
