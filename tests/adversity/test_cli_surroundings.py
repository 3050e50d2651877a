"""Every command of `octopus` where something around it is wrong: it says what it is, and no secret."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main
from typer.testing import CliRunner

from octopus_async import Model
from octopus_async.cli.app import app
from octopus_async.testing.servers import Server
from octopus_async.url import BackendURL

SECRET = "s3cret%25-%40%2F%3A"  # noqa: S105 - it is no password of anybody
SHOWN = ("s3cret", "%40%2F", "-@/:")
CONFIG = "octopus.toml"
JOURNAL = "journal"
NOWHERE = "127.0.0.1:1"


class Novel(Model):
    """What `--models` finds in this module."""

    title: str


# What has to be said to a command, by the name of its parameter.
_SAID = {
    "config": [CONFIG],
    "folder": [JOURNAL],
    "keep": [f"--keep={JOURNAL}", "--seconds=0.5"],
    "models": ["--models", __name__],
    "numbers": ["1"],
    "yes": ["--yes"],
    "patience": ["--patience=2"],
}


def _commands(command: Any, *words: str) -> Iterator[tuple[str, list[str]]]:  # noqa: ANN401 - private to typer
    """Each command below this one: its name, and the names of its parameters."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from _commands(below, *words, name)
    else:
        yield " ".join(words), [parameter.name or "" for parameter in command.params]


COMMANDS = dict(_commands(typer.main.get_command(app)))


def _with(*parameters: str) -> list[str]:
    return [name for name, known in COMMANDS.items() if any(parameter in known for parameter in parameters)]


class Said(NamedTuple):
    """How a command ended, and all that it said, its log included."""

    status: int
    text: str


