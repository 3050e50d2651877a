"""Cuts a call into several: by the limits of a backend, or by model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from octopus_async.backend import Capabilities
from octopus_async.record import Key, Operation

T = TypeVar("T")
R = TypeVar("R")


async def by_model(
    items: Sequence[T], keys: Sequence[Key], call: Callable[[Sequence[T]], Awaitable[Sequence[R]]]
) -> Sequence[R]:
    """Make a call for each model: one whose table does not fit must not fail the others."""
    results: dict[int, R] = {}
    for model in sorted({key.model for key in keys}):
        chosen = [index for index, key in enumerate(keys) if key.model == model]
        results.update(zip(chosen, await call([items[index] for index in chosen]), strict=True))
    return [results[index] for index in range(len(items))]


def parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """``items`` in parts of at most ``size``."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def batches(operations: Sequence[Operation], limits: Capabilities) -> Iterator[Sequence[Operation]]:
    """``operations`` in batches within a backend's limits of count and bytes."""
    batch: list[Operation] = []
    room = limits.batch_bytes
    for operation in operations:
        size = len(operation.payload or b"")
        if batch and (len(batch) == limits.write_batch or size > room):
            yield batch
            batch, room = [], limits.batch_bytes
        batch.append(operation)
        room -= size
    if batch:
        yield batch
