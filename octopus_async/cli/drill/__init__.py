"""``octopus drill``: a continuous load, a primary that goes away and comes back, and what is left of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from octopus_async.cli.drill import plot as picture
from octopus_async.cli.drill.conduct import Settings, any_seed, drill
from octopus_async.cli.drill.report import Report
from octopus_async.cli.drill.stage import open_stage
from octopus_async.cli.drill.view import watching
from octopus_async.cli.output import AsJson, Exit, console, print_json, safe, speaking
from octopus_async.errors import ConfigurationError


class Primary(StrEnum):
    """The primaries there are."""

    SQLITE = "sqlite"
    MYSQL = "mysql"
    POSTGRES = "postgres"


class Cache(StrEnum):
    """The caches there are."""

    MEMORY = "memory"
    MEMCACHED = "memcached"


@speaking
def command(  # noqa: PLR0913 - the options of the command line
    *,
    primary: Annotated[
        Primary,
        typer.Option(
            help="sqlite: a file that another process locks; mysql, postgres: a private MariaDB or Postgres."
        ),
    ] = Primary.SQLITE,
    cache: Annotated[
        Cache, typer.Option(help="memory: in this process; memcached: a private memcached.")
    ] = Cache.MEMORY,
    seconds: Annotated[float, typer.Option(min=0.5, help="Each phase; recoveries take half.")] = 5.0,
    workers: Annotated[int, typer.Option(min=1, max=1000, help="Callers at the same time.")] = 8,
    think: Annotated[float, typer.Option(min=0.1, help="Mean pause of a caller, in milliseconds.")] = 3.0,
    records: Annotated[int, typer.Option(min=10, help="Most records in all: bounds the memory.")] = 10_000,
    patience: Annotated[float, typer.Option(min=1, help="Longest wait for the drain, in seconds.")] = 30.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Makes the load's choices repeatable.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="An empty folder to keep the journal and the SQLite file in.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw latency and backlog over time into this file, as .png or .svg.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take the database away under load, bring it back, and see that nothing was lost.

    Nothing of yours is touched: the drill makes its own backends, in a temporary folder.
    Exit status 1 if anything was lost, came back, was stale or failed, or is still owed.
    """
    if plot is not None:
        picture.check(plot)
    settings = Settings(
        seconds=seconds,
        workers=workers,
        think=think / 1000,
        records=records,
        seed=any_seed() if seed is None else seed,
        patience=patience,
    )
    with _folder(keep) as folder:
        report = asyncio.run(_drill(settings, primary, cache, folder, quiet=as_json))
    if plot is not None:
        picture.draw(report, plot)
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)
    raise typer.Exit(Exit.FINE if report.passed else Exit.WRONG)


async def _drill(settings: Settings, primary: str, cache: str, folder: Path, *, quiet: bool) -> Report:
    with watching(console(to_stderr=quiet)) as watcher:
        async with open_stage(primary, cache, folder) as stage:
            return await drill(settings, stage, watcher)


@contextmanager
def _folder(keep: Path | None) -> Generator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="octopus-drill-") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        found = next(keep.iterdir(), None)
    except OSError as error:
        raise ConfigurationError(f"--keep {keep}: no folder can be made there: {error.strerror}") from error
    if found is not None:
        raise ConfigurationError(f"--keep {keep}: the folder is not empty")
    yield keep


def _print(report: Report) -> None:
    screen = console()
    headline, *rest = report.verdict()
    screen.print(headline, style="bold green" if report.passed else "bold red")
    for sentence in rest:
        screen.print(f"  {safe(sentence)}", soft_wrap=True)
    screen.print(f"  seed {report.seed}, {report.seconds:.1f} s", style="dim")
