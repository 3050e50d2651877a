"""The load: workers that write records of their own and read everybody's, and note what they were told."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from octopus_async.cli.drill.ledger import Deed, Fate, Fault, History, Ledger, Name, token
from octopus_async.cli.drill.meter import Meter
from octopus_async.dao import Dao
from octopus_async.errors import ReadUnavailable, RecordNotFound, RecordRejected
from octopus_async.model import Model
from octopus_async.strategies.receipt import Receipt

TABLE = "octopus_drill"
_READS = 0.5
_CREATES = 0.3
_DELETES = 0.2
_AT_LEAST = 5
_HOT = 3


class Volume(Model, name="DrillVolume", table=TABLE):
    """What the drill stores: one field of each common kind, all of which follow from the step."""

    shelf: int
    place: int
    step: int
    title: str
    note: str | None
    price: Decimal
    lent: bool
    tags: list[str]


def contents(seed: int, name: Name, step: int) -> dict[str, Any]:
    """The fields of a record after a step."""
    mark = token(seed, name, step)
    return {
        "shelf": name.shelf,
        "place": name.place,
        "step": step,
        "title": f"Buch Nº {mark} 🐙",
        "note": None if step % 2 else mark,
        "price": Decimal(int(mark[:6], 16)) / 100,
        "lent": step % 3 == 0,
        "tags": [mark[:8], mark[8:16], ""],
    }


@dataclass(slots=True)
class Load:
    """What the workers share.

    Attributes:
        volumes: the Dao under load.
        ledger: what they were told.
        meter: how long it took.
        seed: makes contents and choices repeatable.
        think: the mean pause between two operations of a worker, in seconds.
        records: how many records a worker may make.
        blind: whether no backend that could know a record can be asked at this moment.
    """

    volumes: Dao[Volume]
    ledger: Ledger
    meter: Meter
    seed: int
    think: float
    records: int
    blind: Callable[[], bool]

    async def look_up(self, history: History) -> Volume | None:
        """Read a record, and judge what comes."""
        floor, blind, began = history.floor, self.blind(), time.perf_counter()
        try:
            volume = await self.volumes.read(history.id)
        except ReadUnavailable as error:
            self._refused(history, error, expected=blind or self.blind())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the drill looks for
            self._failed(history, "read", error)
        else:
            self.meter.read(time.perf_counter() - began)
            self._judge(history, floor, volume)
            return volume
        return None

    async def write(self, history: History, deed: Deed, call: Callable[[], Awaitable[Receipt]]) -> bool:
        """Make a write, note what was told of it, and say whether it was acknowledged."""
        history.begin(deed)
        fate, journalled, began = Fate.UNKNOWN, False, time.perf_counter()
        try:
            journalled = (await call()).journalled
            fate = Fate.ACKNOWLEDGED
            self.meter.wrote(time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - as above
            fate = self._fate(error)
            self._failed(history, deed.name.lower(), error)
        finally:
            self.ledger.end(history, fate, journalled=journalled)
        return fate is Fate.ACKNOWLEDGED

    def _fate(self, error: Exception) -> Fate:
        """What an error says of the write that raised it."""
        return Fate.REFUSED if isinstance(error, RecordRejected | RecordNotFound) else Fate.UNKNOWN

    def _judge(self, history: History, floor: int, volume: Volume | None) -> None:
        if volume is not None and not self._is_intact(history, volume):
            self.ledger.note(Fault.STALE, f"{history.name}: a read gave what nobody wrote: {volume!r}")
        else:
            self.ledger.read(history, floor, None if volume is None else volume.step)

    def _is_intact(self, history: History, volume: Volume) -> bool:
        fields = volume.model_dump(exclude={"id", "created_at", "updated_at"})
        return volume.id == history.id and fields == contents(self.seed, history.name, volume.step)

    def _refused(self, history: History, error: ReadUnavailable, *, expected: bool) -> None:
        if expected:
            self.ledger.refused_reads += 1
            self.meter.erred()
        else:
            self._failed(history, "read", error)

    def _failed(self, history: History, verb: str, error: Exception) -> None:
        self.meter.erred()
        self.ledger.note(Fault.FAILED, f"{history.name}: {verb} raised {type(error).__name__}: {error}")


class Owned(NamedTuple):
    """A living record of a worker, as it was written last."""

    history: History
    volume: Volume


class Caller(ABC):
    """Somebody in a closed loop, who waits for each answer, thinks, and goes on."""

    def __init__(self, name: str, load: Load) -> None:
        self._load = load
        self._chance = random.Random(f"{load.seed}/{name}")  # noqa: S311 - repeatable, not secret

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until told to stop; the operation under way is finished."""
        while not stop.is_set():
            await self._act()
            await asyncio.sleep(self._chance.expovariate(1 / self._load.think))

    @abstractmethod
    async def _act(self) -> None:
        """Do one thing, and wait for its answer."""


