"""The commands, put together."""

from __future__ import annotations

import typer

from octopus_async.cli import copy, drill, journal, replay, status, verify
from octopus_async.cli.output import EXIT_CODES

app = typer.Typer(
    help=f"Rehearse an outage, and look after a real one.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and so passwords
)
app.command("copy")(copy.command)
app.command("drill")(drill.command)
app.command("replay")(replay.command)
app.command("status")(status.command)
app.command("verify")(verify.command)
app.add_typer(journal.app, name="journal")
