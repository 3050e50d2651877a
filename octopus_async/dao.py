"""The Dao: what an application awaits to create, read, update and delete one kind of model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, get_args, get_origin
from uuid import UUID

from octopus_async.bulk import Call, Results, collected, in_windows
from octopus_async.errors import (
    ConfigurationError,
    DuplicateRecord,
    ReadUnavailable,
    RecordNotFound,
    StaleRecord,
)
from octopus_async.mapper import Mapper
from octopus_async.model import KeyedModel, Stamp
from octopus_async.record import NO_VERSION, Key, Kind, Operation, Record, not_found, stale
from octopus_async.strategies.receipt import Receipt
from octopus_async.strategies.writer import Draft

M = TypeVar("M", bound=KeyedModel)
I = TypeVar("I")  # noqa: E741 - an item
Id = UUID | str | int
Items: TypeAlias = "Iterable[I] | AsyncIterable[I]"
_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
_LEAST = 0.001  # seconds: what is past its deadline is told so by whoever it asks


class Gateway(Protocol):
    """What a Dao needs of its manager: the ways of reads and writes for its model."""

    def find(self, key: Key, deadline: float | None, *, fresh: bool = False) -> Awaitable[Record | None]:
        """The living record of a key, or None; ``fresh`` for what the primary has, past all caches."""
        ...

    def write(self, draft: Draft, deadline: float | None) -> Awaitable[tuple[Receipt, Operation]]:
        """Write a draft, beginning at once; goes on if the caller is cancelled."""
        ...

    def wall(self) -> float:
        """Seconds since 1970."""
        ...

    def deadline(self, seconds: float | None) -> float:
        """The moment of the loop's clock at which a call has to end that is given so many seconds."""
        ...


class _Write(NamedTuple):
    """A draft, and the moment that it was made."""

    draft: Draft
    now: datetime


