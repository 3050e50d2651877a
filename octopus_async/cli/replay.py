"""``octopus replay``: replays by hand what dead processes have left in a service's journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from octopus_async.cli.output import AsJson, Exit, console, hush, print_json, progress, safe, speaking, told
from octopus_async.cli.service import Config, Kind, ReplayCounter, kinds_in, model_name, owed
from octopus_async.cli.shown import count
from octopus_async.config import Settings, adapter_for, settings_from_toml
from octopus_async.errors import ConfigurationError
from octopus_async.events import Event
from octopus_async.guard import State
from octopus_async.journal.inspect import inspect
from octopus_async.manager import DaoManager, Statistics
from octopus_async.shipping import Collected
from octopus_async.sink import SinkAdapter

_EVERY = 0.05
_STALLED = 1.0
_LOOK_AT = 10_000


@dataclass(slots=True)
class Result:
    """What a replay has done.

    Attributes:
        pending_before: how many operations waited.
        replayed: how many of them were applied.
        dead_letters: how many were refused now.
        pending: how many still wait, those for caches included.
        elsewhere: how many wait in journals of processes that run, which replay them themselves.
        reasons: why some still wait, or why nobody can tell.
        queue: what came of a queue's messages; None where none was named.
    """

    pending_before: int = 0
    replayed: int = 0
    dead_letters: int = 0
    pending: int = 0
    elsewhere: int = 0
    reasons: list[str] = field(default_factory=list)
    queue: Collected | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing that waited is left, and each backend can be written."""
        return not (self.pending or self.dead_letters or self.reasons) and (
            self.queue is None or self.queue.ok
        )


@speaking
def command(
    config: Config,
    *,
    models: Annotated[list[str], typer.Option(help="A module with the service's models; may be repeated.")],
    patience: Annotated[float, typer.Option(min=0.1, help="Longest wait, in seconds.")] = 300.0,
    source: Annotated[
        str | None, typer.Option("--from", help="A queue to empty as well: sqs://region/queue.fifo.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay what is left in a service's journal, and wait until nothing is owed to any backend.

    Takes over the journals of processes that have ended. Those of a service that runs are its own:
    it replays them itself. With --from, what a queue holds of machines that never came back is taken
    into the journal, replayed, and deleted from the queue once the primary has it. Exit status 1 if
    anything still waits in the end or was refused, or a backend cannot be written.
    """
    hush()
    settings = settings_from_toml(config)
    if not isinstance(settings.journal, str | Path):
        raise ConfigurationError(f"{config}: there is no journal in this configuration")
    kinds = kinds_in(models)
    with progress("replaying") as tell:
        result = asyncio.run(_Replay(settings, kinds, patience, tell).run(source))
    result.elsewhere = sum(it.pending for it in inspect(settings.journal).folders if it.alive)
    if as_json:
        print_json({"ok": result.ok, **asdict(result)})
    else:
        _print(result)
    raise typer.Exit(Exit.FINE if result.ok else Exit.WRONG)


class _Replay:
    def __init__(
        self, settings: Settings, kinds: Sequence[Kind], patience: float, tell: Callable[[int, int], None]
    ) -> None:
        self._kinds = kinds
        self._patience = patience
        self._tell = tell
        self._result = Result()
        self._counter = ReplayCounter()
        self._screen = console(to_stderr=True)
        self._manager = DaoManager.from_config(settings, listeners=[self._counter, self._say])
        self._known = {model_name(kind) for kind in kinds}

    async def run(self, source: str | None = None) -> Result:
        result, manager = self._result, self._manager
        for kind in self._kinds:
            manager.dao(kind)
        async with manager:
            before = manager.statistics()
            result.pending_before = owed(before)
            await self._wait()
            if source is not None:
                result.queue = await self._collect(source)
                await self._wait()
            after = manager.statistics()
            result.pending = owed(after)
            result.dead_letters = _letters(after) - _letters(before)
            result.replayed = self._counter.total - result.dead_letters
            result.reasons = list(self._reasons(after))
        return result

    async def _collect(self, source: str) -> Collected:
        queue = adapter_for(source)
        if not isinstance(queue, SinkAdapter):
            raise ConfigurationError(f"--from {queue.name}: that is no queue, as sqs://region/queue.fifo is")
        try:
            await queue.open()
            return await self._manager.collector(queue).run(patience=self._patience)
        finally:
            await queue.close()

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        until, moved, left = loop.time() + self._patience, loop.time(), -1
        while (now := owed(statistics := self._manager.statistics())) and loop.time() < until:
            if now != left:
                moved, left = loop.time(), now
                self._tell(self._counter.total, self._counter.total + now)
            elif loop.time() - moved > _STALLED and (statistics.paused or not self._can_go_on(statistics)):
                return
            await asyncio.sleep(_EVERY)

    def _can_go_on(self, statistics: Statistics) -> bool:
        """Whether anything that is left belongs to a model that was given, or to a cache."""
        waiting = self._waiting_models(statistics)
        return bool(waiting & self._known) or any(statistics.behind.values())

    def _waiting_models(self, statistics: Statistics) -> set[str]:
        journal = self._manager.journal
        if journal is None or statistics.journal is None:
            return set()
        targets = statistics.journal.pending_by_target
        found = {run.operation.key.model for name in targets for run in journal.runs(name, _LOOK_AT)}
        return found.union(statistics.waiting)

    def _reasons(self, statistics: Statistics) -> Iterator[str]:
        if self._result.queue is not None:
            yield from self._result.queue.reasons()
        for name, reason in statistics.paused.items():
            yield f"the replay into {name} has paused: {reason}"
        unknown = sorted(self._waiting_models(statistics) - self._known)
        if unknown:
            yield f"no --models module has {', '.join(unknown)}: what waits for them was left alone"
        for name, guard in statistics.backends.items():
            if guard.writes.state is not State.CLOSED:
                yield f"{name} cannot be written: its breaker is {guard.writes.state.value}"

    def _say(self, event: Event) -> None:
        line = told(event)
        if line is not None:
            self._screen.print(line, soft_wrap=True)


def _letters(statistics: Statistics) -> int:
    return statistics.journal.dead_letters if statistics.journal is not None else 0


def _print(result: Result) -> None:
    screen = console()
    if not (result.pending or result.dead_letters):
        screen.print(f"{count(result.replayed, 'operation')} replayed; nothing is owed any more")
    else:
        letters = count(result.dead_letters, "dead letter")
        screen.print(
            f"{count(result.replayed, 'operation')} replayed, {result.pending:,} still owed, {letters}"
        )
    if result.queue is not None:
        screen.print(f"{count(result.queue.applied, 'message')} of the queue applied and deleted there")
    for reason in result.reasons:
        screen.print(safe(reason), soft_wrap=True)
    if result.elsewhere:
        more = count(result.elsewhere, "operation")
        screen.print(f"{more} more in the journals of processes that run, which replay them themselves")
