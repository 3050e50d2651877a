"""A private MariaDB: durable like a primary in production, small, and up in a fraction of a second."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from octopus_async.errors import BackendFailed
from octopus_async.testing.servers.find import Installation, ServerKind, locked_folder, servers_folder
from octopus_async.testing.servers.folders import ServerFolder, spawn
from octopus_async.testing.servers.ports import LOOPBACK
from octopus_async.testing.servers.private import PrivateServer

_BOOTSTRAP_SECONDS = 60.0
_PROTOCOL_VERSION = 10

# The order matters: the data go into the tables. MariaDB 11 renamed mysql_* to mariadb_*.
_SYSTEM_TABLES = ("m*_system_tables.sql", "m*_performance_tables.sql", "m*_system_tables_data.sql")

# A new data folder was made with these, so a running server needs them too.
_SIZES = (
    "--innodb-log-file-size=32M",
    "--innodb-buffer-pool-size=64M",
    "--innodb-undo-tablespaces=0",
    "--aria-pagecache-buffer-size=8M",
)

# Run at each start. The first root comes without a password: nobody else on the machine shall have it.
_USERS = """\
DELETE FROM mysql.global_priv WHERE User IN ('', 'root');
FLUSH PRIVILEGES;
CREATE OR REPLACE USER root@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;
CREATE OR REPLACE USER octopus@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON `octopus%`.* TO octopus@'127.0.0.1';
CREATE DATABASE IF NOT EXISTS octopus;
"""


async def _greet(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> bool:
    header = await reader.readexactly(5)
    return header[4] == _PROTOCOL_VERSION


MARIADB = ServerKind(
    name="mariadb",
    program="mariadbd",
    package=r"mariadb-server-core(-[0-9.]+)?",
    variable="OCTOPUS_TEST_MYSQL_URL",
    port=3306,
    tells_version=("--no-defaults", "--version"),
    greet=_greet,
)


class MariaDBServer(PrivateServer):
    """A private MariaDB with a database ``octopus``, whose committed transactions survive a kill.

    Its user ``octopus`` may do anything in databases whose names begin with ``octopus``, but has no say over
    the server, so that ``read_only`` and ``max_connections`` bind it.

    Args:
        max_connections: connections it takes at the same time, and one more for the administrator.
        options: further arguments for its command line.
    """

    kind: ClassVar[ServerKind] = MARIADB

    def __init__(self, *, max_connections: int = 151, options: Sequence[str] = ()) -> None:
        super().__init__(options=options)
        self._max_connections = max_connections
        self._password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        """``mysql://octopus:PASSWORD@127.0.0.1:PORT/octopus``."""
        return f"mysql://octopus:{self._password}@{LOOPBACK}:{self.port}/octopus"

    @property
    def admin_url(self) -> str:
        """The same for a user who may do anything, as ``SET GLOBAL read_only = 1``."""
        return f"mysql://root:{self._password}@{LOOPBACK}:{self.port}/octopus"

    def _prepare(self, installation: Installation) -> None:
        shutil.copytree(_empty_data(installation), self.folder / "data")
        users = self.folder / "users.sql"
        users.write_text(_USERS.format(password=self._password), encoding="utf-8")

    def _command(self, program: Path) -> list[str]:
        return [
            *_base_command(program, self.folder),
            f"--init-file={self.folder}/users.sql",
            "--skip-networking=0",
            f"--bind-address={LOOPBACK}",
            f"--port={self.port}",
            "--socket=mariadb.sock",  # relative to the data: a path here has a narrow limit
            f"--pid-file={self.folder}/pid",
            "--skip-name-resolve",
            f"--max-connections={self._max_connections}",
            "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=1",
            "--skip-ssl",  # from 11.4 on it would make a key at each start, which takes up to seconds
        ]


def _base_command(program: Path, folder: Path) -> list[str]:
    prefix = program.parent.parent
    share = _share(program)
    return [
        str(program),
        "--no-defaults",
        f"--basedir={prefix}",
        f"--lc-messages-dir={share}",
        f"--character-sets-dir={share}/charsets",
        f"--plugin-dir={prefix}/lib/mysql/plugin",
        f"--datadir={folder}/data",
        f"--tmpdir={folder}",
        *_SIZES,
    ]


def _share(program: Path) -> Path:
    for name in ("share/mariadb", "share/mysql"):
        folder = program.parent.parent / name
        if any(folder.glob(_SYSTEM_TABLES[0])):
            return folder
    msg = f"{program} lacks the statements that make its system tables: its installation is not complete"
    raise BackendFailed(msg, backend=MARIADB.name)


def _empty_data(installation: Installation) -> Path:
    """A data folder as it is before the first start, made once for each version and kept for copying."""
    made_from = hashlib.sha256("\n".join([installation.version, *_SIZES]).encode()).hexdigest()[:16]
    kept = servers_folder() / f"mariadb-data-{made_from}"
    if not kept.is_dir():
        with locked_folder():
            if not kept.is_dir():
                _make_empty_data(installation, kept)
    return kept


def _make_empty_data(installation: Installation, target: Path) -> None:
    workshop = ServerFolder()
    try:
        (workshop.path / "data").mkdir()
        statements = workshop.path / "bootstrap.sql"
        statements.write_bytes(_bootstrap_statements(_share(installation.program)))
        workshop.hand_over()
        _bootstrap(installation, workshop.path, statements)
        _keep(workshop.path / "data", target)
    finally:
        workshop.remove()


def _bootstrap_statements(share: Path) -> bytes:
    parts = [b"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket = NULL;\n"]
    for pattern in _SYSTEM_TABLES:
        parts += [path.read_bytes() for path in sorted(share.glob(pattern))]
    lines = b"\n".join(parts).splitlines(keepends=True)
    return b"".join(line for line in lines if b"@current_hostname" not in line)  # it has no such user then


def _bootstrap(installation: Installation, folder: Path, statements: Path) -> None:
    command = [*_base_command(installation.program, folder), "--bootstrap", "--enforce-storage-engine="]
    with statements.open("rb") as source:
        process = spawn(command, folder, installation.environment, stdin=source)
    try:
        status = process.wait(_BOOTSTRAP_SECONDS)
    finally:
        process.kill()
        process.wait()
    if status != 0:
        tail = (folder / "log").read_text(errors="replace")[-2000:]
        raise BackendFailed(f"mariadb could not make its system tables:\n{tail}", backend=MARIADB.name)


def _keep(data: Path, target: Path) -> None:
    half_done = target.with_suffix(".new")
    shutil.rmtree(half_done, ignore_errors=True)
    shutil.copytree(data, half_done)
    for path in (half_done, *half_done.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # another user's server is copied from it, too
    half_done.rename(target)
