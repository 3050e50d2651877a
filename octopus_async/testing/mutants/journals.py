"""Mutations of the journal: what is durable, what is noticed, who holds what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octopus_async.clock import Clock
from octopus_async.journal import FileJournal, adopt, commit, format, overlay, scan  # noqa: A004 - the module's name
from octopus_async.journal.disk import OsDisk
from octopus_async.journal.folder import Folder
from octopus_async.testing.simulation.processdisk import ProcessDisk

# A mutation reaches into what is private: that is where bugs are.
# ruff: noqa: SLF001
# mypy: disable-error-code="method-assign,assignment"


_adopt: Any = adopt
_overlay: Any = overlay


def acknowledge_before_fsync() -> None:
    """A group is said to be durable when it has been written."""
    Folder._sync = lambda *_: None


def lines_without_checksum() -> None:
    """Whatever looks like a line is taken for one."""

    def sort(offset: int, lines: list[bytes], _: int) -> Any:  # noqa: ANN401 - as in the original
        yield scan.Lines(offset, [line[: -format.SUM_LENGTH] for line in lines])

    scan._sort = sort


def lock_not_taken() -> None:
    """Everybody gets every lock, of the living too."""

    def lock(self: ProcessDisk, path: Path, seconds: float = 0.0, *, shared: bool = False) -> int | None:
        del seconds, shared
        disk = self._reach()
        if str(path) not in disk._names:
            return disk.create(str(path), self._process)
        return disk.open(str(path), self._process)

    ProcessDisk.lock = lock


def cancelled_waiter_aborts_its_group() -> None:
    """A caller that stops waiting for its line takes the others of the group along."""
    original = commit.Group.write

    def write(self: commit.Group) -> Any:  # noqa: ANN401 - as in the original
        if any(line._future.cancelled() for line in self.lines):
            self.lines = [line for line in self.lines if not line._future.cancelled()]
            for line in self.lines:
                line.rest = b""
        return original(self)

    commit.Group.write = write


def clock_below_its_ceiling() -> None:
    """A start takes the machine's word for the time."""
    Clock.start_above = lambda *_: None


def unit_split() -> None:
    """What belongs together is coalesced and replayed apart."""
    original = _overlay.coalesce

    def coalesce(key: bytes, pending: Any) -> Any:  # noqa: ANN401 - as in the original
        return original(key, [one._replace(traits=one.traits._replace(unit=False)) for one in pending])

    _overlay.coalesce = coalesce


def first_state_replayed() -> None:
    """Of several writes of a key the oldest state is replayed for all of them."""
    original = _overlay.coalesce

    def coalesce(key: bytes, pending: Any) -> Any:  # noqa: ANN401 - as in the original
        entries = list(pending)
        run, first = original(key, entries), original(key, entries[:1])
        return run._replace(operation=first.operation)

    _overlay.coalesce = coalesce


def settled_forgotten() -> None:
    """Receipts never hear that their write was applied."""
    from octopus_async.journal.settlements import Settlements

    Settlements.applied = lambda *_: None


def noted_ignored() -> None:
    """A write does not wait until the journal has noted that what it replayed of the key is done."""
    FileJournal.noted = lambda *_: None


def unreadable_taken_for_torn() -> None:
    """What the disk could not read once is cut off like a torn end."""
    _adopt.UNREADABLE = "\0"  # in nobody's words


def successor_compares_nothing() -> None:
    """A process that takes over from one that crashed leaves replicas as they are."""
    FileJournal.inherited = lambda *_: {}


def anybodys_files_taken() -> None:
    """Files and folders are taken whoever else can write to them."""
    OsDisk._check_access = lambda *_: None
