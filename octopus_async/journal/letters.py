"""Dead letters: what a target refused for good, kept until somebody retries or drops it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from octopus_async import errors
from octopus_async.backend import DeadLetter
from octopus_async.errors import JournalCorrupt, OctopusError, RecordRejected
from octopus_async.journal.format import Dead, decode
from octopus_async.journal.item import operation_of_raw


class Letter:
    """One dead letter.

    Attributes:
        entry: the number of the entry that it was.
        target: the backend that refused it.
        rest: its line without the number, to be written again when its file goes.
        segment: the file in which it lies.
    """

    __slots__ = ("entry", "rest", "segment", "target")

    def __init__(self, entry: int, target: str, rest: bytes, segment: int) -> None:
        self.entry = entry
        self.target = target
        self.rest = rest
        self.segment = segment

    def opened(self) -> DeadLetter:
        """What it says. Raises JournalCorrupt if it is not what was written."""
        line = self._read()
        operation = operation_of_raw(line.raw)
        return DeadLetter(self.entry, operation, self.target, line.reason, line.error, float(line.raw.at))

    def targets(self) -> tuple[str, ...]:
        """Who was to apply it: whoever refused it, and the replicas that did not get it therefore."""
        return self._read().targets

    def error(self) -> OctopusError:
        """The error for whoever waits for the entry."""
        letter = self.opened()
        kind = getattr(errors, letter.error, None)
        if not isinstance(kind, type) or not issubclass(kind, OctopusError):
            kind = RecordRejected
        who, what = self.target, letter.operation.key
        return kind(f"{who} refused {what}, which is dead letter {self.entry} now: {letter.reason}")

    def _read(self) -> Dead:
        line = decode(b'{"seq":0' + self.rest)
        if not isinstance(line, Dead):
            raise JournalCorrupt(f"dead letter {self.entry} cannot be read")
        return line


class Letters:
    """The dead letters in one writer's folder, by entry and target."""

    def __init__(self) -> None:
        self._letters: dict[int, dict[str, Letter]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._letters.values()))

    def __iter__(self) -> Iterator[Letter]:
        for letters in self._letters.values():
            yield from letters.values()

    def add(self, letter: Letter) -> None:
        """Keep one; a letter of the same entry and target is replaced."""
        self._letters.setdefault(letter.entry, {})[letter.target] = letter

    def of(self, entry: int) -> list[Letter]:
        """Those of an entry."""
        return list(self._letters.get(entry, {}).values())

    def remove(self, entry: int) -> None:
        """Forget those of an entry."""
        self._letters.pop(entry, None)

    def keep_only(self, entries: Collection[int]) -> None:
        """Forget those of all other entries."""
        for entry in self._letters.keys() - set(entries):
            del self._letters[entry]
