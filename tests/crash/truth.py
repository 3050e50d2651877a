"""What the outside world was told of a journal, by processes that were killed, and what it has to find."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.crash.journals import PRIMARY, REPLICA
from tests.crash.services import GONE, Shelf
from tests.crash.zygote import Said

TORN = "cut short"
"""The damage that a killed process may leave: a write that was not finished."""


_PROMISES = {"appended", "united", "buried", "reserved", "done"}


@dataclass
class History:
    """One record in the eyes of one target: the versions said before they were written, in order.

    Attributes:
        sums: of the payload, by version.
        owed: the last version whose append was acknowledged; empty if none was.
        settled: the last version that may have been settled.
    """

    sums: dict[str, int] = field(default_factory=dict)
    owed: str = ""
    settled: str = ""


@dataclass
class Truth:
    """What several lives on one journal have said.

    Attributes:
        problems: what was found that contradicts it, for a person.
        counts: how much was acknowledged, found, lost, invented, changed or damaged.
    """

    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    histories: dict[str, dict[str, History]] = field(default_factory=lambda: {PRIMARY: {}, REPLICA: {}})
    units: list[list[str]] = field(default_factory=list)
    burying: set[str] = field(default_factory=set)
    buried: set[str] = field(default_factory=set)
    freed: set[str] = field(default_factory=set)
    ceiling: int = 0
    shelf: Shelf = field(default_factory=Shelf)

    def hear(self, said: Said, *, promised: int = sys.maxsize) -> None:
        """Take in what a life has said, in the order in which it was said.

        Parameters:
            said: its lines.
            promised: in so many of them promises count; what was promised later reached nobody.
        """
        for place, (what, *words) in enumerate(said):
            if place >= promised and what in _PROMISES:
                continue
            getattr(self, f"_{what}", lambda *_: None)(*words)

    def begin_anew(self) -> None:
        """Forget the records: all of them were settled, and that is durable."""
        fresh = Truth()
        self.histories, self.units = fresh.histories, fresh.units
        self.burying, self.buried, self.freed = fresh.burying, fresh.buried, fresh.freed
        self.ceiling, self.shelf = fresh.ceiling, fresh.shelf

    def compare(self, stored: Mapping[str, str]) -> None:
        """Compare what services were told with what their database holds, once all is replayed."""
        for id_ in {*self.shelf.titles, *stored}:
            self._read(id_, stored.get(id_, GONE))

    # -- what was said ---------------------------------------------------------------------------

    def _append(self, name: str, version: str, payload: int, targets: Iterable[str]) -> None:
        for target in targets:
            self.histories[target].setdefault(name, History()).sums[version] = payload

    def _appended(self, name: str, version: str) -> None:
        self.counts["acknowledged"] += 1
        for histories in self.histories.values():
            if name in histories:
                histories[name].owed = version

    def _unit(self, members: list[tuple[str, str, int]]) -> None:
        self.units.append([name for name, _, _ in members])
        for name, version, payload in members:
            self._append(name, version, payload, [PRIMARY])

    def _united(self, members: list[tuple[str, str, int]]) -> None:
        for name, version, _ in members:
            self._appended(name, version)

    def _settle(self, target: str, runs: list[tuple[str, str]]) -> None:
        for name, version in runs:
            if name in self.histories[target]:
                history = self.histories[target][name]
                history.settled = max(history.settled, version)

    def _bury(self, name: str) -> None:
        self.burying.add(name)

    def _buried(self, name: str) -> None:
        self.counts["acknowledged"] += 1
        self.buried.add(name)

    def _free(self, name: str) -> None:
        self.freed.add(name)

    def _reserved(self, milliseconds: int) -> None:
        self.ceiling = max(self.ceiling, milliseconds)

    def _begin(self, id_: str, title: str) -> None:
        self.shelf.begin(id_, title)

    def _done(self, id_: str) -> None:
        self.counts["acknowledged"] += 1
        self.shelf.acknowledged(id_)

    # -- what was found --------------------------------------------------------------------------

    def _found(self, found: dict[str, Any]) -> None:
        self.counts["compared"] += sum(map(len, self.histories.values()))
        letters = set(found["letters"])
        for reason in found["damage"]:
            self._damage(reason)
        if found["whole"] and found["ceiling"] < self.ceiling:
            self._contradicts("lost", f"the ceiling {self.ceiling}, found {found['ceiling']}")
        for target, histories in self.histories.items():
            waiting = {name: (version, payload, count) for name, version, payload, count in found[target]}
            self._no_more(target, histories, waiting)
            if found["whole"]:
                self._no_less(target, histories, waiting, letters)
        if found["whole"]:
            self._letters(letters, {name for name, *_ in found[PRIMARY]})
            self._wholly({name for name, *_ in found[PRIMARY]} | letters)

    def _damage(self, reason: str) -> None:
        if TORN in reason:
            self.counts["torn ends"] += 1
        else:
            self._contradicts("damaged", reason)

    def _read(self, id_: str, title: str) -> None:
        self.counts["compared"] += 1
        if how := self.shelf.problem(id_, title):
            said = self.shelf.titles.get(id_, []), self.shelf.owed.get(id_, 0)
            self._contradicts(
                how, f"book {id_} is {title or 'gone'}, of {said[0]} {said[1]} were acknowledged"
            )

    def _no_more(
        self, target: str, histories: dict[str, History], waiting: dict[str, tuple[str, int, int]]
    ) -> None:
        for name, (version, payload, count) in waiting.items():
            sums = histories.get(name, History()).sums
            if version not in sums:
                self._contradicts("extra", f"{name} {version} for {target}, never sent")
            elif sums[version] != payload:
                self._contradicts("damaged", f"{name} {version} for {target}: another payload")
            elif count > len(sums) and name not in self.freed:
                self._contradicts("extra", f"{name} for {target}: {count} entries of {len(sums)}")

    def _no_less(
        self,
        target: str,
        histories: dict[str, History],
        waiting: dict[str, tuple[str, int, int]],
        letters: set[str],
    ) -> None:
        for name, history in histories.items():
            version = waiting.get(name, ("",))[0]
            if history.owed > max(history.settled, version) and name not in self.freed | letters:
                self._contradicts("lost", f"{name} {history.owed} for {target}, found {version or 'nothing'}")

    def _letters(self, letters: set[str], waiting: set[str]) -> None:
        for name in self.buried - self.freed - letters:
            self._contradicts("lost", f"the dead letter {name}")
        for name in letters - self.burying:
            self._contradicts("extra", f"the dead letter {name}")
        for name in letters & waiting - self.freed:
            self._contradicts("extra", f"{name} waits and is a dead letter")

    def _wholly(self, there: set[str]) -> None:
        histories = self.histories[PRIMARY]
        for unit in self.units:
            if there.isdisjoint(unit) or there.issuperset(unit):
                continue
            if not any(histories[name].settled for name in unit):
                self._contradicts("lost", f"a part of the unit {unit}")

    def _contradicts(self, how: str, what: str) -> None:
        self.counts[how] += 1
        self.problems.append(f"{how}: {what}")
