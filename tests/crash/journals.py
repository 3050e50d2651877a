"""What the journal's tests share: operations, an opened journal, and a disk that fails on demand."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from octopus_async.backend import Run
from octopus_async.clock import Clock
from octopus_async.events import Event, Events
from octopus_async.journal import FileJournal
from octopus_async.journal.disk import OsDisk
from octopus_async.journal.runner import Done
from octopus_async.record import NO_VERSION, Key, Kind, Operation

T = TypeVar("T")

ROUNDS = int(os.environ.get("OCTOPUS_CRASH_ROUNDS", "1"))
"""How thorough the crash tests are: 1 for every run, 10 for a long one."""

PRIMARY = "mysql"
REPLICA = "postgres"
clock = Clock()


def key(name: str = "a") -> Key:
    return Key("Book", name)


def create(name: str = "a", title: str = "one", *, version: str | None = None) -> Operation:
    version = version or clock.next()
    payload = b'{"title":"%s"}' % title.encode()
    return Operation(Kind.CREATE, key(name), version, version, {"title": title}, payload)


def update(
    name: str = "a", title: str = "two", *, born: str = NO_VERSION, version: str | None = None
) -> Operation:
    payload = b'{"title":"%s"}' % title.encode()
    return Operation(Kind.UPDATE, key(name), version or clock.next(), born, {"title": title}, payload)


def delete(name: str = "a", *, born: str = NO_VERSION) -> Operation:
    return Operation(Kind.DELETE, key(name), clock.next(), born)


class Heard(list[Event]):
    """The events that were emitted; give it to `Events`."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self if isinstance(event, kind)]


@asynccontextmanager
async def opened(path: Path, heard: Heard | None = None, **options: object) -> AsyncGenerator[FileJournal]:
    journal = FileJournal(path, **options)  # type: ignore[arg-type]
    await journal.open(Events(*([heard] if heard is not None else [])))
    try:
        yield journal
    finally:
        await journal.close()


async def crash(journal: FileJournal) -> None:
    """Let go of everything as a killed process does: nothing more is written, and the locks are free."""
    journal._is_open = False
    journal._commit.end(RuntimeError("crashed"))  # type: ignore[arg-type]
    journal._disk.forget()
    await journal._runner.stop(5.0)


def pending(journal: FileJournal, target: str = PRIMARY) -> list[Run]:
    return list(journal.runs(target, 1_000_000))


def versions(journal: FileJournal, target: str = PRIMARY) -> set[str]:
    """The versions of the newest pending operations."""
    return {run.operation.version for run in pending(journal, target)}


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("writer-*/*.jsonl"))


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


class InlineRunner:
    """Does every job at once, and tells of it in the next round of the event loop."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def submit(self, job: Callable[[], T], done: Done[T]) -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = job()
        except Exception as raised:  # noqa: BLE001 - handed over, as by the thread
            error = raised
        self._loop.call_soon(done, result, error)

    async def stop(self, seconds: float) -> bool:
        del seconds
        await asyncio.sleep(0)
        return True


@dataclass
class Failure:
    """The ``nth`` call of a method fails, and as many as ``times`` say."""

    method: str
    nth: int
    code: int = errno.EIO
    times: int = 1
    calls: int = field(default=0, init=False)

    def strikes(self) -> bool:
        self.calls += 1
        return self.nth <= self.calls < self.nth + self.times


class FaultyDisk(OsDisk):
    """The real disk, but calls fail as `failures` say.

    Attributes:
        failures: which calls fail, and how.
        room: bytes that may still be written; None for no limit.
        counts: how often each method was called.
    """

    def __init__(self, *failures: Failure) -> None:
        super().__init__()
        self.failures = list(failures)
        self.room: int | None = None
        self.counts: dict[str, int] = {}
        self.synced: list[int] = []

    def _enter(self, method: str) -> None:
        self.counts[method] = self.counts.get(method, 0) + 1
        for failure in self.failures:
            if failure.method == method and failure.strikes():
                raise OSError(failure.code, os.strerror(failure.code))

    def make_folder(self, path: Path) -> None:
        self._enter("make_folder")
        super().make_folder(path)

    def check_folder(self, path: Path) -> None:
        self._enter("check_folder")
        super().check_folder(path)

    def list_folder(self, path: Path) -> list[str]:
        self._enter("list_folder")
        return super().list_folder(path)

    def sync_folder(self, path: Path) -> None:
        self._enter("sync_folder")
        super().sync_folder(path)

    def remove_folder(self, path: Path) -> None:
        self._enter("remove_folder")
        super().remove_folder(path)

    def create(self, path: Path) -> int:
        self._enter("create")
        return super().create(path)

    def open(self, path: Path) -> int:
        self._enter("open")
        return super().open(path)

    def size(self, file: int) -> int:
        self._enter("size")
        return super().size(file)

    def read(self, file: int, offset: int, length: int) -> bytes:
        self._enter("read")
        return super().read(file, offset, length)

    def write(self, file: int, data: bytes | memoryview) -> int:
        self._enter("write")
        if self.room is None:
            return super().write(file, data)
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = super().write(file, bytes(data)[: self.room])
        self.room -= taken
        return taken

    def truncate(self, file: int, size: int) -> None:
        self._enter("truncate")
        if self.room is not None:
            self.room += self.size(file) - size
        super().truncate(file, size)

    def sync(self, file: int) -> None:
        self.synced.append(file)
        self._enter("sync")
        super().sync(file)

    def rename(self, path: Path, other: Path) -> None:
        self._enter("rename")
        super().rename(path, other)

    def unlink(self, path: Path) -> None:
        self._enter("unlink")
        super().unlink(path)

    def lock(self, path: Path, seconds: float = 0.0, *, shared: bool = False) -> int | None:
        self._enter("lock")
        return super().lock(path, seconds, shared=shared)


class GatedDisk(FaultyDisk):
    """A disk whose syncs of files wait until they are let through."""

    def __init__(self, *failures: Failure) -> None:
        super().__init__(*failures)
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def sync(self, file: int) -> None:
        self.waiting.set()
        assert self.gate.wait(10)
        super().sync(file)

    @asynccontextmanager
    async def holding(self) -> AsyncGenerator[None]:
        """Hold back the syncs that begin inside; the first of them has begun when its waiting is awaited."""
        self.waiting.clear()
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()

    async def sync_begun(self) -> None:
        assert await asyncio.to_thread(self.waiting.wait, 10)
