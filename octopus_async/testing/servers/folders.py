"""The temporary folder of a server, and a process in it that is never root's and dies with us."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

_PREFIX = "octopus-server-"
_OWNER = "owner"


@cache
def unprivileged() -> pwd.struct_passwd | None:
    """Whom a server runs as when we are root; None means: as we do."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def within_reach(path: Path) -> bool:
    """Whether the user that servers run as may get to a path through the folders above it."""
    return unprivileged() is None or all(folder.stat().st_mode & 0o001 for folder in path.parents)


def spawn(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    stdin: IO[bytes] | None = None,
    as_us: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a process that writes to ``log`` in its folder, as the user whom the folder belongs to, or as us.

    It is killed when the thread that called this ends, where the system can do that.
    """
    prefix = _setpriv(as_us=as_us)
    user = None if prefix or as_us else unprivileged()
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [*prefix, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us, who then end it
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )


class ServerFolder:
    """A temporary folder that belongs to the user its server runs as.

    It is locked while its maker lives. One whose maker was killed is removed when the next is made.

    Attributes:
        path: where it is.
    """

    def __init__(self) -> None:
        for left_behind in _ours():
            _remove_if_orphaned(left_behind)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_parent()))
        self._lock = _claim(self.path)
        self.hand_over()

    def hand_over(self) -> None:
        """Give all that is in the folder to the user its server runs as."""
        user = unprivileged()
        if user is not None:
            for path in (self.path, *self.path.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


@cache
def _setpriv(*, as_us: bool) -> tuple[str, ...]:
    """What has a process die with us, and not be root's unless ``as_us``; nothing where the system lacks it.

    A preexec_fn, or the arguments of Popen, would fork us with all our memory, and the event loop waits.
    """
    setpriv = shutil.which("setpriv")  # of util-linux, and so in every Debian and Ubuntu
    if setpriv is None:
        return ()
    user = None if as_us else unprivileged()
    rights = () if user is None else (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    prefix = (setpriv, *rights, "--pdeathsig=KILL", "--")
    trial = subprocess.run([*prefix, setpriv, "--version"], capture_output=True, check=False)
    return prefix if trial.returncode == 0 else ()


def _parent() -> Path:
    parent = Path(tempfile.gettempdir())
    return parent if within_reach(parent / _PREFIX) else Path("/tmp")  # noqa: S108 - mkdtemp makes it safe


def _ours() -> Iterator[Path]:
    user = unprivileged()
    owner = os.geteuid() if user is None else user.pw_uid
    for folder in _parent().glob(f"{_PREFIX}*"):
        try:
            if folder.lstat().st_uid == owner:
                yield folder
        except FileNotFoundError:
            continue  # removed by its own maker meanwhile


def _claim(folder: Path) -> IO[bytes]:
    lock = (folder / f"{_OWNER}.new").open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    Path(lock.name).rename(folder / _OWNER)  # nobody ever sees it unlocked while we live
    return lock


def _remove_if_orphaned(folder: Path) -> None:
    try:
        with (folder / _OWNER).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # its maker lives, or is just making or removing it
