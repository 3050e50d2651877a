"""Small disks that can be filled: a file system of a few megabytes where one may be mounted, else a quota."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from octopus_async.journal.disk import OsDisk

_CHUNK = bytes(1 << 16)


class MountedDisk:
    """A file system in memory, mounted over a folder, which takes root.

    Parameters:
        folder: an empty folder.
        size: its bytes.
    """

    journal_disk: OsDisk | None = None
    kind = "a mounted file system"

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._hog = folder / "hog"
        options = f"size={size},mode=0700"
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder)

    def fill(self, spare: int = 0) -> None:
        """Fill it to the last byte, or leave about so many."""
        hog = os.open(self._hog, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            while True:
                os.write(hog, _CHUNK)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            os.ftruncate(hog, max(0, os.fstat(hog).st_size - spare))
        finally:
            os.close(hog)

    def empty(self) -> None:
        """Make room again."""
        self._hog.unlink(missing_ok=True)

    def leave(self) -> None:
        """Take it away, with all that is on it."""
        _run("umount", "--lazy", self._folder)


class QuotaDisk(OsDisk):
    """The machine's disk, which takes no more of the journal once a quota is used up: no root is needed."""

    kind = "a quota in the process"

    def __init__(self) -> None:
        super().__init__()
        self._left: int | None = None

    @property
    def journal_disk(self) -> OsDisk:
        """The disk to give to the journal."""
        return self

    def fill(self, spare: int = 0) -> None:
        """Take no more than so many bytes from now on."""
        self._left = spare

    def empty(self) -> None:
        """Take everything again."""
        self._left = None

    def leave(self) -> None:
        """Nothing is to be taken away."""

    def create(self, path: Path) -> int:
        """A new file takes a block of its own."""
        self._take(4096)
        return super().create(path)

    def write(self, file: int, data: bytes | memoryview) -> int:
        """As a file system does it: what still fits is taken, and then nothing."""
        return super().write(file, data[: self._take(len(data))])

    def _take(self, count: int) -> int:
        if self._left is None:
            return count
        if not self._left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(count, self._left)
        self._left -= taken
        return taken


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


@cache
def why_not_mounted() -> str | None:
    """Why no file system can be mounted here; None where one can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            disk = MountedDisk(Path(folder), 1 << 20)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or str(error).encode()
            return " ".join(said.decode(errors="replace").split())
        disk.leave()
        return None


def small_disk(folder: Path, size: int) -> MountedDisk | QuotaDisk:
    """A disk for a journal below ``folder``, which is made."""
    folder.mkdir()
    return QuotaDisk() if why_not_mounted() else MountedDisk(folder, size)
