"""What MongoDB and pymongo do to a careless user: each hazard by name, on a real server."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pymongo
import pytest
import pytest_asyncio
from bson import errors as bson_errors
from pymongo import AsyncMongoClient, errors
from pymongo.asynchronous.collection import AsyncCollection

from octopus_async import DaoManager, Model
from octopus_async.adapters.mongodb import MongoDBAdapter
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    ConfigurationError,
    ConstraintViolated,
    DuplicateRecord,
    InvalidRecord,
    RecordRejected,
    SchemaMismatch,
    Unavailable,
)
from octopus_async.record import APPLIED, WITHHELD, Key, Mode, Outcome, Record, Status
from octopus_async.schema import Column, Schema, Type
from octopus_async.testing.contract.subject import descriptors, record_by
from octopus_async.testing.operations import ALL_TYPES, Author, fields_of
from octopus_async.testing.servers import MongoDBServer, Server
from octopus_async.url import BackendURL
from tests.conftest import ProxyFactory

PROBES = 50


class Novel(Model):
    title: str


@asynccontextmanager
async def opened(url: str, **options: str) -> AsyncGenerator[MongoDBAdapter]:
    parsed = BackendURL.parse(url)
    options = {**parsed.options, "journal": "false", **options}
    adapter = MongoDBAdapter.from_url(replace(parsed, options=options))
    await adapter.open()
    await adapter.prepare(ALL_TYPES, create=True)
    try:
        yield adapter
    finally:
        await adapter.close()


@pytest.fixture
async def store(mongodb_server: Server) -> AsyncGenerator[MongoDBAdapter]:
    async with opened(mongodb_server.url) as adapter:
        yield adapter


@asynccontextmanager
async def driver(url: str) -> AsyncGenerator[Any]:
    """The collection behind the adapter's back."""
    client: AsyncMongoClient[dict[str, Any]]
    async with AsyncMongoClient(f"{url.partition('?')[0]}?authSource=admin&directConnection=true") as client:
        yield client.octopus[ALL_TYPES.table]


def _classes() -> list[type[Exception]]:
    found = set[type[Exception]]()
    for package in (pymongo,):
        for module in pkgutil.iter_modules(package.__path__, "pymongo."):
            if module.name.endswith("errors"):
                found |= _exceptions_in(importlib.import_module(module.name))
    return sorted(found | _exceptions_in(bson_errors), key=lambda thing: thing.__name__)


def _exceptions_in(module: ModuleType) -> set[type[Exception]]:
    return {
        thing
        for thing in vars(module).values()
        if inspect.isclass(thing)
        and issubclass(thing, Exception)
        and not issubclass(thing, Warning)
        and thing.__module__.startswith(("pymongo", "bson"))
    }


def made(error: type[Exception]) -> Exception:
    if issubclass(error, errors.BulkWriteError):
        return error({"writeErrors": [], "writeConcernErrors": [{"code": 64}]})
    if issubclass(error, errors.EncryptedCollectionError):
        return error(errors.PyMongoError("message"), {})
    if issubclass(error, errors.EncryptionError):
        return error(errors.PyMongoError("message"))
    return error("hush-hush" if error in (ValueError, TypeError) else "message")


