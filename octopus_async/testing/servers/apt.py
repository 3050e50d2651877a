"""Packages of Debian and Ubuntu, downloaded and unpacked into a folder: no root, no trace elsewhere.

apt-get gets lists, caches and a status file of its own, so it neither needs nor changes those of the system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

_STATUS = Path("/var/lib/dpkg/status")
_COMMAND_SECONDS = 600.0


class AptFailed(Exception):
    """apt-get could not do it; the message, one line, gives its own words."""


def usable() -> bool:
    """Whether this system has apt-get and dpkg, and a record of what is installed."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg")) and _STATUS.is_file()


def unpack(pattern: str, target: Path) -> None:
    """Make ``target`` hold a package and what it depends on, as far as the system lacks that.

    Args:
        pattern: regular expression that the package's name matches wholly; of several, the last is taken.
        target: a folder; it appears complete or not at all, and replaces what was there.

    Raises:
        AptFailed: the package was not found, or not to be downloaded.
    """
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        apt = _PrivateApt(Path(scratch))
        apt.write_status(pattern)
        tree = Path(scratch, "tree")
        tree.mkdir()
        tree.chmod(0o755)  # whatever the umask: another user's server runs from it
        for archive in apt.download(apt.choose(pattern)):
            _run("dpkg", "-x", str(archive), str(tree))
        if target.exists():
            target.rename(Path(scratch, "replaced"))
        tree.rename(target)


def libraries(tree: Path) -> list[Path]:
    """The folders of shared libraries in an unpacked tree."""
    return sorted(folder for top in ("usr/lib", "lib") for folder in tree.glob(f"{top}/*-linux-*"))


class _PrivateApt:
    def __init__(self, scratch: Path) -> None:
        self._cache = scratch / "cache"
        self._status = scratch / "status"
        settings = {
            "Dir::State": scratch / "state",
            "Dir::State::status": self._status,
            "Dir::Cache": self._cache,
            "Debug::NoLocking": 1,  # an ordinary user may not take the system's lock, nor does this need it
            "APT::Sandbox::User": "root",  # apt's own user could not write here
            "Acquire::Retries": 3,
            "Acquire::http::Timeout": 30,
            "Acquire::https::Timeout": 30,
        }
        self._options = [f"-o{name}={value}" for name, value in settings.items()]
        (scratch / "state/lists/partial").mkdir(parents=True)
        (self._cache / "archives/partial").mkdir(parents=True)

    def write_status(self, without: str) -> None:
        """Note what is installed, apart from the package itself, so that it is downloaded all the same."""
        text = _STATUS.read_text(encoding="utf-8", errors="replace")
        itself = re.compile(rf"Package: ({without})$", re.MULTILINE)
        stanzas = [stanza for stanza in text.split("\n\n") if not itself.match(stanza)]
        self._status.write_text("\n\n".join(stanzas), encoding="utf-8")

    def choose(self, pattern: str) -> str:
        """The newest package whose name matches. Updates the private lists first."""
        try:
            self._get("update")
            failure = "apt-get has no package for it"
        except AptFailed as error:  # one source of several is enough, and a system's own hooks may fail
            failure = str(error)
        names = _run("apt-cache", *self._options, "search", "--names-only", f"^({pattern})$").splitlines()
        if not names:
            raise AptFailed(failure)
        return max((line.split()[0] for line in names), key=_by_number)

    def download(self, package: str) -> list[Path]:
        """Download a package and those it depends on, unless they are installed."""
        self._get("install", "--download-only", "--no-install-recommends", "--yes", package)
        return sorted((self._cache / "archives").glob("*.deb"))

    def _get(self, *arguments: str) -> str:
        return _run("apt-get", "-qq", *self._options, *arguments)


def _by_number(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _run(*command: str) -> str:
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        complaints = [line for line in error.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
        raise AptFailed(f"{command[0]}: {' '.join(complaints or error.stderr.split()[-20:])}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AptFailed(f"{command[0]}: {type(error).__name__}") from error
    return done.stdout
