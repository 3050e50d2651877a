"""Sessions: what is read and changed in a block is written at its end, all of it or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from octopus_async.bulk import Call, Results, collected, in_windows
from octopus_async.dao import Id
from octopus_async.errors import (
    ConfigurationError,
    InvalidRecord,
    OctopusError,
    OperationNotSupported,
    RecordNotFound,
    RecordRejected,
    SessionEnded,
    WriteUnavailable,
)
from octopus_async.mapper import Mapper
from octopus_async.model import KeyedModel, Stamp
from octopus_async.record import NO_VERSION, Key, Kind, Operation, Record, duplicate, not_found, refusal
from octopus_async.strategies.plan import Plan
from octopus_async.strategies.receipt import Receipt
from octopus_async.strategies.writer import Draft

if TYPE_CHECKING:
    from octopus_async.manager import DaoManager

M = TypeVar("M", bound=KeyedModel)

MOST_CHANGES = 10_000
_MOST_BYTES = 16 * 1024 * 1024


class _State(Enum):
    NEW = "created"
    KNOWN = "read"
    GONE = "deleted"


@dataclass(slots=True)
class _Entry:
    """What a session knows of a key.

    Attributes:
        model: the one object of it.
        mapper, plan: how it is translated, and where it goes.
        state: what became of it in the session.
        stored: as what it was read; None for what was created here, or brought from elsewhere.
        version, born: what has to be stored at the end.
    """

    model: KeyedModel
    mapper: Mapper[Any]
    plan: Plan
    state: _State
    stored: Record | None = None
    version: str = NO_VERSION
    born: str = NO_VERSION


class Session:
    """A unit of work; get it from `DaoManager.session`, and use it with ``async with``.

    It has one object for each key: whoever reads it twice gets it twice, with the changes that were
    made to it meanwhile. At the end of the block everything that was created, changed or deleted is
    written at once: in one transaction of the primary, in one entry of the journal while that is
    away, to the caches afterwards. Each change is made only over what was read. If the block raises,
    nothing is written. It belongs to one request or task, and ends with its block.

    Attributes:
        receipts: of each record that was written at the end, in the order in which the session
            came to know them.
    """

    def __init__(self, manager: DaoManager, *, atomic: bool, timeout: float | None) -> None:
        self.receipts: tuple[Receipt, ...] = ()
        self._manager = manager
        self._atomic = atomic
        self._timeout = timeout
        self._entries: dict[Key, _Entry] = {}
        self._ended = False

    async def __aenter__(self) -> Self:
        self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._check()
        self._ended = True
        if kind is None:
            await self._commit()

    # -- reading ---------------------------------------------------------------------------------

    async def read(self, kind: type[M], id: Id, *, timeout: float | None = None) -> M | None:  # noqa: A002 - the field's name
        """The session's object of that id; None if there is none, or it was deleted here.

        Raises:
            ReadUnavailable: nobody that could know was able to say.
        """
        self._check()
        mapper, plan = self._manager.way_of(kind)
        key = mapper.key(id)
        if key not in self._entries:
            record = await self._manager.find(plan, key, timeout)
            self._check()
            # Another task of the block may have come to know it meanwhile.
            if record is not None and key not in self._entries:
                model = mapper.decode(record, id)
                self._entries[key] = _Entry(
                    model, mapper, plan, _State.KNOWN, record, record.version, record.born
                )
        entry = self._entries.get(key)
        return None if entry is None or entry.state is _State.GONE else cast("M", entry.model)

    async def get_one(self, kind: type[M], id: Id, *, timeout: float | None = None) -> M:  # noqa: A002 - the field's name
        """The session's object of that id. Raises `RecordNotFound` where `read` gives None."""
        model = await self.read(kind, id, timeout=timeout)
        if model is None:
            raise not_found(self._manager.way_of(kind)[0].key(id))
        return model

    async def exists(self, kind: type[M], id: Id, *, timeout: float | None = None) -> bool:  # noqa: A002 - the field's name
        """Whether there is a record of that id, as the session sees it. Raises `ReadUnavailable`."""
        return await self.read(kind, id, timeout=timeout) is not None

    async def read_many(
        self, kind: type[M], ids: Iterable[Id] | AsyncIterable[Id], *, timeout: float | None = None
    ) -> Results[M | None]:
        """`read` for each id, batched; one result each."""
        return await collected(
            in_windows(lambda id_: Call(partial(self.read, kind, id_, timeout=timeout)), ids)
        )

    # -- changing --------------------------------------------------------------------------------

    def create(self, model: KeyedModel) -> None:
        """Store a new record at the end of the block.

        Raises:
            DuplicateRecord: the session has a record of this id.
            InvalidRecord: its id is none.
        """
        self._check()
        mapper, plan, key = self._way_of(model)
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(model, mapper, plan, _State.NEW)
        elif entry.state is _State.GONE:
            # In the store it was not deleted: it is there, and changes.
            entry.model, entry.state = model, _State.KNOWN
        elif entry.model is not model or entry.state is not _State.NEW:
            raise duplicate(key)

    def update(self, model: KeyedModel) -> None:
        """Take in a model that was read elsewhere, or a changed copy of one that was read here.

        What the session has read itself needs no call: it is compared at the end of the block. The
        record is replaced only if it still has the version of the model, or at which the session
        has read it.

        Raises:
            InvalidRecord: the model was never stored or read, so that nobody knows its version.
            RecordNotFound: it was deleted in this session.
        """
        self._check()
        mapper, plan, key = self._way_of(model)
        entry = self._entries.get(key)
        if entry is not None and entry.state is _State.GONE:
            raise not_found(key)
        if entry is not None:
            entry.model = model
            return
        self._entries[key] = self._known(model, mapper, plan, key)

    def delete(self, model: KeyedModel) -> None:
        """Delete a record at the end of the block, if it still has the version that was read.

        Raises:
            InvalidRecord: the model was never stored or read, so that nobody knows its version.
        """
        self._check()
        mapper, plan, key = self._way_of(model)
        entry = self._entries.get(key)
        if entry is not None and entry.state is _State.NEW:
            del self._entries[key]
            return
        if entry is None:
            entry = self._entries[key] = self._known(model, mapper, plan, key)
        entry.state = _State.GONE

    # -- afterwards ------------------------------------------------------------------------------

    @property
    def journalled(self) -> bool:
        """Whether the primary could not take it at the end, and the journal holds it."""
        return any(receipt.journalled for receipt in self.receipts)

    async def settled(self) -> None:
        """Wait until the primary has all of it. Bound the wait with ``asyncio.timeout``.

        Raises:
            RecordRejected, RecordNotFound: the primary refused it at replay, and all of it is dead
                letters.
            JournalError: it became a dead letter for another reason, which the message gives.
        """
        for receipt in self.receipts:
            await receipt.settled()

    # --------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._ended:
            raise SessionEnded("the block of this session was left: begin a new one, octopus.session()")
        self._manager.check_open()

    def _way_of(self, model: KeyedModel) -> tuple[Mapper[Any], Plan, Key]:
        mapper, plan = self._manager.way_of(type(model))
        return mapper, plan, mapper.key_of(model)

    def _known(self, model: KeyedModel, mapper: Mapper[Any], plan: Plan, key: Key) -> _Entry:
        version, born = mapper.stamp(model)
        if not version:
            raise InvalidRecord(f"{key} was never stored or read: create it, or read it in the session")
        return _Entry(model, mapper, plan, _State.KNOWN, None, version, born)

    async def _commit(self) -> None:
        now = datetime.fromtimestamp(self._manager.settings.wall(), UTC)
        changes = [
            (entry, draft)
            for key, entry in self._entries.items()
            if (draft := _draft_of(key, entry, now)) is not None
        ]
        if not changes:
            return
        _check_size([draft for _, draft in changes])
        drafts = [(entry.plan, draft) for entry, draft in changes]
        if self._atomic:
            _check_together([plan for plan, _ in drafts])
            written = await self._manager.write_unit(drafts, self._timeout)
            self._acknowledge(changes, written, now)
        else:
            await self._write_each(changes, now)

    async def _write_each(self, changes: list[tuple[_Entry, Draft]], now: datetime) -> None:
        """Without a transaction: each by itself, and the error says which were not written."""
        written = await asyncio.gather(
            *(self._manager.write(entry.plan, draft, self._timeout) for entry, draft in changes),
            return_exceptions=True,
        )
        done = [(pair, it) for pair, it in zip(changes, written, strict=True) if isinstance(it, tuple)]
        self._acknowledge([pair for pair, _ in done], [it for _, it in done], now)
        errors: dict[Key, OctopusError] = {}
        for (_, draft), it in zip(changes, written, strict=True):
            if isinstance(it, OctopusError):
                errors[draft.key] = it
            elif isinstance(it, BaseException):
                raise it
        if errors:
            raise _partly(errors, len(changes))

    def _acknowledge(
        self,
        changes: list[tuple[_Entry, Draft]],
        written: list[tuple[Receipt, Operation]],
        now: datetime,
    ) -> None:
        for (entry, draft), (_, operation) in zip(changes, written, strict=True):
            if draft.fields is not None:
                stamp = Stamp(operation.version, operation.born or entry.born)
                entry.mapper.restamped(entry.model, draft.fields, stamp, now)
        self.receipts = tuple(receipt for receipt, _ in written)


