"""What is left in the end: in stores and caches, and in an idle manager, which must hold nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.cachevalue import record_of
from octopus_async.guard import Guard
from octopus_async.manager import DaoManager
from octopus_async.record import Key, Record
from octopus_async.testing.simulation.client import name_of
from octopus_async.testing.simulation.history import Row
from octopus_async.testing.simulation.loop import VirtualLoop
from octopus_async.testing.simulation.server import DatabaseServer

# The parts are private, and looked into all the same: that they are empty is the promise.
# ruff: noqa: SLF001


def leaks_of(manager: DaoManager) -> list[str]:
    """What is left, in words; empty for a manager that has nothing to do and holds nothing."""
    locks, reader = manager._locks, manager._reader
    held = {
        "locks of keys": locks._held,
        "unsettled keys": locks._unsettled,
        "waiters for writes to end": locks._ending,
        "shared searches": reader._fetches,
        "writes under way": manager._tasks._owned,
    }
    leaks = [f"{name}: {what}" for name, what in held.items() if what]
    for guard in manager._guards.values():
        leaks += [f"{guard.name}: {leak}" for leak in _leaks_of_guard(guard)]
    return leaks


def _leaks_of_guard(guard: Guard) -> list[str]:
    leaks: list[str] = []
    for name, lane in (
        ("reads", guard._read_lane),
        ("writes", guard._write_lane),
        ("fills", guard._fill_lane),
    ):
        held = {
            "calls sent": lane._sent,
            "calls queued": lane._queue,
            "chains of keys": lane._chains,
            "workers": lane._workers,
            "waiting bulk calls": lane._bulk_waiters,
        }
        leaks += [f"{name}: {what}: {len(held_there)}" for what, held_there in held.items() if held_there]
        if lane._bulks or lane.queued or lane.under_way:
            leaks.append(f"{name}: {lane._bulks} bulks, {lane.queued} queued, {lane.under_way} under way")
    return leaks


def rows_of(server: DatabaseServer) -> dict[str, Row]:
    """A durable store's records and tombstones, by the scenario's keys."""
    return {name_of(key): _row(record) for key, record in server.rows.items()}


def served(keys: Iterable[Key], serve: Callable[[Key], Record | None]) -> dict[str, Row]:
    """What a cache would serve, by the scenario's keys."""
    found = {name_of(key): serve(key) for key in keys}
    return {name: _row(record) for name, record in found.items() if record is not None}


def in_memory(memory: MemoryAdapter, loop: VirtualLoop, key: Key) -> Record | None:
    """What a cache in the process would serve; asking it would leave a lease."""
    entry = memory._entries.get(key)
    if entry is None or entry.expires <= loop.time() or entry.cell.marker:
        return None
    return record_of(key, entry.cell)


def _row(record: Record) -> Row:
    value = None if record.fields is None else str(record.fields.get("value"))
    return Row(record.version, record.born, value)
