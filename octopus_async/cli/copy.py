"""``octopus copy``: moves a service's records from one of its backends into another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from octopus_async.cli.output import AsJson, Exit, console, hush, print_json, progress, safe, speaking
from octopus_async.cli.service import Config, Kind, kinds_in
from octopus_async.cli.shown import count
from octopus_async.config import Settings, settings_from_toml
from octopus_async.copying import CopyProgress
from octopus_async.errors import ConfigurationError
from octopus_async.manager import DaoManager

_MOST_SHOWN = 10


@speaking
def command(  # noqa: PLR0913 - a command's options
    config: Config,
    source: Annotated[str, typer.Argument(help="The name of the backend to read.")],
    target: Annotated[str, typer.Argument(help="The name of the durable backend to write.")],
    *,
    models: Annotated[list[str], typer.Option(help="A module with the service's models; may be repeated.")],
    resume: Annotated[
        Path | None, typer.Option(help="A file that keeps how far it came, and where to go on from.")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for a backend that is away.")
    ] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Copy the records of all models from one backend into another; nothing newer is replaced.

    It may run beside the service, and be repeated: a second run brings over what was written since.
    To move without a pause let the service write to both meanwhile. Exit status 1 if the target
    refused a record.
    """
    hush()
    settings = settings_from_toml(config)
    kinds = kinds_in(models)
    with progress("copying") as tell:
        done = asyncio.run(_copy(settings, kinds, (source, target), _Points(resume), patience, tell))
    if as_json:
        print_json({"ok": _is_fine(done), "models": [_told(it) for it in done]})
    else:
        _print(done)
    raise typer.Exit(Exit.FINE if _is_fine(done) else Exit.WRONG)


class _Points:
    """How far each model has come, in a file if one is given."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.points: dict[str, str] = {}
        if path is not None and path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                self.points = {str(model): str(point) for model, point in found.items()}
            except (OSError, ValueError, AttributeError) as error:
                raise ConfigurationError(f"--resume {path}: cannot be read: {error}") from None

    def keep(self, model: str, point: str) -> None:
        """Note a point; the file is replaced as a whole."""
        self.points[model] = point
        if self._path is not None:
            new = self._path.with_name(f"{self._path.name}.new")
            try:
                new.write_text(json.dumps(self.points), encoding="utf-8")
                new.replace(self._path)
            except OSError as error:
                raise ConfigurationError(f"--resume {self._path}: cannot be written: {error}") from None


async def _copy(  # noqa: PLR0913 - what the command was given
    settings: Settings,
    kinds: Sequence[Kind],
    names: tuple[str, str],
    points: _Points,
    patience: float,
    tell: Callable[[int, int | None], None],
) -> list[CopyProgress]:
    done: list[CopyProgress] = []
    before = 0
    async with (
        DaoManager.from_config(settings) as manager,
        aclosing(manager.copy(*names, *kinds, resume=points.points, patience=patience)) as copying,
    ):
        async for it in copying:
            points.keep(it.model, it.point)
            tell(before + it.read, None)
            if it.finished:
                before += it.read
                done.append(it)
    return done


def _is_fine(done: Sequence[CopyProgress]) -> bool:
    return not any(it.refused for it in done)


def _told(it: CopyProgress) -> dict[str, object]:
    return {
        "model": it.model,
        "read": it.read,
        "written": it.written,
        "newer": it.newer,
        "refused": [{"id": key.id, "reason": str(error)} for key, error in it.refused],
    }


def _print(done: Sequence[CopyProgress]) -> None:
    screen = console()
    for it in done:
        screen.print(
            f"{safe(it.model)}: {count(it.read, 'record')} read, {it.written:,} written, "
            f"{it.newer:,} there already, {len(it.refused):,} refused"
        )
        for key, error in it.refused[:_MOST_SHOWN]:
            screen.print(safe(f"  {key}: {error}"), soft_wrap=True)
