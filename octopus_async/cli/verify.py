"""``octopus verify``: compares a running service's stores by version, explains what differs, and mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.cli.output import (
    AsJson,
    Exit,
    console,
    give_up,
    hush,
    print_json,
    progress,
    safe,
    speaking,
    told,
)
from octopus_async.cli.service import Config, Kind, absent_file, kinds_in
from octopus_async.cli.shown import count, table
from octopus_async.config import Settings, settings_from_toml
from octopus_async.errors import ConfigurationError, OctopusError
from octopus_async.events import BreakerChanged, Event
from octopus_async.manager import DaoManager
from octopus_async.verification import Divergence, JournalFolder, Options, Report, State
from octopus_async.verification.report import Side

_HEADINGS = ("record", "where", "difference", "primary", "there", "likely cause")
_ELSEWHERE = "each process of the service has its own, which cannot be seen from here"
_MARGIN = 1.0


@speaking
def command(  # noqa: PLR0913 - the options of the command line
    config: Config,
    *,
    models: Annotated[list[str], typer.Option(help="A module with the service's models; may be repeated.")],
    model: Annotated[
        list[str] | None, typer.Option(help="The name of one to compare; all if not given.")
    ] = None,
    sample: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of records, chosen at random.")
    ] = 1.0,
    since: Annotated[str, typer.Option(help="Only what is newer than this version.")] = "",
    repair: Annotated[bool, typer.Option("--repair", help="Mend replicas and caches.")] = False,
    primary_wins: Annotated[
        bool,
        typer.Option(
            "--primary-wins", help="With --repair: forget what a replica has and the primary has not."
        ),
    ] = False,
    settle: Annotated[
        float | None,
        typer.Option(min=0.0, help="Seconds within which a write has ended [default: the timeout, and 1]."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Keep the position in this file, and go on from it if it is there.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="How many divergences to describe.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Compare replicas, caches and journal of a service with its primary, while it runs.

    What the journal still owes is no divergence. What differs is looked at again before it is told, as
    records change under way. --repair writes to replicas and caches alone, never to the primary.
    Exit status 1 if anything differs in the end, or could not be compared.
    """
    hush()
    settings = settings_from_toml(config)
    options = Options(
        fraction=sample,
        since=since,
        repair=repair,
        primary_wins=primary_wins,
        settle=settings.timeout + _MARGIN if settle is None else settle,
        described=show,
        fresh=settings.create_tables,
    )
    run = _Verification(settings, kinds_in(models), model or [], options, resume)
    try:
        with progress("comparing") as tell:
            report = asyncio.run(run.run(tell))
    except KeyboardInterrupt:
        give_up(f"interrupted; {run.way_on}", Exit.WRONG)
    except ConfigurationError:
        raise
    except OctopusError as error:
        give_up(f"{error}; {run.way_on}", Exit.WRONG)
    if as_json:
        print_json({"ok": report.ok, "left": report.left, **asdict(report)})
    else:
        _print(report)
    raise typer.Exit(Exit.FINE if report.ok else Exit.WRONG)


class _Verification:
    def __init__(
        self,
        settings: Settings,
        kinds: Sequence[Kind],
        models: Sequence[str],
        options: Options,
        resume: Path | None,
    ) -> None:
        _check_files(settings)
        self._settings = settings
        self._kinds = kinds
        self._models = models
        self._options = options
        self._resume = resume

    @property
    def way_on(self) -> str:
        """What to do after a run that did not come to its end."""
        if self._resume is None:
            return "with --resume FILE another run could have gone on from here"
        return f"the same command goes on from what {self._resume} says"

    async def run(self, tell: Callable[[int, int | None], None]) -> Report:
        # The journal is the service's: it is read, not opened, and its tables are as they are.
        settings = replace(self._settings, journal=None, create_tables=False)
        manager = DaoManager.from_config(settings, listeners=[self._say])
        for kind in self._kinds:
            manager.dao(kind)
        skip = {
            name: _ELSEWHERE
            for name, guard in manager.backends.items()
            if isinstance(guard.adapter, MemoryAdapter) and not guard.capabilities.durable
        }
        journal = self._settings.journal
        folder = JournalFolder(journal if isinstance(journal, str | Path) else None)
        verifier = manager.verifier(replace(self._options, skip=skip), owed=folder, models=self._models)
        state = self._begin(verifier.state())
        async with manager:
            report = await verifier.run(
                state, keep=self._keep, tell=lambda _model, _backend, done, total: tell(done, total)
            )
        if self._resume is not None:
            self._resume.unlink(missing_ok=True)
        return report

    def _say(self, event: Event) -> None:
        """Why a backend cannot be asked, which the error that ends it does not know any more."""
        if isinstance(event, BreakerChanged) and (line := told(event)) is not None:
            console(to_stderr=True).print(line, soft_wrap=True)

    def _begin(self, fresh: State) -> State:
        known = None if self._resume is None else State.load(self._resume)
        if known is None:
            self._keep(fresh)
            return fresh
        known.check_same(fresh)
        return known

    def _keep(self, state: State) -> None:
        if self._resume is not None:
            state.save(self._resume)


def _check_files(settings: Settings) -> None:
    for source in (*settings.write, *settings.backends):
        absent = absent_file(source)
        if absent is not None:
            give_up(absent, Exit.WRONG)


# -- showing ---------------------------------------------------------------------------------------


def _print(report: Report) -> None:
    screen = console()
    if report.divergences:
        screen.print(table(_HEADINGS, [_row(divergence) for divergence in report.divergences]))
        if sum(report.found.values()) > len(report.divergences):
            screen.print("and more: see --show")
    for line in _summary(report):
        screen.print(safe(line), soft_wrap=True)


def _row(divergence: Divergence) -> list[object]:
    it = divergence
    outcome = "; mended" if it.mended else f"; not mended: {it.problem}" if it.problem else ""
    where = f"{it.role} {it.backend}"
    return [f"{it.model} {it.id!r}", where, it.kind, _side(it.primary), _side(it.there), it.cause + outcome]


def _side(side: Side) -> str:
    return side.state if side.state == "nothing" else f"{side.state} {side.version or 'without a version'}"


def _summary(report: Report) -> list[str]:
    found = sum(report.found.values())
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(report.found.items()))
    lines = [
        f"{count(report.compared, 'record')} compared, {count(found, 'divergence')}{kinds and f': {kinds}'}"
    ]
    if report.mended:
        lines.append(f"{report.mended:,} of them mended, {report.left:,} left")
    parts: list[tuple[dict[str, Any], str]] = [
        (report.owed, "differences that its journal will make up"),
        (report.pending, "operations pending"),
    ]
    for numbers, what in parts:
        lines += [f"{name}: {number:,} {what}" for name, number in numbers.items()]
    if report.unversioned:
        lines.append(f"{count(report.unversioned, 'record')} without a version: written outside the library")
    if report.unsettled:
        lines.append(f"{count(report.unsettled, 'record')} changed at each look: nothing can be said of them")
    lines += [f"{name} was not compared wholly: {why}" for name, why in report.unasked.items()]
    lines += [f"{name} is left out: {why}" for name, why in report.skipped.items()]
    return lines
