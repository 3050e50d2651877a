"""Shares a long campaign among processes, and adds up what they found."""

from __future__ import annotations

import json
import os
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass
class Findings:
    """What a campaign has counted, and what it found wrong.

    Attributes:
        points: where something was cut or killed, and how often.
        counts: what was compared, acknowledged, lost and so on.
        problems: each contradiction, for a person.
        seconds: how long it took.
    """

    points: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> str:
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str) -> Findings:
        said = json.loads(text)
        return cls(Counter(said["points"]), Counter(said["counts"]), said["problems"], said["seconds"])

    def add(self, other: Findings) -> None:
        self.points += other.points
        self.counts += other.counts
        self.problems += other.problems


Lane: TypeAlias = "Callable[[int, int], Findings]"
"""Given its seed and its share of the work."""


def in_lanes(lane: Lane, amount: int, lanes: int, seed: int) -> Findings:
    """Share the work among so many forked processes. To be called while this one has one thread."""
    shares = [amount // lanes + (number < amount % lanes) for number in range(lanes)]
    forked = [_fork(lane, seed + number, share) for number, share in enumerate(shares)]
    whole = Findings()
    for pid, pipe in forked:
        with os.fdopen(pipe) as said:
            text = said.read()
        os.waitpid(pid, 0)
        whole.add(
            Findings.from_json(text) if text else Findings(problems=["a lane failed: see its traceback"])
        )
    return whole


def _fork(lane: Lane, seed: int, share: int) -> tuple[int, int]:
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        return pid, reading
    status = 1
    try:
        os.close(reading)
        findings = lane(seed, share)
        with os.fdopen(writing, "w") as pipe:
            pipe.write(findings.to_json())
        status = 0
    except BaseException:  # noqa: BLE001 - a forked process must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(status)