class TestErrors:
    async def test_no_exception_of_the_driver_passes(
        self, store: MongoDBAdapter, author: Author, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        classes = [*_classes(), ConnectionResetError, TimeoutError, EOFError, ValueError, TypeError]
        assert len(classes) > 35
        for error in classes:

            async def fail(*_: object, error: type[Exception] = error, **__: object) -> None:
                raise made(error)

            with monkeypatch.context() as patch:
                patch.setattr(AsyncCollection, "bulk_write", fail)
                patch.setattr(AsyncCollection, "find_one", fail)
                try:
                    (outcome,) = await store.apply([author.create(author.key(), fields_of())], Mode.LIVE)
                except Unavailable as raised:
                    told: Exception = raised
                else:
                    assert outcome.status is Status.REJECTED, error
                    assert isinstance(outcome.error, RecordRejected)
                    told = outcome.error
                assert "hush" not in str(told)
                is_about_the_record = issubclass(
                    error, (errors.DocumentTooLarge, errors.DuplicateKeyError, bson_errors.BSONError)
                )
                assert isinstance(told, RecordRejected) <= is_about_the_record, error
                with pytest.raises((Unavailable, RecordRejected)):
                    await store.ping()

    async def test_a_wrong_password_is_unavailability_and_is_not_shown(self, mongodb_server: Server) -> None:
        wrong = replace(BackendURL.parse(mongodb_server.url), password="hush-hush")  # noqa: S106 - a wrong one
        adapter = MongoDBAdapter.from_url(wrong)
        with pytest.raises(BackendFailed, match="AuthenticationFailed") as caught:
            await adapter.open()
        assert not caught.value.sent
        assert "hush" not in f"{caught.value} {adapter!r}"

    @pytest.mark.parametrize(
        ("code", "sent"),
        [(10107, False), (13435, False), (14031, False), (13, False), (50, True), (11602, True)],
    )
    async def test_a_server_that_is_stepped_down_full_or_forbids_it_is_unavailable(
        self, store: MongoDBAdapter, mongodb_server: Server, author: Author, code: int, *, sent: bool
    ) -> None:
        created = author.create(author.key(), fields_of(title="kept"))
        assert await store.apply([created], Mode.LIVE) == [APPLIED]
        async with driver(mongodb_server.url) as books:
            admin = books.database.client.admin
            fails = {"failCommands": ["insert", "update"], "errorCode": code}
            await admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": fails})
            try:
                with pytest.raises(Unavailable) as caught:
                    await store.apply([author.update(created.key, fields_of())], Mode.LIVE)
                assert caught.value.sent is sent
                async with asyncio.timeout(20):
                    while not await _is_up(store):  # noqa: ASYNC110 - the driver looks again in its own time
                        await asyncio.sleep(0.05)
                assert await store.read([created.key]) == [record_by(created)]
            finally:
                await admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    async def test_a_write_that_no_majority_has_is_unknown(
        self, store: MongoDBAdapter, mongodb_server: Server, author: Author
    ) -> None:
        async with driver(mongodb_server.url) as books:
            admin = books.database.client.admin
            lacks = {"failCommands": ["insert"], "writeConcernError": {"code": 64, "errmsg": "waiting"}}
            await admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": lacks})
            with pytest.raises(Unavailable) as caught:
                await store.apply([author.create(author.key(), fields_of())], Mode.LIVE)
            assert caught.value.sent

    async def test_what_a_unique_index_refuses_is_the_records_fault_alone(
        self, mongodb_server: Server, author: Author
    ) -> None:
        unique = replace(ALL_TYPES, model="Unique", table="unique")
        author.model = unique.model
        async with opened(mongodb_server.url) as adapter, driver(mongodb_server.url) as books:
            await adapter.prepare(unique, create=True)
            await books.database["unique"].create_index("title", unique=True)
            creates = [author.create(author.key(), fields_of(title=title)) for title in "abab"]
            outcomes = await adapter.apply(creates, Mode.LIVE)
            assert [outcome.status for outcome in outcomes] == [*[Status.APPLIED] * 2, *[Status.REJECTED] * 2]
            assert isinstance(outcomes[2].error, ConstraintViolated)
            assert "title" in str(outcomes[2].error)
            update = author.update(creates[0].key, fields_of(title="b"), born=creates[0].born)
            (outcome,) = await adapter.apply([update], Mode.REPLAY)
            assert isinstance(outcome.error, ConstraintViolated)

    async def test_a_record_that_no_document_can_hold_is_refused_and_the_others_are_not(
        self, store: MongoDBAdapter, author: Author
    ) -> None:
        good, large, strange = (
            author.create(author.key(), fields)
            for fields in (fields_of(), fields_of(title="x" * 17_000_000), fields_of(tree={"a\x00b": 1}))
        )
        outcomes = await store.apply([good, strange], Mode.LIVE)
        assert outcomes[0] == APPLIED
        assert isinstance(outcomes[1].error, InvalidRecord)
        (outcome,) = await store.apply([large], Mode.LIVE)
        assert outcome.status is Status.REJECTED


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mortal() -> AsyncGenerator[MongoDBServer]:
    """A MongoDB of these tests alone, which may kill it."""
    async with MongoDBServer() as server:
        yield server


class TestLife:
    async def test_a_kill_is_unavailability_and_what_was_applied_is_there_afterwards(
        self, mortal: MongoDBServer, author: Author
    ) -> None:
        async with opened(mortal.url, journal="true") as adapter:
            created = [author.create(author.key(), fields_of(count=number)) for number in range(20)]
            assert await adapter.apply(created, Mode.LIVE) == [APPLIED] * 20
            await mortal.kill()
            with pytest.raises(Unavailable):
                await adapter.read([created[0].key])
            with pytest.raises(Unavailable) as caught:
                await adapter.apply([author.create(author.key(), fields_of())], Mode.LIVE)
            assert not caught.value.sent
            await mortal.start()
            async with asyncio.timeout(30):
                while not await _is_up(adapter):  # noqa: ASYNC110 - the driver finds it in its own time
                    await asyncio.sleep(0.05)
            assert await adapter.read([op.key for op in created]) == [record_by(op) for op in created]

    async def test_calls_cancelled_while_the_server_stands_still_leave_the_others_their_answers(
        self, mortal: MongoDBServer, author: Author
    ) -> None:
        # Patient: fifty calls at once wait for four connections, each of which is made anew.
        async with opened(mortal.url, timeout="20") as adapter:
            created = [author.create(author.key(), fields_of(count=number)) for number in range(PROBES)]
            await adapter.apply(created, Mode.LIVE)
            await mortal.pause()
            calls = [asyncio.ensure_future(adapter.read([operation.key])) for operation in created]
            await asyncio.sleep(0.05)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            await mortal.resume()
            async with asyncio.timeout(20):
                answers = await asyncio.gather(*[adapter.read([operation.key]) for operation in created])
            assert answers == [[record_by(operation)] for operation in created]

    async def test_a_connection_cut_in_mid_answer_leaves_the_write_unknown(
        self, mongodb_server: Server, proxy: ProxyFactory, author: Author
    ) -> None:
        between = await proxy(mongodb_server.url)
        async with opened(between.url) as adapter:
            await between.swallow()
            call = asyncio.ensure_future(adapter.apply([author.create(author.key(), fields_of())], Mode.LIVE))
            await asyncio.sleep(0.1)
            await between.reset()
            with pytest.raises(Unavailable) as caught:
                await call
            assert caught.value.sent
            await between.heal()

    async def test_closing_leaves_no_connection_to_the_garbage_collector_that_is_being_made(self) -> None:
        with ExitStack() as sockets:
            full = sockets.enter_context(socket.socket())  # connecting to it takes for ever
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(4):
                waiting = sockets.enter_context(socket.socket())
                waiting.setblocking(False)  # noqa: FBT003 - the only way
                waiting.connect_ex(full.getsockname())
            before = descriptors()
            adapter = MongoDBAdapter([full.getsockname()], database="octopus", timeout=0.5)
            opening = asyncio.ensure_future(adapter.open())
            await asyncio.sleep(0.1)
            opening.cancel()
            await asyncio.wait([opening])
            assert descriptors() <= before

    async def test_nobody_there_is_a_refusal(self, unused_tcp_port: int) -> None:
        adapter = MongoDBAdapter([("127.0.0.1", unused_tcp_port)], database="octopus", timeout=0.2)
        with pytest.raises(BackendRefused):
            await adapter.open()


class TestDocuments:
    async def test_a_document_is_as_others_would_write_it(
        self, store: MongoDBAdapter, mongodb_server: Server, author: Author
    ) -> None:
        fields = fields_of(
            title="Emma", count=7, tree={"a": [1]}, amount="1.50", at="2026-01-31T12:00:00.123456Z"
        )
        created = author.create(author.key(), fields)
        await store.apply([created], Mode.LIVE)
        async with driver(mongodb_server.url) as books:
            found = await books.find_one({"title": "Emma", "how_many": 7, "tree.a": 1, "_id": created.key.id})
            assert found["octopus"] == {"v": created.version, "b": created.born}
            assert (found["amount"], found["at"]) == ("1.50", "2026-01-31T12:00:00.123456Z")

    @pytest.mark.parametrize("mode", [Mode.LIVE, Mode.REPLAY, Mode.MIRROR], ids=lambda mode: mode.value)
    async def test_names_that_are_operators_elsewhere_are_names(
        self, store: MongoDBAdapter, author: Author, mode: Mode
    ) -> None:
        tree = {"$set": 1, "a.b": {"$literal": "$$ROOT", "": []}, "$": "$title", "__proto__": None}
        created = author.create(author.key(), fields_of(title="$octopus.v", tree=tree))
        update = author.update(created.key, fields_of(title="$$ROOT", tree=[tree]), born=created.born)
        for operation in (created, update):
            assert await store.apply([operation], mode) == [APPLIED]
            assert await store.read([created.key]) == [record_by(operation)]

    async def test_a_document_of_others_is_a_record_without_a_version_and_keeps_what_is_theirs(
        self, store: MongoDBAdapter, mongodb_server: Server, author: Author
    ) -> None:
        key = author.key()
        async with driver(mongodb_server.url) as books:
            await books.insert_one({"_id": key.id, "title": "theirs", "shelf": 3})
            assert await store.read([key]) == [Record(key, "", "", fields_of(title="theirs"))]
            (outcome,) = await store.apply([author.create(key, fields_of(title="ours"))], Mode.LIVE)
            assert isinstance(outcome.error, DuplicateRecord)
            update = author.update(key, fields_of(title="ours"))
            assert await store.apply([update], Mode.LIVE) == [APPLIED]
            found = await books.find_one({"_id": key.id})
            assert (found["title"], found["shelf"]) == ("ours", 3)

    async def test_of_racing_writers_the_newest_wins_and_all_are_told(
        self, store: MongoDBAdapter, mongodb_server: Server, author: Author
    ) -> None:
        async with opened(mongodb_server.url) as other:
            for _ in range(5):
                key, born = author.key(), author.clock.next()
                writes = [author.update(key, fields_of(count=number), born=born) for number in range(8)]
                results = await asyncio.gather(
                    *[
                        (store, other)[number % 2].apply([write], Mode.MIRROR)
                        for number, write in enumerate(reversed(writes))
                    ]
                )
                newest = Outcome(Status.SUPERSEDED, stored=writes[-1].version)
                assert results[0] == [APPLIED]
                assert all(outcome in (APPLIED, newest) or outcome.stored for ((outcome),) in results)
                assert await store.read([key]) == [record_by(writes[-1])]

    async def test_of_racing_creates_one_is_applied(
        self, store: MongoDBAdapter, mongodb_server: Server, author: Author
    ) -> None:
        async with opened(mongodb_server.url) as other:
            for _ in range(5):
                key = author.key()
                results = await asyncio.gather(
                    *[
                        (store, other)[number % 2].apply(
                            [author.create(key, fields_of(count=number))], Mode.LIVE
                        )
                        for number in range(8)
                    ]
                )
                statuses = [outcome.status for (outcome,) in results]
                assert statuses.count(Status.APPLIED) == 1
                assert set(statuses) == {Status.APPLIED, Status.REJECTED}

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"capped": True, "size": 4096}, "ordinary"),
            ({"collation": {"locale": "en", "strength": 1}}, "collation"),
        ],
        ids=["capped", "collation"],
    )
    async def test_a_collection_that_cannot_work_is_refused(
        self, store: MongoDBAdapter, mongodb_server: Server, options: dict[str, Any], said: str
    ) -> None:
        async with driver(mongodb_server.url) as books:
            await books.database.drop_collection("strange")
            await books.database.create_collection("strange", **options)
            schema = Schema("Strange", "strange", "id", Type.TEXT, ())
            with pytest.raises(SchemaMismatch, match=said):
                await store.prepare(schema, create=True)
            await books.database.drop_collection("strange")

    async def test_a_missing_collection_is_named(self, store: MongoDBAdapter) -> None:
        with pytest.raises(SchemaMismatch, match=r"db\.createCollection"):
            await store.prepare(Schema("Nobody", "nobodies", "id", Type.TEXT, ()), create=False)

    @pytest.mark.parametrize("name", ["_id", "octopus", "$x", "a.b"])
    async def test_a_field_that_no_document_can_have_is_refused(
        self, store: MongoDBAdapter, name: str
    ) -> None:
        schema = Schema("Odd", "odd", "id", Type.TEXT, (Column("x", name, Type.TEXT, nullable=True),))
        with pytest.raises(SchemaMismatch, match="no document"):
            await store.prepare(schema, create=True)

    async def test_an_id_that_is_no_integer_is_nobodys(self, store: MongoDBAdapter, author: Author) -> None:
        await store.prepare(Schema("Numbered", "numbered", "id", Type.INTEGER, ()), create=True)
        for text in ("x", "1.0", "01", "+1", str(2**63), ""):
            key = Key("Numbered", text)
            assert await store.read([key]) == [None]
            (outcome,) = await store.apply([author.create(key, {})], Mode.LIVE)
            assert outcome.status is Status.REJECTED


