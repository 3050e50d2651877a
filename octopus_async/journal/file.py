"""The journal in a folder: durable before it is acknowledged, and found again after a crash."""

from __future__ import annotations

import asyncio
import os
import time
import warnings
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from pydantic_core import to_json

from octopus_async.backend import DeadLetter, JournalStatistics, PendingUnit, Run
from octopus_async.errors import ConfigurationError, JournalError, JournalFull, JournalLocked, ManagerClosed
from octopus_async.events import Event, Events, JournalAdopted, JournalFailed
from octopus_async.journal.adopt import Adopted
from octopus_async.journal.commit import GroupCommit, Line
from octopus_async.journal.disk import Disk, OsDisk
from octopus_async.journal.format import encode_operation, encode_unit, key_bytes
from octopus_async.journal.futures import future_of
from octopus_async.journal.holdings import Holdings
from octopus_async.journal.item import Item, item_of
from octopus_async.journal.limits import Limits
from octopus_async.journal.mark import lowest
from octopus_async.journal.office import DeadLetterOffice
from octopus_async.journal.opening import Opening, adopt_all, release
from octopus_async.journal.overlay import Overlay
from octopus_async.journal.root import Root, explained
from octopus_async.journal.runner import Runner, ThreadRunner, run
from octopus_async.journal.settlements import Settlements
from octopus_async.journal.unnoted import Unnoted
from octopus_async.record import Key, Operation

_CLOSE_SECONDS = 10.0
_MOST_IN_UNIT = 100_000


