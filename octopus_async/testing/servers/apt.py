"""Packages of Debian and Ubuntu, downloaded and unpacked into a folder: no root, no trace elsewhere.

apt-get gets lists, caches and a status file of its own, so it neither needs nor changes those of the system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_STATUS = Path("/var/lib/dpkg/status")
_COMMAND_SECONDS = 600.0
# What a package is, without what it asks of others: a system that is half broken is then no obstacle.
_KEPT_FIELDS = ("Package:", "Status:", "Version:", "Architecture:", "Multi-Arch:", "Provides:")
_PRETENDED = """\
Package: {name}
Status: install ok installed
Version: 9999:0
Architecture: all
Multi-Arch: allowed

"""


class AptFailed(Exception):
    """apt-get could not do it; the message, one line, gives its own words."""


def usable() -> bool:
    """Whether this system has apt-get and dpkg, and a record of what is installed."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg")) and _STATUS.is_file()


def unpack(pattern: str, target: Path) -> None:
    """Make ``target`` hold a package and what it depends on, as far as the system lacks that.

    Args:
        pattern: regular expression that the package's name matches wholly; of several, the one with the
            greatest number is taken. What it depends on and matches as well is unpacked, too.
        target: a folder; it appears complete or not at all, and replaces what was there.

    Raises:
        AptFailed: the package was not found, or not to be downloaded.
    """
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        apt = _PrivateApt(Path(scratch), without=pattern)
        tree = Path(scratch, "tree")
        tree.mkdir()
        for archive in apt.download(apt.choose(pattern), pattern):
            _run("dpkg", "-x", str(archive), str(tree))
        if target.exists():
            target.rename(Path(scratch, "replaced"))
        tree.rename(target)


def libraries(tree: Path) -> list[Path]:
    """The folders of shared libraries in an unpacked tree."""
    return sorted(folder for top in ("usr/lib", "lib") for folder in tree.glob(f"{top}/*-linux-*"))


class _PrivateApt:
    def __init__(self, scratch: Path, *, without: str) -> None:
        self._scratch = scratch
        self._status = scratch / "status"
        settings = {
            "Dir::State": scratch / "state",
            "Dir::State::status": self._status,
            "Dir::Cache": scratch / "cache",
            "APT::Sandbox::User": "root",  # apt's own user could not write here
            "Acquire::Retries": 3,
            "Acquire::http::Timeout": 30,
            "Acquire::https::Timeout": 30,
        }
        self._options = [f"-o{name}={value}" for name, value in settings.items()]
        (scratch / "state/lists/partial").mkdir(parents=True)
        (scratch / "cache/archives/partial").mkdir(parents=True)
        self._status.write_text("".join(_installed(without)), encoding="utf-8")

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
        return max(sorted(line.split()[0] for line in names), key=_by_number)

    def download(self, package: str, pattern: str) -> list[Path]:
        """Download a package, and the libraries and parts it depends on unless they are installed."""
        part = re.compile(f"lib.*|{pattern}")
        self._pretend_installed(name for name in self._asked_for_by(package) if not part.fullmatch(name))
        plan = self._get("install", "--simulate", "--no-install-recommends", package)
        steps = re.findall(r"^Inst (\S+)(?: \[(\S+)\])? \((\S+)", plan, re.MULTILINE)
        # apt would bring installed packages of the same source up to a version that they have.
        self._get("download", *(name for name, installed, version in steps if installed != version))
        return sorted(self._scratch.glob("*.deb"))

    def _asked_for_by(self, package: str) -> list[str]:
        return re.findall(r"Depends: <?([^\s:>]+)", _run("apt-cache", *self._options, "depends", package))

    def _pretend_installed(self, names: Iterable[str]) -> None:
        # They serve scripts that set the package up (perl, adduser), which never run here.
        known = set(re.findall(r"^Package: (.+)$", self._status.read_text(encoding="utf-8"), re.MULTILINE))
        with self._status.open("a", encoding="utf-8") as status:
            status.writelines(_PRETENDED.format(name=name) for name in set(names) - known)

    def _get(self, *arguments: str) -> str:
        return _run("apt-get", "-q", *self._options, *arguments, folder=self._scratch)


def _installed(without: str) -> Iterator[str]:
    for stanza in _STATUS.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        lines = [line for line in stanza.splitlines() if line.startswith(_KEPT_FIELDS)]
        if lines and not re.fullmatch(f"Package: ({without})", lines[0]):
            yield "\n".join([*lines, "", ""])


def _by_number(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _run(*command: str, folder: Path | None = None) -> str:
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).splitlines()
        complaints = [line.strip() for line in said if re.search(r"^(E:|dpkg)|Depends: .* but ", line)]
        raise AptFailed(f"{command[0]}: {' '.join(complaints or said[-3:])}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AptFailed(f"{command[0]}: {type(error).__name__}") from error
    return done.stdout
