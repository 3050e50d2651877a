"""``octopus status``: which backends can be read and written at this moment, and what the journal holds."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from octopus_async.backend import Adapter
from octopus_async.cli import shown
from octopus_async.cli.output import AsJson, Exit, console, hush, print_json, safe, speaking
from octopus_async.cli.service import Config, absent_file
from octopus_async.clock import decode_version
from octopus_async.config import Settings, adapter_for, settings_from_toml
from octopus_async.errors import JournalError, SchemaMismatch, Unavailable
from octopus_async.guard import Guard
from octopus_async.journal.inspect import Summary, inspect
from octopus_async.sink import SINK, SinkAdapter


@dataclass(frozen=True, slots=True)
class Answer:
    """What a backend answered in one direction, and after how many milliseconds."""

    ok: bool
    milliseconds: float
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One backend; ``writes`` is None where nothing was to be written."""

    name: str
    role: str
    reads: Answer
    writes: Answer | None

    @property
    def ok(self) -> bool:
        """Whether it does all that was asked of it."""
        return self.reads.ok and (self.writes is None or self.writes.ok)


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """The journal of all processes that share its folder; ages are in seconds.

    ``low_water`` is, for each model with replicas, the version up to which these have, or are owed,
    what the primary has; empty for the beginning, and an empty name for all models.
    """

    path: str
    problem: str | None = None
    pending: int = 0
    pending_by_target: dict[str, int] = field(default_factory=dict)
    oldest_age: float | None = None
    dead_letters: int = 0
    damage: int = 0
    bytes: int = 0
    running: int = 0
    low_water: dict[str, str] = field(default_factory=dict)
    low_water_age: float | None = None

    @property
    def ok(self) -> bool:
        """Whether nobody has to look after it."""
        return not (self.problem or self.dead_letters or self.damage)


