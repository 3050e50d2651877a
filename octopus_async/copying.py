"""Copies a model's records from one backend into another: as often as wanted, and beside live writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast

from pydantic_core import from_json, to_json

from octopus_async.backend import Backend
from octopus_async.errors import BackendTimeout, ConfigurationError, OctopusError, Unavailable
from octopus_async.record import NOT_TAKEN, Key, Kind, Mode, Operation, Outcome, Record, Status

_BATCH = 500
_MOST_REFUSED = 1000
_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far the copy of one model has come.

    Attributes:
        model: the model's name.
        read: how many records were read, tombstones among them.
        written: how many of them the target has taken.
        newer: how many it has already, or has something newer for.
        refused: those that it refused, with the reason; a constraint of its own, most often.
        finished: whether this model is done.
        point: where to go on from; give it to another copy as ``resume``. Empty for the beginning,
            also in the end: what is copied once more then is what was written meanwhile.
    """

    model: str
    read: int = 0
    written: int = 0
    newer: int = 0
    refused: tuple[tuple[Key, OctopusError], ...] = ()
    finished: bool = False
    point: str = ""


@dataclass(slots=True)
class Copy:
    """One model on its way. The target looks at versions alone: nothing newer is replaced.

    Parameters:
        source: the backend that is read.
        target: the one that is written.
        model: the model's name.
        version: for records that have none, as other programs wrote them: below all that is
            written from now on.
        resume: a `CopyProgress.point` of an earlier copy; empty for the beginning.
        patience: seconds for which a backend that is away is waited for.

    Raises:
        ConfigurationError: ``resume`` is no such point.
    """

    source: Backend
    target: Backend
    model: str
    version: str
    resume: str = ""
    patience: float = 30.0
    _last: Record | None = None
    _point: str = ""
    _read: int = 0
    _written: int = 0
    _newer: int = 0
    _refused: dict[Key, tuple[Operation, OctopusError]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.resume:
            self._last, self._point = _record_at(self.resume, self.model), self.resume

    async def run(self) -> AsyncGenerator[CopyProgress]:
        """Copy, and tell after each batch.

        Raises:
            OperationNotSupported: the source cannot list its records.
            RecordRejected: the target refuses more than a thousand of them.
            Unavailable: a backend was away for longer than ``patience``; go on with ``resume`` later.
        """
        loop = asyncio.get_running_loop()
        pause, moved = _PAUSE, loop.time()
        while True:
            try:
                async with aclosing(self._pages()) as pages:
                    async for _ in pages:
                        pause, moved = _PAUSE, loop.time()
                        yield self._progress()
                await self._ask_again()
                break
            except Unavailable:
                if loop.time() - moved >= self.patience:
                    raise
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
        yield self._progress(finished=True)

    def _progress(self, *, finished: bool = False) -> CopyProgress:
        refused = tuple((key, error) for key, (_, error) in self._refused.items())
        point = "" if finished else self._point
        return CopyProgress(self.model, self._read, self._written, self._newer, refused, finished, point)

    async def _pages(self) -> AsyncGenerator[None]:
        records = self.source.scan(self.model, batch=_BATCH, beyond=self._last)
        async with aclosing(cast("AsyncGenerator[Record]", records)):
            while page := await self._next_page(records):
                await self._write([_operation_of(record, self.version) for record in page])
                self._read += len(page)
                self._last = page[-1]
                if not self._refused:  # whoever goes on later asks again for what was refused
                    self._point = _point_of(self._last)
                yield

    async def _next_page(self, records: AsyncIterator[Record]) -> list[Record]:
        page: list[Record] = []
        try:
            async with asyncio.timeout(self.patience):
                async for record in records:
                    page.append(record)
                    if len(page) == _BATCH:
                        break
        except TimeoutError:
            name = self.source.name
            message = f"backend {name} did not list its records of {self.model} within {self.patience:g} s"
            raise BackendTimeout(message, backend=name) from None
        return page

    async def _write(self, operations: Sequence[Operation]) -> None:
        for operation, outcome in zip(operations, await self._apply(operations), strict=True):
            self._refused.pop(operation.key, None)
            if outcome.error is not None:
                self._refused[operation.key] = operation, outcome.error
            self._written += outcome.status is Status.APPLIED
            self._newer += outcome.status is Status.SUPERSEDED
        if len(self._refused) > _MOST_REFUSED:
            await self._ask_again()
            if self._refused:
                raise next(error for _, error in self._refused.values())

    async def _ask_again(self) -> None:
        """A record that came later may have held a value that has to be unique, and was moved on."""
        operations = [operation for operation, _ in self._refused.values()]
        for operation, outcome in zip(operations, await self._apply(operations), strict=True):
            if outcome.error is None:
                del self._refused[operation.key]
                self._written += 1

    async def _apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        outcomes = await self.target.apply(operations, Mode.MIRROR)
        for outcome in outcomes:
            if outcome.status in NOT_TAKEN and outcome.error is not None:
                raise outcome.error
        return outcomes


def _operation_of(record: Record, version: str) -> Operation:
    kind = Kind.DELETE if record.fields is None else Kind.UPDATE
    payload = None if record.fields is None else to_json(record.fields)
    return Operation(
        kind, record.key, record.version or version, record.born or version, record.fields, payload
    )


def _point_of(record: Record) -> str:
    alive = record.fields is not None
    return to_json([record.key.model, record.key.id, record.version, alive]).decode()


def _record_at(point: str, model: str) -> Record:
    try:
        name, id_, version, alive = from_json(point)
    except (ValueError, TypeError):
        name, id_, version, alive = None, None, None, None
    if name != model or not isinstance(id_, str) or not isinstance(version, str):
        raise ConfigurationError(f"not a point at which a copy of {model} could go on: {point[:80]!r}")
    return Record(Key(model, id_), version, version, {} if alive else None)
