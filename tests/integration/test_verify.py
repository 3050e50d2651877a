"""`octopus verify` on MariaDB, memcached and a SQLite replica: planted differences, live writers, kill -9."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiomysql
import pytest

from octopus_async import DaoManager, KeyedModel, Model
from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.cachevalue import encode_fields
from octopus_async.clock import Clock, encode_version
from octopus_async.guard import State as Breaker
from octopus_async.mapper import schema_of
from octopus_async.record import APPLIED, Key, Kind, Mode, Operation
from octopus_async.testing.servers import MariaDBServer, MemcachedServer
from octopus_async.url import BackendURL
from octopus_async.verification import State

MODELS = """\
from octopus_async import KeyedModel, Model

class Note(Model):
    text: str

class Member(KeyedModel):
    id: str
    name: str
"""
REPLICA = "replica.db"
NAMES = (
    *("missing", "behind", "undeleted", "buried", "ahead", "surplus", "contents", "born"),
    *("cache-behind", "cache-ahead", "equal"),
)


class Note(Model):
    text: str


class Member(KeyedModel):
    id: str
    name: str


class Shop:
    """A service's folder, its stores, and ways to write to these behind its back."""

    def __init__(self, folder: Path, primary: str, cache: str) -> None:
        self.folder = folder
        self.primary = primary
        self.cache = cache
        write = [primary, cache, f"sqlite:///{REPLICA}"]
        (folder / "models.py").write_text(MODELS)
        (folder / "octopus.toml").write_text(
            f'write = {json.dumps(write)}\njournal = "journal"\ncreate_tables = true\n'
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[DaoManager]:
        """The service."""
        write = [self.primary, self.cache, f"sqlite:///{self.folder / REPLICA}"]
        async with DaoManager(write, journal=self.folder / "journal", create_tables=True) as octopus:
            yield octopus

    async def verify(self, *options: str) -> tuple[int, Any]:
        """Run `octopus verify`: its exit status, and its one object."""
        status, out, err = await self.octopus("verify", "octopus.toml", "--models=models", "--json", *options)
        assert out, err
        return status, json.loads(out)

    async def octopus(self, *arguments: str) -> tuple[int, str, str]:
        """Run the command line in the service's folder."""
        process = await self.start(*arguments)
        async with asyncio.timeout(50):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Begin to run the command line."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "octopus_async.cli", *arguments),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    def on_replica(self, sql: str, *values: object) -> None:
        """Have a statement change one row of the replica, without the library."""
        with closing(sqlite3.connect(self.folder / REPLICA)) as database, database:
            assert database.execute(sql, values).rowcount == 1

    async def on_primary(self, *statements: str) -> None:
        """Have statements run by the primary, without the library."""
        url = BackendURL.parse(self.primary)
        host, port = url.hosts[0]
        connection = await aiomysql.connect(
            host=host, port=port or 3306, user=url.user, password=url.password, db=url.path, autocommit=True
        )
        try:
            async with connection.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
        finally:
            connection.close()

    async def in_cache(self, model: type[KeyedModel], *operations: Operation) -> None:
        """Apply operations to the cache alone."""
        adapter = MemcacheAdapter.from_url(BackendURL.parse(self.cache))
        await adapter.open()
        await adapter.prepare(schema_of(model), create=False)
        assert await adapter.apply(operations, Mode.MIRROR) == [APPLIED] * len(operations)
        await adapter.close()


@pytest.fixture
async def shop(tmp_path: Path, private_mariadb: MariaDBServer, private_memcached: MemcachedServer) -> Shop:
    return Shop(tmp_path, private_mariadb.url, private_memcached.url)


def cached(note: Note, version: str, text: str) -> list[Operation]:
    """What puts a note of any version into a cache that holds its present one."""
    fields = note.model_dump(mode="json", exclude={"id"}) | {"text": text}
    key = Key("Note", str(note.id))
    present = Operation(Kind.RETRACT, key, note.version or "", "")
    return [present, Operation(Kind.UPDATE, key, version, note.version or "", fields, encode_fields(fields))]


async def test_each_kind_of_divergence_is_found_explained_and_mended(shop: Shop) -> None:
    notes = {name: Note(text=name) for name in NAMES}
    older = encode_version(1, 0, 1)
    async with shop.running() as octopus:
        books = octopus.dao(Note)
        for note in notes.values():
            await books.create(note)
        ids = {name: str(note.id) for name, note in notes.items()}
        for name in ("undeleted", "buried"):
            await books.delete(notes[name])
        await octopus.drained()
        await shop.on_primary(f"DELETE FROM note WHERE id = '{ids['surplus']}'")
        for name in ("undeleted", "buried"):
            shop.on_replica("DELETE FROM octopus_versions WHERE id = ?", ids[name])
        shop.on_replica(
            "INSERT INTO note SELECT ?, created_at, updated_at, text, ?, ? FROM note WHERE id = ?",
            *(ids["undeleted"], older, older, ids["equal"]),
        )
        shop.on_replica("DELETE FROM note WHERE id = ?", ids["missing"])
        shop.on_replica(
            "UPDATE note SET text = 'old', octopus_version = ? WHERE id = ?", older, ids["behind"]
        )
        later = Clock().next()
        shop.on_replica("UPDATE note SET text = 'new', octopus_version = ? WHERE id = ?", later, ids["ahead"])
        shop.on_replica("UPDATE note SET octopus_born = ? WHERE id = ?", older, ids["born"])
        await shop.on_primary(
            f"UPDATE note SET text = 'by hand' WHERE id = '{ids['contents']}'",
            "INSERT INTO note (id, created_at, updated_at, text) SELECT UUID(), created_at, updated_at, "
            "'theirs' FROM note LIMIT 1",
        )
        await shop.in_cache(Note, *cached(notes["cache-behind"], older, "old"))
        await shop.in_cache(Note, *cached(notes["cache-ahead"], later, "new"))

        status, told = await shop.verify("--settle=0")
        found = {(it["backend"], it["kind"], names_of(ids, it["id"])): it for it in told["divergences"]}
        assert set(found) == {
            ("sqlite", "missing", "missing"),
            ("sqlite", "missing", "buried"),
            ("sqlite", "missing", "somebody's"),
            ("sqlite", "behind", "behind"),
            ("sqlite", "undeleted", "undeleted"),
            ("sqlite", "ahead", "ahead"),
            ("sqlite", "surplus", "surplus"),
            ("memcache", "surplus", "surplus"),
            ("sqlite", "contents", "contents"),
            ("memcache", "contents", "contents"),
            ("sqlite", "born", "born"),
            ("memcache", "behind", "cache-behind"),
            ("memcache", "ahead", "cache-ahead"),
        }
        assert (status, told["ok"], told["left"], told["unversioned"]) == (1, False, 13, 1)
        assert all(it["cause"] for it in found.values())
        behind = found["sqlite", "behind", "behind"]
        assert (behind["there"]["version"], behind["primary"]["version"]) == (older, notes["behind"].version)
        assert "time to live of 300 s" in found["memcache", "behind", "cache-behind"]["cause"]

        status, told = await shop.verify("--settle=0", "--repair")
        left = {(it["kind"], it["backend"]) for it in told["divergences"] if not it["mended"]}
        assert (status, left) == (1, {("ahead", "sqlite"), ("surplus", "sqlite")})
        assert (await shop.verify("--settle=0", "--repair", "--primary-wins"))[0] == 0
        status, told = await shop.verify("--settle=0")
        assert (status, told["found"], told["compared"]) == (0, {}, 11)
        assert {note.text for note in await all_of(books, notes)} == {
            *("missing", "behind", "ahead", "born", "cache-behind", "cache-ahead", "equal", "by hand")
        }


def names_of(ids: dict[str, str], wanted: str) -> str:
    return next((name for name, id_ in ids.items() if id_ == wanted), "somebody's")


async def all_of(books: Any, notes: dict[str, Note]) -> list[Note]:  # noqa: ANN401 - the Dao of a class of this module
    found = [await books.read(note.id) for note in notes.values()]
    return [note for note in found if note is not None]


async def test_a_mapped_table_without_a_version_column_is_compared_by_its_side_table(shop: Shop) -> None:
    await shop.on_primary(
        "CREATE TABLE member (id VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, "
        "created_at DATETIME(6), updated_at DATETIME(6), name TEXT)",
        "INSERT INTO member VALUES ('theirs', NOW(6), NOW(6), 'before us')",
    )
    async with shop.running() as octopus:
        members = octopus.dao(Member)
        for name in ("a", "b"):
            await members.create(Member(id=name, name=name))
        await members.delete("b")
        await octopus.drained()
        status, told = await shop.verify("--settle=0", "--model=Member")
        assert (status, told["found"], told["unversioned"]) == (1, {"missing": 1}, 1)
        assert "outside the library" in told["divergences"][0]["cause"]
        await shop.on_primary("UPDATE member SET name = 'by hand' WHERE id = 'a'")
        status, told = await shop.verify("--settle=0", "--model=Member", "--repair")
        assert (status, told["found"], told["mended"]) == (0, {"missing": 1, "contents": 2}, 3)
        assert (await members.get_one("a")).name == "by hand"


async def test_beside_writers_who_go_on_there_is_no_divergence(shop: Shop) -> None:
    async with shop.running() as octopus:
        books = octopus.dao(Note)
        kept = [Note(text=str(number)) for number in range(1000)]
        await asyncio.gather(*(books.create(note) for note in kept))
        await octopus.drained()
        stop = asyncio.Event()
        written = 0

        async def write(part: list[Note]) -> None:
            nonlocal written
            for note in itertools.cycle(part):
                if stop.is_set():
                    return
                note.text += "."
                await books.update(note)
                passing = Note(text="comes and goes")
                await books.create(passing)
                await books.delete(passing)
                assert await books.read(note.id) == note
                written += 3

        writers = [asyncio.create_task(write(kept[start::8])) for start in range(8)]
        status, told = await shop.verify()
        assert (status, told["found"], told["unsettled"]) == (0, {}, 0), told
        assert told["compared"] >= len(kept)
        stop.set()
        await asyncio.gather(*writers)
        assert written > 100


async def test_what_a_replica_is_owed_by_a_service_that_runs_is_no_divergence(shop: Shop) -> None:
    async with shop.running() as octopus:
        books = octopus.dao(Note)
        await books.create(Note(text="before"))
        octopus.backends["sqlite"].writes.force(Breaker.FORCED_OPEN)
        await asyncio.gather(*(books.create(Note(text=str(number))) for number in range(30)))
        status, told = await shop.verify("--settle=0")
        assert (status, told["found"], told["owed"], told["pending"]) == (
            0,
            {},
            {"sqlite": 30},
            {"sqlite": 30},
        )
        octopus.backends["sqlite"].writes.release()
        async with asyncio.timeout(20):
            await octopus.drained()
        assert (await shop.verify("--settle=0"))[1]["owed"] == {}


class TestAnInterruptedRun:
    ROWS = 2000

    @pytest.fixture
    async def large(self, tmp_path: Path) -> Path:
        """A primary and a replica of many rows, of which the replica lacks a new one near the end."""
        (tmp_path / "models.py").write_text(MODELS)
        (tmp_path / "octopus.toml").write_text(
            'write = ["sqlite:///shop.db", "sqlite:///replica.db?name=copy"]\n'
        )
        write = [f"sqlite:///{tmp_path / 'shop.db'}", f"sqlite:///{tmp_path / 'replica.db'}?name=copy"]
        async with DaoManager(write, create_tables=True) as octopus:
            await octopus.dao(Member).create(Member(id="first", name="first"))
            await octopus.create_tables(Note)
        old, new = encode_version(1, 0, 1), Clock().next()
        at = "2026-01-31T12:00:00.000000Z"
        rows = [(f"{number:08}", at, at, "name", old, old) for number in range(self.ROWS)]
        rows[-10] = (*rows[-10][:4], new, new)
        for file, part in (("shop.db", rows), ("replica.db", rows[:-10] + rows[-9:])):
            with closing(sqlite3.connect(tmp_path / file)) as database, database:
                database.executemany("INSERT INTO member VALUES (?, ?, ?, ?, ?, ?)", part)
        return tmp_path

    def arguments(self, *options: str) -> tuple[str, ...]:
        command = ("verify", "octopus.toml", "--models=models", "--model=Member", "--json")
        return (*command, "--resume=position", *options)

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
    async def test_goes_on_where_it_was(self, large: Path, end: signal.Signals) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "octopus_async.cli", *self.arguments("--settle=40")),
            cwd=large,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        position = large / "position"
        async with asyncio.timeout(40):
            while (state := State.load(position)) is None or state.position is None:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.01)
        process.send_signal(end)
        _, said = await process.communicate()
        assert (process.returncode, b"goes on from what position says" in said) == (
            (1, True) if end is signal.SIGINT else (-9, False)
        )
        state = State.load(position)
        assert state is not None
        assert 0 < state.report.compared < self.ROWS
        # What lies behind it is not looked at again: this would be found by a run that began anew.
        with closing(sqlite3.connect(large / "replica.db")) as database, database:
            database.execute("UPDATE member SET name = 'by hand' WHERE id = '00000001'")

        status, out = await self.run(large)
        told = json.loads(out)
        assert (status, told["compared"], told["found"]) == (1, self.ROWS + 1, {"missing": 1})
        assert not position.exists()
        status, out = await self.run(large)
        assert json.loads(out)["found"] == {"missing": 1, "contents": 1}

    async def run(self, folder: Path) -> tuple[int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "octopus_async.cli", *self.arguments("--settle=0")),
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(50):
            out, _ = await process.communicate()
        return process.returncode, out
