"""Group commit: what arrives while a group is being made durable leaves as the next group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from octopus_async.errors import JournalError, JournalFull, OctopusError
from octopus_async.journal.folder import Checkpoint, Folder, Written
from octopus_async.journal.format import encode_done, ranges_of
from octopus_async.journal.runner import Runner

T = TypeVar("T")

_PATIENCE = 0.1  # seconds after which marks leave by themselves
_FRAME = len(b'{"seq":1000000,"sum":"00000000"}\n')
_MOST_IN_GROUP = 50_000
_MOST_BYTES = 32 * 1024 * 1024
_MOST_WAITING = 100_000
_MOST_WAITING_BYTES = 64 * 1024 * 1024
_ATTEMPTS_AT_THE_END = 3


class Line(Generic[T]):
    """A line that somebody waits for.

    Parameters:
        rest: the line without its number.
        count: how many numbers it takes.
        future: is given what ``durable`` gives, or the error; cancelling it changes nothing else.
        durable: called once the line is durable, with its number and the number of its file.
    """

    __slots__ = ("_durable", "_future", "count", "rest")

    def __init__(
        self, rest: bytes, count: int, future: asyncio.Future[T], durable: Callable[[int, int], T]
    ) -> None:
        self.rest = rest
        self.count = count
        self._future = future
        self._durable = durable

    def succeed(self, number: int, segment: int) -> None:
        """It is durable."""
        result = self._durable(number, segment)
        if not self._future.done():
            self._future.set_result(result)

    def fail(self, error: OctopusError) -> None:
        """It is not."""
        if not self._future.done():
            own = type(error)(str(error))
            own.__cause__ = error  # each waiter raises an error of its own, or their tracebacks pile up
            self._future.set_exception(own)


class Owner(Protocol):
    """Whom a `GroupCommit` asks and tells."""

    def checkpoint_for(self, folder: Folder) -> Checkpoint | None:
        """A checkpoint, if a new file should begin now."""
        ...

    def written(self, folder: Folder, written: Written) -> None:
        """A group is durable; those who wait for it are told next."""
        ...

    def not_written(self, folder: Folder, error: JournalError) -> None:
        """A group could not be made durable; those who wait for it are told next."""
        ...

    def committed(self, folder: Folder) -> None:
        """A group has been dealt with."""
        ...


class Group:
    """What leaves together for one folder."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.lines: list[Line[Any]] = []
        self.marks: dict[str, list[int]] = {}
        self.checkpoint: Checkpoint | None = None

    def write(self) -> Written | JournalError:
        """Make it durable: in the journal's thread."""
        lines = [(line.rest, line.count) for line in self.lines]
        lines += [
            (encode_done(target, ranges_of(sorted(numbers))), 1) for target, numbers in self.marks.items()
        ]
        try:
            return self.folder.append(lines, self.checkpoint)
        except JournalError as error:
            return error


class Chore(Protocol):
    """Other disk work on a folder, done when nothing is to be written to it."""

    folder: Folder

    def work(self) -> object:
        """Do it: in the journal's thread."""
        ...

    def done(self, error: BaseException | None) -> None:
        """It was done, or it failed."""
        ...