def _draft_of(key: Key, entry: _Entry, now: datetime) -> Draft | None:
    """What has to be written of a key; None if it is as it was read. Raises `InvalidRecord`."""
    mapper, model = entry.mapper, entry.model
    provisional = type(model).__octopus_mapping__.provisional
    if entry.state is _State.GONE:
        return Draft(Kind.DELETE, key, entry.born, if_version=entry.version, provisional=provisional)
    if entry.state is _State.NEW:
        fields, payload = mapper.encode(model, now, create=True)
        refusable = mapper.may_be_refused(model)
        return Draft(
            Kind.CREATE, key, NO_VERSION, fields, payload, may_conflict=refusable, provisional=provisional
        )
    fields, payload = mapper.encode(model, now, create=False)
    if entry.stored is not None and mapper.is_unchanged(entry.stored, fields, now):
        return None
    return Draft(
        Kind.UPDATE,
        key,
        entry.born,
        fields,
        payload,
        if_version=entry.version,
        may_conflict=mapper.schema.constrained,
        provisional=provisional,
    )


def _check_size(drafts: list[Draft]) -> None:
    size = sum(len(draft.payload or b"") for draft in drafts)
    if len(drafts) > MOST_CHANGES or size > _MOST_BYTES:
        raise InvalidRecord(
            f"a session writes at most {MOST_CHANGES:,} records of together {_MOST_BYTES:,} bytes, and this "
            f"one changed {len(drafts):,} of {size:,} bytes; nothing was written"
        )


