"""`octopus journal`, `status` and `replay` on a service's folder, as processes of their own."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from octopus_async.cli.app import app
from octopus_async.clock import version_at
from octopus_async.errors import DuplicateRecord
from octopus_async.guard import State
from octopus_async.manager import DaoManager
from octopus_async.model import KeyedModel, Model
from tests.crash.journals import crash, opened

SHELF = """\
from octopus_async import KeyedModel, Model

class Note(Model):
    text: str

class Member(KeyedModel):
    id: str
    name: str
"""
CONFIG = """\
write = ["sqlite:///shop.db", "memory://"]
journal = "journal"
create_tables = true
"""
SECRET = "hunter2"  # noqa: S105 - nobody's


class Note(Model):
    text: str


class Member(KeyedModel):
    id: str
    name: str


class Service:
    """A service's folder: its configuration, its models, its database and its journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        (folder / "shelf.py").write_text(SHELF)
        (folder / "octopus.toml").write_text(CONFIG)

    @asynccontextmanager
    async def running(self, *, primary: bool) -> AsyncGenerator[DaoManager]:
        """The service, with or without its primary."""
        async with DaoManager(
            [f"sqlite:///{self.folder / 'shop.db'}", "memory://"], journal=self.journal, create_tables=True
        ) as octopus:
            if not primary:
                octopus.backends["sqlite"].writes.force(State.FORCED_OPEN)
            yield octopus

    async def leave_behind(self, *notes: str) -> None:
        """Write notes while the primary is away, and end."""
        async with self.running(primary=False) as octopus:
            for text in notes:
                assert (await octopus.dao(Note).create(Note(text=text))).journalled

    async def leave_a_conflict(self) -> None:
        """A member that exists is created a second time while nobody can tell."""
        async with self.running(primary=True) as octopus:
            await octopus.dao(Member).create(Member(id="a", name="first"))
        async with self.running(primary=False) as octopus:
            await octopus.dao(Member).create(Member(id="a", name="second"))

    def octopus(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in the service's folder."""
        return subprocess.run(
            [sys.executable, "-m", "octopus_async.cli", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    def told(self, *arguments: str) -> tuple[int, Any]:
        """Run it with --json; its exit status, and its one object."""
        done = self.octopus(*arguments, "--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


class TestJournal:
    async def test_list_tells_what_waits_for_whom(self, service: Service) -> None:
        await service.leave_behind("one", "two")
        status, listed = service.told("journal", "list", "journal")
        assert status == 0
        assert (listed["pending"], listed["dead_letters"], listed["damage"]) == (2, 0, 0)
        (writer,) = (writer for writer in listed["writers"] if writer["pending"])
        assert (writer["alive"], writer["pending_by_target"]) == (False, {"sqlite": 2})
        assert "2 operations pending, 0 dead letters" in service.octopus("journal", "list", "journal").stdout

    async def test_list_sees_a_service_that_runs(self, service: Service) -> None:
        async with service.running(primary=False) as octopus:
            await octopus.dao(Note).create(Note(text="now"))
            _, listed = service.told("journal", "list", "journal")
        assert [(writer["alive"], writer["pending"]) for writer in listed["writers"]] == [(True, 1)]

    async def test_show_gives_the_oldest_first_and_contents_only_when_asked(self, service: Service) -> None:
        await service.leave_behind("one", "two", "three")
        status, shown = service.told("journal", "show", "journal", "--limit=2")
        assert status == 0
        assert shown["more"] is True
        assert [entry["op"] for entry in shown["entries"]] == ["create", "create"]
        assert all("fields" not in entry for entry in shown["entries"])
        _, shown = service.told("journal", "show", "journal", "--fields", "--model=Note", "--target=sqlite")
        assert [entry["fields"]["text"] for entry in shown["entries"]] == ["one", "two", "three"]
        _, shown = service.told("journal", "show", "journal", f"--id={shown['entries'][1]['id']}", "--fields")
        assert [entry["fields"]["text"] for entry in shown["entries"]] == ["two"]
        assert service.told("journal", "show", "journal", "--model=Other")[1]["entries"] == []

    async def test_verify_finds_a_flipped_bit(self, service: Service) -> None:
        await service.leave_behind("one", "two", "three")
        assert service.octopus("journal", "verify", "journal").stdout.splitlines()[-1] == "intact"
        (file,) = service.journal.glob("*/*.jsonl")
        damaged = bytearray(file.read_bytes())
        damaged[damaged.index(b"two")] ^= 1
        file.write_bytes(damaged)
        status, verified = service.told("journal", "verify", "journal")
        assert status == 1
        assert (verified["ok"], verified["damage"]) == (False, 1)
        done = service.octopus("journal", "verify", "journal")
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == "DAMAGED"

    def test_a_folder_that_is_not_there_is_a_wrong_command_line(self, service: Service) -> None:
        done = service.octopus("journal", "list", "elsewhere")
        assert done.returncode == 2
        assert not (service.folder / "elsewhere").exists()

    async def test_dead_letters_are_listed_retried_and_dropped(self, service: Service) -> None:
        await service.leave_a_conflict()
        status, replayed = service.told("replay", "octopus.toml", "--models=shelf")
        assert (status, replayed["replayed"], replayed["dead_letters"]) == (1, 0, 1)
        status, listed = service.told("journal", "dead", "list", "journal", "--fields")
        assert status == 1
        (letter,) = listed["dead_letters"]
        assert (letter["model"], letter["id"], letter["target"]) == ("Member", "a", "sqlite")
        assert (letter["error"], letter["fields"]["name"]) == ("DuplicateRecord", "second")

        status, retried = service.told("journal", "dead", "retry", "journal", str(letter["sequence"]))
        assert status == 0
        assert [it["sequence"] for it in retried["retried"]] == [letter["sequence"]]
        assert service.told("journal", "dead", "list", "journal") == (0, {"dead_letters": []})
        assert service.told("journal", "list", "journal")[1]["pending"] == 1
        service.told("replay", "octopus.toml", "--models=shelf")

        done = service.octopus("journal", "dead", "drop", "journal", "4711", "--yes")
        assert (done.returncode, "no dead letter 4711" in done.stderr) == (1, True)
        assert (
            service.octopus("journal", "dead", "drop", "journal", "--all").returncode != 0
        )  # nobody said yes
        assert service.told("journal", "dead", "list", "journal")[0] == 1
        status, dropped = service.told("journal", "dead", "drop", "journal", "--all", "--yes")
        assert (status, len(dropped["dropped"])) == (0, 1)
        assert service.told("journal", "dead", "list", "journal") == (0, {"dead_letters": []})

    async def test_dead_letters_of_a_service_that_runs_are_its_own(self, service: Service) -> None:
        async with service.running(primary=True) as octopus:
            members, writes = octopus.dao(Member), octopus.backends["sqlite"].writes
            await members.create(Member(id="a", name="first"))
            writes.force(State.FORCED_OPEN)
            receipt = await members.create(Member(id="a", name="second"))
            writes.release()
            with pytest.raises(DuplicateRecord):
                await asyncio.wait_for(receipt.settled(), 10)
            (letter,) = service.told("journal", "dead", "list", "journal")[1]["dead_letters"]
            for command in (["retry"], ["drop", "--yes"]):
                done = service.octopus("journal", "dead", *command, "journal", str(letter["sequence"]))
                assert (done.returncode, "a process that runs holds" in done.stderr) == (1, True)
            assert len(octopus.journal.dead_letters() if octopus.journal else ()) == 1


class TestReplay:
    async def test_brings_the_primary_what_was_left_behind(self, service: Service) -> None:
        await service.leave_behind("one", "two")
        status, replayed = service.told("replay", "octopus.toml", "--models=shelf")
        assert status == 0
        assert (replayed["pending_before"], replayed["replayed"], replayed["pending"]) == (2, 2, 0)
        with closing(sqlite3.connect(service.folder / "shop.db")) as database:
            assert database.execute("SELECT text FROM note ORDER BY id").fetchall() == [("one",), ("two",)]
        done = service.octopus("replay", "octopus.toml", "--models=shelf")
        assert (done.returncode, done.stdout) == (0, "0 operations replayed; nothing is owed any more\n")

    async def test_says_which_models_it_was_not_given(self, service: Service) -> None:
        await service.leave_behind("one")
        (service.folder / "other.py").write_text(SHELF.replace("Note", "Leaflet"))
        status, replayed = service.told("replay", "octopus.toml", "--models=other")
        assert status == 1
        assert (replayed["replayed"], replayed["pending"]) == (0, 1)
        assert "Note" in replayed["reasons"][0]

    async def test_says_why_the_rest_could_not_be_replayed(self, service: Service) -> None:
        await service.leave_behind("one")
        (service.folder / "shop.db").write_bytes(b"this is no database" * 100)
        done = service.octopus("replay", "octopus.toml", "--models=shelf", "--patience=1")
        assert done.returncode == 1
        assert "0 operations replayed, 1 still owed" in done.stdout
        assert "sqlite cannot be written" in done.stdout

    async def test_leaves_a_service_that_runs_its_own(self, service: Service) -> None:
        async with service.running(primary=False) as octopus:
            await octopus.dao(Note).create(Note(text="mine"))
            status, replayed = service.told("replay", "octopus.toml", "--models=shelf")
            assert octopus.statistics().journal is not None
        assert status == 0
        assert (replayed["replayed"], replayed["elsewhere"]) == (0, 1)

    @pytest.mark.parametrize(
        ("config", "models", "reason"),
        [
            ('write = ["sqlite:///shop.db"]', "shelf", "no journal"),
            (CONFIG, "nowhere", "nowhere"),
            (CONFIG, "json", "no Model"),
            ('write = ["sqlite:///shop.db"]\nquux = 1', "shelf", "quux"),
            ("write = [", "shelf", "TOML"),
        ],
    )
    def test_a_wrong_configuration_ends_with_2_and_a_reason(
        self, config: str, models: str, reason: str, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(service.folder)
        path = service.folder / "octopus.toml"
        path.write_text(config)
        done = CliRunner().invoke(app, ["replay", str(path), f"--models={models}"])
        assert (done.exit_code, done.stdout) == (2, "")
        assert reason in done.stderr
        assert isinstance(done.exception, SystemExit)


class TestStatus:
    async def test_of_a_healthy_service_is_0(self, service: Service) -> None:
        async with service.running(primary=True) as octopus:
            await octopus.dao(Note).create(Note(text="here"))
        status, told = service.told("status", "octopus.toml")
        assert (status, told["ok"]) == (0, True)
        assert [(it["name"], it["role"]) for it in told["backends"]] == [
            ("sqlite", "primary"),
            ("memory", "cache"),
        ]
        assert all(it["reads"]["ok"] and it["writes"]["ok"] for it in told["backends"])
        assert (told["journal"]["pending"], told["journal"]["dead_letters"]) == (0, 0)

    async def test_tells_of_the_backlog_and_its_age(self, service: Service) -> None:
        await service.leave_behind("one", "two")
        _, told = service.told("status", "octopus.toml", "--read-only")
        journal = told["journal"]
        assert (journal["pending"], journal["pending_by_target"]) == (2, {"sqlite": 2})
        assert 0 < journal["oldest_age"] < 60
        assert all(it["writes"] is None for it in told["backends"])

    def test_of_a_backend_that_is_away_is_1_and_shows_no_secret(self, service: Service) -> None:
        (service.folder / "octopus.toml").write_text(
            f'write = ["mysql://app:{SECRET}@127.0.0.1:1/shop", "memory://"]\njournal = "journal"\n'
        )
        done = service.octopus("status", "octopus.toml")
        assert done.returncode == 1
        assert "unavailable" in done.stdout
        assert "refused" in done.stdout
        status, told = service.told("status", "octopus.toml")
        assert (status, told["ok"]) == (1, False)
        assert [it["reads"]["ok"] for it in told["backends"]] == [False, True]
        assert SECRET not in done.stdout + done.stderr + json.dumps(told)

    def test_makes_no_file_by_asking(self, service: Service) -> None:
        status, told = service.told("status", "octopus.toml")
        assert status == 1
        assert "no file" in told["backends"][0]["reads"]["problem"]
        assert {path.name for path in service.folder.iterdir()} == {"octopus.toml", "shelf.py"}

    async def test_of_dead_letters_is_1(self, service: Service) -> None:
        await service.leave_a_conflict()
        service.octopus("replay", "octopus.toml", "--models=shelf")
        status, told = service.told("status", "octopus.toml")
        assert (status, told["journal"]["dead_letters"]) == (1, 1)

    async def test_of_a_damaged_journal_is_1(self, service: Service) -> None:
        await service.leave_behind("one", "two")
        (file,) = service.journal.glob("*/*.jsonl")
        file.write_bytes(file.read_bytes().replace(b"one", b"0ne"))
        status, told = service.told("status", "octopus.toml", "--read-only")
        assert (status, told["journal"]["damage"]) == (1, 1)

    async def test_tells_how_far_replicas_are_after_a_crash(self, service: Service) -> None:
        mark = version_at(int((time.time() - 100) * 1000))
        async with opened(service.journal) as journal:
            await journal.mark({"Note": mark})
            await crash(journal)
        told = service.told("status", "octopus.toml", "--read-only")[1]["journal"]
        assert told["low_water"] == {"Note": mark}
        assert 100 <= told["low_water_age"] < 200
        (file,) = service.journal.glob("*/mark")
        file.write_bytes(b"damaged")
        said = service.octopus("status", "octopus.toml", "--read-only").stdout
        assert "replicas: nobody knows how far they are; the next start compares them from the" in said

    def test_of_a_journal_that_cannot_be_made_is_1(self, service: Service) -> None:
        config = CONFIG.replace('"journal"', '"no/such/journal"')
        (service.folder / "octopus.toml").write_text(config)
        status, told = service.told("status", "octopus.toml", "--read-only")
        assert status == 1
        assert "no/such/journal cannot be made" in told["journal"]["problem"]
