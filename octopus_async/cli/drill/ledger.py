"""The drill's own bookkeeping: what was promised of each record, and what may be read of it. Pure.

It knows nothing of the library. A record is written by one worker, one write at a time, so its
writes are numbered steps: step 1, step 2, ...; step 0 is what was before, nothing. What is stored
carries its step, and its other fields follow from it, so that nothing else has to be remembered.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

_EXAMPLES = 20
_DEED_BITS = 3


class Deed(IntEnum):
    """What a step does."""

    NOTHING = 0
    CREATE = 1
    UPDATE = 2
    DELETE = 3


class Fate(IntEnum):
    """What its caller was told of a step."""

    UNDER_WAY = 0
    ACKNOWLEDGED = 1
    REFUSED = 2
    """It was said that it has not happened, and will not."""
    UNKNOWN = 3
    """Nothing was claimed: it may have happened, or happen yet."""


class Fault(IntEnum):
    """What the drill looks for."""

    LOST = 0
    RESURRECTED = 1
    STALE = 2
    FAILED = 3


class Name(NamedTuple):
    """A record's name in the drill: whose it is, and which of theirs."""

    shelf: int
    place: int

    def __str__(self) -> str:
        return f"record {self.shelf}/{self.place}"


class History:
    """All that was done to one record, two small numbers a step."""

    __slots__ = ("_steps", "acknowledged", "id", "name", "seen")

    def __init__(self, name: Name, id_: UUID) -> None:
        self.name = name
        self.id = id_
        self.acknowledged = 0
        """The newest step that was acknowledged."""
        self.seen = 0
        """The newest step that any read has given."""
        self._steps = bytearray([Deed.NOTHING | Fate.ACKNOWLEDGED << _DEED_BITS])

    @property
    def newest(self) -> int:
        """The newest step, be it under way."""
        return len(self._steps) - 1

    def deed(self, step: int) -> Deed:
        """What a step does."""
        return Deed(self._steps[step] & (1 << _DEED_BITS) - 1)

    def fate(self, step: int) -> Fate:
        """What was told of a step."""
        return Fate(self._steps[step] >> _DEED_BITS)

    def begin(self, deed: Deed) -> int:
        """A write begins: its step."""
        self._steps.append(deed | Fate.UNDER_WAY << _DEED_BITS)
        return self.newest

    def end(self, fate: Fate) -> None:
        """The write under way has ended."""
        self._steps[-1] = self.deed(self.newest) | fate << _DEED_BITS
        if fate is Fate.ACKNOWLEDGED:
            self.acknowledged = self.newest

    def exists_after(self, step: int) -> bool:
        """Whether there is a record once a step has happened."""
        return self.deed(step) in (Deed.CREATE, Deed.UPDATE)

    @property
    def floor(self) -> int:
        """The step below which a read that begins now must not fall: told to the writer, or seen."""
        return max(self.acknowledged, self.seen)

    def read(self, floor: int, step: int | None) -> str | None:
        """Judge a read.

        Args:
            floor: what `floor` was when the read began.
            step: the step of the record that was given; None if there was none.

        Returns:
            What is wrong with it; None if nothing is.
        """
        floor = self._certain(floor)
        allowed = self._allowed(floor, step)
        if allowed is None:
            given = "nothing" if step is None else f"step {step}"
            return f"{self.name}: a read gave {given}, after {self._told(floor)}"
        self.seen = max(self.seen, allowed)
        return None

    def stored(self, step: int | None) -> tuple[Fault, str] | None:
        """Judge what the primary holds in the end: a step, or None for no record."""
        base = self.acknowledged
        if self._allowed(base, step, final=True) is not None:
            return None
        held = "nothing" if step is None else f"step {step}"
        what = f"{self.name}: the primary holds {held}, after {self._told(base)}"
        return (Fault.LOST if self.exists_after(base) else Fault.RESURRECTED), what

    def _allowed(self, floor: int, step: int | None, *, final: bool = False) -> int | None:
        """The oldest step from ``floor`` on that explains what was found."""
        for candidate in range(floor, self.newest + 1):
            fate = self.fate(candidate)
            if fate is Fate.REFUSED or (final and candidate > floor and fate is not Fate.UNKNOWN):
                continue
            if (step == candidate) if self.exists_after(candidate) else step is None:
                return candidate
        return None

    def _certain(self, floor: int) -> int:
        """Seen while it was under way, and not acknowledged in the end: that binds no later read."""
        while floor > self.acknowledged and self.fate(floor) in (Fate.REFUSED, Fate.UNKNOWN):
            floor -= 1
        return floor

    def _told(self, step: int) -> str:
        if step == 0:
            return "nothing was promised of it"
        said = "was acknowledged" if self.fate(step) is Fate.ACKNOWLEDGED else "had been read"
        return f"its {self.deed(step).name.lower()} (step {step}) {said}"


class Ledger:
    """The histories of all records, and the faults found in them."""

    def __init__(self) -> None:
        self.histories: list[History] = []
        self.by_name: dict[Name, History] = {}
        self.faults: Counter[Fault] = Counter()
        self.examples: dict[Fault, list[str]] = {fault: [] for fault in Fault}
        self.fates: Counter[Fate] = Counter()
        self.journalled = 0
        self.refused_reads = 0

    def open(self, name: Name, id_: UUID) -> History:
        """Begin the history of a record."""
        history = self.by_name[name] = History(name, id_)
        self.histories.append(history)
        return history

    def end(self, history: History, fate: Fate, *, journalled: bool = False) -> None:
        """The write under way of a record has ended."""
        history.end(fate)
        self.fates[fate] += 1
        self.journalled += journalled

    def read(self, history: History, floor: int, step: int | None) -> None:
        """A read of a record has ended: count it if it is stale."""
        wrong = history.read(floor, step)
        if wrong is not None:
            self.note(Fault.STALE, wrong)

    def note(self, fault: Fault, what: str) -> None:
        """Count a fault, and keep the first of its kind as examples."""
        self.faults[fault] += 1
        if len(self.examples[fault]) < _EXAMPLES:
            self.examples[fault].append(what)


def token(seed: int, name: Name, step: int) -> str:
    """What a record holds after a step: unique to it, and made again when it has to be compared."""
    return blake2b(f"{seed}/{name.shelf}/{name.place}/{step}".encode(), digest_size=12).hexdigest()
