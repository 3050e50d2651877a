"""`octopus drill` for real: it passes on what the library does, and finds what is planted."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.backend import Run
from octopus_async.cli.app import app
from octopus_async.cli.drill import stage
from octopus_async.cli.drill.ledger import Name
from octopus_async.cli.drill.workload import TABLE, contents
from octopus_async.errors import BackendFailed, JournalFull
from octopus_async.journal import FileJournal
from octopus_async.record import APPLIED, Mode, Operation, Outcome
from octopus_async.recovery import Replayer
from octopus_async.testing.servers import MARIADB, MEMCACHED, find

OCTOPUS = (sys.executable, "-m", "octopus_async.cli")
SEED = 41
NOTHING_WRONG = ("failed", "lost", "resurrected", "stale_reads", "dead_letters", "pending")


def drill(*options: str, seconds: float) -> tuple[int, dict[str, Any], str]:
    """Run a drill as a process of its own; its exit status, its report, and what it said besides."""
    done = subprocess.run(
        [*OCTOPUS, "drill", "--json", f"--seconds={seconds}", *options],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def assert_nothing_wrong(report: dict[str, Any]) -> None:
    assert {name: report[name] for name in NOTHING_WRONG} == dict.fromkeys(NOTHING_WRONG, 0), report[
        "examples"
    ]
    assert report["passed"] is True
    assert report["acknowledged"] > 100
    assert 0 < report["journalled"] < report["acknowledged"]
    assert report["replayed"] >= report["journalled"]
    for phase in report["phases"]:
        assert phase["seconds"] > 0
        assert phase["reads"] > 0


def test_on_a_locked_sqlite_nothing_is_lost(tmp_path: Path) -> None:
    picture = tmp_path / "drill.png"
    status, report, said = drill("--plot", str(picture), "--keep", str(tmp_path / "kept"), seconds=1.5)
    assert_nothing_wrong(report)
    assert status == 0
    assert report["refused_reads"] == 0
    assert [phase["name"] for phase in report["phases"]] == ["healthy", "primary locked", "recovery", "drain"]
    assert all(phase["writes"] > 0 for phase in report["phases"][:3])
    assert "sqlite writes: closed -> open" in said
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "kept" / "primary.db").is_file()


@pytest.mark.timeout(300)  # a first run downloads the servers
def test_on_mariadb_and_memcached_nothing_is_lost() -> None:
    for kind in (MARIADB, MEMCACHED):
        find(kind)
    status, report, _ = drill("--primary=mysql", "--cache=memcached", "--workers=6", seconds=1)
    assert_nothing_wrong(report)
    assert status == 0
    away = [phase["name"] for phase in report["phases"] if not phase["name"].startswith("recovery")]
    assert away == [
        "healthy",
        "primary killed",
        "primary stopped",
        "cache killed",
        "cache stopped",
        "both killed",
        "drain",
    ]


# -- what is planted is found ----------------------------------------------------------------------


def delete_a_row(database: sqlite3.Connection) -> None:
    database.execute(f"DELETE FROM {TABLE} WHERE rowid = (SELECT max(rowid) FROM {TABLE})")


def revert_a_row(database: sqlite3.Connection) -> None:
    shelf, place, step = database.execute(
        f"SELECT shelf, place, step FROM {TABLE} WHERE step > 1 LIMIT 1"
    ).fetchone()
    overwrite(database, Name(shelf, place), Name(shelf, place), step - 1)


def bring_a_row_back(database: sqlite3.Connection) -> None:
    alive = {Name(*row) for row in database.execute(f"SELECT shelf, place FROM {TABLE}")}
    last = {shelf: max(name.place for name in alive if name.shelf == shelf) for shelf, _ in alive}
    gone = next(
        Name(shelf, place)
        for shelf in last
        for place in range(1, last[shelf])
        if Name(shelf, place) not in alive
    )
    copied = next(iter(alive))
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({TABLE})") if row[1] != "id"]
    database.execute(
        f"INSERT INTO {TABLE} (id, {', '.join(columns)}) "
        f"SELECT 'planted', {', '.join(columns)} FROM {TABLE} WHERE shelf = ? AND place = ?",
        copied,
    )
    overwrite(database, copied, gone, 1, "id = 'planted'")


def change_a_field(database: sqlite3.Connection) -> None:
    database.execute(f"UPDATE {TABLE} SET note = 'planted' WHERE rowid = (SELECT min(rowid) FROM {TABLE})")


def overwrite(database: sqlite3.Connection, old: Name, new: Name, step: int, condition: str = "true") -> None:
    """Make a row hold what a record held after a step."""
    fields = contents(SEED, new, step)
    fields |= {"price": str(fields["price"]), "tags": json.dumps(fields["tags"])}
    settings = ", ".join(f"{name} = ?" for name in fields)
    database.execute(
        f"UPDATE {TABLE} SET {settings} WHERE shelf = ? AND place = ? AND {condition}",
        (*fields.values(), *old),
    )


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (delete_a_row, "lost"),
        (revert_a_row, "lost"),
        (change_a_field, "lost"),
        (bring_a_row_back, "resurrected"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_drill_finds_what_is_planted_in_the_primary(
    plant: Callable[[sqlite3.Connection], None], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def falsified(folder: Path) -> AsyncGenerator[stage.Place]:
        async with stage.sqlite_primary(folder) as place:
            rows = place.rows

            async def planted() -> Iterable[Sequence[Any]]:
                with sqlite3.connect(folder / "primary.db") as database:
                    plant(database)
                database.close()
                assert rows is not None
                return await rows()

            yield place._replace(rows=planted)

    monkeypatch.setitem(stage.PRIMARIES, "sqlite", falsified)
    result = CliRunner().invoke(app, ["drill", "--json", "--seconds=0.5", f"--seed={SEED}"])
    report = json.loads(result.stdout)
    assert {name: report[name] for name in NOTHING_WRONG} == dict.fromkeys(NOTHING_WRONG, 0) | {found: 1}
    assert report["passed"] is False
    assert result.exit_code == 1
    assert len(report["examples"][found]) == 1


def test_a_backend_that_does_not_come_back_ends_it_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def broken(folder: Path) -> AsyncGenerator[stage.Place]:
        async def stay_away() -> None:
            raise BackendFailed("mariadb ended:\nno space left", backend="mariadb")

        async with stage.sqlite_primary(folder) as place:
            (blow,) = place.blows
            yield place._replace(blows=(blow._replace(heal=stay_away),))

    monkeypatch.setitem(stage.PRIMARIES, "sqlite", broken)
    result = CliRunner().invoke(app, ["drill", "--json", "--seconds=0.5"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("octopus: mariadb ended:\nno space left\n")


def test_interrupted_it_ends_at_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def interrupt() -> int:
        process = await asyncio.create_subprocess_exec(
            *OCTOPUS, "drill", "--seconds=60", env={"TMPDIR": str(tmp_path)}, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async for line in process.stdout:
            if b"writes/s" in line:
                break
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            await process.communicate()
            return await process.wait()

    assert asyncio.run(interrupt()) == 130
    assert list(tmp_path.iterdir()) == []


# -- what is planted in the library is found -------------------------------------------------------


def acknowledge_what_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal says that it has what it never took."""

    def append(*_: object, **__: object) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(1)
        return future

    monkeypatch.setattr(FileJournal, "append", append)


