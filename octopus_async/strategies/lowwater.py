"""The low-water mark: up to which version each replica has, or the journal owes it, what its primary has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from octopus_async.backend import Journal
from octopus_async.clock import Clock, version_at
from octopus_async.errors import JournalError

_log = logging.getLogger("octopus_async")
_EVERY = 1.0
_PATIENCE = 0.5
_SHARE = 0.25
_GRACE = 5.0
_EVERYTHING = ""


class _Entrance(NamedTuple):
    """A version below every one that was issued since a write began, and the write's model."""

    version: str
    model: str


class Passage:
    """A write's way from before its version is issued until its replicas are taken care of.

    Parameters:
        water: where it entered; None for a write that has no replicas.
        number: what names it there.
    """

    __slots__ = ("_number", "_water")

    def __init__(self, water: LowWater | None = None, number: int = 0) -> None:
        self._water = water
        self._number = number

    def end(self, *, doubt: bool = False) -> None:
        """Every replica has it, or is owed it durably, or it left no trace: unless that is in ``doubt``."""
        water, self._water = self._water, None
        if water is not None:
            water.leave(self._number, doubt=doubt)


class LowWater:
    """Knows which writes are between a primary and its replicas, and which were lost there.

    A write enters before its version is issued, and leaves when every replica has it, or the
    journal owes it to those that do not, or it certainly left no trace. If nobody can say what
    became of it, its model is *wanted* from there on, until somebody has compared the replicas
    with the primary. A model's mark is below all of these, and durable in the journal
    before the first write of the model is sent, so that a successor finds it.

    Parameters:
        clock: issues the versions.
        journal: keeps the marks; None without one, when a crash is not survived.
    """

    def __init__(self, clock: Clock, journal: Journal | None) -> None:
        self.changed = asyncio.Event()
        self._clock = clock
        self._journal = journal
        self._entered: dict[int, _Entrance] = {}
        self._next = 0
        self._level = ""
        self._models: set[str] = set()
        self._wanted: dict[str, str] = {}
        self._taken: dict[str, str] = {}
        self._compared: set[str] = set()
        self._durable: Mapping[str, str] = {}
        self._covering: dict[str, asyncio.Future[None]] = {}
        self._excused_until = 0.0

    # -- writes ----------------------------------------------------------------------------------

    async def enter(self, model: str, deadline: float) -> Passage:
        """A write of ``model`` begins.

        The first write of a model waits until its mark is durable, for a share of its time.
        """
        if self._journal is not None and model not in self._durable:
            await self._cover(self._journal, model, deadline)
        self._next += 1
        self._entered[self._next] = _Entrance(self._clock.next(), model)
        self._level = ""
        return Passage(self, self._next)

    def leave(self, number: int, *, doubt: bool) -> None:
        """See `Passage.end`."""
        entrance = self._entered.pop(number)
        if doubt:
            self.want({entrance.model: entrance.version})

    # -- what has to be compared -----------------------------------------------------------------

    def want(self, marks: Mapping[str, str]) -> None:
        """Replicas have to be brought up to the primary from these marks on."""
        for model, version in marks.items():
            self._wanted[model] = min(version, self._wanted.get(model, version))
            if model == _EVERYTHING:
                self._compared.clear()
        self.changed.set()

    async def distrust(self, model: str, moment: float) -> None:
        """Replicas may lack what was written of a model since ``moment`` (seconds since 1970).

        They are compared then, also if this process dies now.
        """
        mark = version_at(max(0, int(moment * 1000)))
        self.want({model: mark})
        if self._journal is not None and (model not in self._durable or self._durable[model] > mark):
            await asyncio.wait([self._store(self._journal, self._marks())], timeout=_PATIENCE)

    def wanted(self, known: Iterable[str]) -> set[str]:
        """Those of the ``known`` models that have to be compared, and are not being compared yet."""
        models = set(known)
        if _EVERYTHING not in self._wanted:
            return models & self._wanted.keys() - self._taken.keys()
        return (models - self._compared | models & self._wanted.keys()) - self._taken.keys()

    def comparing(self, known: Iterable[str]) -> frozenset[str]:
        """Those that have to be compared, or are being compared; without a want for all models."""
        return frozenset((*self._wanted.keys() - {_EVERYTHING}, *self._taken, *self.wanted(known)))

    def take(self, model: str) -> str:
        """Begin to compare a model; gives the version from which on."""
        marks = [self._wanted.pop(model, None), self._wanted.get(_EVERYTHING)]
        self._taken[model] = min(mark for mark in marks if mark is not None)
        return self._taken[model]

    def give_back(self, model: str) -> None:
        """The model could not be compared: it is wanted still."""
        self.want({model: self._taken.pop(model)})

    def done(self, model: str) -> None:
        """The model was compared."""
        del self._taken[model]
        self._compared.add(model)
        self.changed.set()

    # -- durability ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the durable marks near those in memory; ends by being cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            if self._journal is not None and self._marks() != self._durable:
                await asyncio.wait([self._store(self._journal, self._marks())])

    def close(self, known: Iterable[str]) -> None:
        """Nothing is written any more: leave a mark of what is in doubt, and none if nothing is.

        Parameters:
            known: the models that there were: when all of them were compared, everything was.
        """
        for number in list(self._entered):
            self.leave(number, doubt=True)
        self.want(self._taken)
        if {*known} and {*known} <= self._compared:
            self._wanted.pop(_EVERYTHING, None)
        if self._journal is not None:
            self._store(self._journal, dict(self._wanted))

    def _marks(self) -> dict[str, str]:
        first = next(iter(self._entered.values()), None)
        if first is None and not self._level:
            # Not at each call: the mark of a process that writes nothing stands still.
            self._level = self._clock.next()
        level = self._level if first is None else first.version
        models = {*self._models, *self._wanted, *self._taken}
        return {
            model: min(level, self._wanted.get(model, level), self._taken.get(model, level))
            for model in models
        }

    async def _cover(self, journal: Journal, model: str, deadline: float) -> None:
        now = asyncio.get_running_loop().time()
        covering = self._covering.get(model)
        if covering is None:
            self._models.add(model)
            covering = self._covering[model] = self._store(journal, self._marks())
            covering.add_done_callback(lambda _: self._covering.pop(model))
        if now >= self._excused_until:
            await asyncio.wait([covering], timeout=min(_PATIENCE, _SHARE * max(0.0, deadline - now)))
            if not covering.done() or covering.exception() is not None:
                # A disk that cannot be written must not stop a healthy primary.
                self._excused_until = now + _GRACE

    def _store(self, journal: Journal, marks: Mapping[str, str]) -> asyncio.Future[None]:
        storing = journal.mark(marks)
        storing.add_done_callback(lambda done: self._stored(done, marks))
        return storing

    def _stored(self, done: asyncio.Future[None], marks: Mapping[str, str]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is None:
            self._durable = marks
        elif isinstance(error, JournalError):
            _log.warning("the low-water mark of replicas could not be kept: %s", error)
