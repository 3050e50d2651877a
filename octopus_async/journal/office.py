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
from octopus_async.journal.format import encode_dead, encode_drop, encode_operation, encode_retry, key_bytes
from octopus_async.journal.futures import all_of, future_of, in_turn
from octopus_async.journal.holdings import Holdings
from octopus_async.journal.item import (
    Item,
    at_of,
    born_of,
    item_of,
    operation_of,
    sequence_of,
    version_of,
)
from octopus_async.journal.letters import Letter
from octopus_async.journal.overlay import Overlay
from octopus_async.journal.settlements import Settlements
from octopus_async.record import NO_VERSION


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
        self._retrying: dict[int, asyncio.Future[int]] = {}

    def letters(self) -> list[DeadLetter]:
        """All of them, the oldest first."""
        return sorted(
            (letter.opened() for letter in self._holdings.letters()), key=lambda letter: letter.sequence
        )

    def bury(
        self, target: str, run: Run, reason: str, error: str, *, spare: Sequence[str] = ()
    ) -> asyncio.Future[str]:
        """See `Journal.bury`."""
        key, refused, number = key_bytes(run.operation.key), set(run.sequences), run.sequences[0]
        because = f"it follows entry {number}, which was refused: {reason}"

        def why(entry: Pending) -> str:
            return reason if sequence_of(entry.blob) in refused else because

        def move(entries: Sequence[Pending]) -> asyncio.Future[None]:
            return all_of([self._bury(key, (target, *spare), entry, why(entry), error) for entry in entries])

        lost = [entry for entry in self._overlay.entries(key, target) if self._goes_with(entry, run)]
        newest = max((version_of(entry.blob).decode() for entry in lost), default=NO_VERSION)
        # The first entry last: as long as it is pending, what a crash leaves of the others is refused
        # with it once more. Without it they would be applied, to a record that is not theirs.
        first = [entry for entry in lost if sequence_of(entry.blob) == number]
        behind = [entry for entry in lost if sequence_of(entry.blob) != number]
        return in_turn(partial(move, behind), partial(move, first), newest)

    def _goes_with(self, pending: Pending, run: Run) -> bool:
        """Whether an entry of the key is about the record of a refused run.

        Others are not: a later create, and what another process wrote without knowing of that record.
        """
        born, number = born_of(*pending), sequence_of(pending.blob)
        if number in run.sequences:
            return True
        if born:
            return born == run.operation.born.encode()
        return self._holdings.of(number) is self._holdings.of(run.sequences[0])

    def _bury(
        self, key: bytes, targets: Sequence[str], pending: Pending, reason: str, error: str
    ) -> asyncio.Future[None]:
        future = future_of(NoneType)
        sequence, folder = sequence_of(pending.blob), self._holdings.of(sequence_of(pending.blob))
        owing = [target for target in targets if target in pending.traits.targets]
        rest = encode_operation(operation_of(key, *pending), at_of(pending.blob), owing)
        letter = Letter(sequence, targets[0], encode_dead(sequence, targets[0], reason, error, rest), 0)
        done = partial(self._buried, key, letter, owing, folder)
        self._commit.put(folder, Line(letter.rest, 1, future, done))
        return future

    def retry(self, entry: int, at: float) -> asyncio.Future[int]:
        """See `Journal.retry`; ``at`` is now, seconds since 1970."""
        retrying = self._retrying.get(entry)
        if retrying is None:
            retrying = self._retrying[entry] = self._retry(entry, at)
            retrying.add_done_callback(lambda _: self._retrying.pop(entry))
        return asyncio.shield(retrying)  # who gives up waiting leaves the others theirs

    def _retry(self, entry: int, at: float) -> asyncio.Future[int]:
        future = future_of(int)
        try:
            folder, letters = self._holdings.find_letters(entry)
            operation = letters[0].opened().operation
            targets = list(dict.fromkeys(target for letter in letters for target in letter.targets()))
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

    def _buried(
        self, key: bytes, letter: Letter, owing: Sequence[str], folder: Folder, _: int, segment: int
    ) -> None:
        letter.segment = segment
        folder.letters.add(letter)
        self._overlay.units.shatter(letter.entry)
        for target in owing:
            self._overlay.finish(target, key, [letter.entry])
            self._settlements.refused(letter, target)
        self._holdings.touch(folder)

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
