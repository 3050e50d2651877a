"""``octopus journal``: what waits in a journal, what was refused, and whether all of it is intact."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from octopus_async.cli import shown
from octopus_async.cli.output import AsJson, Exit, console, give_up, print_json, progress, safe, speaking
from octopus_async.cli.shown import count
from octopus_async.errors import JournalError
from octopus_async.events import Events
from octopus_async.journal import FileJournal
from octopus_async.journal.inspect import Summary, inspect, pending

app = typer.Typer(
    help="Look into a journal's folder, also while a service writes to it.", no_args_is_help=True
)
dead = typer.Typer(help="Writes that the primary refused at replay.", no_args_is_help=True)
app.add_typer(dead, name="dead")

Folder = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="The journal's folder, as given to the manager.")
]
Numbers = Annotated[list[int] | None, typer.Argument(help="Numbers, as `dead list` gives them.")]
Fields = Annotated[bool, typer.Option("--fields", help="Show the records' contents as well.")]


@app.command("list")
@speaking
def list_writers(folder: Folder, *, as_json: AsJson = False) -> None:
    """List the writers of a journal, living and dead, and what waits in the folder of each."""
    summary = _read(folder)
    if as_json:
        print_json(shown.summary_as_json(summary))
        return
    screen = console()
    screen.print(shown.table(shown.WRITER_HEADINGS, [shown.writer_row(writer) for writer in summary.folders]))
    letters, wrong = len(summary.dead_letters), len(summary.damage)
    screen.print(f"{count(summary.pending, 'operation')} pending, {count(letters, 'dead letter')}")
    if wrong:
        screen.print(
            f"{count(wrong, 'damaged place')}: octopus journal verify tells of them", style="bold red"
        )


@app.command()
@speaking
def show(  # noqa: PLR0913 - the options of the command line
    folder: Folder,
    *,
    model: Annotated[str | None, typer.Option(help="Of this model alone.")] = None,
    record: Annotated[str | None, typer.Option("--id", help="Of the record with this id alone.")] = None,
    target: Annotated[str | None, typer.Option(help="Owed to this backend alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    fields: Fields = False,
    as_json: AsJson = False,
) -> None:
    """Show the operations that wait, the oldest of each writer first."""
    wanted = (
        entry
        for entry in pending(folder)
        if model in (None, entry.operation.key.model)
        and record in (None, entry.operation.key.id)
        and (target is None or target in entry.targets)
    )
    entries = list(islice(wanted, limit))
    more = next(wanted, None) is not None
    if as_json:
        print_json({"entries": [shown.entry_as_json(it, fields=fields) for it in entries], "more": more})
        return
    screen = console()
    rows = [shown.entry_row(entry, fields=fields) for entry in entries]
    screen.print(shown.table(shown.headings(shown.ENTRY_HEADINGS, fields=fields), rows))
    screen.print(f"{count(len(entries), 'operation')}{', and more: see --limit' if more else ''}")


@app.command()
@speaking
def verify(folder: Folder, *, as_json: AsJson = False) -> None:
    """Check every byte of a journal. Exit status 1 if anything in it is damaged."""
    summary = _read(folder)
    if as_json:
        print_json({"ok": not summary.damage, **shown.summary_as_json(summary)})
    else:
        _print_damage(summary)
    raise typer.Exit(Exit.WRONG if summary.damage else Exit.FINE)


@dead.command("list")
@speaking
def list_dead(folder: Folder, *, fields: Fields = False, as_json: AsJson = False) -> None:
    """List the dead letters, and why each was refused. Exit status 1 if there are any."""
    letters = _read(folder).dead_letters
    if as_json:
        print_json({"dead_letters": [shown.letter_as_json(letter, fields=fields) for letter in letters]})
    else:
        screen = console()
        rows = [shown.letter_row(letter, fields=fields) for letter in letters]
        screen.print(shown.table(shown.headings(shown.LETTER_HEADINGS, fields=fields), rows))
        screen.print(count(len(letters), "dead letter"))
    raise typer.Exit(Exit.WRONG if letters else Exit.FINE)


@dead.command()
@speaking
def retry(
    folder: Folder,
    numbers: Numbers = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make dead letters pending again, to be replayed when the service or `octopus replay` runs.

    Only those of processes that have ended: a service that runs holds its own.
    """
    chosen = _chosen(folder, numbers or [], everything=everything)
    renumbered = asyncio.run(_each(folder, chosen, lambda journal, number: journal.retry(number)))
    if as_json:
        pairs = zip(chosen, renumbered, strict=True)
        print_json({"retried": [{"sequence": old, "now": new} for old, new in pairs]})
    else:
        console().print(f"{count(len(chosen), 'dead letter')} made pending again")


@dead.command()
@speaking
def drop(
    folder: Folder,
    numbers: Numbers = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget dead letters for good: what they would have written is gone then.

    Only those of processes that have ended: a service that runs holds its own.
    """
    chosen = _chosen(folder, numbers or [], everything=everything)
    if chosen and not yes:
        typer.confirm(f"Forget {count(len(chosen), 'dead letter')} for good?", abort=True, err=True)
    asyncio.run(_each(folder, chosen, lambda journal, number: journal.drop(number)))
    if as_json:
        print_json({"dropped": chosen})
    else:
        console().print(f"{count(len(chosen), 'dead letter')} dropped")


# -- reading and changing --------------------------------------------------------------------------


def _read(folder: Path) -> Summary:
    with progress("reading the journal"):
        return inspect(folder)


def _print_damage(summary: Summary) -> None:
    screen = console()
    for writer in summary.folders:
        for segment in writer.segments:
            said = f"{segment.path}: {segment.lines:,} lines, {segment.bytes:,} bytes"
            screen.print(f"{safe(said)}: {'DAMAGED' if segment.damage else 'intact'}", soft_wrap=True)
        for damage in writer.damage:
            place = f"file {damage.segment}, {damage.length:,} bytes from {damage.offset:,}"
            screen.print(
                f"{safe(writer.name)}, {place}: {safe(damage.problem)}", style="bold red", soft_wrap=True
            )
    for name in summary.quarantine:
        screen.print(f"kept aside earlier: {safe(Path(summary.path) / 'quarantine' / name)}", soft_wrap=True)
    screen.print(
        "DAMAGED" if summary.damage else "intact", style="bold red" if summary.damage else "bold green"
    )


def _chosen(folder: Path, numbers: Sequence[int], *, everything: bool) -> list[int]:
    """The numbers that are meant, each of a dead letter that nobody holds. Raises JournalError."""
    if everything == bool(numbers):
        give_up("give the numbers of dead letters, or --all")
    summary = _read(folder)
    held = {letter.sequence for it in summary.folders if it.alive for letter in it.dead_letters}
    there = {letter.sequence for letter in summary.dead_letters}
    for number in numbers:
        if number not in there:
            raise JournalError(f"there is no dead letter {number} in {folder}")
        if number in held:
            raise JournalError(f"a process that runs holds the dead letter {number}: stop it first")
    return sorted(there - held if everything else set(numbers))


async def _each(
    folder: Path, numbers: Iterable[int], call: Callable[[FileJournal, int], asyncio.Future[Any]]
) -> list[Any]:
    journal = FileJournal(folder)
    await journal.open(Events())
    try:
        return [await call(journal, number) for number in numbers]
    finally:
        await journal.close()
