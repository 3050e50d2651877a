"""Kills loaded processes by the thousand, and compares what they had acknowledged with what is found.

Run as ``python -m tests.crash.kills 10000``. One process imports everything and forks the others, so that
a life costs milliseconds. Half of them are killed by their parent at a random moment, from the first
instruction on; the others kill themselves just before, in the middle of, or just after a call to the disk
that is chosen by its kind, so that rare calls (renames, truncations, removals) have their share.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.crash.lanes import Findings, in_lanes
from tests.crash.lives import journal_life, last_journal_life
from tests.crash.services import last_service_life, service_life, stored
from tests.crash.truth import Truth
from tests.crash.zygote import Blow, Life, freeze

CALLS = {
    "write": 60,
    "sync": 60,
    "rename": 6,
    "sync_folder": 10,
    "unlink": 8,
    "create": 6,
    "open": 10,
    "read": 8,
    "lock": 5,
    "make_folder": 1,
    "list_folder": 5,
    "remove_folder": 1,
}
"""At which call of each kind a process dies, at most."""

PARTS = ("before", "within", "after")

LIVES = 16
"""So many lives share a folder; then all that it owes is done, and it has to be empty."""

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
FAST = MEMORY if os.access(MEMORY, os.W_OK) else None
"""Where the folders are: kill -9 keeps the page cache, so a disk would prove no more, and be slower."""


def blow(chance: random.Random, opening: float, *, torn: bool) -> Blow:
    """When to kill: anywhere in the opening, anywhere under load, or at a call to the disk.

    Parameters:
        chance: chooses.
        opening: how long an opening takes, in seconds.
        torn: whether a write was torn just before.
    """
    if torn and chance.random() < 0.5:  # the only time at which a file is truncated, if the disk has room
        return Blow(0.05, "truncate", 1, chance.choice(PARTS), opened=True)
    if chance.random() < 0.5:
        if chance.random() < 0.3:
            return Blow(chance.uniform(0.0, opening))
        return Blow(chance.expovariate(1 / 0.03), opened=True)
    method = chance.choice(list(CALLS))
    nth = int(CALLS[method] ** chance.random())  # as often among the first as among all others
    return Blow(0.1, method, nth, chance.choice(PARTS), opened=True)


class Lane:
    """Lives that follow each other on folders of their own.

    Parameters:
        path: where the folders are.
        seed: of all that is chosen.

    Attributes:
        truth: what was said and found.
        points: how many processes were killed, by where.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._chance = random.Random(seed)
        self._seed = seed
        self._torn = False
        self._opening = 0.02
        self.truth = Truth()
        self.points: Counter[str] = Counter()

    def run(self, points: int) -> None:
        """Kill so many processes."""
        turn = 0
        while self.points.total() < points and not self.truth.problems:
            turn += 1
            path = self._path / f"{self._seed}-{turn}"
            path.mkdir()
            lives = min(LIVES, points - self.points.total())
            (self._services if turn % 4 == 0 else self._journals)(path, lives)
            if not self.truth.problems:
                shutil.rmtree(path)

    def _journals(self, path: Path, lives: int) -> None:
        folder = path / "journal"
        for number in range(lives):
            if self._chance.random() < 0.1:
                self._brothers(folder, number)
            life = Life.fork(journal_life(folder, f"{number}", self._next_seed()), self._blow())
            self._bury(life)
        self.truth.hear(Life.fork(last_journal_life(folder)).end())
        if left := sorted(folder.glob("writer-*")):
            self.truth.problems.append(f"damaged: nothing is owed, and there is {left}")
        self.truth.begin_anew()

    def _brothers(self, folder: Path, number: int) -> None:
        """Two processes at one time; the first is killed, and the second takes over what it left."""
        first = Life.fork(journal_life(folder, f"{number}a", self._next_seed(), alone=False), self._blow())
        second = Life.fork(
            journal_life(folder, f"{number}b", self._next_seed(), alone=False), Blow(0.1, opened=True)
        )
        self._bury(first)
        self._bury(second)

    def _services(self, path: Path, lives: int) -> None:
        for number in range(lives):
            work = service_life(path, f"{number}", self._next_seed(), list(self.truth.shelf.titles))
            self._bury(Life.fork(work, self._blow()))
        self.truth.hear(Life.fork(last_service_life(path)).end())
        self.truth.compare(stored(path))
        self.truth.begin_anew()

    def _blow(self) -> Blow:
        return blow(self._chance, self._opening, torn=self._torn)

    def _bury(self, life: Life) -> None:
        said = life.end()
        self.truth.hear(said)
        self._opening = life.opening or self._opening
        self._torn = life.by_itself and (life.blow.method, life.blow.part) == ("write", "within")
        if life.by_itself:
            self.points[f"{life.blow.part} {life.blow.method}"] += 1
        else:
            self.points[f"at a random moment {'under load' if life.opening else 'of opening'}"] += 1

    def _next_seed(self) -> int:
        return self._chance.randrange(1 << 32)


def campaign(path: Path, points: int, lanes: int, seed: int) -> Findings:
    """Kill so many processes, in lanes beside each other."""
    freeze()
    logging.getLogger("octopus_async").setLevel(logging.CRITICAL)

    def work(seed: int, share: int) -> Findings:
        lane = Lane(path, seed)
        lane.run(share)
        return Findings(lane.points, lane.truth.counts, lane.truth.problems)

    return in_lanes(work, points, lanes, seed)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.kills", description=__doc__)
    parser.add_argument("points", type=int, nargs="?", default=10_000)
    parser.add_argument("--lanes", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="octopus-kills-", dir=FAST) as folder:
        findings = campaign(Path(folder), options.points, options.lanes, options.seed)
    findings.seconds = time.monotonic() - began
    print(findings.to_json())
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
