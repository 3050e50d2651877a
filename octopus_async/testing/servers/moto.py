"""moto's server as a private process: it stands in for SQS, in function though not in speed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from octopus_async.testing.servers.find import ServerKind
from octopus_async.testing.servers.ports import LOOPBACK
from octopus_async.testing.servers.python import PythonServer


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"GET /moto-api/ HTTP/1.0\r\n\r\n")
    return b" 200 " in await reader.readline()


MOTO = ServerKind(
    name="moto",
    program="moto_server",
    package="moto",
    variable="OCTOPUS_TEST_SQS_ENDPOINT",
    port=5000,
    tells_version=("--version",),
    greet=_greet,
)


class MotoServer(PythonServer):
    """A private moto; a kill loses what it holds. Needs the package ``moto[server]``."""

    kind: ClassVar[ServerKind] = MOTO

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, an endpoint."""
        return f"http://{LOOPBACK}:{self.port}"

    def sink(self, queue: str) -> str:
        """The URL of a queue there, as a sink."""
        return f"sqs://access:secret@eu-central-1/{queue}?endpoint={self.url}"

    def _command(self, program: Path) -> list[str]:
        return [str(program), "-m", "moto.server", f"--host={LOOPBACK}", f"--port={self.port}"]