@pytest.fixture
async def members(mongodb_replica_set: MongoDBServer) -> AsyncGenerator[MongoDBAdapter]:
    async with opened(mongodb_replica_set.url) as adapter:
        yield adapter


@asynccontextmanager
async def failing(server: MongoDBServer, times: int, **how: object) -> AsyncGenerator[None]:
    point = {"configureFailPoint": "failCommand"}
    await server.command({**point, "mode": {"times": times}, "data": how})
    try:
        yield
    finally:
        await server.command({**point, "mode": "off"})


class TestUnits:
    """On a replica set, which has transactions."""

    def test_transactions_are_what_a_named_replica_set_has(self, unused_tcp_port: int) -> None:
        hosts = [("127.0.0.1", unused_tcp_port)]
        assert not MongoDBAdapter(hosts, database="shop").capabilities.transactional
        assert MongoDBAdapter(hosts, database="shop", replica_set="rs0").capabilities.transactional

    async def test_a_commit_whose_answer_is_lost_is_asked_for_again(
        self, members: MongoDBAdapter, mongodb_replica_set: MongoDBServer, author: Author
    ) -> None:
        unit = [author.create(author.key(), fields_of(count=number)) for number in range(3)]
        lost = {"failCommands": ["commitTransaction"], "closeConnection": True}
        async with failing(mongodb_replica_set, 2, **lost):  # the driver itself tries it twice
            assert await members.apply_unit(unit, Mode.LIVE) == [APPLIED] * 3
        assert await members.read([it.key for it in unit]) == [record_by(it) for it in unit]

    async def test_a_commit_that_no_majority_has_is_unknown_and_may_come_again(
        self, members: MongoDBAdapter, mongodb_replica_set: MongoDBServer, author: Author
    ) -> None:
        unit = [author.create(author.key(), fields_of(count=number)) for number in range(3)]
        lacks = {
            "failCommands": ["commitTransaction"],
            "writeConcernError": {"code": 64, "errmsg": "waiting"},
        }
        async with failing(mongodb_replica_set, 10, **lacks):
            with pytest.raises(Unavailable) as caught:
                await members.apply_unit(unit, Mode.LIVE)
        assert caught.value.sent
        assert await members.apply_unit(unit, Mode.REPLAY) == [APPLIED] * 3
        assert await members.read([it.key for it in unit]) == [record_by(it) for it in unit]

    async def test_a_connection_lost_before_the_commit_leaves_nothing(
        self, members: MongoDBAdapter, mongodb_replica_set: MongoDBServer, author: Author
    ) -> None:
        unit = [author.create(author.key(), fields_of(count=number)) for number in range(3)]
        lost = {"failCommands": ["insert"], "closeConnection": True}
        async with failing(mongodb_replica_set, 1, **lost):
            with pytest.raises(Unavailable) as caught:
                await members.apply_unit(unit, Mode.LIVE)
        assert not caught.value.sent
        async with asyncio.timeout(20):
            while not await _is_up(members):  # noqa: ASYNC110 - the driver looks again in its own time
                await asyncio.sleep(0.05)
        assert await members.read([it.key for it in unit]) == [None] * 3

    @pytest.mark.parametrize("command", ["find", "insert", "commitTransaction"])
    async def test_a_transaction_that_others_were_in_the_way_of_is_tried_again(
        self, members: MongoDBAdapter, mongodb_replica_set: MongoDBServer, author: Author, command: str
    ) -> None:
        unit = [author.create(author.key(), fields_of(count=number)) for number in range(3)]
        conflict = {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}
        async with failing(mongodb_replica_set, 2, failCommands=[command], **conflict):
            assert await members.apply_unit(unit, Mode.LIVE) == [APPLIED] * 3
        assert await members.read([it.key for it in unit]) == [record_by(it) for it in unit]

    async def test_what_a_unique_index_refuses_stops_all_and_a_delete_frees_what_another_takes(
        self, members: MongoDBAdapter, mongodb_replica_set: MongoDBServer, author: Author
    ) -> None:
        unique = replace(ALL_TYPES, model="Unique", table="unique_in_set")
        await members.prepare(unique, create=True)
        async with driver(mongodb_replica_set.url) as books:
            only = {"title": {"$exists": True}}  # a deleted record has no title
            await books.database["unique_in_set"].create_index(
                "title", unique=True, partialFilterExpression=only
            )
        keys = [Key("Unique", author.key().id) for _ in range(4)]
        title = keys[0].id
        stored = author.create(keys[0], fields_of(title=title))
        assert await members.apply([stored], Mode.LIVE) == [APPLIED]
        unit = [author.create(keys[1], fields_of(title=keys[1].id))]
        unit.append(author.create(keys[2], fields_of(title=title)))
        withheld, refused = await members.apply_unit(unit, Mode.LIVE)
        assert withheld == WITHHELD
        assert isinstance(refused.error, ConstraintViolated)
        assert await members.read(keys[1:3]) == [None, None]
        swap = [author.create(keys[3], fields_of(title=title)), author.delete(keys[0])]
        assert await members.apply_unit(swap, Mode.LIVE) == [APPLIED] * 2

    async def test_a_session_is_one_transaction(
        self, mongodb_replica_set: MongoDBServer, tmp_path: Path
    ) -> None:
        emma, again = Novel(title="Emma"), Novel(title="Emma, again")
        async with DaoManager(
            [mongodb_replica_set.url], journal=tmp_path / "journal", create_tables=True
        ) as octopus:
            async with octopus.session() as session:
                session.create(emma)

            async def overreach() -> None:
                async with octopus.session() as session:
                    session.create(again)
                    session.create(Novel(id=emma.id, title="a duplicate"))

            with pytest.raises(DuplicateRecord):
                await overreach()
            assert await octopus.dao(Novel).read(emma.id) == emma
            assert await octopus.dao(Novel).read(again.id) is None


@pytest.mark.parametrize(
    "url", ["mongodb://db", "mongodb://a,b/shop", "mongodb://db/shop?w=1", "mongodb://db/shop?tls=x"]
)
def test_what_cannot_work_is_refused_beforehand(url: str) -> None:
    with pytest.raises(ConfigurationError):
        MongoDBAdapter.from_url(BackendURL.parse(url))


async def _is_up(adapter: MongoDBAdapter) -> bool:
    try:
        await adapter.ping()
    except Unavailable:
        return False
    return True
