"""Copies between backends: by version, to be repeated, to be interrupted."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from octopus_async import (
    ConfigurationError,
    ConstraintViolated,
    CopyProgress,
    DaoManager,
    KeyedModel,
    OperationNotSupported,
    Unavailable,
)
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.cli.app import app
from octopus_async.mapper import schema_of
from octopus_async.record import Key, Record
from octopus_async.testing.faulty import Fault, FaultyAdapter
from tests.unit.stage import POLICY, Country


class Town(KeyedModel, table="towns"):
    id: int
    name: str


def backends(folder: Path) -> list[str]:
    return [f"sqlite:///{folder}/old.db?name=old", f"sqlite:///{folder}/new.db?name=new"]


def manager(folder: Path) -> DaoManager:
    old, new = backends(folder)
    return DaoManager([old], backends=[new], create_tables=True)


async def last(octopus: DaoManager, *kinds: type[KeyedModel], **options: object) -> dict[str, CopyProgress]:
    return {it.model: it async for it in octopus.copy("old", "new", *kinds, **options)}  # type: ignore[arg-type]


def rows(folder: Path, database: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / database)) as raw:
        return raw.execute("SELECT id, name, octopus_version, octopus_born FROM towns ORDER BY id").fetchall()


async def test_a_copy_brings_over_all_models_with_their_versions(tmp_path: Path) -> None:
    async with manager(tmp_path) as octopus:
        towns, countries = octopus.dao(Town), octopus.dao(Country)
        (await towns.create_many(Town(id=number, name=f"of {number}") for number in range(1200))).unwrap()
        await countries.create(Country(id="at", name="Austria"))
        copied = await last(octopus)
        assert {name: (it.read, it.written, it.finished) for name, it in copied.items()} == {
            "Town": (1200, 1200, True),
            "Country": (1, 1, True),
        }
        again = (await last(octopus, Town))["Town"]
        assert (again.read, again.refused) == (1200, ())
    assert rows(tmp_path, "new.db") == rows(tmp_path, "old.db")


async def test_a_copy_deletes_what_was_deleted_and_replaces_nothing_newer(tmp_path: Path) -> None:
    async with manager(tmp_path) as octopus:
        towns = octopus.dao(Town)
        await towns.create_many(Town(id=number, name="old") for number in range(3))
        await last(octopus)
        await towns.delete(1)
        with closing(sqlite3.connect(tmp_path / "new.db")) as raw:
            raw.execute(
                "UPDATE towns SET name = 'newer', octopus_version = 'zzzzzzzzzzzzzzzzzzzzzzzzzz' WHERE id = 2"
            )
            raw.commit()
        copied = (await last(octopus))["Town"]
        assert copied.newer == 1
    assert [row[:2] for row in rows(tmp_path, "new.db")] == [(0, "old"), (2, "newer")]


async def test_rows_that_other_programs_wrote_are_brought_over_below_all_later_writes(tmp_path: Path) -> None:
    async with manager(tmp_path) as octopus:
        towns = octopus.dao(Town)
        await towns.create(Town(id=1, name="ours"))
        with closing(sqlite3.connect(tmp_path / "old.db")) as raw:
            raw.execute(
                "INSERT INTO towns (id, name, created_at, updated_at) "
                "SELECT 2, 'theirs', created_at, updated_at FROM towns"
            )
            raw.commit()
        await last(octopus)
        town = await towns.get_one(2)
        town.name = "ours now"
        await towns.update(town)
        assert (await last(octopus))["Town"].written >= 1
    assert [row[:2] for row in rows(tmp_path, "new.db")] == [(1, "ours"), (2, "ours now")]


async def test_an_interrupted_copy_goes_on_where_it_was(tmp_path: Path) -> None:
    async with manager(tmp_path) as octopus:
        await octopus.dao(Town).create_many(Town(id=number, name="x") for number in range(1200))
        async with aclosing(octopus.copy("old", "new", Town)) as copying:
            first = await anext(copying)
        assert (first.read, first.finished) == (500, False)
        rest = (await last(octopus, Town, resume={"Town": first.point}))["Town"]
        assert (rest.read, rest.finished, rest.point) == (700, True, "")
    assert rows(tmp_path, "new.db") == rows(tmp_path, "old.db")


async def test_what_the_target_refuses_is_told_and_the_point_stays_before_it(tmp_path: Path) -> None:
    async with manager(tmp_path) as octopus:
        towns = octopus.dao(Town)
        await towns.create_many([Town(id=1, name="twin"), Town(id=2, name="twin"), Town(id=3, name="other")])
        await octopus.backends["new"].prepare(schema_of(Town), create=True)
        with closing(sqlite3.connect(tmp_path / "new.db")) as raw:
            raw.execute("CREATE UNIQUE INDEX one_name ON towns (name)")
        progress = [it async for it in octopus.copy("old", "new", Town)]
        assert [(key, type(error)) for key, error in progress[-1].refused] == [
            (Key("Town", "2"), ConstraintViolated)
        ]
        assert progress[0].point == ""
        await towns.update(Town(id=2, name="single"))
        assert (await last(octopus))["Town"].refused == ()


async def test_a_backend_that_is_away_for_a_moment_is_waited_for() -> None:
    old = FaultyAdapter(MemoryAdapter(durable=True, name="old"))
    new = FaultyAdapter(MemoryAdapter(durable=True, name="new"))
    async with DaoManager([old], backends=[new], guard=POLICY) as octopus:
        await octopus.dao(Town).create_many(Town(id=number, name="x") for number in range(600))
        faults = iter([None, Fault.FAIL, Fault.LOSE])
        new.writes = lambda: next(faults, None)
        assert (await last(octopus))["Town"].finished
        (answer,) = await new.read([Key("Town", "599")])
        assert isinstance(answer, Record)

        new.break_down(Fault.REFUSE)
        with pytest.raises(Unavailable, match="new"):  # refused, or by its breaker already
            await last(octopus, patience=0.01)


async def test_copies_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async with DaoManager([*backends(tmp_path)[:1], "memory://"], create_tables=True) as octopus:
        octopus.dao(Town)
        for names in (("old", "new"), ("nobody", "old"), ("old", "old"), ("old", "memory")):
            with pytest.raises(ConfigurationError):
                await anext(octopus.copy(*names))
        with pytest.raises(OperationNotSupported):
            await anext(octopus.copy("memory", "old"))
    async with manager(tmp_path) as octopus:
        for point in ("nonsense", "[]", '["Other","1","",true]', "1"):
            with pytest.raises(ConfigurationError, match="could go on"):
                await last(octopus, Town, resume={"Town": point})


ATLAS = """
from octopus_async import KeyedModel
class Town(KeyedModel, table="towns"):
    id: int
    name: str
"""
CONFIG = """
write = ["sqlite:///old.db?name=old"]
backends = ["sqlite:///new.db?name=new"]
create_tables = true
"""


async def fill(folder: Path) -> None:
    async with manager(folder) as octopus:
        await octopus.dao(Town).create_many(Town(id=number, name="x") for number in range(3))


def test_the_command_copies_and_keeps_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(fill(tmp_path))
    (tmp_path / "octopus.toml").write_text(CONFIG)
    (tmp_path / "atlas.py").write_text(ATLAS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = [
        "copy",
        "octopus.toml",
        "old",
        "new",
        "--models",
        "atlas",
        "--resume",
        "points.json",
        "--json",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)["models"]
    assert (told["model"], told["read"], told["written"]) == ("Town", 3, 3)
    assert json.loads((tmp_path / "points.json").read_text()) == {"Town": ""}
    assert rows(tmp_path, "new.db") == rows(tmp_path, "old.db")
    wrong = CliRunner().invoke(app, [*arguments[:3], "elsewhere", *arguments[4:]])
    assert wrong.exit_code == 2
    assert "no backend is called 'elsewhere'" in wrong.stderr