class GroupCommit:
    """Collects lines, and hands one group after the other to the journal's thread.

    There is no timer: the first line leaves when the event loop has run what is ready, and the
    next group when the one before is durable. What is done with (`mark`) leaves with the next
    group, or after a short while.

    Parameters:
        runner: does the disk work.
        owner: is asked and told.

    Attributes:
        queued: how many bytes wait to be written.
    """

    def __init__(self, runner: Runner, owner: Owner) -> None:
        self.queued = 0
        self._loop = asyncio.get_running_loop()
        self._runner = runner
        self._owner = owner
        self._lines: dict[Folder, list[Line[Any]]] = {}
        self._marks: dict[Folder, dict[str, list[int]]] = {}
        self._chores: list[Chore] = []
        self._scheduled = False
        self._later: asyncio.TimerHandle | None = None
        self._count = 0
        self._busy = False
        self._full = False
        self._hurried = False
        self._marked: asyncio.Future[None] | None = None
        self._leaving: asyncio.Future[None] | None = None
        self._idle = asyncio.Event()

    @property
    def behind(self) -> bool:
        """Whether so much waits for the disk that nothing more is to be put beside it."""
        return self._count >= _MOST_WAITING or self.queued >= _MOST_WAITING_BYTES

    def put(self, folder: Folder, line: Line[Any]) -> None:
        """Make a line durable with the next group."""
        waiting = self._lines.get(folder)
        if waiting is None:
            waiting = self._lines[folder] = []
        waiting.append(line)
        self.queued += len(line.rest) + _FRAME
        self._count += line.count
        if not (self._scheduled or self._busy):
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def mark(self, folder: Folder, target: str, numbers: Iterable[int]) -> None:
        """Note before long that ``target`` has applied these."""
        self._marks.setdefault(folder, {}).setdefault(target, []).extend(numbers)
        self._flush_later()

    def marked(self) -> asyncio.Future[None]:
        """Done when the marks that were made until now have been written, or could not be."""
        if self._marked is None:
            self._marked = self._loop.create_future()
        return self._marked

    def hurry(self) -> None:
        """Somebody waits for the marks: they leave with the next group, which leaves at once."""
        self._hurried = True
        if not (self._scheduled or self._busy):
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def wake(self, folder: Folder) -> None:
        """Give a folder a group before long, even if it is only to begin a new file."""
        self._marks.setdefault(folder, {})
        self._flush_later()

    def do(self, chore: Chore) -> None:
        """Do other work on a folder, unless something is to be written to it by then."""
        self._chores.append(chore)
        self._flush_later()

    def pending(self, folder: Folder) -> bool:
        """Whether something waits to be written to a folder."""
        return folder in self._lines or folder in self._marks

    async def drain(self) -> None:
        """Wait until everything is written; marks that cannot be written are given up."""
        for _ in range(_ATTEMPTS_AT_THE_END):
            while self._busy or self._lines:
                await self._finish_group()
            if not self._marks:
                return
            await self._finish_group()

    def end(self, error: OctopusError) -> None:
        """Tell those whose lines never left."""
        waiting, self._lines = self._lines, {}
        for line in [line for lines in waiting.values() for line in lines]:
            line.fail(error)
        if self._later is not None:
            self._later.cancel()
        _tell(self._leaving)
        _tell(self._marked)

    async def _finish_group(self) -> None:
        self._idle.clear()
        self._flush()
        if self._busy:
            await self._idle.wait()

    def _flush_later(self) -> None:
        if self._later is None:
            self._later = self._loop.call_later(_PATIENCE, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._busy:
            return
        groups = self._take_groups()
        written_to = {group.folder for group in groups}
        chores = [chore for chore in self._chores if chore.folder not in written_to]
        self._chores.clear()
        if groups or chores:
            self._busy = True
            self._runner.submit(partial(_work, groups, chores), partial(self._finished, groups, chores))

    def _take_groups(self) -> list[Group]:
        groups: dict[Folder, Group] = {}
        # On a full disk a mark, which may make room, must not fail together with what needs more.
        alone, self._full = self._full and bool(self._marks), False
        for folder, marks in self._marks.items():
            groups.setdefault(folder, Group(folder)).marks = marks
        self._marks, self._hurried = {}, False
        self._leaving, self._marked = self._marked, None
        if not alone:
            self._take_lines(groups)
        for folder, group in groups.items():
            group.checkpoint = None if alone else self._owner.checkpoint_for(folder)
        return list(groups.values())

    def _take_lines(self, groups: dict[Folder, Group]) -> None:
        left: dict[Folder, list[Line[Any]]] = {}
        small = self.queued <= _MOST_BYTES and self._count <= _MOST_IN_GROUP
        for folder, lines in self._lines.items():
            most = len(lines) if small else _fitting(lines)
            groups.setdefault(folder, Group(folder)).lines = lines[:most]
            self.queued -= sum([len(line.rest) + _FRAME for line in lines[:most]])
            self._count -= sum([line.count for line in lines[:most]])
            if most < len(lines):
                left[folder] = lines[most:]
        self._lines = left

    def _finished(
        self,
        groups: Sequence[Group],
        chores: Sequence[Chore],
        results: tuple[list[Written | JournalError], list[BaseException | None]] | None,
        error: BaseException | None,
    ) -> None:
        self._busy = False
        failure = JournalError(f"the journal's thread failed: {error!r}")
        written, done = results or ([failure] * len(groups), [error] * len(chores))
        for group, result in zip(groups, written, strict=True):
            self._settle(group, result)
        for chore, problem in zip(chores, done, strict=True):
            chore.done(problem)
        _tell(self._leaving)
        self._idle.set()
        if self._lines or self._hurried:
            self._flush()
        elif self._marks or self._chores:
            self._flush_later()

    def _settle(self, group: Group, result: Written | JournalError) -> None:
        if isinstance(result, JournalError):
            self._full = isinstance(result, JournalFull) and bool(group.lines)
            self._owner.not_written(group.folder, result)
            for line in group.lines:
                line.fail(result)
            for target, numbers in group.marks.items():
                self.mark(group.folder, target, numbers)
        else:
            self._owner.written(group.folder, result)
            number = result.first
            for line in group.lines:
                line.succeed(number, result.segment)
                number += line.count
        self._owner.committed(group.folder)


def _tell(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def _fitting(lines: Sequence[Line[Any]]) -> int:
    """How many make one group of bounded size; at least one."""
    size = count = 0
    for place, line in enumerate(lines):
        size, count = size + len(line.rest), count + line.count
        if place and (size > _MOST_BYTES or count > _MOST_IN_GROUP):
            return place
    return len(lines)


def _work(
    groups: Sequence[Group], chores: Sequence[Chore]
) -> tuple[list[Written | JournalError], list[BaseException | None]]:
    return [group.write() for group in groups], [_do(chore) for chore in chores]


def _do(chore: Chore) -> BaseException | None:
    try:
        chore.work()
    except JournalError as error:
        return error
    return None