@pytest.fixture
def octopus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[..., Said]:
    """Runs a command in a folder of its own; whatever ends it but an exit status fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("octopus_async.verification.stores._PAUSES", (0.01,))  # seconds, instead of many
    caplog.set_level(logging.DEBUG)

    def run(command: str, source: str = "mysql") -> Said:
        said = [word for parameter in COMMANDS[command] for word in _SAID.get(parameter, ())]
        if command == "copy":
            said += [source, "other"]
            _add_backend("other")
        done = CliRunner().invoke(app, [*command.split(), *said])
        assert isinstance(done.exception, SystemExit | None), done.exception
        return Said(done.exit_code, f"{done.output}{done.stderr}{caplog.text}")

    return run


def _add_backend(name: str) -> None:
    """A further one, which works, for the command that copies into it."""
    Path("other.db").touch()
    config = Path(CONFIG)
    if config.exists():
        added = f"backends = ['sqlite:///other.db?name={name}']"
        config.write_text(f"{added}\n{config.read_text(encoding='utf-8')}", encoding="utf-8")


def _assert_clear(said: Said, *expected: str) -> None:
    assert said.status in (1, 2)
    assert not [part for part in SHOWN if part in said.text]
    assert "Traceback" not in said.text
    (line, *_) = [line for line in said.text.splitlines() if expected[0] in line] or [said.text]
    assert [part for part in expected if part not in line] == []


def _write_config(folder: Path, *write: str, **settings: Any) -> None:  # noqa: ANN401 - whatever TOML has
    lines = [
        f"write = {list(write)!r}",
        *(f"{name} = {value!r}" for name, value in settings.items()),
    ]
    (folder / CONFIG).write_text("\n".join(lines), encoding="utf-8")


def test_each_command_is_met_here() -> None:
    assert {name for name, known in COMMANDS.items() if not {"config", "folder", "keep"} & {*known}} == set()
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("command", _with("config"))
def test_a_wrong_password_for_mariadb(
    octopus: Callable[..., Said], tmp_path: Path, command: str, mariadb_server: Server
) -> None:
    _write_config(tmp_path, _with_wrong_password(mariadb_server), journal=JOURNAL)
    _assert_clear(octopus(command), "denied", "mysql", "see that user and password in its URL are right")


@pytest.mark.parametrize("command", _with("config"))
def test_a_wrong_password_for_postgres(
    octopus: Callable[..., Said], tmp_path: Path, command: str, postgres_server: Server
) -> None:
    _write_config(tmp_path, _with_wrong_password(postgres_server), journal=JOURNAL)
    said = octopus(command, source="postgres")
    _assert_clear(said, "failed", "postgres", "see that user and password in its URL are right")


def _with_wrong_password(server: Server) -> str:
    url = BackendURL.parse(server.url)
    ((host, port),) = url.hosts
    return f"{url.scheme}://octopus:{SECRET}@{host}:{port}/octopus"


@pytest.mark.parametrize("command", _with("config"))
@pytest.mark.parametrize("scheme", ["mysql", "postgres"])
def test_a_server_that_is_not_there(
    octopus: Callable[..., Said], tmp_path: Path, command: str, scheme: str
) -> None:
    _write_config(tmp_path, f"{scheme}://octopus:{SECRET}@{NOWHERE}/octopus", journal=JOURNAL)
    _assert_clear(
        octopus(command, source=scheme), "refused", scheme, "see that the server runs", "host and port"
    )


@pytest.mark.parametrize("command", [name for name in _with("config") if name != "verify"])
def test_a_journal_that_cannot_be_made(octopus: Callable[..., Said], tmp_path: Path, command: str) -> None:
    _write_config(tmp_path, f"mysql://octopus:{SECRET}@{NOWHERE}/octopus", journal="no/such/journal")
    _assert_clear(octopus(command), "no/such/journal")


@pytest.mark.parametrize("command", _with("config", "folder"))
def test_a_journal_that_others_can_write_to(
    octopus: Callable[..., Said], tmp_path: Path, command: str
) -> None:
    (tmp_path / "shop.db").touch()
    _write_config(tmp_path, "sqlite:///shop.db", journal=JOURNAL)
    (tmp_path / JOURNAL).mkdir()
    (tmp_path / JOURNAL).chmod(0o777)
    _assert_clear(
        octopus(command, source="sqlite"), "others than its owner can write to", JOURNAL, "chmod go-rwx"
    )


@pytest.mark.parametrize("command", _with("config", "folder"))
def test_a_journal_that_is_a_symbolic_link(
    octopus: Callable[..., Said], tmp_path: Path, command: str
) -> None:
    (tmp_path / "shop.db").touch()
    _write_config(tmp_path, "sqlite:///shop.db", journal=JOURNAL)
    (tmp_path / "elsewhere").mkdir(0o700)
    (tmp_path / JOURNAL).symlink_to(tmp_path / "elsewhere")
    _assert_clear(octopus(command, source="sqlite"), "symbolic link", "name the folder itself")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("command", _with("folder", "keep"))
def test_a_journal_that_is_a_file(octopus: Callable[..., Said], tmp_path: Path, command: str) -> None:
    (tmp_path / JOURNAL).touch()
    _assert_clear(octopus(command), JOURNAL)


@pytest.mark.parametrize("command", _with("config"))
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'write = ["mysql://octopus:{SECRET}@[h:x/octopus"]', "mysql://"),
        (f'write = ["mysqll://octopus:{SECRET}@h/octopus"]', "mysqll"),
        (f'write = ["mysql://octopus:{SECRET}@h/octopus?colour=red"]', "colour"),
        (f'write = ["mysql://octopus:{SECRET}@h/octopus"', "cannot be read as TOML"),
        (f'write = "mysql://octopus:{SECRET}@h/octopus"', "write"),
        (f'write = ["sqlite:///shop.db"]\npasswort = "{SECRET}"', "passwort"),
        (f'write = ["sqlite:///shop.db"]\ntimeout = "{SECRET}"', "timeout"),
    ],
    ids=["no host", "no such scheme", "no such option", "cut off", "no list", "no such setting", "no number"],
)
def test_a_configuration_that_is_malformed(
    octopus: Callable[..., Said], tmp_path: Path, command: str, text: str, expected: str
) -> None:
    (tmp_path / CONFIG).write_text(f'journal = "{JOURNAL}"\n{text}', encoding="utf-8")
    said = octopus(command)
    _assert_clear(said, expected)
    assert said.status == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_not_there(octopus: Callable[..., Said], tmp_path: Path, command: str) -> None:
    if "keep" in COMMANDS[command]:  # it makes a folder, but not the ones above it
        (tmp_path / JOURNAL).symlink_to("no/such/folder")
    said = octopus(command)
    _assert_clear(said, CONFIG if "config" in COMMANDS[command] else JOURNAL)
