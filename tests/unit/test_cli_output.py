"""What all commands share: nothing steers the terminal, and errors become sentences and exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from octopus_async.cli.app import app
from octopus_async.cli.output import Exit, safe, speaking
from octopus_async.errors import BackendRefused, ConfigurationError, JournalCorrupt, OctopusError


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x9b31m", "\\x9b31m"),
        ("right to left \u202e", "right to left \\u202e"),
        ("\ud800", "\\ud800"),
        ("Zoë 🐙", "Zoë 🐙"),
    ],
)
def test_what_would_steer_the_terminal_is_shown_instead(hostile: str, shown: str) -> None:
    assert safe(hostile) == shown


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigurationError("no such backend"), Exit.USAGE),
        (JournalCorrupt("format 9 is not known"), Exit.WRONG),
        (BackendRefused("nobody there", backend="mysql"), Exit.WRONG),
    ],
)
def test_an_error_of_ours_is_a_sentence_and_an_exit_status(
    error: OctopusError, status: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    @speaking
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == status
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"octopus: {error}\n")


def test_without_the_extra_it_says_what_to_install() -> None:
    script = "import sys; sys.modules['rich'] = None; import octopus_async.cli as cli; cli.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'octopus-async[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["", "drill", "replay", "status", "journal", "journal verify"])
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0, result.stderr
    assert "--help" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["drill", "--primary=oracle"],
        ["drill", "--seconds=0"],
        ["drill", "--plot=/no/such/folder/plot.png"],
        ["drill", "--plot=plot.docx"],
        ["status", "/no/such/octopus.toml"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2_and_a_reason(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