class Onlooker(Caller):
    """Reads everybody's records, and never has to wait for a write."""

    def __init__(self, number: int, load: Load) -> None:
        super().__init__(f"onlooker {number}", load)

    async def _act(self) -> None:
        histories = self._load.ledger.histories
        if histories:
            await self._load.look_up(self._chance.choice(histories))


class Worker(Caller):
    """Writes the records of a shelf of its own, so that their truth is known, and reads everybody's.

    A record about which it was told nothing certain is left alone from then on, and judged in the end.
    """

    def __init__(self, shelf: int, load: Load) -> None:
        super().__init__(f"worker {shelf}", load)
        self._shelf = shelf
        self._alive: list[Owned] = []
        self._gone: list[History] = []
        self._made = 0
        self._least = min(_AT_LEAST, (load.records + 1) // 2)

    @property
    def _full(self) -> bool:
        return self._made >= self._load.records

    async def _act(self) -> None:
        dice = self._chance.random()
        if len(self._alive) < self._least and (self._gone or not self._full):
            await self._create()
        elif dice < _READS or not self._alive:
            await self._load.look_up(self._any_history())
        elif (dice := self._chance.random()) < _CREATES:
            await self._create()
        elif dice < _CREATES + _DELETES:
            await self._delete()
        else:
            await self._update()

    def _any_history(self) -> History:
        """Half of the time one of its own that was just written, else anybody's."""
        if self._alive and self._chance.getrandbits(1):
            return self._alive[-1].history
        return self._chance.choice(self._load.ledger.histories)

    async def _create(self) -> None:
        if self._gone and (self._full or not self._chance.getrandbits(2)):
            history, volume = self._brought_back()
        elif not self._full:
            history, volume = self._new()
        else:
            return
        if await self._load.write(history, Deed.CREATE, lambda: self._load.volumes.create(volume)):
            self._alive.append(Owned(history, volume))

    def _new(self) -> Owned:
        """A record whose id the library makes."""
        self._made += 1
        name = Name(self._shelf, self._made)
        volume = Volume(**contents(self._load.seed, name, 1))
        return Owned(self._load.ledger.open(name, volume.id), volume)

    def _brought_back(self) -> Owned:
        """A record that was deleted, under the id that it had."""
        history = self._gone.pop(self._chance.randrange(len(self._gone)))
        fields = contents(self._load.seed, history.name, history.newest + 1)
        return Owned(history, Volume(id=history.id, **fields))

    async def _update(self) -> None:
        history, volume = owned = self._pick()
        if self._chance.getrandbits(1):
            volume = await self._load.look_up(history) or volume
        for field, value in contents(self._load.seed, history.name, history.newest + 1).items():
            setattr(volume, field, value)
        self._alive.remove(owned)
        if await self._load.write(history, Deed.UPDATE, lambda: self._load.volumes.update(volume)):
            self._alive.append(Owned(history, volume))

    async def _delete(self) -> None:
        history, volume = owned = self._pick()
        target = volume if self._chance.getrandbits(1) else history.id
        self._alive.remove(owned)
        if await self._load.write(history, Deed.DELETE, lambda: self._load.volumes.delete(target)):
            self._gone.append(history)

    def _pick(self) -> Owned:
        """One of its living records, often one of the few that are hot."""
        return self._chance.choice(self._alive[-_HOT:] if self._chance.getrandbits(1) else self._alive)
