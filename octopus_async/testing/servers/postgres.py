"""A private Postgres: small, up in a fraction of a second, killed and paused with all its processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from octopus_async.errors import BackendFailed
from octopus_async.testing.servers.find import Installation, ServerKind
from octopus_async.testing.servers.folders import ServerFolder, spawn
from octopus_async.testing.servers.ports import LOOPBACK
from octopus_async.testing.servers.private import PrivateServer
from octopus_async.testing.servers.template import template

_PROC = Path("/proc")  # not on every system
_PREPARE_SECONDS = 60.0
_PROTOCOL = 196608  # 3.0
_NOT_READY = b"57P03"
_ERROR, _AUTHENTICATION = b"E", b"R"

_INITDB = (
    "--username=postgres",
    "--auth=reject",
    "--encoding=UTF8",
    "--locale=C",
    "--wal-segsize=1",  # megabytes: the less there is to copy, the sooner a server is up
    "--no-sync",
)
_USERS = """\
CREATE ROLE octopus LOGIN CREATEDB
ALTER DATABASE postgres RENAME TO octopus
ALTER DATABASE octopus OWNER TO octopus
"""
_RECIPE = "\n".join((*_INITDB, _USERS))
# Not in the template, which anybody on the machine may read.
_PASSWORDS = """\
ALTER ROLE postgres PASSWORD '{password}'
ALTER ROLE octopus PASSWORD '{password}'
"""
_ACCESS = "host all all 127.0.0.1/32 scram-sha-256\n"


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Ask to log in: a server that is still recovering, or going down, says so."""
    body = struct.pack("!i", _PROTOCOL) + b"user\0octopus\0database\0octopus\0\0"
    writer.write(struct.pack("!i", len(body) + 4) + body)
    kind, length = struct.unpack("!ci", await reader.readexactly(5))
    said = await reader.readexactly(max(0, min(length - 4, 65536)))
    return bool(kind == _AUTHENTICATION or (kind == _ERROR and _NOT_READY not in said))


POSTGRES = ServerKind(
    name="postgresql",
    program="postgres",
    package=r"postgresql-[0-9]+",
    variable="OCTOPUS_TEST_POSTGRES_URL",
    port=5432,
    tells_version=("--version",),
    greet=_greet,
)


class PostgresServer(PrivateServer):
    """A private Postgres with a database ``octopus``, whose user ``octopus`` may make further ones.

    Args:
        durable: whether a commit waits for the disk; without that, it survives a kill all the same.
        max_connections: connections it takes at the same time, three of them the administrator's.
        options: further arguments for its command line.
    """

    kind: ClassVar[ServerKind] = POSTGRES
    end_signal: ClassVar[signal.Signals] = signal.SIGINT  # SIGTERM waits until the last client has gone

    def __init__(
        self, *, durable: bool = True, max_connections: int = 100, options: Sequence[str] = ()
    ) -> None:
        super().__init__(options=options)
        self._settings = {
            "fsync": "on" if durable else "off",
            "max_connections": str(max_connections),
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
            "max_wal_size": "256MB",
            "jit": "off",
        }
        self._password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        """``postgres://octopus:PASSWORD@127.0.0.1:PORT/octopus``."""
        return f"postgres://octopus:{self._password}@{LOOPBACK}:{self.port}/octopus"

    @property
    def admin_url(self) -> str:
        """The same for a user who may do anything, as ``ALTER SYSTEM``."""
        return f"postgres://postgres:{self._password}@{LOOPBACK}:{self.port}/octopus"

    async def kill(self) -> None:
        """End all its processes with SIGKILL, and wait until they are gone. Does nothing where none runs."""
        # Those that outlive the first would keep its memory, and so the next one from starting.
        children = self._children()
        await super().kill()
        for pid in children:
            _send(pid, signal.SIGKILL)
        await self._until(lambda: not any(map(_exists, children)), "end")

    async def pause(self) -> None:
        """Stop all its processes with SIGSTOP, and wait until they stand still.

        Raises:
            OperationNotSupported: it is not running.
        """
        await super().pause()
        children = self._children()
        for pid in children:
            _send(pid, signal.SIGSTOP)
        await self._until(lambda: all(map(_stands_still, children)), "stand still")

    async def resume(self) -> None:
        """Let all its processes go on, and wait until it answers.

        Raises:
            OperationNotSupported: it is not running.
            BackendTimeout: it did not answer in time.
        """
        for pid in self._children():
            _send(pid, signal.SIGCONT)
        await super().resume()

    async def terminate(self) -> None:
        """Ask it to end without waiting for its clients, and wait until it is gone; after 10 s it is killed.

        Raises:
            OperationNotSupported: it is not running.
        """
        for pid in self._children():
            _send(pid, signal.SIGCONT)
        await super().terminate()

    def _children(self) -> list[int]:
        return list(_children_of(self.pid)) if self.running else []

    def _prepare(self, installation: Installation) -> None:
        data = self.folder / "data"
        shutil.copytree(template(installation, "postgres-data", _RECIPE, _make_data), data)
        data.chmod(0o700)
        (data / "pg_hba.conf").write_text(_ACCESS, encoding="utf-8")
        self._hand_over()
        _run_alone(installation, self.folder, _PASSWORDS.format(password=self._password))

    def _command(self, program: Path) -> list[str]:
        settings = self._settings | {"port": str(self.port)}
        return [
            str(program),
            "-D",
            f"{self.folder}/data",
            *(f"--{name}={value}" for name, value in settings.items()),
        ]


def _make_data(installation: Installation, workshop: ServerFolder) -> Path:
    initdb = str(installation.program.with_name("initdb"))
    command = [initdb, f"--pgdata={workshop.path}/data", *_INITDB]
    _finish(spawn(command, workshop.path, installation.environment), workshop.path)
    _run_alone(installation, workshop.path, _USERS)
    return workshop.path / "data"


def _run_alone(installation: Installation, folder: Path, statements: str) -> None:
    """Run statements, one a line, on data that no server uses."""
    command = [str(installation.program), "--single", "-F", "-D", f"{folder}/data", "template1"]
    with tempfile.TemporaryFile() as source:
        source.write(statements.encode())
        source.seek(0)
        _finish(spawn(command, folder, installation.environment, stdin=source), folder)


def _finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    try:
        status = process.wait(_PREPARE_SECONDS)
    finally:
        process.kill()
        process.wait()
    if status != 0:
        tail = (folder / "log").read_text(errors="replace")[-2000:]
        raise BackendFailed(f"postgres could not make its tables:\n{tail}", backend=POSTGRES.name)


def _children_of(pid: int) -> Iterator[int]:
    if _PROC.is_dir():
        with contextlib.suppress(OSError):
            yield from map(int, (_PROC / f"{pid}/task/{pid}/children").read_text(encoding="ascii").split())
        return
    listed = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        child, parent = line.split()
        if int(parent) == pid:
            yield int(child)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(pid, number)


def _state(pid: int) -> str | None:
    """One letter of the process's state; None where there is no such process, or no way to know."""
    with contextlib.suppress(OSError):
        return (_PROC / f"{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return _state(pid) != "Z"


def _stands_still(pid: int) -> bool:
    return _state(pid) in (None, "T", "Z")
