"""The simulated disk as one process has it: its calls, its thread, and how it dies within them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from octopus_async.testing.simulation.disk import SimulatedDisk
from octopus_async.testing.simulation.loop import Process, VirtualLoop

T = TypeVar("T")


class Killed(BaseException):
    """The process died within a job of its journal's thread."""


class ProcessDisk:
    """The disk as one process sees it: what the journal is given.

    Attributes:
        dies_in: after how many calls the process is killed; None for never.
        dies_at_sync: before how many-th sync of what was written it is; None for never.
        on_death: is told then.
    """

    def __init__(self, disk: SimulatedDisk, process: Process) -> None:
        self._disk = disk
        self._process = process
        self.dies_in: int | None = None
        self.dies_at_sync: int | None = None
        self.on_death: Callable[[], None] = lambda: None

    def _reach(self) -> SimulatedDisk:
        if self.dies_in is not None and not self._process.dead:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dies_in = None
                self.on_death()
                self._disk.census["crash within a disk call"] += self._process.dead
        if self._process.dead:
            raise Killed
        return self._disk

    def make_folder(self, path: Path) -> None:
        """Make a folder."""
        self._reach().make_folder(str(path))

    def check_folder(self, path: Path) -> None:
        """Look at a folder."""
        self._reach().check_folder(str(path))

    def list_folder(self, path: Path) -> list[str]:
        """The names in a folder, in any order."""
        return self._reach().list_folder(str(path))

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        self._reach().sync_folder(str(path))

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        self._reach().remove_folder(str(path))

    def create(self, path: Path) -> int:
        """Create a file."""
        return self._reach().create(str(path), self._process)

    def open(self, path: Path) -> int:
        """Open a file."""
        return self._reach().open(str(path), self._process)

    def size(self, file: int) -> int:
        """The bytes in a file."""
        return self._reach().size(file)

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Read at a place."""
        return self._reach().read(file, offset, length)

    def write(self, file: int, data: bytes | memoryview) -> int:
        """Append."""
        return self._reach().write(file, bytes(data))

    def truncate(self, file: int, size: int) -> None:
        """Cut a file."""
        self._reach().truncate(file, size)

    def sync(self, file: int) -> None:
        """Make a file's bytes durable."""
        if self.dies_at_sync is not None:
            self.dies_at_sync -= 1
            if self.dies_at_sync == 0:
                self.dies_in = 0
        self._reach().sync(file)

    def close(self, file: int) -> None:
        """Close a descriptor."""
        self._reach().close(file)

    def rename(self, path: Path, other: Path) -> None:
        """Give a file another name."""
        self._reach().rename(str(path), str(other))

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        self._reach().unlink(str(path))

    def lock(self, path: Path, seconds: float = 0.0, *, shared: bool = False) -> int | None:  # noqa: ARG002 - nobody holds one across a job
        """Lock a file; None if another holds it."""
        return self._reach().lock(str(path), self._process, shared=shared)

    def forget(self) -> None:
        """In a forked child: close every descriptor, which are the child's own."""
        self._disk.kill(self._process)


class SimulatedRunner:
    """Does the journal's jobs one after the other, in virtual time, on no thread.

    Parameters:
        loop: the virtual loop.
        process: whose jobs they are.
        disk: whose slowness they feel.
        random: decides how long each takes.
    """

    def __init__(self, loop: VirtualLoop, process: Process, disk: SimulatedDisk, random: Random) -> None:
        self._loop = loop
        self._process = process
        self._disk = disk
        self._random = random
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Any, BaseException | None], object]]] = deque()
        self._busy = False
        self._done: deque[tuple[Callable[[Any, BaseException | None], object], Any, BaseException | None]] = (
            deque()
        )

    def start(self) -> None:
        """Nothing has to be made ready."""

    def submit(self, job: Callable[[], T], done: Callable[[T | None, BaseException | None], object]) -> None:
        """Put a job at the end of the queue."""
        self._jobs.append((job, done))
        if not self._busy:
            self._next()

    async def stop(self, seconds: float) -> bool:
        """Wait until all jobs are done; False after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                while self._busy:  # noqa: ASYNC110 - virtual seconds cost nothing
                    await asyncio.sleep(0.001)
        except TimeoutError:
            return False
        return True

    def _next(self) -> None:
        self._busy = bool(self._jobs)
        if self._busy:
            slow = self._disk.switches.slow
            self._disk.census["slow disk"] += bool(slow)
            seconds = self._random.uniform(0.0002, 0.004) + slow * self._random.random()
            self._loop.call_later(seconds, self._do, context=self._process.context)

    def _do(self) -> None:
        job, done = self._jobs.popleft()
        result, error = None, None
        try:
            result = job()
        except Killed:
            return
        except Exception as raised:  # noqa: BLE001 - the library decides what it means
            error = raised
        # The loop hears of it a moment later, and of several in their order, whichever timer fires first.
        self._done.append((done, result, error))
        self._loop.call_later(self._random.uniform(0.0, 0.001), self._tell, context=self._process.context)
        self._next()

    def _tell(self) -> None:
        done, result, error = self._done.popleft()
        done(result, error)
