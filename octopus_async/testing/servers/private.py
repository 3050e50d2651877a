"""The life of a private server process: started, killed, paused, restarted on its port, and ended with us."""

from __future__ import annotations

import abc
import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from octopus_async.errors import BackendFailed, BackendTimeout, OperationNotSupported
from octopus_async.testing.servers.find import Installation, ServerKind, find
from octopus_async.testing.servers.folders import ServerFolder, spawn, within_reach
from octopus_async.testing.servers.ports import LOOPBACK, HeldPort

START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.005
_GREETING_SECONDS = 1.0
_LOG_TAIL_BYTES = 8192

_Result = TypeVar("_Result")


class PrivateServer(abc.ABC):
    """A server that only this process uses, on a free loopback port and in a folder of its own.

    Use it with ``async with``. Port and data outlive kills and restarts; both go when it is stopped. No
    method is bound to an event loop: a server started in one may be used in the next.

    Args:
        options: further arguments for the server's command line.
    """

    kind: ClassVar[ServerKind]
    external: ClassVar[bool] = False
    end_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, *, options: Sequence[str] = ()) -> None:
        self._options = tuple(options)
        self._installation: Installation | None = None
        self._folder: ServerFolder | None = None
        self._held: HeldPort | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """The URL of the server for `DaoManager`; it holds the password where there is one."""

    @abc.abstractmethod
    def _command(self, program: Path) -> list[str]:
        """The command line that runs the server in its folder."""

    def _find(self) -> Installation:
        """Find the program. Runs on a thread."""
        return find(self.kind)

    def _spawn(self, command: Sequence[str], installation: Installation) -> subprocess.Popen[bytes]:
        """Start the process."""
        return spawn(command, self.folder, installation.environment)

    def _prepare(self, installation: Installation) -> None:  # noqa: B027 - most servers need nothing but a folder
        """Fill the folder before the first start. Runs on a thread."""

    @property
    def port(self) -> int:
        """The TCP port, the same from the first start to the stop."""
        if self._held is None:
            raise self._unable("was not started")
        return self._held.number

    @property
    def folder(self) -> Path:
        """The server's temporary folder."""
        if self._folder is None:
            raise self._unable("was not started")
        return self._folder.path

    @property
    def running(self) -> bool:
        """Whether the process is there, be it paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        return self._living().pid

    @property
    def origin(self) -> str:
        """Where its program was found: ``downloaded``, ``PATH`` or ``Homebrew``."""
        if self._installation is None:
            raise self._unable("was not started")
        return self._installation.origin

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process and self.running else "not running"
        return f"<{type(self).__name__} on port {self._held.number if self._held else None}, {state}>"

    async def start(self, timeout: float = START_SECONDS) -> None:
        """Start the process and wait until it answers. The first time, find the program and fill the folder.

        Args:
            timeout: seconds from the start of the process until it has to answer.

        Raises:
            ConfigurationError: the program is not to be had; the message says what to install.
            BackendFailed: the server ended; the message ends with its last log lines.
            BackendTimeout: it did not answer in time.
            OperationNotSupported: it runs already.
        """
        if self.running:
            raise self._unable("runs already")
        if self._installation is None:
            found = await asyncio.to_thread(self._find)
            try:
                self._installation = await _finished_on_thread(lambda: self._set_up(found))
            except BaseException:
                await self.stop()
                raise
        command = [*self._command(self._installation.program), *self._options]
        self._process = self._spawn(command, self._installation)
        try:
            await self.wait_ready(timeout)
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """End the process at once, and remove its folder. Does nothing where nothing was started."""
        await self.kill()
        self._installation = None
        if self._folder is not None:
            await _finished_on_thread(self._folder.remove)
            self._folder = None
        if self._held is not None:
            self._held.release()
            self._held = None

    async def kill(self) -> None:
        """End the process with SIGKILL, and wait until it is gone. Does nothing where none runs."""
        if self._process is not None:
            self._process.kill()
            await self._gone(self._process)

    async def terminate(self) -> None:
        """Ask the process to end, and wait until it is gone; after 10 seconds it is killed.

        Raises:
            OperationNotSupported: it is not running.
        """
        process = self._living()
        process.send_signal(self.end_signal)
        process.send_signal(signal.SIGCONT)  # a paused process would never hear of it
        try:
            await self._gone(process)
        except BackendTimeout:
            await self.kill()

    async def pause(self) -> None:
        """Stop the process with SIGSTOP, and wait until it stands still. Its connections stay open.

        Raises:
            OperationNotSupported: it is not running.
        """
        process = self._living()
        process.send_signal(signal.SIGSTOP)
        if sys.platform == "linux":
            waited = os.WSTOPPED | os.WNOWAIT | os.WNOHANG
            await self._until(lambda: os.waitid(os.P_PID, process.pid, waited) is not None, "stand still")

    async def resume(self) -> None:
        """Let a paused process go on (SIGCONT), and wait until it answers.

        Raises:
            OperationNotSupported: it is not running.
            BackendTimeout: it did not answer in time.
        """
        self._living().send_signal(signal.SIGCONT)
        await self.wait_ready()

    async def restart(self, timeout: float = START_SECONDS) -> None:
        """End the process in an orderly way where it runs, and start it on the same port and data.

        Raises what `start` raises.
        """
        if self.running:
            await self.terminate()
        await self.start(timeout)

    async def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """Wait until the server answers.

        Args:
            timeout: seconds until it has to.

        Raises:
            BackendFailed: the process ended; the message ends with its last log lines.
            BackendTimeout: it did not answer in time.
        """
        try:
            async with asyncio.timeout(timeout):
                while not await answers(self.kind, LOOPBACK, self.port):
                    if not self.running:
                        raise BackendFailed(
                            f"{self.kind.name} ended:\n{self.log_tail()}", backend=self.kind.name
                        )
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            msg = f"{self.kind.name} did not answer within {timeout:g} s:\n{self.log_tail()}"
            raise BackendTimeout(msg, backend=self.kind.name) from None

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the server has written to its log."""
        with (self.folder / "log").open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - _LOG_TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def _hand_over(self) -> None:
        """Give what is in the folder to the user that the server runs as."""
        if self._folder is not None:
            self._folder.hand_over()

    def _set_up(self, found: Installation) -> Installation:
        self._folder = ServerFolder()
        self._held = HeldPort()
        installation = _brought_within_reach(found, self._folder.path)
        self._prepare(installation)
        self._hand_over()
        return installation

    async def _gone(self, process: subprocess.Popen[bytes]) -> None:
        await self._until(lambda: process.poll() is not None, "end")

    async def _until(self, done: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                while not done():  # noqa: ASYNC110 - a process sets no event
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            msg = f"{self.kind.name} did not {what} within {_STOP_SECONDS:g} s"
            raise BackendTimeout(msg, backend=self.kind.name) from None

    def _living(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise self._unable("is not running")
        return self._process

    def _unable(self, reason: str) -> OperationNotSupported:
        return OperationNotSupported(f"this {self.kind.name} {reason}")


async def answers(kind: ServerKind, host: str, port: int) -> bool:
    """Whether a server of that kind answers at an address, within a second."""
    try:
        async with asyncio.timeout(_GREETING_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return await kind.greet(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, EOFError):
        return False


async def _finished_on_thread(function: Callable[[], _Result]) -> _Result:
    # What a thread has begun cannot be called back: who is cancelled waits, to clean up after it.
    work = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _brought_within_reach(installation: Installation, folder: Path) -> Installation:
    tree = installation.tree
    if tree is None or within_reach(installation.program):
        return installation
    copy = folder / "program"
    shutil.copytree(tree, copy, symlinks=True)
    return replace(installation, program=copy / installation.program.relative_to(tree), tree=copy)
