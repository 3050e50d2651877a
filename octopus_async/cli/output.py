"""What all commands share: exit codes, consoles, JSON, progress, and errors as sentences."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from octopus_async.errors import ConfigurationError, OctopusError
from octopus_async.events import BreakerChanged, Event, JournalAdopted

P = ParamSpec("P")
_WIDTH_ELSEWHERE = 160

EXIT_CODES = (
    "Exit status: 0 if all is well; 1 if something is wrong with the data, the journal or a backend; "
    "2 if the command line or the configuration is wrong."
)


class Exit(IntEnum):
    """The exit status of every command."""

    FINE = 0
    WRONG = 1
    USAGE = 2


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def console(*, to_stderr: bool = False) -> Console:
    """A console that takes every text literally; wide where nobody's terminal limits it."""
    stream = Console(stderr=to_stderr, markup=False, highlight=False, emoji=False)
    if not stream.is_terminal:
        stream.width = _WIDTH_ELSEWHERE
    return stream


def safe(text: object) -> str:
    """A text without characters that would steer a terminal: what is in a journal may be hostile."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def print_json(value: object) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, indent=2) + "\n")


def give_up(message: str, status: Exit = Exit.USAGE) -> NoReturn:
    """Say on stderr what is wrong, and end."""
    lines = "\n".join(safe(line) for line in message.splitlines())
    console(to_stderr=True).print(f"octopus: {lines}", soft_wrap=True)
    raise typer.Exit(status)


def speaking(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command end with a sentence and an exit status where it would raise an `OctopusError`."""

    @functools.wraps(command)
    def spoken(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ConfigurationError as error:
            give_up(str(error))
        except OctopusError as error:
            give_up(str(error), Exit.WRONG)

    return spoken


@contextmanager
def progress(description: str) -> Generator[Callable[[int, int | None], None]]:
    """A progress bar on stderr where that is a terminal; gives what is to be told: done, of how many.

    Of how many is None where nobody knows.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console(to_stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def told(event: Event) -> str | None:
    """An event as a line; None for those that come with each write, batch or probe."""
    if isinstance(event, BreakerChanged) and "closed" not in (event.before, event.after):
        return None
    if isinstance(event, JournalAdopted) and not event.entries:
        return None
    return safe(event) if event.level >= logging.INFO else None


def hush() -> None:
    """Keep the library's log from the screen: a command tells of events in its own words."""
    logging.getLogger("octopus_async").addHandler(logging.NullHandler())