def settle_what_was_not_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay takes every operation for applied, and applies none."""

    async def apply(self: Any, runs: Sequence[Run], mode: Mode) -> int:  # noqa: ANN401, ARG001 - the replayer
        done: int = await self._conclude(runs, [APPLIED] * len(runs))
        return done

    monkeypatch.setattr(Replayer, "_apply", apply)


def leave_what_a_cache_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache keeps what it has, however old."""
    settle = MemoryAdapter._settle

    def unless_there(self: MemoryAdapter, operation: Operation, now: float) -> Outcome:
        return APPLIED if operation.key in self._entries else settle(self, operation, now)

    monkeypatch.setattr(MemoryAdapter, "_settle", unless_there)


def refuse_in_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal takes nothing."""

    def append(*_: object, **__: object) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_exception(JournalFull("planted"))
        return future

    monkeypatch.setattr(FileJournal, "append", append)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (acknowledge_what_is_not_written_down, "lost"),
        (settle_what_was_not_applied, "lost"),
        (leave_what_a_cache_has, "stale_reads"),
        (refuse_in_an_outage, "failed"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_drill_finds_what_is_planted_in_the_library(
    plant: Callable[[pytest.MonkeyPatch], None], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    result = CliRunner().invoke(app, ["drill", "--json", "--seconds=2"])
    report = json.loads(result.stdout)
    assert report[found] > 0
    assert report["passed"] is False
    assert result.exit_code == 1
