"""Futures of the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
