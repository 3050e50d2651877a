"""An event loop in virtual time: seeded, without I/O or threads, and with processes that can be killed.

Time stands still while callbacks run, and jumps to the next timer when none is ready. Callbacks
that are ready together run in an order drawn from the seed, so that code which leans on one order
is found. Every callback belongs to the process whose context it was scheduled in; those of a dead
process are never run again: not even its `finally` clauses, just as with ``kill -9``.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import sys
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, NoReturn, TypeVar

# Handles and timers are private to asyncio; choosing among them is what this loop is for.
# ruff: noqa: SLF001

T = TypeVar("T")
_MOST_CLAUSES = 50


class SimulationError(Exception):
    """The simulation cannot go on: what it found is a violation by itself."""


class Deadlock(SimulationError):
    """Nothing is ready and no timer is set, yet the run is not over."""


class Livelock(SimulationError):
    """The run took more steps, or more virtual time, than any sound one."""


class Process:
    """One simulated operating system process: a name for callbacks, and a switch to kill them by.

    Attributes:
        name: for messages.
        dead: whether it was killed.
        paused_until: the virtual time until which it is stopped, as by SIGSTOP.
        doom: after how many more of its callbacks it is killed; 0 for none. Each await that is
            resumed is one, so that a process can be killed at any of them.
        on_doom: is told then, before the callback that will never run.
        armed: what ``doom`` becomes when the process does what was waited for, by its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.paused_until = 0.0
        self.doom = 0
        self.on_doom: Callable[[], object] = lambda: None
        self.armed: dict[str, int] = {}
        self.context = contextvars.copy_context()
        self.context.run(_current.set, self)
        self.tasks: list[asyncio.Task[Any]] = []
        self.held: list[asyncio.Handle] = []

    def does(self, what: str) -> None:
        """It begins to do something, within which it may have to be killed."""
        if self.armed and what in self.armed:
            self.doom = self.armed.pop(what)

    def __repr__(self) -> str:
        return f"<Process {self.name}{' dead' if self.dead else ''}>"


_current: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def current_process() -> Process | None:
    """The process on whose behalf the running callback was scheduled; None for the world outside."""
    return _current.get()


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop.

    Parameters:
        random: decides the order of callbacks that are ready together.
        shuffle: whether it does; otherwise they run first come, first served.
        most_steps: callbacks after which the run is a `Livelock`.
        most_seconds: virtual seconds after which it is one.
    """

    def __init__(
        self, random: Random, *, shuffle: bool = True, most_steps: int = 400_000, most_seconds: float = 3600.0
    ) -> None:
        super().__init__()
        self._random = random
        self._shuffle = shuffle
        self._most_steps = most_steps
        self._most_seconds = most_seconds
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_set = 0
        self._processes: list[Process] = []
        self._abandoned = False
        self._stillborn: list[asyncio.Task[Any]] = []
        self.steps = 0
        self.faults: list[str] = []
        self.set_exception_handler(self._note_fault)
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]  # the stubs' protocol takes any awaitable

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._now

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Schedule a callback; as asyncio's own, without what only a debugger needs."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: object,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule a callback for a moment; those of one moment in the order in which they were set."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_set += 1
        heapq.heappush(self._timers, (when, self._timers_set, timer))
        return timer

    def process(self, name: str) -> Process:
        """Start a process."""
        process = Process(name)
        self._processes.append(process)
        return process

    def run_in(self, process: Process, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as a task of ``process``."""
        return self.create_task(work, context=process.context.copy())

    def outside(
        self, callback: Callable[..., object], *arguments: object, delay: float = 0.0
    ) -> asyncio.Handle:
        """Schedule a callback of the world outside: it happens whoever has died meanwhile."""
        context = contextvars.Context()
        if delay <= 0.0:
            return self.call_soon(callback, *arguments, context=context)
        return self.call_later(delay, callback, *arguments, context=context)

    def pause(self, process: Process, seconds: float) -> None:
        """Stop a process; its callbacks run when it goes on."""
        process.paused_until = max(process.paused_until, self._now + seconds)
        self.outside(self._go_on, process, delay=seconds)

    def _go_on(self, process: Process) -> None:
        if self._now >= process.paused_until:
            self._ready.extend(process.held)  # type: ignore[attr-defined]
            process.held.clear()

    def _run_once(self) -> None:
        # The only part of asyncio's own loop that is replaced: how it chooses what runs next.
        ready = self._ready  # type: ignore[attr-defined]
        if not ready:
            self._advance()
        batch = list(ready)
        ready.clear()
        if self._shuffle and len(batch) > 1:
            self._random.shuffle(batch)
        self.steps += len(batch)
        if self.steps > self._most_steps:
            raise Livelock(f"{self.steps} steps by {self._now:.3f} s")
        for handle in batch:
            if not handle._cancelled:
                process = handle._context.get(_current)
                if process is None or self._may_run(process, handle):
                    handle._run()

    def _may_run(self, process: Process, handle: asyncio.Handle) -> bool:
        if process.dead:
            return False
        if process.paused_until > self._now:
            process.held.append(handle)
            return False
        if process.doom:
            process.doom -= 1
            if process.doom == 0:
                process.on_doom()
                return not process.dead
        return True

    def _advance(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Deadlock(f"nothing is left to happen at {self._now:.3f} s")
        self._now = max(self._now, timers[0][0])
        if self._now > self._most_seconds:
            raise Livelock(f"still not over at {self._now:.0f} virtual seconds")
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            if not timer._cancelled:
                self._ready.append(timer)  # type: ignore[attr-defined]

    def _make_task(
        self,
        _: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, T],
        context: contextvars.Context | None = None,
        **options: Any,  # noqa: ANN401 - whatever later releases of asyncio pass on
    ) -> asyncio.Task[T]:
        task = asyncio.Task(work, loop=self, context=context, **options)
        if self._abandoned:
            self._stillborn.append(task)
            return task
        process = _current.get() if context is None else context.get(_current)
        if process is not None:
            process.tasks.append(task)
        return task

    def _note_fault(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self._abandoned:
            self.faults.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def run_in_executor(self, executor: object, func: object, *args: object) -> NoReturn:  # noqa: ARG002 - the base's names
        """Refuse: a thread would make the run depend on more than its seed."""
        raise SimulationError("a simulated process must not use threads")

    def abandon(self) -> None:
        """End the run: drop what is left of every process without letting it act any more."""
        self._abandoned = True
        asyncio._set_running_loop(self)
        # What dead tasks do while they are cleared away, and fail to do, is nobody's concern.
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            for process in self._processes:
                process.dead = True
                self._clear(process.tasks)
                process.held.clear()
            while self._stillborn:
                left, self._stillborn = self._stillborn, []
                self._clear(left)
        finally:
            sys.unraisablehook = hook
            asyncio._set_running_loop(None)
        self._ready.clear()  # type: ignore[attr-defined]
        self._timers.clear()
        self.close()

    def _clear(self, tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task)
        tasks.clear()


def _close(task: asyncio.Task[Any]) -> None:
    """End a coroutine whose loop is over: its clauses at the end run, and wait for nothing."""
    work = task.get_coro()
    for _ in range(_MOST_CLAUSES):
        with contextlib.suppress(BaseException):
            work.close()
            return
