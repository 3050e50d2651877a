"""What is still owed to backends: a difference that is going to be made up is no divergence."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Protocol

from octopus_async.backend import DeadLetter, Journal
from octopus_async.journal.inspect import Snapshot, snapshot
from octopus_async.record import Key
from octopus_async.strategies.debts import CacheDebts


class Owed(Protocol):
    """Knows what backends are owed. `look` comes first, and again for what is to be fresh."""

    async def look(self) -> None:
        """Learn what is owed at this moment. Raises JournalError."""
        ...

    def owes(self, backend: str, key: Key) -> bool:
        """Whether ``backend`` has not been given everything known of ``key``."""
        ...

    def letters(self, key: Key) -> Sequence[DeadLetter]:
        """What of ``key`` was refused."""
        ...

    def pending(self) -> Mapping[str, int]:
        """How many operations each backend is owed, by its name."""
        ...


class JournalFolder:
    """The journal of other processes, read without owning it.

    What they owe their caches is in their memory alone, and not seen here.

    Parameters:
        path: its folder, which is made when something has to wait; None for no journal.
    """

    def __init__(self, path: str | PathLike[str] | None) -> None:
        self._path = None if path is None else Path(path)
        self._seen = Snapshot()

    async def look(self) -> None:
        """Read the journal."""
        if self._path is not None and await asyncio.to_thread(self._path.exists):
            self._seen = await asyncio.to_thread(snapshot, self._path)

    def owes(self, backend: str, key: Key) -> bool:
        """Whether the journal held something of ``key`` for ``backend``."""
        return self._seen.owes_key(backend, key)

    def letters(self, key: Key) -> Sequence[DeadLetter]:
        """The dead letters of ``key``."""
        return self._seen.letters.get(key, ())

    def pending(self) -> Mapping[str, int]:
        """What the journal held, by backend."""
        return self._seen.pending


class LiveJournal:
    """What this process itself owes.

    Parameters:
        journal: its journal; None without one.
        debts: what each cache missed, by its name.
    """

    def __init__(self, journal: Journal | None, debts: Mapping[str, CacheDebts]) -> None:
        self._journal = journal
        self._debts = debts

    async def look(self) -> None:
        """Nothing has to be read."""

    def owes(self, backend: str, key: Key) -> bool:
        """Whether journal or memory hold something of ``key`` for ``backend``."""
        debts = self._debts.get(backend)
        if debts is not None and debts.owes(key):
            return True
        return self._journal is not None and self._journal.owes_key(backend, key)

    def letters(self, key: Key) -> Sequence[DeadLetter]:
        """The dead letters of ``key``."""
        letters = self._journal.dead_letters() if self._journal is not None else ()
        return [letter for letter in letters if letter.operation.key == key]

    def pending(self) -> Mapping[str, int]:
        """What is owed, by backend."""
        journal = {} if self._journal is None else self._journal.statistics().pending_by_target
        return {**journal, **{name: debts.total for name, debts in self._debts.items() if debts.total}}
