"""Futures of the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def future_of(_: type[T]) -> asyncio.Future[T]:
    """A new future of the running loop, for a result of that type."""
    return asyncio.get_running_loop().create_future()


def all_of(futures: Sequence[asyncio.Future[None]]) -> asyncio.Future[None]:
    """Done when all are, and failed as soon as one has; cancelling it cancels none of them."""
    whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = len(futures)

    def one_done(future: asyncio.Future[None]) -> None:
        nonlocal left
        left -= 1
        error = future.exception()
        if whole.done():
            return
        if error is not None:
            whole.set_exception(error)
        elif not left:
            whole.set_result(None)

    for future in futures:
        future.add_done_callback(one_done)
    if not futures:
        whole.set_result(None)
    return whole


def in_turn(
    one: Callable[[], asyncio.Future[None]], other: Callable[[], asyncio.Future[None]], result: T
) -> asyncio.Future[T]:
    """Begin ``one`` now and ``other`` once that is done; gives ``result`` then, or the first error."""
    whole: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def finish(future: asyncio.Future[None]) -> None:
        error = future.exception()
        if whole.done():
            return
        if error is not None:
            whole.set_exception(error)
        else:
            whole.set_result(result)

    def go_on(future: asyncio.Future[None]) -> None:
        if future.exception() is not None:
            finish(future)
        else:
            other().add_done_callback(finish)

    one().add_done_callback(go_on)
    return whole
