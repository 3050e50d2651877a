"""The command ``octopus``: copy, drill, replay, journal, status, verify."""

from __future__ import annotations

import sys

_EXTRA = frozenset({"click", "matplotlib", "rich", "typer"})


def main() -> None:
    """Run the command line. Needs the extra ``cli``, and says so where it is missing."""
    try:
        from octopus_async.cli.app import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        missing = f"octopus: the package {package} is not installed: pip install 'octopus-async[cli]'"
        print(missing, file=sys.stderr)  # noqa: T201 - the console itself is what is missing
        raise SystemExit(2) from None
    app()
