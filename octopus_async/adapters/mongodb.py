"""Records in MongoDB, through pymongo's asyncio client.

A record is one document, and each operation one update of it, which the server applies or refuses in
one step as `octopus_async.adapters._mongodb_form` says. A batch is one bulk write in each collection.
Where the server refused, what is stored is read afterwards, and says why.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from pymongo import AsyncMongoClient, InsertOne, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from octopus_async.adapters._mongodb_errors import REFUSED, is_race, translate, translate_code
from octopus_async.adapters._mongodb_form import Collection, Document, stored_in, update_of
from octopus_async.adapters._mongodb_heartbeats import Heartbeats
from octopus_async.adapters._mongodb_units import Unit
from octopus_async.backend import Capabilities
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    ConfigurationError,
    OctopusError,
    OperationNotSupported,
    RecordRejected,
    SchemaMismatch,
    Unavailable,
)
from octopus_async.record import (
    APPLIED,
    Key,
    Kind,
    Mode,
    Operation,
    Outcome,
    Record,
    decide,
    failed,
    rejected,
)
from octopus_async.schema import Schema
from octopus_async.url import BackendURL

T = TypeVar("T")

_ROUNDS = 16
_PROBES = "octopus_probe"
_INDEX = "octopus.v"
_CLOSE_SECONDS = 1.0
_LONGEST_CALL = 20.0
"""Seconds that a call may go on which nobody waits for any more."""


class MongoDBAdapter:
    """A database of a MongoDB server, replica set or sharded cluster.

    Parameters:
        hosts: host and port of the server, or of members of a replica set; 27017 where it is None.
        database: the name of the database.
        user: who logs in, where the server asks.
        password: never shown.
        name: the name by which strategies call it.
        connections: how many at most; half of them serve reads, half writes.
        timeout: seconds that finding a server and connecting may take.
        replica_set: the name of the replica set, which has transactions; None for a server named by itself.
        auth_source: the database that knows the user.
        journal: whether a write waits until it is in the server's journal on disk.
        tls: whether to encrypt.
        tls_ca: a file of certificates to trust; None for the system's.
        tls_cert: a file of our certificate and its key.
    """

    def __init__(  # noqa: PLR0913 - options, by keyword
        self,
        hosts: Sequence[tuple[str, int | None]],
        *,
        database: str,
        user: str = "",
        password: str = "",
        name: str = "mongodb",
        connections: int = 8,
        timeout: float = 2.0,
        replica_set: str | None = None,
        auth_source: str = "admin",
        journal: bool = True,
        tls: str = "off",
        tls_ca: str | None = None,
        tls_cert: str | None = None,
    ) -> None:
        if len(hosts) > 1 and replica_set is None:
            raise ConfigurationError(f"{name}: of several hosts, give the name of their replica_set")
        half = max(1, connections // 2)
        self._name = name
        self._capabilities = Capabilities(
            durable=True,
            transactional=replica_set is not None,
            scan=True,
            read_concurrency=half,
            write_concurrency=half,
        )
        milliseconds = int(timeout * 1000)
        self._options: dict[str, Any] = {
            "host": [f"{f'[{host}]' if ':' in host else host}:{port or 27017}" for host, port in hosts],
            "replicaSet": replica_set,
            "directConnection": replica_set is None,
            "username": user or None,
            "password": password or None,
            "authSource": auth_source,
            "maxPoolSize": connections,
            "waitQueueTimeoutMS": milliseconds,
            "serverSelectionTimeoutMS": milliseconds,
            "connectTimeoutMS": milliseconds,
            "socketTimeoutMS": int(_LONGEST_CALL * 1000),
            "serverMonitoringMode": "poll",  # streaming finds a server that is back after ten seconds
            "heartbeatFrequencyMS": 1000,
            "retryWrites": False,  # a guard above decides what is tried again
            "retryReads": False,
            "tls": tls != "off",
        }
        if tls != "off":
            self._options |= {"tlsCAFile": tls_ca, "tlsCertificateKeyFile": tls_cert}
            self._options["tlsInsecure"] = tls == "insecure"
        self._timeout = timeout
        self._database = database
        self._concern = WriteConcern("majority", j=journal)
        self._collections: dict[str, Collection] = {}
        self._client: AsyncMongoClient[Document] | None = None
        self._heartbeats = Heartbeats()
        self._calls: set[asyncio.Future[Any]] = set()

    @classmethod
    def from_url(cls, url: BackendURL, *, name: str = "mongodb") -> Self:
        """Make one of ``mongodb://user:password@host:27017/database?replica_set=rs0``.

        Options: ``connections``, ``timeout``, ``replica_set``, ``auth_source``, ``journal``, ``tls``
        (``off``, ``verify``, or ``insecure`` for a certificate that nobody checks), and files
        ``tls_ca`` and ``tls_cert``.

        Raises `ConfigurationError`.
        """
        url.check_options(
            "connections", "timeout", "replica_set", "auth_source", "journal", "tls", "tls_ca", "tls_cert"
        )
        if not url.path:
            raise ConfigurationError(f"{url}: needs a database: mongodb://app@db/shop")
        return cls(
            url.hosts or [("localhost", None)],
            database=url.path,
            user=url.user,
            password=url.password,
            name=name,
            connections=url.integer("connections", 8),
            timeout=url.number("timeout", 2.0),
            replica_set=url.options.get("replica_set"),
            auth_source=url.text("auth_source", "admin"),
            journal=url.flag("journal", default=True),
            tls=url.choice("tls", "off", "off", "verify", "insecure"),
            tls_ca=url.options.get("tls_ca"),
            tls_cert=url.options.get("tls_cert"),
        )

    @property
    def name(self) -> str:
        """The name by which strategies, receipts and messages call it."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    # -- opening and closing ---------------------------------------------------------------------

    async def open(self) -> None:
        """Connect. Raises `Unavailable`."""
        if self._client is None:
            try:
                self._heartbeats = Heartbeats()
                self._client = AsyncMongoClient(**self._options, event_listeners=[self._heartbeats])
            except Exception as error:
                raise translate(error, self._name, writing=False) from error
        try:
            await self.ping()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections: within a second or so, or twice the timeout for connecting."""
        client, self._client = self._client, None
        if client is None:
            return
        closing = asyncio.ensure_future(self._close(client, self._heartbeats))
        self._keep(closing)
        await asyncio.shield(closing)

    async def _close(self, client: AsyncMongoClient[Document], heartbeats: Heartbeats) -> None:
        calls = self._calls - {asyncio.current_task()}
        if calls:
            await asyncio.wait(calls, timeout=_CLOSE_SECONDS)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await heartbeats.rest(2 * self._timeout)  # what connects has that long, and then as long to answer
        await client.close()

    def _opened(self) -> AsyncDatabase[Document]:
        if self._client is None:
            raise BackendRefused(f"{self._name} is not open", backend=self._name)
        return self._client.get_database(
            self._database, read_concern=ReadConcern("majority"), write_concern=self._concern
        )

    # -- models ----------------------------------------------------------------------------------

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        """Check a model's collection, or create it with an index of versions.

        Raises:
            SchemaMismatch: it is missing, or of a kind that can't work; the message says what to do.
            Unavailable: the backend failed.
        """
        database = self._opened()
        collection = Collection(schema, self._name)
        found = await self._run(self._look_for(database, schema.table))
        if found is None and not create:
            msg = f"{self._name}: {schema.model} has no collection: db.createCollection({schema.table!r})"
            raise SchemaMismatch(msg, backend=self._name)
        options = (found or {}).get("options", {})
        if (found or {}).get("type", "collection") != "collection" or options.get("capped"):
            raise SchemaMismatch(
                f"{self._name}: {schema.table} is no ordinary collection", backend=self._name
            )
        if options.get("collation"):
            msg = f"{self._name}: {schema.table} has a collation, by which different ids are the same"
            raise SchemaMismatch(msg, backend=self._name)
        if create:
            await self._run(database[schema.table].create_index(_INDEX))
        self._collections[schema.model] = collection

    async def _look_for(self, database: AsyncDatabase[Document], name: str) -> Document | None:
        async with await database.list_collections(filter={"name": name}) as cursor:
            found = await cursor.to_list()
        return found[0] if found else None

    # -- reading ---------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Have a query answered. Raises `Unavailable`."""
        await self._run(self._opened()[_PROBES].find_one({"_id": "probe"}))

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        """Look up keys. Raises `Unavailable`."""
        found: dict[Key, Record] = {}
        for model, wanted in _by_model(keys).items():
            collection = self._collection(model)
            for document in await self._run(self._find(collection, wanted)):
                key = collection.key_of(document)
                if key is not None:
                    found[key] = collection.record_of(key, document)
        return [found.get(key) for key in keys]

    async def peek(self, keys: Sequence[Key]) -> list[Record | None]:
        """As `read`."""
        return await self.read(keys)

    async def _find(
        self, collection: Collection, keys: Sequence[Key], *fields: str, concern: str = "majority"
    ) -> list[Document]:
        ids = [id_ for id_ in map(collection.id_of, keys) if id_ is not None]
        source = self._opened()[collection.name].with_options(read_concern=ReadConcern(concern))
        cursor = source.find({"_id": {"$in": ids}}, list(fields) or None, batch_size=len(ids) + 1)
        async with cursor:
            return await cursor.to_list()

    async def scan(
        self, model: str, *, after: str = "", batch: int = 500, beyond: Record | None = None
    ) -> AsyncIterator[Record]:
        """All of a model's records and tombstones of versions above ``after``, by their ids."""
        collection = self._collection(model)
        last = None if beyond is None else collection.id_of(beyond.key)
        while True:
            documents = await self._run(self._page(collection, after, last, batch))
            for document in documents:
                key = collection.key_of(document)
                if key is not None:
                    yield collection.record_of(key, document)
            if len(documents) < batch:
                return
            last = documents[-1]["_id"]

    async def _page(self, collection: Collection, after: str, last: object, batch: int) -> list[Document]:
        wanted: dict[str, Any] = {} if last is None else {"_id": {"$gt": last}}
        if after:
            wanted[_INDEX] = {"$gt": after}
        async with self._opened()[collection.name].find(wanted).sort("_id").limit(batch) as cursor:
            return await cursor.to_list()

    # -- writing ---------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Write the reserved document. Raises `Unavailable`."""
        nonce = {"$set": {"nonce": secrets.token_hex(8)}}
        await self._run(
            self._opened()[_PROBES].update_one({"_id": "probe"}, nonce, upsert=True), writing=True
        )

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        """Apply operations, each by itself. Raises `Unavailable` if all of them failed alike."""
        self._opened()
        outcomes: list[Outcome | None] = [None] * len(operations)
        for places in _rounds(operations):
            for model, group in _by_model([operations[place].key for place in places]).items():
                keys = set(group)
                mine = [place for place in places if operations[place].key in keys]
                await self._write(self._collection(model), operations, mine, mode, outcomes)
        done = [outcome for outcome in outcomes if outcome is not None]
        errors = [outcome.error for outcome in done if isinstance(outcome.error, Unavailable)]
        if errors and len(errors) == len(done) and len({outcome.status for outcome in done}) == 1:
            raise errors[0]
        return done

    async def apply_unit(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        """Apply all operations or none, of a replica set. Raises `Unavailable`."""
        client = self._opened().client
        collections = [self._collection(operation.key.model) for operation in operations]
        unit = Unit(operations, collections, mode, self._name)
        return await self._run(unit.apply(client, self._database, self._concern))

    async def _write(
        self,
        collection: Collection,
        operations: Sequence[Operation],
        places: Sequence[int],
        mode: Mode,
        outcomes: list[Outcome | None],
    ) -> None:
        left = list(places)
        for attempt in range(_ROUNDS):
            writes: dict[int, UpdateOne | InsertOne[Document]] = {}
            for place in left:
                try:
                    writes[place] = self._write_of(collection, operations[place], mode, attempt)
                except (RecordRejected, OperationNotSupported) as error:
                    outcomes[place] = rejected(error)
            if not writes:
                return
            await asyncio.sleep(0.001 * attempt)
            again = await self._bulk(collection, writes, outcomes)
            left = await self._judge(collection, operations, again, mode, outcomes)
        for place in left:
            msg = f"{self._name}: {operations[place].key} was changed by others again and again"
            outcomes[place] = failed(BackendFailed(msg, backend=self._name, sent=False))

    def _write_of(
        self, collection: Collection, operation: Operation, mode: Mode, attempt: int
    ) -> UpdateOne | InsertOne[Document]:
        if operation.kind in (Kind.INVALIDATE, Kind.RETRACT):
            raise OperationNotSupported(f"{self._name} is durable: it forgets nothing")
        id_ = collection.id_of(operation.key)
        if id_ is None:
            raise RecordRejected(f"{operation.key}: the id is no integer of 64 bits")
        if operation.kind is Kind.CREATE and not attempt:
            # Most creates meet nothing, and an insert is several times faster; the others are tried again.
            return InsertOne(collection.body(operation, id_, stamped=True))
        body = collection.body(operation, id_)
        return UpdateOne({"_id": id_}, update_of(operation, mode, id_, body), upsert=True)

    async def _bulk(
        self,
        collection: Collection,
        writes: dict[int, UpdateOne | InsertOne[Document]],
        outcomes: list[Outcome | None],
    ) -> list[int]:
        """Send writes; gives those that were refused, whose outcomes are not known yet."""
        target: AsyncCollection[Document] = self._opened()[collection.name]
        places = list(writes)
        try:
            await self._run(target.bulk_write([*writes.values()], ordered=False), writing=True)
        except Unavailable as error:
            if not isinstance(error.__cause__, BulkWriteError):
                for place in places:
                    outcomes[place] = failed(error)
                return []
            details: Any = error.__cause__.details
        except OctopusError as error:
            for place in places:
                outcomes[place] = rejected(error)
            return []
        else:
            details = {}
        return self._settle(places, details, outcomes)

    def _settle(self, places: Sequence[int], details: Any, outcomes: list[Outcome | None]) -> list[int]:  # noqa: ANN401 - the driver's
        errors = {places[error["index"]]: error for error in details.get("writeErrors", ())}
        unsafe = details.get("writeConcernErrors", ())
        again = []
        for place in places:
            error = errors.get(place)
            if error is None:
                outcomes[place] = APPLIED
                if unsafe:  # it is there, and not on as many disks as it has to be
                    code, said = unsafe[0].get("code"), unsafe[0]
                    doubt = BackendFailed(
                        f"{self._name}: {said.get('codeName', 'write concern')} ({code})",
                        backend=self._name,
                        sent=True,
                    )
                    outcomes[place] = failed(doubt)
            elif error["code"] == REFUSED or is_race(error):
                again.append(place)
            else:
                fault = translate_code(error["code"], error, self._name, writing=True)
                is_ours = isinstance(fault, RecordRejected)
                outcomes[place] = rejected(fault) if is_ours else failed(fault)
        return again

    async def _judge(
        self,
        collection: Collection,
        operations: Sequence[Operation],
        places: Sequence[int],
        mode: Mode,
        outcomes: list[Outcome | None],
    ) -> list[int]:
        """Say why writes were refused; gives those that would not be any more."""
        if not places:
            return []
        keys = [operations[place].key for place in places]
        try:
            documents = await self._run(self._find(collection, keys, "octopus", concern="local"))
        except Unavailable as error:
            for place in places:  # refused, so nothing of it will land
                outcomes[place] = failed(BackendFailed(str(error), backend=self._name, sent=False))
            return []
        stored = {document["_id"]: stored_in(document) for document in documents}
        left = []
        for place in places:
            operation = operations[place]
            outcomes[place] = decide(operation, stored.get(collection.id_of(operation.key)), mode)
            if outcomes[place] is None:
                left.append(place)
        return left

    def _collection(self, model: str) -> Collection:
        collection = self._collections.get(model)
        if collection is None:
            self._opened()
            raise SchemaMismatch(f"{self._name}: {model} was not prepared", backend=self._name)
        return collection

    def _keep(self, call: asyncio.Future[Any]) -> None:
        self._calls.add(call)
        call.add_done_callback(partial(_forget, self._calls))

    async def _run(self, call: Awaitable[T], *, writing: bool = False) -> T:
        # Cancelled while it connects, the driver leaves a socket open: who is cancelled stops waiting,
        # and the call comes to its own end.
        under_way = asyncio.ensure_future(call)
        self._keep(under_way)
        try:
            return await asyncio.shield(under_way)
        except OctopusError:
            raise
        except BulkWriteError as error:
            raise BackendFailed(f"{self._name}: some writes failed", backend=self._name) from error
        except Exception as error:
            raise translate(error, self._name, writing=writing) from error


def _forget(calls: set[asyncio.Future[Any]], call: asyncio.Future[Any]) -> None:
    calls.discard(call)
    if not call.cancelled():
        call.exception()  # somebody was told, or nobody waits


def _by_model(keys: Sequence[Key]) -> dict[str, list[Key]]:
    groups: dict[str, list[Key]] = defaultdict(list)
    for key in keys:
        groups[key.model].append(key)
    return groups


def _rounds(operations: Sequence[Operation]) -> list[list[int]]:
    """Places of operations, each key once in a round: a bulk write keeps no order."""
    rounds: list[list[int]] = []
    turns: dict[Key, int] = {}
    for place, operation in enumerate(operations):
        turn = turns[operation.key] = turns.get(operation.key, -1) + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(place)
    return rounds