class Dao(Generic[M]):
    """Creates, reads, updates and deletes models of one class. Get it from `DaoManager.dao`.

    Subclass it to give a model methods of its own::

        class BookDao(Dao[Book]):
            async def retitle(self, book: Book, title: str) -> None:
                book.title = title
                await self.update(book)

        books = octopus.dao(BookDao)

    Every method takes ``timeout``, in seconds: the whole of the call, with queue, batch, driver
    and fallbacks. None for the manager's default.
    """

    model: ClassVar[type[KeyedModel] | None] = None

    def __init__(self, mapper: Mapper[M], gateway: Gateway) -> None:
        self._mapper = mapper
        self._gateway = gateway

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - whatever a subclass passes on
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            arguments = get_args(base)
            if isinstance(get_origin(base), type) and issubclass(get_origin(base), Dao) and arguments:
                cls.model = arguments[0] if isinstance(arguments[0], type) else None

    # -- one at a time ---------------------------------------------------------------------------

    async def create(self, model: M, *, timeout: float | None = None) -> Receipt:
        """Store a new record.

        Returns:
            The receipt, once the primary has the record, or in its place the journal. Only then
            the model learns its moments and its version.

        Raises:
            DuplicateRecord: there is a record of this id already.
            ConstraintViolated: the database refused it.
            InvalidRecord: it cannot be stored everywhere; nothing was sent.
            WriteUnavailable: neither the primary nor the journal took it.
        """
        return await self._write(self._creation(model), model, timeout)

    async def read(self, id: Id, *, timeout: float | None = None) -> M | None:  # noqa: A002 - the field's name
        """The record of that id, as a fresh object; None if it certainly does not exist.

        Raises:
            ReadUnavailable: nobody that could know was able to say.
        """
        record = await self._gateway.find(self._mapper.key(id), timeout)
        return None if record is None else self._mapper.decode(record, id)

    async def get_one(self, id: Id, *, timeout: float | None = None) -> M:  # noqa: A002 - the field's name
        """The record of that id. Raises `RecordNotFound` where `read` gives None."""
        key = self._mapper.key(id)
        record = await self._gateway.find(key, timeout)
        if record is None:
            raise not_found(key)
        return self._mapper.decode(record, id)

    async def exists(self, id: Id, *, timeout: float | None = None) -> bool:  # noqa: A002 - the field's name
        """Whether there is a record of that id. Raises `ReadUnavailable`."""
        return await self._gateway.find(self._mapper.key(id), timeout) is not None

    async def update(
        self,
        model: M,
        *,
        only: Collection[str] | None = None,
        if_version: str | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Replace the record by the model's state. The last update wins, unless ``if_version``.

        With ``only`` the other fields stay as they are stored: the record is read, changed, and
        written if nobody changed it meanwhile; otherwise that is done again, until the deadline.
        Afterwards the model is what is stored, in all its fields.

        Parameters:
            model: the model, read before or made by hand.
            only: the names of the fields to change.
            if_version: the version that has to be stored, for instance ``book.version``.
            timeout: seconds for the whole call.

        Raises:
            RecordNotFound: there is no such record.
            StaleRecord: another version is stored; nothing was changed.
            ConstraintViolated, InvalidRecord: as for `create`.
            ReadUnavailable: with ``only``, nobody could say what is stored.
            WriteUnavailable: neither the primary nor the journal took it, or ``if_version`` or
                ``only`` cannot be checked because the primary cannot be asked.
        """
        if only is not None:
            return await self._update_only(model, only, if_version, timeout)
        return await self._write(self._replacement(model, if_version), model, timeout)

    async def delete(
        self,
        target: M | Id,
        *,
        if_version: str | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Delete a record, given as a model or an id. Deleting what is not there is no error.

        Parameters:
            target: the model or the id.
            if_version: the version that has to be stored.
            timeout: seconds for the whole call.

        Raises:
            RecordNotFound, StaleRecord: only with ``if_version``.
            WriteUnavailable: as for `update`.
        """
        receipt, _ = await self._gateway.write(self._removal(target, if_version), timeout)
        return receipt

    # -- conveniences ----------------------------------------------------------------------------

    async def upsert(self, model: M, *, timeout: float | None = None) -> Receipt:
        """Store the model's state, whether or not there is a record of its id.

        A record that is there keeps its ``created_at``, unless the model was given one. While the
        primary cannot be asked, and nobody else has the record, it is an update that was not checked.

        Raises:
            ConstraintViolated, InvalidRecord, WriteUnavailable: as for `create`.
        """
        until, fresh = self._gateway.deadline(timeout), False
        try:
            while True:
                stored = await self._stored(model, until, fresh=fresh)
                try:
                    write, state = self._upserting(model, stored)
                    return await self._write(write, model, _left(until), state)
                except (DuplicateRecord, RecordNotFound):
                    if _left(until) <= _LEAST:
                        raise
                fresh = True
        except ReadUnavailable:
            blind = self._replacement(model, None, born=NO_VERSION)
            return await self._write(blind, model, _left(until))

    async def get_or_create(self, model: M, *, timeout: float | None = None) -> tuple[M, Receipt | None]:
        """The record of the model's id; where there is none, the model is stored.

        Returns:
            What is stored, and the receipt if it is the model that was stored now, otherwise None::

                country, receipt = await countries.get_or_create(Country(id="at", name="Austria"))

        Raises:
            ReadUnavailable: nobody could say whether there is one.
            ConstraintViolated, InvalidRecord, WriteUnavailable: as for `create`.
        """
        until, fresh = self._gateway.deadline(timeout), False
        while True:
            record = await self._stored(model, until, fresh=fresh)
            if record is not None:
                return self._mapper.decode(record), None
            try:
                return model, await self.create(model, timeout=_left(until))
            except DuplicateRecord:
                if _left(until) <= _LEAST:
                    raise
            fresh = True

    async def refresh(self, model: M, *, timeout: float | None = None) -> None:
        """Make the model what the primary holds of its record, past all caches.

        Raises:
            RecordNotFound: there is no such record any more; the model stays as it is.
            ReadUnavailable: the primary cannot say.
        """
        key = self._mapper.key_of(model)
        record = await self._gateway.find(key, timeout, fresh=True)
        if record is None:
            raise not_found(key)
        self._mapper.become(model, self._mapper.decode(record))

    # -- many at a time --------------------------------------------------------------------------

    async def create_many(self, models: Items[M], *, timeout: float | None = None) -> Results[Receipt]:
        """`create` for each model, batched; one result each.

        Like all many-forms it takes a list, an iterable or an async iterable, and works on it in
        windows; ``timeout`` is that of each item. It gives all results at the end: for those of a
        long stream, one by one, see `octopus_async.each`.
        """
        return await self._write_many(self._creation, models, timeout)

    async def read_many(self, ids: Items[Id], *, timeout: float | None = None) -> Results[M | None]:
        """`read` for each id, batched; one result each."""
        return await collected(in_windows(lambda id_: Call(partial(self.read, id_, timeout=timeout)), ids))

    async def get_many(self, ids: Items[Id], *, timeout: float | None = None) -> Results[M]:
        """`get_one` for each id, batched; one result each."""
        return await collected(in_windows(lambda id_: Call(partial(self.get_one, id_, timeout=timeout)), ids))

    async def exists_many(self, ids: Items[Id], *, timeout: float | None = None) -> Results[bool]:
        """`exists` for each id, batched; one result each."""
        return await collected(in_windows(lambda id_: Call(partial(self.exists, id_, timeout=timeout)), ids))

    async def update_many(
        self,
        models: Items[M],
        *,
        only: Collection[str] | None = None,
        optimistic: bool = False,
        timeout: float | None = None,
    ) -> Results[Receipt]:
        """`update` for each model, batched; one result each.

        With ``optimistic`` each only if its own version is still the stored one.
        """

        def version_of(model: M) -> str | None:
            # What was never read has no version, and must not pass for unconditional.
            return (model.version or NO_VERSION) if optimistic else None

        if only is None:
            return await self._write_many(
                lambda model: self._replacement(model, version_of(model)), models, timeout
            )
        return await collected(
            in_windows(
                lambda model: Call(partial(self._update_only, model, only, version_of(model), timeout)),
                models,
            )
        )

    async def upsert_many(self, models: Items[M], *, timeout: float | None = None) -> Results[Receipt]:
        """`upsert` for each model, batched; one result each."""
        return await collected(
            in_windows(lambda model: Call(partial(self.upsert, model, timeout=timeout)), models)
        )

    async def delete_many(self, targets: Items[M | Id], *, timeout: float | None = None) -> Results[Receipt]:
        """`delete` for each model or id, batched; one result each."""
        return await collected(
            in_windows(lambda target: Call(partial(self.delete, target, timeout=timeout)), targets)
        )

    # -- drafts ----------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._gateway.wall(), UTC)

    def _creation(self, model: M) -> _Write:
        now = self._now()
        fields, payload = self._mapper.encode(model, now, create=True)
        draft = Draft(
            Kind.CREATE,
            self._mapper.key_of(model),
            NO_VERSION,
            fields,
            payload,
            may_conflict=self._mapper.may_be_refused(model),
            provisional=model.__octopus_mapping__.provisional,
        )
        return _Write(draft, now)

    def _replacement(self, model: M, if_version: str | None, *, born: str | None = None) -> _Write:
        now = self._now()
        fields, payload = self._mapper.encode(model, now, create=False)
        draft = Draft(
            Kind.UPDATE,
            self._mapper.key_of(model),
            self._mapper.stamp(model).born if born is None else born,
            fields,
            payload,
            if_version=if_version,
            may_conflict=self._mapper.schema.constrained,
            provisional=model.__octopus_mapping__.provisional,
        )
        return _Write(draft, now)

    def _removal(self, target: M | Id, if_version: str | None) -> Draft:
        if isinstance(target, KeyedModel):
            key, born = self._mapper.key_of(target), self._mapper.stamp(target).born
        else:
            key, born = self._mapper.key(target), NO_VERSION
        return Draft(Kind.DELETE, key, born, if_version=if_version)

    async def _write(self, write: _Write, model: M, seconds: float | None, state: M | None = None) -> Receipt:
        """Write a draft; the model learns what was stored, and takes over ``state`` if there is one."""
        receipt, operation = await self._gateway.write(write.draft, seconds)
        if state is not None:
            self._mapper.become(model, state)
        born = operation.born or self._mapper.stamp(model).born
        self._mapper.restamped(model, write.draft.fields or {}, Stamp(operation.version, born), write.now)
        return receipt

    async def _write_many(
        self, draft: Callable[[M], _Write], models: Items[M], seconds: float | None
    ) -> Results[Receipt]:
        def prepare(model: M) -> Call[Receipt]:
            write = draft(model)
            return Call(partial(self._write, write, model, seconds), len(write.draft.payload or b""))

        return await collected(in_windows(prepare, models))

    # -- read, change, write ---------------------------------------------------------------------

    async def _stored(self, model: M, until: float, *, fresh: bool) -> Record | None:
        """What is stored of a model's id; nobody is asked for what was generated just now."""
        if not self._mapper.may_be_refused(model):
            return None
        return await self._gateway.find(self._mapper.key_of(model), _left(until), fresh=fresh)

    def _upserting(self, model: M, stored: Record | None) -> tuple[_Write, M | None]:
        if stored is None:
            return self._creation(model), None
        names = set(model.persisted_fields()) - {"id"}
        if "created_at" not in model.model_fields_set:
            names.discard("created_at")
        state = self._mapper.merged(stored, model, names)
        return self._replacement(state, None), state

    async def _update_only(
        self, model: M, only: Collection[str], if_version: str | None, seconds: float | None
    ) -> Receipt:
        names = self._mapper.names(only)
        key, until, pause = self._mapper.key_of(model), self._gateway.deadline(seconds), _PAUSE
        fresh = False
        while True:
            record = await self._gateway.find(key, _left(until), fresh=fresh)
            if record is None:
                raise not_found(key)
            try:
                if if_version is not None and record.version != if_version:
                    raise stale(key, record.version)
                state = self._mapper.merged(record, model, names)
                write = self._replacement(state, record.version)
                return await self._write(write, model, _left(until), state)
            except StaleRecord:
                # A cache may be behind; what the primary itself had is only behind a change since.
                if fresh and (if_version is not None or _left(until) <= _LEAST):
                    raise
            if fresh:
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
                pause = min(_LONGEST_PAUSE, 2 * pause)
            fresh = True


def _left(until: float) -> float:
    """The seconds until a moment of the loop's clock."""
    return max(_LEAST, until - asyncio.get_running_loop().time())


def model_of(dao: type[Dao[Any]]) -> type[KeyedModel]:
    """The model of a Dao subclass. Raises `ConfigurationError` if it names none."""
    if dao.model is None:
        msg = f"{dao.__name__} does not say its model: derive it from Dao[YourModel]"
        raise ConfigurationError(msg)
    return dao.model
