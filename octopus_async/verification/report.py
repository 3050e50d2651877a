"""What a comparison has found so far, and where it stands: kept in a small file, it can go on from there."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from octopus_async.errors import ConfigurationError
from octopus_async.record import Key, Record

_FORMAT = 1
_LARGEST = 64 * 1024 * 1024
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Side:
    """What one backend holds of a record: alive, deleted or nothing; the version is empty for none."""

    state: str
    version: str = ""
    born: str = ""

    @classmethod
    def of(cls, record: Record | None) -> Side:
        """What is told of a record that was found, or of none."""
        if record is None:
            return cls("nothing")
        return cls("deleted" if record.fields is None else "alive", record.version, record.born)


@dataclass(frozen=True, slots=True)
class Divergence:
    """One record that differs.

    Attributes:
        backend: who differs from the primary.
        role: replica or cache.
        model: the model's name.
        id: the record's id.
        kind: in what it differs, the value of a `Difference`.
        primary: what the primary holds.
        there: what the backend holds.
        cause: what likely brought it about.
        mended: whether it was repaired, and is equal now.
        problem: why it was not, where that was asked for.
    """

    backend: str
    role: str
    model: str
    id: str
    kind: str
    primary: Side
    there: Side
    cause: str
    mended: bool = False
    problem: str | None = None


@dataclass(slots=True)
class Report:
    """What was compared, and what was found.

    Attributes:
        compared: how many of the primary's records and tombstones were compared.
        unversioned: how many of them have no version: others wrote them.
        owed: how many differences will be made up, by backend: the journal has what is missing.
        unsettled: how many keys changed at each look, so that nothing can be said of them.
        found: how many divergences, by kind.
        mended: how many of them were repaired.
        divergences: the first of them.
        unasked: why backends were not compared wholly, by name.
        skipped: what cannot be compared at all, and why, by name.
        pending: how many operations each backend was owed in the end.
    """

    compared: Count = 0
    unversioned: Count = 0
    owed: dict[str, Count] = field(default_factory=dict)
    unsettled: Count = 0
    found: dict[str, Count] = field(default_factory=dict)
    mended: Count = 0
    divergences: list[Divergence] = field(default_factory=list)
    unasked: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    pending: dict[str, Count] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """How many divergences are there still."""
        return sum(self.found.values()) - self.mended

    @property
    def ok(self) -> bool:
        """Whether everything that can be was compared, and is equal, or owed."""
        return not (self.left or self.unsettled or self.unasked)


@dataclass(frozen=True, slots=True)
class Position:
    """The last record of a scan that was dealt with."""

    id: str
    version: str
    alive: bool

    @classmethod
    def of(cls, record: Record) -> Position:
        """The position behind a record."""
        return cls(record.key.id, record.version, record.fields is not None)

    def as_record(self, model: str) -> Record:
        """As much of the record as a scan needs to go on behind it."""
        return Record(Key(model, self.id), self.version, "", {} if self.alive else None)


@dataclass(slots=True)
class State:
    """A comparison under way.

    Attributes:
        steps: model and backend of each scan, in order.
        fraction: the share of records that is compared.
        seed: chooses them.
        since: only what is newer than this version.
        step: the scan that is under way.
        position: how far it has come; None for its beginning.
        report: what was found up to there.
    """

    steps: list[tuple[str, str]]
    fraction: float
    seed: int
    since: str
    step: Count = 0
    position: Position | None = None
    report: Report = field(default_factory=Report)
    format: int = _FORMAT

    def save(self, path: Path) -> None:
        """Write it in place of an earlier one, wholly or not at all. Raises `ConfigurationError`."""
        other = path.with_name(f"{path.name}.new")
        try:
            with open(other, "wb", opener=_private) as file:
                file.write(_STATES.dump_json(self))
                file.flush()
                os.fsync(file.fileno())
            other.replace(path)
        except OSError as error:
            raise ConfigurationError(f"{path}: the position cannot be kept: {error.strerror}") from None

    @classmethod
    def load(cls, path: Path) -> State | None:
        """Read what `save` wrote; None if there is no such file. Raises `ConfigurationError`."""
        try:
            with path.open("rb") as file:
                data = file.read(_LARGEST)
            state = _STATES.validate_json(data)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
        except ValidationError:
            raise ConfigurationError(f"{path}: holds no position of octopus verify") from None
        if state.format != _FORMAT or state.step > len(state.steps):
            raise ConfigurationError(f"{path}: holds no position that this release understands")
        return state

    def check_same(self, other: State) -> None:
        """Raise `ConfigurationError` unless both compare the same things."""
        for name in ("steps", "fraction", "since"):
            if getattr(self, name) != getattr(other, name):
                raise ConfigurationError(
                    f"the earlier run, which is to go on, had other {name}: remove its file to begin anew"
                )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


_STATES = TypeAdapter(State)
