"""Scenarios: who calls what and what fails when, drawn from a seed. Plain values, so that they shrink."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from random import Random

HORIZON = 3.0
"""Virtual seconds in which clients call and faults begin and end."""
PRIMARY, REPLICA, CACHE, DISK = "primary", "replica", "cache", "disk"


@dataclass(frozen=True, slots=True)
class Setup:
    """How the simulated service is built. Times are virtual seconds.

    Attributes:
        seed: of everything that is left to chance.
        processes: how many, on one database.
        replica: whether there is a second durable backend.
        shared_cache: whether there is a cache that all processes share.
        memory_cache: whether each process has one of its own.
        journal: whether there is a journal.
        order: the name of an `Order`.
        acknowledge: the name of an `Acknowledge`.
        read: cascade, race or hedge.
        timeout: of an operation.
        call_timeout: of one physical call.
        ttl: of the caches.
        shuffle: whether callbacks that are ready together run in any order.
        shows_tombstones: whether durable backends give tombstones to readers.
        connections: how many writes the durable backends take at once.
        batch: how many operations they take in one.
        segment_bytes: size from which on the journal begins a new file.
        skews: by how many seconds each process's wall clock is off.
    """

    seed: int
    processes: int = 1
    replica: bool = False
    shared_cache: bool = True
    memory_cache: bool = False
    journal: bool = True
    order: str = "AUTO"
    acknowledge: str = "PRIMARY"
    read: str = "cascade"
    timeout: float = 0.8
    call_timeout: float = 0.2
    ttl: float = 1.5
    shuffle: bool = True
    shows_tombstones: bool = True
    connections: int = 1
    batch: int = 500
    segment_bytes: int = 64 * 1024 * 1024
    skews: tuple[float, ...] = (0.0,)


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a client.

    Attributes:
        process: the process's number.
        client: the client's number in it; its steps follow each other.
        wait: seconds that the client thinks before.
        kind: create, update, delete, read or exists; unit: two creates in one entry of the journal.
        key: names that begin with ``g`` have generated ids, others their own; a unit's records are
            called by it, and a letter each.
        conditional: an update or delete with ``if_version``.
        blind: an update by a model that was never read.
        forbidden: it writes a value that the primary rejects.
        cancel_after: seconds after which the caller is cancelled; None for never.
    """

    process: int
    client: int
    wait: float
    kind: str
    key: str
    conditional: bool = False
    blind: bool = False
    forbidden: bool = False
    cancel_after: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong from ``at`` on, for ``seconds`` where it has a length.

    ``target`` is a server, the disk, or a process's number. ``amount`` is a share or seconds; of a
    crash, after how many steps the process is killed: callbacks of the next write, of the next
    replay (crash_replay), calls to the disk (crash_disk), or syncs (power, unless it is 0).
    """

    at: float
    kind: str
    target: str
    seconds: float = 0.0
    amount: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole run, before it runs."""

    setup: Setup
    steps: tuple[Step, ...]
    faults: tuple[Fault, ...]

    @property
    def over_at(self) -> float:
        """When the last fault is over, in virtual seconds."""
        ends = (fault.at + fault.seconds + PATIENCE.get(fault.kind, _MORE) for fault in self.faults)
        return min(HORIZON, max(ends, default=0.0))

    def to_json(self) -> str:
        """One line that `from_json` reads."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Scenario:
        """Read a scenario back. Raises ValueError, KeyError or TypeError."""
        parts = json.loads(text)
        parts["setup"]["skews"] = tuple(parts["setup"]["skews"])
        return cls(
            Setup(**parts["setup"]),
            tuple(Step(**step) for step in parts["steps"]),
            tuple(Fault(**fault) for fault in parts["faults"]),
        )

    def __str__(self) -> str:
        plain = Setup(self.setup.seed)
        names = Setup.__dataclass_fields__
        differs = {
            name: getattr(self.setup, name)
            for name in names
            if getattr(self.setup, name) != getattr(plain, name)
        }
        lines = [
            f"seed {self.setup.seed}: " + ", ".join(f"{name}={value}" for name, value in differs.items())
        ]
        for fault in sorted(self.faults, key=lambda fault: fault.at):
            until = f" for {fault.seconds:.3f} s" if fault.seconds else ""
            amount = f" ({fault.amount:.3g})" if fault.amount else ""
            lines.append(f"  at {fault.at:.3f} s: {fault.target} {fault.kind}{amount}{until}")
        return "\n".join(lines)


def scenario_of(seed: int) -> Scenario:
    """The scenario of a seed."""
    random = Random(f"scenario {seed}")
    setup = _setup(seed, random)
    steps = _steps(setup, random)
    healthy = random.random() < 0.15
    return Scenario(setup, tuple(steps), () if healthy else tuple(_faults(setup, _span(steps), random)))


def _span(steps: Sequence[Step]) -> float:
    """For how long clients call: what fails later harms nobody."""
    waits: dict[tuple[int, int], float] = {}
    for step in steps:
        client = step.process, step.client
        waits[client] = waits.get(client, 0.0) + step.wait
    return min(max(waits.values()) + _MORE, HORIZON * 0.6)


def _setup(seed: int, random: Random) -> Setup:
    processes = random.choices((1, 2, 3), (65, 28, 7))[0]
    return Setup(
        seed,
        processes=processes,
        replica=random.random() < 0.35,
        shared_cache=random.random() < 0.75,
        memory_cache=random.random() < 0.35,
        journal=random.random() < 0.93,
        order=random.choices(("AUTO", "CONCURRENT", "PRIMARY_FIRST"), (80, 8, 12))[0],
        acknowledge=random.choices(("PRIMARY", "ALL"), (85, 15))[0],
        read=random.choices(("cascade", "race", "hedge"), (80, 10, 10))[0],
        timeout=random.choice((0.3, 0.8, 2.0)),
        call_timeout=random.choice((0.1, 0.2, 0.5)),
        ttl=random.choice((0.4, 0.4, 1.5, 1.5, 1.5, 12.0)),
        shuffle=random.random() < 0.7,
        shows_tombstones=random.random() < 0.5,
        connections=random.choice((1, 1, 2, 4)),
        batch=random.choice((1, 2, 500)),
        segment_bytes=random.choice((300, 2000, 64 * 1024 * 1024)),
        skews=tuple(
            random.choice((0.0, 0.0, 0.03, -0.4, 2.0)) if processes > 1 else 0.0 for _ in range(processes)
        ),
    )


def _steps(setup: Setup, random: Random) -> list[Step]:
    generated = [f"g{number}" for number in range(random.choice((1, 2)))]
    own = [f"k{number}" for number in range(random.choice((0, 1, 1, 2)))]
    keys = generated + own
    cancels = random.choice((0.0, 0.1, 0.3))
    forbidden = random.choice((0.0, 0.0, 0.1))
    pace = random.choice((0.004, 0.02, 0.1, 0.25))
    units = setup.journal and random.random() < 0.2
    steps: list[Step] = []
    for process in range(setup.processes):
        for client in range(random.choice((1, 2, 3) if setup.processes == 1 else (1, 2))):
            for index in range(random.randint(5, 12)):
                if units and random.random() < 0.1:
                    wait = round(random.expovariate(1 / pace), 4)
                    steps.append(Step(process, client, wait, "unit", f"u{len(steps)}"))
                    continue
                if index == 0:
                    kind = "create"
                else:
                    kind = random.choices(
                        ("create", "update", "delete", "read", "exists"), (18, 32, 13, 34, 3)
                    )[0]
                steps.append(
                    Step(
                        process,
                        client,
                        round(random.expovariate(1 / pace), 4),
                        kind,
                        random.choice(keys),
                        conditional=kind in ("update", "delete") and random.random() < 0.2,
                        blind=kind == "update" and random.random() < 0.2,
                        forbidden=kind in ("create", "update") and random.random() < forbidden,
                        cancel_after=round(random.choice((0.0, 0.003, 0.05, 0.3)) * random.random(), 4)
                        if random.random() < cancels
                        else None,
                    )
                )
    return steps


_MORE = 0.05
CRASHES = ("crash", "crash_replay", "crash_disk", "power")
"""What kills a process that is then restarted."""
PATIENCE = {"crash": 0.3, "crash_disk": 0.3, "power": 0.3, "die": 0.3, "crash_replay": 1.5}
"""For how many seconds a crash waits for what it is to cut; then it comes anyway."""
_SERVER_FAULTS = {
    PRIMARY: (
        ("down", 4),
        ("hung", 4),
        ("slow", 1),
        ("errors", 2),
        ("lost", 2),
        ("read_only", 2),
        ("full", 1),
        ("wrong_schema", 1),
    ),
    REPLICA: (
        ("down", 2),
        ("hung", 2),
        ("slow", 1),
        ("errors", 1),
        ("lost", 1),
        ("read_only", 1),
        ("full", 1),
    ),
    CACHE: (
        ("down", 3),
        ("hung", 3),
        ("partial", 2),
        ("lost", 1),
        ("errors", 1),
        ("slow", 1),
        ("full", 1),
        ("evict", 2),
        ("restart_empty", 2),
        ("restart_old", 2),
    ),
    DISK: (("eio", 2), ("full", 2), ("slow", 1)),
}


def _faults(setup: Setup, span: float, random: Random) -> list[Fault]:
    targets = [PRIMARY] * 5 + [REPLICA] * (4 * setup.replica) + [CACHE] * (3 * setup.shared_cache)
    targets += [DISK] * setup.journal + ["process"] * 4
    faults = [_server_fault(PRIMARY, span, random)] if random.random() < 0.7 else []
    if faults and random.random() < 0.3:
        faults += _along_with(faults[0], setup, span, random)
    for _ in range(random.choice((1, 1, 2, 3, 5))):
        target = random.choice(targets)
        if target != "process":
            faults.append(_server_fault(target, span, random))
            continue
        fault = _process_fault(setup, faults, span, random)
        faults.append(fault)
        if fault.kind in CRASHES and random.random() < 0.3:
            # A restart is when a machine's clock is set back.
            back = random.choice((-60.0, -5.0, -1.0))
            faults.append(Fault(fault.at, "clock_restart", fault.target, amount=back))
    return faults


def _server_fault(target: str, span: float, random: Random) -> Fault:
    kinds, weights = zip(*_SERVER_FAULTS[target], strict=True)
    kind = random.choices(kinds, weights)[0]
    at = round(random.uniform(0.0, span), 4)
    seconds = round(random.choice((0.02, 0.2, 0.7, 2.0)) * random.uniform(0.5, 1.0), 4)
    amount = round(random.choice((0.1, 0.5, 1.0)), 2)
    if kind == "slow":
        amount = round(random.uniform(0.01, 0.3), 3)
    return Fault(at, kind, target, min(seconds, HORIZON - at), amount)


def _along_with(outage: Fault, setup: Setup, span: float, random: Random) -> list[Fault]:
    """What hurts most: the cache and the processes fail in the course of an outage of the primary."""
    along: list[Fault] = []
    at = outage.at + outage.seconds * random.random()
    if setup.shared_cache and random.random() < 0.7:
        along.append(replace(_server_fault(CACHE, span, random), at=round(at, 4), seconds=outage.seconds))
    if random.random() < 0.2:
        # A table that was altered meanwhile is met by the replay.
        end = outage.at + outage.seconds
        along.append(Fault(round(end, 4), "wrong_schema", PRIMARY, random.choice((0.1, 0.5, 1.0))))
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        crash = _process_fault(setup, [outage], span, random)
        along.append(
            crash if crash.kind in CRASHES else replace(crash, kind="crash", seconds=0.1, amount=9.0)
        )
    return along


def _process_fault(setup: Setup, faults: Sequence[Fault], span: float, random: Random) -> Fault:
    kinds = {
        "crash": 6,
        "crash_replay": 3 * setup.journal,
        "crash_disk": 3 * setup.journal,
        "power": 3,
        "die": 2 * (setup.processes > 1),
        "pause": 1,
        "clock": 2,
        "fork": 1,
    }
    kind = random.choices(list(kinds), list(kinds.values()))[0]
    outages = [fault for fault in faults if fault.target == PRIMARY]
    at = random.uniform(0.0, span)
    if outages and random.random() < 0.6:
        # Where it hurts: while the journal is being written, or soon after, while it is replayed.
        outage = random.choice(outages)
        at = outage.at + random.uniform(0.0, outage.seconds + 0.5)
    number = str(random.randrange(setup.processes))
    if kind == "clock":
        return Fault(round(at, 4), kind, number, amount=random.choice((-60.0, -1.0, -0.05, 0.2, 30.0)))
    seconds = round(random.choice((0.01, 0.1, 0.6, 2.0)) * random.uniform(0.5, 1.0), 4)
    most = {"crash": 24, "crash_replay": 60, "crash_disk": 8}.get(kind)
    if kind == "power" and setup.journal and random.random() < 0.7:
        most = 4
    steps = 0.0 if most is None else float(random.randint(1, most))
    return Fault(round(at, 4), kind, number, 0.0 if kind in ("die", "fork") else seconds, steps)


def without(
    scenario: Scenario, *, steps: Sequence[Step] | None = None, faults: Sequence[Fault] | None = None
) -> Scenario:
    """The scenario with these steps and faults in place of its own."""
    return replace(
        scenario,
        steps=scenario.steps if steps is None else tuple(steps),
        faults=scenario.faults if faults is None else tuple(faults),
    )
