"""Operations that belong together, in one transaction of MongoDB: all of them are applied, or none is."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import AsyncMongoClient, InsertOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, ConnectionFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from octopus_async.adapters._mongodb_errors import is_race, translate, translate_code
from octopus_async.adapters._mongodb_form import Collection, Document, stored_in, update_of
from octopus_async.errors import BackendFailed, OctopusError, RecordRejected
from octopus_async.record import (
    APPLIED,
    WITHHELD,
    Kind,
    Mode,
    Operation,
    Outcome,
    Status,
    Stored,
    decide_unit,
    rejected,
)

_ATTEMPTS = 16
_COMMITS = 3
_TRANSIENT, _UNKNOWN = "TransientTransactionError", "UnknownTransactionCommitResult"


class _RaceError(Exception):
    """Somebody else has inserted one of the keys meanwhile."""


class _RefusedError(Exception):
    """The server or the driver refuses one operation, so that none may be applied."""

    def __init__(self, place: int, error: OctopusError) -> None:
        super().__init__(place)
        self.place, self.error = place, error


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of work and where its operations go.

    Attributes:
        operations: what is applied together, no key twice.
        collections: the collection of each.
        mode: LIVE or REPLAY.
        backend: the name of the backend, for errors.
    """

    operations: Sequence[Operation]
    collections: Sequence[Collection]
    mode: Mode
    backend: str

    async def apply(
        self, client: AsyncMongoClient[Document], database: str, concern: WriteConcern
    ) -> list[Outcome]:
        """Apply all operations or none; one outcome each.

        Raises:
            Unavailable: the backend failed; ``sent`` says whether the commit was under way.
            PyMongoError: the driver failed before the commit, and nothing will land.
        """
        for attempt in range(_ATTEMPTS):
            await asyncio.sleep(0.002 * attempt)
            try:
                async with client.start_session() as session:  # its end takes back what was not committed
                    await session.start_transaction(ReadConcern("snapshot"), concern)
                    return await self._transact(session, client[database])
            except _RefusedError as refused:
                outcomes = [WITHHELD] * len(self.operations)
                outcomes[refused.place] = rejected(refused.error)
                return outcomes
            except RecordRejected as error:  # by what is checked over the whole alone
                return [rejected(error) for _ in self.operations]
            except (_RaceError, PyMongoError) as error:
                if not _may_be_tried_again(error):
                    raise
        message = f"{self.backend}: others changed the same records again and again"
        raise BackendFailed(message, backend=self.backend, sent=False)

    async def _transact(
        self, session: AsyncClientSession, database: AsyncDatabase[Document]
    ) -> list[Outcome]:
        stored = await self._load(session, database)
        verdicts = decide_unit(self.operations, stored, self.mode)
        for collection, places in self._by_collection(range(len(self.operations))).items():
            due = [place for place in places if verdicts[place] is None]
            writes = {place: self._write_of(place, stored[place]) for place in due}
            await self._write(session, database, collection, writes)
        if not any(verdict is not None and verdict.status is Status.REJECTED for verdict in verdicts):
            await self._commit(session)  # with nothing written: until a majority has what was read
        return [APPLIED if verdict is None else verdict for verdict in verdicts]

    def _by_collection(self, places: Sequence[int]) -> dict[str, list[int]]:
        """Places of operations: first deletes, which may free what others take."""
        groups: dict[str, list[int]] = defaultdict(list)
        for place in sorted(places, key=lambda place: self.operations[place].kind is not Kind.DELETE):
            groups[self.collections[place].name].append(place)
        return groups

    async def _load(
        self, session: AsyncClientSession, database: AsyncDatabase[Document]
    ) -> list[Stored | None]:
        stored: list[Stored | None] = [None] * len(self.operations)
        for name, places in self._by_collection(range(len(self.operations))).items():
            ids = {self._id_of(place): place for place in places}
            source = database[name].find(
                {"_id": {"$in": [*ids]}}, ["octopus"], batch_size=len(ids) + 1, session=session
            )
            async with source as cursor:
                for document in await cursor.to_list():
                    stored[ids[document["_id"]]] = stored_in(document)
        return stored

    def _id_of(self, place: int) -> str | int:
        operation = self.operations[place]
        id_ = self.collections[place].id_of(operation.key)
        if id_ is None:
            raise _RefusedError(place, RecordRejected(f"{operation.key}: the id is no integer of 64 bits"))
        return id_

    def _write_of(self, place: int, stored: Stored | None) -> UpdateOne | InsertOne[Document]:
        operation, collection, id_ = self.operations[place], self.collections[place], self._id_of(place)
        inserts = stored is None and operation.kind is not Kind.DELETE
        try:
            body = collection.body(operation, id_, stamped=inserts)
        except RecordRejected as error:
            raise _RefusedError(place, error) from error
        if inserts:
            return InsertOne(body)
        return UpdateOne({"_id": id_}, update_of(operation, Mode.MIRROR, id_, body), upsert=True)

    async def _write(
        self,
        session: AsyncClientSession,
        database: AsyncDatabase[Document],
        name: str,
        writes: dict[int, UpdateOne | InsertOne[Document]],
    ) -> None:
        if not writes:
            return
        try:
            await database[name].bulk_write([*writes.values()], session=session)
        except BulkWriteError as error:
            details: Any = error.details
            for fault in details.get("writeErrors", ()):
                self._raise([*writes][fault["index"]], fault)
            raise
        except PyMongoError as error:
            refusal = translate(error, self.backend, writing=False)
            if isinstance(refusal, RecordRejected):
                raise refusal from error
            raise

    def _raise(self, place: int, fault: Any) -> None:  # noqa: ANN401 - the driver's
        if is_race(fault):
            raise _RaceError
        error = translate_code(fault["code"], fault, self.backend, writing=False)
        if isinstance(error, RecordRejected):
            raise _RefusedError(place, error)
        raise error

    async def _commit(self, session: AsyncClientSession) -> None:
        for commits in range(_COMMITS, 0, -1):
            try:
                return await session.commit_transaction()
            except PyMongoError as error:
                fault = translate(error, self.backend, writing=True)
                if isinstance(fault, RecordRejected):
                    raise fault from error
                if error.has_error_label(_TRANSIENT):
                    raise
                if commits > 1 and error.has_error_label(_UNKNOWN):
                    continue  # left as it is, it would bar others from its records for a minute
                # Whatever the last attempt says, an earlier one may have been sent.
                raise BackendFailed(f"{fault} at the commit", backend=self.backend, sent=True) from error
        return None


def _may_be_tried_again(error: Exception) -> bool:
    """Whether others were in the way; a server that is gone is for a guard to wait for."""
    if isinstance(error, PyMongoError):
        return error.has_error_label(_TRANSIENT) and not isinstance(error, ConnectionFailure)
    return isinstance(error, _RaceError)
