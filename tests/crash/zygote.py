"""Processes that cost milliseconds: forked from one that has imported everything, and killed with SIGKILL."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from octopus_async.journal.disk import OsDisk

Said: TypeAlias = "list[list[Any]]"
Work: TypeAlias = "Callable[[Voice, DeadlyDisk], Coroutine[Any, Any, None]]"
PATIENCE = 60.0
_OPEN = b'["open"]\n'


@dataclass(frozen=True)
class Blow:
    """When a process is killed.

    Parameters:
        seconds: its parent kills it after so long, wherever it is.
        opened: whether that counts from when it has said that it is open; otherwise from the fork.
        method: it kills itself at a call of this method of its disk, if it comes to that in time.
        nth: at which call of it.
        part: just before the call, in the middle of what it does, or just after it.
    """

    seconds: float = PATIENCE
    method: str = ""
    nth: int = 0
    part: str = ""
    opened: bool = False


NEVER = Blow()


class DeadlyDisk(OsDisk):
    """The real disk, on which the process dies at the call that the blow names.

    Parameters:
        blow: where to die.
        farewell: told of it just before.
    """

    def __init__(self, blow: Blow, farewell: Callable[[], None]) -> None:
        super().__init__()
        self._blow = blow
        self._farewell = farewell
        self._calls = 0

    def _at(self, method: str, half: Callable[[], object] = lambda: None) -> bool:
        """Die before or within the call; whether to die after it."""
        if method != self._blow.method:
            return False
        self._calls += 1
        if self._calls != self._blow.nth:
            return False
        if self._blow.part == "within":
            half()
        if self._blow.part != "after":
            self._die()
        return True

    def _die(self) -> None:
        self._farewell()
        os.kill(os.getpid(), signal.SIGKILL)

    def _do(self, method: str, call: Callable[[], Any], half: Callable[[], object] = lambda: None) -> Any:  # noqa: ANN401 - what the call gives
        dies = self._at(method, half)
        result = call()
        if dies:
            self._die()
        return result

    def make_folder(self, path: Path) -> None:
        self._do("make_folder", lambda: OsDisk.make_folder(self, path))

    def list_folder(self, path: Path) -> list[str]:
        names: list[str] = self._do("list_folder", lambda: OsDisk.list_folder(self, path))
        return names

    def sync_folder(self, path: Path) -> None:
        self._do("sync_folder", lambda: OsDisk.sync_folder(self, path))

    def remove_folder(self, path: Path) -> None:
        self._do("remove_folder", lambda: OsDisk.remove_folder(self, path))

    def create(self, path: Path) -> int:
        file: int = self._do("create", lambda: OsDisk.create(self, path))
        return file

    def open(self, path: Path) -> int:
        file: int = self._do("open", lambda: OsDisk.open(self, path))
        return file

    def read(self, file: int, offset: int, length: int) -> bytes:
        data: bytes = self._do("read", lambda: OsDisk.read(self, file, offset, length))
        return data

    def write(self, file: int, data: bytes | memoryview) -> int:
        taken: int = self._do(
            "write",
            lambda: OsDisk.write(self, file, data),
            lambda: OsDisk.write(self, file, bytes(data)[: max(1, len(data) // 2)]),
        )
        return taken

    def truncate(self, file: int, size: int) -> None:
        self._do("truncate", lambda: OsDisk.truncate(self, file, size))

    def sync(self, file: int) -> None:
        self._do("sync", lambda: OsDisk.sync(self, file))

    def rename(self, path: Path, other: Path) -> None:
        self._do("rename", lambda: OsDisk.rename(self, path, other))

    def unlink(self, path: Path) -> None:
        self._do("unlink", lambda: OsDisk.unlink(self, path))

    def lock(self, path: Path, seconds: float = 0.0, *, shared: bool = False) -> int | None:
        file: int | None = self._do("lock", lambda: OsDisk.lock(self, path, seconds, shared=shared))
        return file


class Voice:
    """What a process says to its parent: one line, one write, so that it is said wholly or not at all."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def say(self, *words: object) -> None:
        data = json.dumps(words).encode() + b"\n"
        while data:
            data = data[os.write(self._pipe, data) :]


@dataclass
class Life:
    """A forked process, and what it has said so far.

    Attributes:
        said: its whole lines.
        killed: whether it was killed; otherwise it came to its end.
        may_fail: whether its disk was taken away, so that it may end in an error.
        opening: how long it took until it said that it was open; 0 if it never did.
        by_itself: whether it died at the call of its blow.
    """

    pid: int
    blow: Blow
    pipe: int
    born: float = field(default_factory=time.monotonic)
    killed: bool = False
    by_itself: bool = False
    may_fail: bool = False
    opening: float = 0.0
    _heard: bytearray = field(default_factory=bytearray)

    @classmethod
    def fork(cls, work: Work, blow: Blow = NEVER) -> Life:
        """Let a child do the work. To be called while this process has one thread."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _live(work, blow, Voice(writing))
        os.close(writing)
        return cls(pid, blow, reading)

    def hear(self, word: str, times: int, seconds: float) -> None:
        """Listen until it has said a word so often, or has ended, or the time is over."""
        until = time.monotonic() + seconds
        while self._heard.count(b'["%s"' % word.encode()) < times and time.monotonic() < until:
            if not self._listen(max(0.0, until - time.monotonic())):
                return

    def lines_until_now(self) -> int:
        """How many lines it has said by now."""
        while select.select([self.pipe], [], [], 0)[0] and self._listen(0):
            pass
        return self._heard.count(b"\n")

    def kill(self) -> None:
        """Kill it now."""
        self.killed = True
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> Said:
        """Listen until its end, and bring that about when its time has come."""
        until = self.born + (PATIENCE if self.blow.opened else self.blow.seconds)
        while self._listen(max(0.0, until - time.monotonic())):
            if time.monotonic() >= until and not self.killed:
                self.kill()
                until = time.monotonic() + PATIENCE
            if not self.opening and _OPEN in self._heard:
                self.opening = time.monotonic() - self.born
                until = min(until, time.monotonic() + self.blow.seconds) if self.blow.opened else until
        os.close(self.pipe)
        _, status = os.waitpid(self.pid, 0)
        self.killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        whole = bytes(self._heard[: self._heard.rfind(b"\n") + 1])
        said: Said = [json.loads(line) for line in whole.splitlines()]
        for words in said:
            assert self.may_fail or words[0] != "failed", words[1]
            self.by_itself |= words[0] == "dies"
        assert self.killed or self.may_fail or os.waitstatus_to_exitcode(status) == 0, status
        return said

    def _listen(self, seconds: float) -> bool:
        """Whether there may be more to hear."""
        if not select.select([self.pipe], [], [], seconds)[0]:
            return True
        data = os.read(self.pipe, 1 << 16)
        self._heard += data
        return bool(data)


def _live(work: Work, blow: Blow, voice: Voice) -> NoReturn:
    status = 1
    try:
        asyncio.run(work(voice, DeadlyDisk(blow, lambda: voice.say("dies"))))
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it was, the parent has to know
        voice.say("failed", traceback.format_exc())
    finally:
        os._exit(status)


def freeze() -> None:
    """Keep what is there from being copied by the collector of each child."""
    gc.collect()
    gc.freeze()
