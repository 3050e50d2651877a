"""Many calls at once, in windows: of a list, an iterable or a stream, with an outcome for each item."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from functools import partial
from typing import Generic, NamedTuple, TypeVar, cast

from octopus_async.errors import ConfigurationError, OctopusError

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")

WINDOW = 1000
_WINDOW_BYTES = 16 * 1024 * 1024


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


class Call(NamedTuple, Generic[T]):
    """A call that is ready to be made, and the bytes of what it holds until it is done."""

    make: Callable[[], Awaitable[T]]
    size: int = 0


async def each(
    call: Callable[[I], Awaitable[T]],
    items: Iterable[I] | AsyncIterable[I],
    *,
    window: int = WINDOW,
) -> AsyncGenerator[tuple[I, Result[T]]]:
    """Await ``call`` for each item, so many at once that they share batches, in constant memory.

    ::

        async for book, result in each(books.create, rows_of(file)):
            if result.error is not None:
                print(book.title, result.error)

    Parameters:
        call: a method of a Dao, or any function of one item.
        items: a list, an iterable, or a stream; it is read as far as the window goes.
        window: how many items are under way at the same time. The next window begins when
            the results of this one have been taken.

    Returns:
        Each item with its result, in the order of the items. What ``items`` itself raises is
        raised here; what it gave before that, and was not given out yet, was not begun.

    Raises:
        ConfigurationError: the window is none.
    """
    async with aclosing(in_windows(lambda item: Call(partial(call, item)), items, window)) as pairs:
        async for pair in pairs:
            yield pair


async def in_windows(
    prepare: Callable[[I], Call[T]], items: Iterable[I] | AsyncIterable[I], window: int = WINDOW
) -> AsyncGenerator[tuple[I, Result[T]]]:
    """As `each`, where a window is bounded by bytes too. ``prepare`` may raise an item's error."""
    if window < 1:
        raise ConfigurationError(f"window is a number of items of at least 1, not {window!r}")
    part: list[tuple[I, Call[T] | OctopusError]] = []
    size = 0
    async with aclosing(_stream(items)) as stream:
        async for item in stream:
            call = _prepared(prepare, item)
            part.append((item, call))
            size += 0 if isinstance(call, OctopusError) else call.size
            if len(part) >= window or size >= _WINDOW_BYTES:
                for pair in await _made(part):
                    yield pair
                part, size = [], 0
    for pair in await _made(part):
        yield pair


async def collected(pairs: AsyncGenerator[tuple[I, Result[T]]]) -> Results[T]:
    """The results alone, all of them."""
    return Results([result async for _, result in pairs])


async def _stream(items: Iterable[I] | AsyncIterable[I]) -> AsyncGenerator[I]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _prepared(prepare: Callable[[I], Call[T]], item: I) -> Call[T] | OctopusError:
    try:
        return prepare(item)
    except OctopusError as error:
        return error


async def _made(part: list[tuple[I, Call[T] | OctopusError]]) -> list[tuple[I, Result[T]]]:
    results = await asyncio.gather(*(_result(call) for _, call in part))
    return [(item, result) for (item, _), result in zip(part, results, strict=True)]


async def _result(call: Call[T] | OctopusError) -> Result[T]:
    if isinstance(call, OctopusError):
        return Result(None, call)
    try:
        return Result(await call.make(), None)
    except OctopusError as error:
        return Result(None, error)
