"""Cuts the power of a real file system: ext4 on a loop device, shut down under load, and mounted again.

Run as root as ``python -m tests.crash.images 50``. The cut is ext4's own shutdown without a flush of its log,
which its developers test crashes with: from that moment nothing more reaches the device, and what was not
synced is forgotten at the unmount. The next mount recovers the log as after a power cut. A second process
syncs an unrelated file at random, so that half of what the journal does may become durable before it asks.

Not covered: a disk that reorders or forgets what the file system has sent it; `powercut` models that.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.crash.lanes import Findings
from tests.crash.lives import journal_life, last_journal_life
from tests.crash.truth import Truth
from tests.crash.zygote import PATIENCE, Blow, DeadlyDisk, Life, Voice, freeze

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NO_LOG_FLUSH = 2
NEW_NAMESPACE = 0x20000
PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE
OPTIONS = ("data=ordered", "data=writeback", "data=journal", "nodelalloc", "commit=1")
SIZE = 64 * 1024 * 1024


class NotPermittedError(Exception):
    """This machine lets nobody mount an image; the message says at which step."""


class Image:
    """An ext4 file system in a file, in a mount namespace of this process: it is gone when that dies.

    Parameters:
        folder: where the image and its mount point are.

    Raises:
        NotPermittedError: it cannot be made or mounted here.
    """

    def __init__(self, folder: Path) -> None:
        self._image = folder / "image"
        self.path = folder / "mounted"
        self.path.mkdir()
        if sys.platform != "linux" or os.geteuid():
            raise NotPermittedError("mounting an image takes root on Linux")
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(NEW_NAMESPACE) or libc.mount(b"none", b"/", None, PRIVATE, None):
            raise NotPermittedError(f"a mount namespace of its own: {os.strerror(ctypes.get_errno())}")
        with self._image.open("wb") as image:
            image.truncate(SIZE)
        _run("mkfs.ext4", "-q", "-F", str(self._image))

    def mount(self, options: str) -> None:
        """Mount it, which recovers its log."""
        _run("mount", "-o", f"loop,{options}", str(self._image), str(self.path))

    def cut(self) -> None:
        """Let nothing more reach the device."""
        assert self.path.stat().st_dev != self.path.parent.stat().st_dev, "only ever the image"
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(folder, SHUTDOWN, NO_LOG_FLUSH.to_bytes(4, sys.byteorder))
        except OSError as error:
            raise NotPermittedError(f"shutting ext4 down: {error.strerror}") from error
        finally:
            os.close(folder)

    def unmount(self) -> None:
        """Forget what was not synced."""
        _run("umount", str(self.path))

    def check(self) -> None:
        """See that the file system itself is whole."""
        _run("e2fsck", "-fn", str(self._image))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise NotPermittedError(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise NotPermittedError(f"{' '.join(command[:1])}: {error.stderr.strip()}") from None


async def disturb(path: Path, chance: random.Random) -> None:
    """Make what others have begun durable at random moments, by syncing a file of its own."""
    with (path / "unrelated").open("ab", buffering=0) as file:
        while True:
            time.sleep(chance.random() * 0.05)  # noqa: ASYNC251 - this process does nothing else
            file.write(b"x")
            os.fsync(file.fileno())


def campaign(folder: Path, cuts: int, seed: int) -> Findings:
    """Cut the power so many times, at random moments under load. Raises NotPermittedError."""
    freeze()
    logging.getLogger("octopus_async").setLevel(logging.CRITICAL)
    chance, truth, findings = random.Random(seed), Truth(), Findings()
    image = Image(folder)
    journal = image.path / "journal"
    for number in range(cuts):
        options = chance.choice(OPTIONS)
        image.mount(options)
        _one_cut(image, journal, number, chance, truth)
        findings.points[options] += 1
        if truth.problems:
            break
        if number % 10 == 9:
            image.mount("data=ordered")
            truth.hear(Life.fork(last_journal_life(journal)).end())
            truth.begin_anew()
            image.unmount()
    image.mount("data=ordered")  # recovers the log
    image.unmount()
    image.check()
    findings.counts, findings.problems = truth.counts, truth.problems
    return findings


def _one_cut(image: Image, journal: Path, number: int, chance: random.Random, truth: Truth) -> None:
    async def disturbing(_voice: Voice, _disk: DeadlyDisk) -> None:
        await disturb(image.path, random.Random(number))

    blow = Blow(PATIENCE / 2, opened=True)
    disturber = Life.fork(disturbing, blow)
    loaded = Life.fork(journal_life(journal, f"{number}", chance.randrange(1 << 32)), blow)
    if chance.random() < 0.8:
        loaded.hear("appended", chance.randint(1, 100), seconds=1.0)
    time.sleep(chance.expovariate(1 / 0.01))
    promised = loaded.lines_until_now()  # an ack during the shutdown may be of a write that it has dropped
    image.cut()
    loaded.may_fail = disturber.may_fail = True
    loaded.kill()
    disturber.kill()
    disturber.end()
    truth.hear(loaded.end(), promised=promised)
    image.unmount()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.images", description=__doc__)
    parser.add_argument("cuts", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="octopus-image-") as folder:
        try:
            findings = campaign(Path(folder), options.cuts, options.seed)
        except NotPermittedError as error:
            findings = Findings()
            findings.points[f"NOT RUN, as this machine does not permit it: {error}"] = 0
    findings.seconds = time.monotonic() - began
    print(findings.to_json())
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
