"""Makes dead letters of entries that were refused, and sends them again or throws them away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from types import NoneType

from octopus_async.backend import DeadLetter, Run
from octopus_async.errors import JournalError
from octopus_async.journal.coalesce import Pending
from octopus_async.journal.commit import GroupCommit, Line
from octopus_async.journal.folder import Folder
from octopus_async.journal.format import (
    encode_dead,
    encode_done,
    encode_drop,
    encode_operation,
    encode_retry,
    key_bytes,
)
from octopus_async.journal.futures import all_of, future_of
from octopus_async.journal.holdings import Holdings
from octopus_async.journal.item import Item, at_of, item_of, operation_of, sequence_of
from octopus_async.journal.letters import Letter
from octopus_async.journal.overlay import Overlay
from octopus_async.journal.settlements import Settlements


class DeadLetterOffice:
    """The dead letters of a journal that is open.

    Parameters:
        overlay: what is pending.
        holdings: where the letters lie.
        settlements: who waits for entries.
        commit: makes lines durable.
    """

    def __init__(
        self, overlay: Overlay, holdings: Holdings, settlements: Settlements, commit: GroupCommit
    ) -> None:
        self._overlay = overlay
        self._holdings = holdings
        self._settlements = settlements
        self._commit = commit

    def letters(self) -> list[DeadLetter]:
        """All of them, the oldest first."""
        return sorted(
            (letter.opened() for letter in self._holdings.letters()), key=lambda letter: letter.sequence
        )

    def bury(
        self, target: str, run: Run, reason: str, error: str, spare: Sequence[str] = ()
    ) -> asyncio.Future[None]:
        """See `Journal.bury`."""
        key, first, refused = key_bytes(run.operation.key), run.sequences[0], set(run.sequences)
        behind = f"it follows entry {first}, which was refused: {reason}"
        futures: list[asyncio.Future[None]] = []
        for pending in list(self._overlay.entries(key, target)):
            sequence = sequence_of(pending.blob)
            futures += [self._spare(key, other, sequence) for other in spare]
            futures.append(self._bury(key, target, pending, reason if sequence in refused else behind, error))
        return all_of(futures)

    def _spare(self, key: bytes, target: str, entry: int) -> asyncio.Future[None]:
        # A line, not a mark: it has to lie before the dead letter, or a crash could part the two.
        future, folder = future_of(NoneType), self._holdings.of(entry)
        done = partial(self._spared, key, target, entry)
        self._commit.put(folder, Line(encode_done(target, [(entry, entry)]), 1, future, done))
        return future

    def _bury(
        self, key: bytes, target: str, pending: Pending, reason: str, error: str
    ) -> asyncio.Future[None]:
        future = future_of(NoneType)
        sequence, folder = sequence_of(pending.blob), self._holdings.of(sequence_of(pending.blob))
        rest = encode_operation(operation_of(key, *pending), at_of(pending.blob))
        letter = Letter(sequence, target, encode_dead(sequence, target, reason, error, rest), 0)
        self._commit.put(folder, Line(letter.rest, 1, future, partial(self._buried, key, letter, folder)))
        return future

    def retry(self, entry: int, at: float) -> asyncio.Future[int]:
        """See `Journal.retry`; ``at`` is now, seconds since 1970."""
        future = future_of(int)
        try:
            folder, letters = self._holdings.find_letters(entry)
            operation, targets = letters[0].opened().operation, [letter.target for letter in letters]
            item = item_of(operation, targets, at, provisional=True)
            rest = encode_retry(entry, encode_operation(operation, at, targets, provisional=True))
        except JournalError as error:
            future.set_exception(error)
        else:
            self._commit.put(folder, Line(rest, 1, future, partial(self._retried, entry, folder, item)))
        return future

    def drop(self, entry: int) -> asyncio.Future[None]:
        """See `Journal.drop`."""
        future = future_of(NoneType)
        try:
            folder, letters = self._holdings.find_letters(entry)
        except JournalError as error:
            future.set_exception(error)
        else:
            done = partial(self._dropped, entry, folder, letters)
            self._commit.put(folder, Line(encode_drop(entry), 1, future, done))
        return future

    # -- once the line is durable: see `Line` ----------------------------------------------------

    def _buried(self, key: bytes, letter: Letter, folder: Folder, _: int, segment: int) -> None:
        letter.segment = segment
        folder.letters.add(letter)
        self._overlay.finish(letter.target, key, [letter.entry])
        self._settlements.refused(letter)
        self._holdings.touch(folder)

    def _spared(self, key: bytes, target: str, entry: int, *_: int) -> None:
        self._settlements.applied(target, self._overlay.finish(target, key, [entry]))

    def _retried(self, entry: int, folder: Folder, item: Item, number: int, _: int) -> int:
        folder.letters.remove(entry)
        self._settlements.retried(entry, number)
        self._overlay.add(number, item)
        self._holdings.touch(folder)
        return number

    def _dropped(self, entry: int, folder: Folder, letters: Sequence[Letter], *_: int) -> None:
        folder.letters.remove(entry)
        self._settlements.dropped(letters)
        self._holdings.touch(folder)
