"""The Dao: what an application awaits to create, read, update and delete one kind of model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, cast, get_args, get_origin
from uuid import UUID

from octopus_async.errors import ConfigurationError, OctopusError
from octopus_async.mapper import Mapper
from octopus_async.model import KeyedModel, Stamp
from octopus_async.record import NO_VERSION, Key, Kind, Operation, not_found
from octopus_async.strategies.receipt import Receipt
from octopus_async.strategies.writer import Draft

M = TypeVar("M", bound=KeyedModel)
T = TypeVar("T")
Id = UUID | str | int
_AT_ONCE = 1000


class Result(NamedTuple, Generic[T]):
    """What became of one item of a many-form: a value, or the error that a single call would raise."""

    value: T | None
    error: OctopusError | None

    def unwrap(self) -> T:
        """The value; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


class Results(tuple[Result[T], ...], Generic[T]):
    """What became of each item of a many-form, in the order in which they were given."""

    __slots__ = ()

    @property
    def errors(self) -> list[OctopusError]:
        """The errors of those items that failed."""
        return [result.error for result in self if result.error is not None]

    def unwrap(self) -> list[T]:
        """All values; raises an `ExceptionGroup` of the errors if any item failed."""
        errors = self.errors
        if errors:
            msg = f"{len(errors)} of {len(self)} failed"
            raise ExceptionGroup(msg, errors)
        return [cast("T", result.value) for result in self]


class Gateway(Protocol):
    """What a Dao needs of its manager: the ways of reads and writes for its model."""

    def find(self, key: Key, deadline: float | None) -> Awaitable[Any]:
        """The living record of a key, or None."""
        ...

    def write(self, draft: Draft, deadline: float | None) -> Awaitable[tuple[Receipt, Operation]]:
        """Write a draft, beginning at once; goes on if the caller is cancelled."""
        ...

    def wall(self) -> float:
        """Seconds since 1970."""
        ...


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
        return await self._write(draft, model, now, timeout)

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
        if_version: str | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Replace the record by the model's state. The last update wins, unless ``if_version``.

        Parameters:
            model: the model, read before or made by hand.
            if_version: the version that has to be stored, for instance ``book.version``.
            timeout: seconds for the whole call.

        Raises:
            RecordNotFound: there is no such record.
            StaleRecord: another version is stored; nothing was changed.
            ConstraintViolated, InvalidRecord: as for `create`.
            WriteUnavailable: neither the primary nor the journal took it, or ``if_version``
                cannot be checked because the primary cannot be asked.
        """
        now = self._now()
        fields, payload = self._mapper.encode(model, now, create=False)
        draft = Draft(
            Kind.UPDATE,
            self._mapper.key_of(model),
            self._mapper.stamp(model).born,
            fields,
            payload,
            if_version=if_version,
            may_conflict=self._mapper.schema.constrained,
            provisional=model.__octopus_mapping__.provisional,
        )
        return await self._write(draft, model, now, timeout)

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
        if isinstance(target, KeyedModel):
            key, born = self._mapper.key_of(target), self._mapper.stamp(target).born
        else:
            key, born = self._mapper.key(target), NO_VERSION
        draft = Draft(Kind.DELETE, key, born, if_version=if_version)
        receipt, _ = await self._gateway.write(draft, timeout)
        return receipt

    # -- many at a time --------------------------------------------------------------------------

    async def create_many(self, models: Iterable[M], *, timeout: float | None = None) -> Results[Receipt]:
        """`create` for each model, batched; one result each."""
        return await _each(lambda model: self.create(model, timeout=timeout), models)

    async def read_many(self, ids: Iterable[Id], *, timeout: float | None = None) -> Results[M | None]:
        """`read` for each id, batched; one result each."""
        return await _each(lambda id_: self.read(id_, timeout=timeout), ids)

    async def get_many(self, ids: Iterable[Id], *, timeout: float | None = None) -> Results[M]:
        """`get_one` for each id, batched; one result each."""
        return await _each(lambda id_: self.get_one(id_, timeout=timeout), ids)

    async def exists_many(self, ids: Iterable[Id], *, timeout: float | None = None) -> Results[bool]:
        """`exists` for each id, batched; one result each."""
        return await _each(lambda id_: self.exists(id_, timeout=timeout), ids)

    async def update_many(
        self,
        models: Iterable[M],
        *,
        optimistic: bool = False,
        timeout: float | None = None,
    ) -> Results[Receipt]:
        """`update` for each model, batched; one result each.

        With ``optimistic`` each only if its own version is still the stored one.
        """
        return await _each(
            lambda model: self.update(
                # What was never read has no version, and must not pass for unconditional.
                model,
                if_version=(model.version or NO_VERSION) if optimistic else None,
                timeout=timeout,
            ),
            models,
        )

    async def delete_many(
        self, targets: Iterable[M | Id], *, timeout: float | None = None
    ) -> Results[Receipt]:
        """`delete` for each model or id, batched; one result each."""
        return await _each(lambda target: self.delete(target, timeout=timeout), targets)

    # --------------------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._gateway.wall(), UTC)

    async def _write(self, draft: Draft, model: M, now: datetime, seconds: float | None) -> Receipt:
        receipt, operation = await self._gateway.write(draft, seconds)
        born = operation.born or self._mapper.stamp(model).born
        self._mapper.restamped(model, draft.fields or {}, Stamp(operation.version, born), now)
        return receipt


async def _each(call: Callable[[T], Awaitable[Any]], items: Iterable[T]) -> Results[Any]:
    """Await ``call`` for all items at once, some thousand at a time, so that they share batches."""
    results: list[Result[Any]] = []
    waiting = list(items)
    for start in range(0, len(waiting), _AT_ONCE):
        part = waiting[start : start + _AT_ONCE]
        results += await asyncio.gather(*(_caught(call, item) for item in part))
    return Results(results)


async def _caught(call: Callable[[T], Awaitable[Any]], item: T) -> Result[Any]:
    try:
        return Result(await call(item), None)
    except OctopusError as error:
        return Result(None, error)


def model_of(dao: type[Dao[Any]]) -> type[KeyedModel]:
    """The model of a Dao subclass. Raises `ConfigurationError` if it names none."""
    if dao.model is None:
        msg = f"{dao.__name__} does not say its model: derive it from Dao[YourModel]"
        raise ConfigurationError(msg)
    return dao.model