@speaking
def command(
    config: Config,
    *,
    read_only: Annotated[bool, typer.Option("--read-only", help="Write nothing, not even a probe.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask each backend of a service whether it can be read and written, and look into the journal.

    It asks as a breaker does: a ping for reads, and for writes a write to a reserved row or key.
    The service may run meanwhile: what its own breakers say is in its own memory, and not seen here.
    Exit status 1 if a backend cannot be used, the journal is damaged, or there are dead letters.
    """
    hush()
    settings = settings_from_toml(config)
    backends = asyncio.run(_ask_all(settings, probing=not read_only))
    journal = _journal(settings)
    ok = all(backend.ok for backend in backends) and (journal is None or journal.ok)
    if as_json:
        described = None if journal is None else asdict(journal)
        print_json({"ok": ok, "backends": [asdict(backend) for backend in backends], "journal": described})
    else:
        _print(backends, journal)
    raise typer.Exit(Exit.FINE if ok else Exit.WRONG)


# -- asking ----------------------------------------------------------------------------------------


async def _ask_all(settings: Settings, *, probing: bool) -> list[BackendStatus]:
    sinks = () if settings.sink is None else (settings.sink,)
    sources = [*settings.write, *settings.backends, *sinks]
    adapters = [adapter_for(source) for source in sources]
    asked = [
        _ask(_role(place, adapter, settings), adapter, source, settings, probing=probing)
        for place, (source, adapter) in enumerate(zip(sources, adapters, strict=True))
    ]
    return await asyncio.gather(*asked)


def _role(place: int, adapter: Adapter, settings: Settings) -> str:
    if isinstance(adapter, SinkAdapter):
        return "sink"
    if not adapter.capabilities.durable:
        return "cache"
    if place == 0:
        return "primary"
    return "replica" if place < len(settings.write) else "further"


async def _ask(
    role: str, adapter: Adapter, source: str | Adapter, settings: Settings, *, probing: bool
) -> BackendStatus:
    missing = absent_file(source)
    if missing is not None:
        absent = Answer(ok=False, milliseconds=0, problem=missing)
        return BackendStatus(adapter.name, role, absent, absent if probing else None)
    guard = Guard(adapter, policy=settings.guards.get(adapter.name, settings.guard))
    try:
        problem = await _timed(guard.open)
        if not problem.ok:
            return BackendStatus(guard.name, role, problem, problem if probing else None)
        reads = await _timed(guard.ping)
        writes = await _timed(guard.probe, fresh=settings.create_tables) if probing else None
        return BackendStatus(guard.name, role, reads, writes)
    finally:
        await guard.close()


async def _timed(call: Callable[[], Awaitable[object]], *, fresh: bool = False) -> Answer:
    """Make a call; tables that are missing are no fault where the service makes them at first use."""
    began = time.perf_counter()
    problem: Unavailable | None = None
    try:
        await call()
    except Unavailable as error:
        problem = error
    milliseconds = round((time.perf_counter() - began) * 1000, 3)
    ok = problem is None or (fresh and isinstance(problem, SchemaMismatch))
    return Answer(ok, milliseconds, None if problem is None else str(problem))


def _journal(settings: Settings) -> JournalStatus | None:
    if not isinstance(settings.journal, str | Path):
        return None
    path = Path(settings.journal)
    if not os.path.lexists(path):  # it is made when the service starts
        problem = f"{path} cannot be made: there is no folder {path.parent} that this user can write to"
        return JournalStatus(str(path), None if _is_writable(path.parent) else problem)
    try:
        status = _described(inspect(path))
    except JournalError as error:
        return JournalStatus(str(path), str(error))
    return status if _is_writable(path) else replace(status, problem=f"this user cannot write to {path}")


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _described(summary: Summary) -> JournalStatus:
    owed: Counter[str] = Counter()
    for writer in summary.folders:
        owed.update(writer.pending_by_target)
    moments = [writer.oldest_at for writer in summary.folders if writer.oldest_at is not None]
    return JournalStatus(
        path=summary.path,
        pending=summary.pending,
        pending_by_target=dict(owed),
        oldest_age=round(max(0.0, time.time() - min(moments)), 3) if moments else None,
        dead_letters=len(summary.dead_letters),
        damage=len(summary.damage),
        bytes=sum(writer.bytes for writer in summary.folders),
        running=sum(writer.alive for writer in summary.folders),
        low_water=summary.marks,
        low_water_age=_age_of(min(summary.marks.values(), default="")),
    )


def _age_of(version: str) -> float | None:
    return round(max(0.0, time.time() - decode_version(version)[0] / 1000), 3) if version else None


# -- showing ---------------------------------------------------------------------------------------


def _print(backends: list[BackendStatus], journal: JournalStatus | None) -> None:
    screen = console()
    table = shown.table(("backend", "role", "reads", "writes"), ())
    for backend in backends:
        table.add_row(safe(backend.name), backend.role, _shown(backend.reads), _shown(backend.writes))
    screen.print(table)
    problems = {
        (backend.name, answer.problem): None
        for backend in backends
        for answer in (backend.reads, backend.writes)
        if answer is not None and answer.problem is not None
    }
    for name, problem in problems:
        screen.print(f"{safe(name)}: {safe(problem)}", soft_wrap=True)
    screen.print(f"journal: {_in_words(journal)}", soft_wrap=True)
    if journal is not None and journal.low_water:
        screen.print(f"replicas: {_low_water(journal)}", soft_wrap=True)


def _low_water(journal: JournalStatus) -> str:
    since = journal.low_water_age
    if since is None:
        said = "nobody knows how far they are"
        start = "the beginning"
    else:
        said = f"have, or are owed, what the primary was given until {since:,.0f} s ago"
        start = "there"
    return said if journal.running else f"{said}; the next start compares them from {start} on"


def _in_words(journal: JournalStatus | None) -> str:
    if journal is None:
        return "none; while the primary is away, writes are refused"
    if journal.problem is not None:
        return safe(journal.problem)
    words = [f"{shown.count(journal.pending, 'operation')} pending"]
    if journal.oldest_age is not None:
        words.append(f"the oldest for {journal.oldest_age:,.0f} s")
    if SINK in journal.pending_by_target:
        words.append(f"{journal.pending_by_target[SINK]:,} of them not in the sink yet")
    words.append(shown.count(journal.dead_letters, "dead letter"))
    if journal.damage:
        words.append(f"{shown.count(journal.damage, 'damaged place')} (see octopus journal verify)")
    return f"{', '.join(words)}, in {safe(journal.path)}"


def _shown(answer: Answer | None) -> Text:
    if answer is None:
        return Text("not asked", "dim")
    if answer.ok:
        return Text(f"ok, {answer.milliseconds:.1f} ms", "green")
    return Text("unavailable", "bold red")
