"""Mutations of what a process leaves behind: forks, adoptions, failed disks, breakers between lives."""

from __future__ import annotations

import asyncio
from typing import Any

import octopus_async.recovery
from octopus_async.guard import Breaker
from octopus_async.guard.breaker import State
from octopus_async.journal import FileJournal, coalesce
from octopus_async.journal.folder import Folder
from octopus_async.manager import DaoManager
from octopus_async.recovery import Replayer

# A mutation reaches into what is private: that is where bugs are.
# ruff: noqa: SLF001
# mypy: disable-error-code="method-assign,assignment"


def child_keeps_the_lock() -> None:
    """A forked child goes on holding the journal's descriptors, and its lock with them."""
    FileJournal.forget_process = lambda *_: None


def child_goes_on() -> None:
    """A forked child uses the manager of its parent."""
    DaoManager._forked = lambda *_: None


def dead_processes_journals_left() -> None:
    """Nobody takes over what dead processes left while this one lives."""

    async def adopt(_: FileJournal) -> int:
        return 0

    FileJournal.adopt = adopt


def failed_fsync_tried_again() -> None:
    """A second fsync that succeeds is taken to speak of the pages that the first one lost."""

    def sync(self: Folder, file: int) -> None:
        try:
            self._disk.sync(file)
        except OSError:
            self._disk.sync(file)
        self.synced += 1

    Folder._sync = sync


def unit_written_apart() -> None:
    """What belongs together goes to the journal one by one."""

    async def one_by_one(self: FileJournal, operations: Any, targets: Any) -> Any:  # noqa: ANN401 - as in the original
        return [await self.append(operation, targets) for operation in operations]

    def append_unit(self: FileJournal, operations: Any, targets: Any, **_: object) -> Any:  # noqa: ANN401 - as in the original
        return asyncio.ensure_future(one_by_one(self, operations, targets))

    FileJournal.append_unit = append_unit


def coalesced_past_what_decides() -> None:
    """A run goes on past creates and deletes whose answers depend on what came before."""
    coalesce._continues = lambda *_: True


def overlay_goes_before_caches_are_told() -> None:
    """What was replayed is read from caches that have not heard of it yet."""
    original = Replayer._tell_caches

    async def tell(self: Replayer, operations: Any) -> None:  # noqa: ANN401 - as in the original
        asyncio.get_running_loop().create_task(original(self, operations))

    Replayer._tell_caches = tell


def rejections_never_pause_the_replay() -> None:
    """A wrong schema empties the journal into the dead letters."""
    octopus_async.recovery._REJECTIONS_IN_A_ROW = 10**9


def expired_entries_replayed() -> None:
    """An entry that is older than the tombstones is replayed all the same."""
    original = Replayer.__init__

    def init(self: Replayer, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as in the original
        original(self, *arguments, **{**options, "retention": float("inf")})

    Replayer.__init__ = init


def late_answers_move_the_breaker() -> None:
    """An answer from before the breaker moved counts as one of now."""
    succeeded, failed = Breaker.succeeded, Breaker.failed
    Breaker.succeeded = lambda self, _, seconds: succeeded(self, self._generation, seconds)
    Breaker.failed = lambda self, _, *rest: failed(self, self._generation, *rest)


def half_open_admits_everybody() -> None:
    """Callers are the guinea pigs of a backend that may be well again."""

    def enter(self: Breaker) -> int | None:
        return self._generation if self.passes or self.state is State.HALF_OPEN else None

    Breaker.enter = enter