class FileJournal:
    """Keeps operations in a folder that several processes may share; docs/journal.md says what it guarantees.

    Parameters:
        path: the folder; made if it is missing. Nothing else may lie in it.
        segment_bytes: size from which on a new file is begun.
        max_bytes: most bytes of the files this process holds; past it, appends are refused.
        max_age: seconds; while an entry waits that is older, appends are refused.
        disk: where the files are.
        runner: where the disk work is done.
        wall: seconds since 1970.
    """

    _is_open = False
    _forked = False

    def __init__(  # noqa: PLR0913 - limits, and what a test replaces
        self,
        path: str | os.PathLike[str],
        *,
        segment_bytes: int = 64 * 1024 * 1024,
        max_bytes: int = 8 * 1024 * 1024 * 1024,
        max_age: float = 7 * 86400.0,
        disk: Disk | None = None,
        runner: Runner | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if segment_bytes <= 0 or max_bytes <= 0 or max_age <= 0:
            raise ConfigurationError("segment_bytes, max_bytes and max_age of a journal are more than 0")
        self.path = Path(path).absolute()
        self._segment_bytes = max(1, min(segment_bytes, max_bytes // 4))
        self._limits = Limits(self.path, max_bytes, max_age, wall)
        self._wall = wall
        self._disk = disk or OsDisk()
        self._runner = runner or ThreadRunner()
        self._root = Root(self._disk, self.path, wall)
        self._events = Events()
        self._begin()
        _journals.add(self)

    def _begin(self) -> None:
        self._overlay = Overlay()
        self._settlements = Settlements(self._overlay)
        self._unnoted = Unnoted()
        self._holdings = Holdings(self._overlay, self._segment_bytes, self._emit)
        self._adopting: asyncio.Task[int] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._appended = 0
        self._inherited: dict[str, dict[str, str]] = {}
        self._taken: frozenset[str] = frozenset()

    def __del__(self) -> None:
        if self._is_open and not self._forked:
            warnings.warn(
                f"the journal {self.path} was never closed", ResourceWarning, source=self, stacklevel=1
            )

    async def open(self, events: Events) -> int:
        """See `Journal.open`."""
        if self._is_open or self._forked:
            raise JournalLocked(f"the journal {self.path} is open already, in this process or in its parent")
        self._begin()
        self._events = events
        self._runner.start()
        opening = Opening(self._root, self._overlay)
        try:
            ceiling = await run(self._runner, opening.work)
        except BaseException:
            self._runner.submit(opening.undo, _ignore)
            await self._runner.stop(_CLOSE_SECONDS)
            raise
        assert opening.own is not None  # noqa: S101 - work made it
        assert opening.mark is not None  # noqa: S101 - and this
        self._own, self._mark = opening.own, opening.mark
        self._holdings.add(self._own)
        self._commit = self._holdings.commit = GroupCommit(self._runner, self._holdings)
        self._office = DeadLetterOffice(self._overlay, self._holdings, self._settlements, self._commit)
        self._is_open = True
        self._report_damage()
        for adopted in opening.adopted:
            self._welcome(adopted)
        return ceiling

    async def close(self) -> None:
        """See `Journal.close`. Raises JournalError if the disk does not answer."""
        if self._is_open and not self._forked:
            self._is_open = False
            self._closing = asyncio.get_running_loop().create_task(
                self._close(), name="octopus-journal-close"
            )
        if self._closing is not None and not self._forked:
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        finished = True
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await asyncio.gather(*filter(None, [self._adopting]), return_exceptions=True)
                await self._commit.drain()
        except TimeoutError:
            finished = False
        closed = ManagerClosed(
            f"the journal {self.path} was closed: what it holds is replayed when it is opened again"
        )
        self._commit.end(closed)
        self._settlements.end(closed)
        self._runner.submit(partial(release, tuple(self._holdings.folders), self._overlay), _ignore)
        if not await self._runner.stop(_CLOSE_SECONDS if finished else 0.0):
            raise JournalError(
                f"the disk of the journal {self.path} does not answer: its thread is left, with the lock."
                " What was acknowledged is durable; find out what the disk waits for, and end this process"
            )

    def reserve(self, milliseconds: int) -> asyncio.Future[None]:
        """See `Journal.reserve`."""
        self._check()
        future = run(self._runner, partial(self._root.raise_ceiling, milliseconds))
        future.add_done_callback(lambda _: self._report_damage())
        return future

    def mark(self, marks: Mapping[str, str]) -> asyncio.Future[None]:
        """See `Journal.mark`."""
        self._check()
        return run(self._runner, partial(self._store_mark, dict(marks), self._taken))

    def inherited(self) -> Mapping[str, str]:
        """See `Journal.inherited`."""
        inherited, self._inherited = self._inherited, {}
        self._taken |= inherited.keys()
        return lowest(*inherited.values())

    def append(
        self, operation: Operation, targets: Sequence[str], *, provisional: bool = False
    ) -> asyncio.Future[int]:
        """See `Journal.append`."""
        self._check()
        future = future_of(int)
        try:
            self._admit((operation,), targets)
            at = self._wall()
            operation = _encoded(operation)
            item = item_of(operation, targets, at, provisional=provisional)
            rest = encode_operation(operation, at, targets, provisional=provisional)
        except JournalError as error:
            future.set_exception(error)
        else:
            self._commit.put(self._own, Line(rest, 1, future, partial(self._add, item)))
        return future

    def append_unit(
        self, operations: Sequence[Operation], targets: Sequence[str], *, provisional: bool = False
    ) -> asyncio.Future[Sequence[int]]:
        """See `Journal.append_unit`."""
        self._check()
        future: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        try:
            self._admit(operations, targets)
            at = self._wall()
            operations = [_encoded(operation) for operation in operations]
            items = [
                item_of(operation, targets, at, provisional=provisional, unit=True)
                for operation in operations
            ]
            rest = encode_unit(operations, at, targets, provisional=provisional)
        except JournalError as error:
            future.set_exception(error)
        else:
            self._commit.put(self._own, Line(rest, len(items), future, partial(self._add_all, items)))
        return future

    def newest(self, key: Key, target: str) -> Operation | None:
        """See `Journal.newest`."""
        self._check()
        # Nothing waits while all is well, and every read and write asks.
        return self._overlay.newest(key_bytes(key), target) if self._overlay.pending else None

    def owes(self, target: str) -> int:
        """See `Journal.owes`."""
        self._check()
        return self._overlay.owes(target)

    def owes_key(self, target: str, key: Key) -> bool:
        """See `Journal.owes_key`."""
        self._check()
        return bool(self._overlay.pending) and self._overlay.owes_key(target, key_bytes(key))

    def owes_version(self, target: str, key: Key, version: str) -> bool:
        """See `Journal.owes_version`."""
        self._check()
        return self._overlay.owes_version(target, key_bytes(key), version)

    def doubts(self, target: str, key: Key) -> bool:
        """See `Journal.doubts`."""
        self._check()
        return self._overlay.doubts(target, key_bytes(key))

    def runs(self, target: str, limit: int) -> Sequence[Run]:
        """See `Journal.runs`."""
        self._check()
        return self._overlay.runs(target, limit)

    def unit(self, target: str, run: Run) -> PendingUnit:
        """See `Journal.unit`."""
        self._check()
        return self._overlay.unit(target, run.sequences[0])

    def set_aside(self, target: str, keys: Collection[Key], reason: str) -> None:
        """See `Journal.set_aside`."""
        self._check()
        self._overlay.set_aside(target, map(key_bytes, keys), reason)

    def bring_back(self, target: str, reason: str, least: int) -> None:
        """See `Journal.bring_back`."""
        self._check()
        self._overlay.bring_back(target, reason, least)

    def settle(self, target: str, runs: Sequence[Run]) -> None:
        """See `Journal.settle`."""
        self._check()
        done: list[int] = []
        keys = [key_bytes(settled.operation.key) for settled in runs]
        for key, settled in zip(keys, runs, strict=True):
            done += self._overlay.finish(target, key, settled.sequences)
        self._holdings.done(target, done)
        if done:
            self._unnoted.add(target, keys, self._commit.marked())
        self._settlements.applied(target, done)

    def noted(self, target: str, key: Key) -> asyncio.Future[None] | None:
        """See `Journal.noted`."""
        self._check()
        future = self._unnoted.find(target, key_bytes(key))
        if future is not None:
            self._commit.hurry()
        return future

    def bury(
        self, target: str, run: Run, reason: str, error: str, *, spare: Sequence[str] = ()
    ) -> asyncio.Future[str]:
        """See `Journal.bury`."""
        self._check()
        return self._office.bury(target, run, reason, error, spare=spare)

    def settled(self, sequence: int, target: str) -> asyncio.Future[None]:
        """See `Journal.settled`."""
        self._check()
        sequence = self._settlements.current(sequence)
        return self._settlements.wait(sequence, target, self._holdings.letters_of(sequence))

    def dead_letters(self) -> Sequence[DeadLetter]:
        """See `Journal.dead_letters`."""
        self._check()
        return self._office.letters()

    def retry(self, sequence: int) -> asyncio.Future[int]:
        """See `Journal.retry`. All targets that refused it are to try it again."""
        self._check()
        return self._office.retry(sequence, self._wall())

    def drop(self, sequence: int) -> asyncio.Future[None]:
        """See `Journal.drop`."""
        self._check()
        return self._office.drop(sequence)

    async def adopt(self) -> int:
        """See `Journal.adopt`."""
        self._check()
        if self._adopting is None or self._adopting.done():
            self._adopting = asyncio.create_task(self._adopt(), name="octopus-journal-adopt")
        return await asyncio.shield(self._adopting)

    def statistics(self) -> JournalStatistics:
        """See `Journal.statistics`."""
        self._check()
        oldest = self._overlay.oldest()
        refusal: str | None = None
        try:
            self._check_room()
        except JournalFull as error:
            refusal = str(error)
        return JournalStatistics(
            pending=self._overlay.pending,
            pending_by_target=self._overlay.owed_by_target(),
            dead_letters=sum(1 for _ in self._holdings.letters()),
            bytes=self._holdings.size,
            segments=sum(len(folder.segments) for folder in self._holdings.folders),
            oldest_age=0.0 if oldest is None else max(0.0, self._wall() - oldest),
            appended=self._appended,
            synced=self._holdings.groups,
            refusal=refusal,
        )

    def forget_process(self) -> None:
        """See `Journal.forget_process`; called after every fork of this process by itself."""
        self._forked = True
        self._disk.forget()

    def _check(self) -> None:
        if self._forked:
            raise JournalLocked(
                f"the journal {self.path} belongs to the process that this one was forked from:"
                " open a journal of its own in the child"
            )
        if not self._is_open:
            raise ManagerClosed(f"the journal {self.path} is not open")

    def _admit(self, operations: Sequence[object], targets: Sequence[str]) -> None:
        """Raise JournalError for what cannot be written down, or as `_check_room`."""
        if not operations or not targets:
            raise JournalError("what is journalled is at least one operation, owed to at least one backend")
        if len(operations) > _MOST_IN_UNIT:
            raise JournalError(f"a unit of {len(operations)} operations is more than {_MOST_IN_UNIT}")
        self._check_room()

    def _check_room(self) -> None:
        """Raise JournalFull if nothing more is taken."""
        if self._commit.behind:
            raise JournalFull(
                f"too much waits to be written to the journal {self.path} already: its disk is too slow, or"
                " hangs. Nothing was dropped"
            )
        self._limits.admit(self._holdings.size + self._commit.queued, self._overlay)

    def _add(self, item: Item, number: int, segment: int) -> int:  # noqa: ARG002 - see Line
        self._overlay.add(number, item)
        self._appended += 1
        return number

    def _add_all(self, items: Sequence[Item], number: int, segment: int) -> Sequence[int]:
        self._overlay.bind(number, [item.key for item in items])
        return [self._add(item, number + place, segment) for place, item in enumerate(items)]

    async def _adopt(self) -> int:
        overlay = Overlay()
        adopted, failures = await run(
            self._runner, partial(adopt_all, self._root, self._own, self._mark, overlay)
        )
        self._report_damage()
        for taken in adopted:
            self._welcome(taken, ready=False)
        for _ in self._overlay.absorb(overlay):
            await asyncio.sleep(0)
        for taken in adopted:
            if taken.folder is not None:
                taken.folder.ready = True
        if failures:
            raise failures[0]
        return max((taken.newest for taken in adopted), default=0)

    def _welcome(self, adopted: Adopted, *, ready: bool = True) -> None:
        self._inherited[adopted.path.name] = self._mark.inherited([adopted.path.name])
        if adopted.folder is not None:
            adopted.folder.ready = ready
            self._holdings.add(adopted.folder)
            self._holdings.touch(adopted.folder)
        for damage in adopted.damage:
            self._events.emit(damage)
        if adopted.folder is not None:
            self._events.emit(JournalAdopted(str(adopted.path), adopted.entries))
        if adopted.failure is not None:
            self._events.emit(JournalFailed(str(adopted.path), str(adopted.failure)))

    def _store_mark(self, marks: Mapping[str, str], taken: Collection[str]) -> None:
        with explained(f"write the low-water mark of {self._own.path}"):
            self._mark.store(marks, taken)

    def _report_damage(self) -> None:
        """Report what is wrong with the shared folder itself."""
        damage, self._root.damage = self._root.damage, []
        for found in damage:
            self._events.emit(found)

    def _emit(self, event: Event) -> None:
        self._events.emit(event)


_journals: weakref.WeakSet[FileJournal] = weakref.WeakSet()


def _forget_all() -> None:
    for journal in list(_journals):
        journal.forget_process()


os.register_at_fork(after_in_child=_forget_all)


def _encoded(operation: Operation) -> Operation:
    """The operation with its payload, where the caller has not encoded it."""
    if operation.payload is None and operation.fields is not None:
        try:
            return operation._replace(payload=to_json(operation.fields))
        except ValueError as error:
            raise JournalError(f"the fields of {operation.key} cannot be written as JSON: {error}") from None
    return operation


def _ignore(_result: object, _error: BaseException | None) -> None:
    """Whatever came of it, there is nothing left to do."""