def _check_together(plans: list[Plan]) -> None:
    """Raise an error unless all can be written in one transaction."""
    primary, kept_by = plans[0].primary, plans[0].journalled_for
    for plan in plans:
        if plan.journalled_for != kept_by:
            names = sorted({plan.primary.name for plan in plans})
            raise ConfigurationError(
                f"what a session writes goes to the same durable backends, and here it goes to "
                f"{', '.join(names)}; nothing was written. Use one session for each, or session(atomic=False)"
            )
    if not primary.has_units:
        raise OperationNotSupported(
            f"backend {primary.name} has no transactions, so that a session cannot be written as one; "
            "nothing was written. With session(atomic=False) each change is a write of its own"
        )


def _partly(errors: dict[Key, OctopusError], total: int) -> OctopusError:
    """The error of a session without a transaction, which says what was not written."""
    share = f"{len(errors)} of {total} changes were not written"
    if all(isinstance(error, RecordRejected | RecordNotFound) for error in errors.values()):
        refused = cast("RecordRejected", refusal(errors))
        refused.args = (f"{share}, and the others were: {refused}".replace("; nothing was written", ""),)
        return refused
    reasons = "; ".join(str(error) for error in errors.values())
    return WriteUnavailable(f"{share}: {reasons}", causes={str(key): error for key, error in errors.items()})
