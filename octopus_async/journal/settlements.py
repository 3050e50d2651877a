"""Who waits for an entry to be applied, and what became of entries that never will be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from octopus_async.errors import OctopusError
from octopus_async.journal.letters import Letter
from octopus_async.journal.overlay import Overlay


class Settlements:
    """Answers, before and after the fact, whether a target has applied an entry."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._waiting: dict[tuple[int, str], list[asyncio.Future[None]]] = {}
        self._retried: dict[int, int] = {}
        self._dropped: dict[tuple[int, str], OctopusError] = {}

    def wait(self, sequence: int, target: str, letters: Iterable[Letter]) -> asyncio.Future[None]:
        """Done when ``target`` has applied the entry; ``letters`` are its dead letters."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused = next((letter.error() for letter in letters if letter.target == target), None)
        error = refused or self._dropped.get((sequence, target))
        if self._overlay.is_owed(sequence, target):
            self._waiting.setdefault((sequence, target), []).append(future)
            future.add_done_callback(lambda done: self._given_up(done, (sequence, target)))
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    def _given_up(self, future: asyncio.Future[None], waited_for: tuple[int, str]) -> None:
        """Who asks again and again in a long outage must not pile up."""
        if future.cancelled() and (waiting := self._waiting.get(waited_for)) is not None:
            waiting.remove(future)
            if not waiting:
                del self._waiting[waited_for]

    def current(self, sequence: int) -> int:
        """The number under which an entry waits now: that of its last retry."""
        while sequence in self._retried:
            sequence = self._retried[sequence]
        return sequence

    def applied(self, target: str, sequences: Iterable[int]) -> None:
        """``target`` has applied these."""
        if self._waiting:
            for sequence in sequences:
                for future in self._waiting.pop((sequence, target), ()):
                    if not future.done():
                        future.set_result(None)

    def refused(self, letter: Letter, target: str) -> None:
        """The entry is a dead letter now, and ``target`` owes it no longer."""
        for future in self._waiting.pop((letter.entry, target), ()):
            if not future.done():
                future.set_exception(letter.error())

    def retried(self, entry: int, number: int) -> None:
        """A dead letter is pending again."""
        self._retried[entry] = number

    def dropped(self, letters: Iterable[Letter]) -> None:
        """Dead letters are gone for good; whoever asks later must not hear that they were applied."""
        for letter in letters:
            self._dropped[letter.entry, letter.target] = letter.error()

    def end(self, error: OctopusError) -> None:
        """Nobody will answer any more."""
        waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(type(error)(str(error)))
