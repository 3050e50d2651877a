"""Lets a fault of the scenario happen to a server, the disk or a process, and end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from octopus_async.testing.simulation.loop import Process
from octopus_async.testing.simulation.scenario import CACHE, DISK, PRIMARY, Fault
from octopus_async.testing.simulation.server import CacheServer, Server

if TYPE_CHECKING:
    from octopus_async.testing.simulation.world import Slot, World

_SOON = 0.1
_STEP = 0.0007
_LATEST = 20
_DELAYS = (0.0, 0.001, 0.003, 0.006, 0.02)


def begin(world: World, fault: Fault) -> None:
    """The fault begins; its end is scheduled."""
    world.say(f"fault: {fault.target} {fault.kind} {fault.amount or ''}")
    if fault.target.isdigit():
        _trouble_process(world, world.slots[int(fault.target)], fault)
    elif fault.target == DISK:
        share = fault.amount * (3.0 if fault.kind == "slow" else 1.0)
        setattr(world.disk.switches, fault.kind, share)
        world.loop.outside(setattr, world.disk.switches, fault.kind, 0.0, delay=fault.seconds)
    else:
        server = _server(world, fault.target)
        end = None if server is None else _trouble_server(server, fault)
        if end is not None:
            world.loop.outside(end, delay=fault.seconds)


def _server(world: World, name: str) -> Server | None:
    if name == PRIMARY:
        return world.primary
    return world.cache if name == CACHE else world.replica


def _trouble_server(server: Server, fault: Fault) -> Callable[[], object] | None:
    """Begin; gives what ends it."""
    if fault.kind == "hung":
        server.hang()
        return server.go_on
    if isinstance(server, CacheServer) and fault.kind in ("evict", "restart_empty", "restart_old"):
        return _trouble_cache(server, fault)
    was_boolean = isinstance(getattr(server.switches, fault.kind), bool)
    setattr(server.switches, fault.kind, True if was_boolean else fault.amount)
    if fault.kind == "down":
        server.break_connections()
    return partial(setattr, server.switches, fault.kind, False if was_boolean else 0.0)


def _trouble_cache(cache: CacheServer, fault: Fault) -> Callable[[], object] | None:
    if fault.kind == "evict":
        cache.evict(fault.amount)
        return None
    if fault.kind == "restart_old":
        cache.take_image()
        return cache.restart_old
    cache.switches.down = True
    cache.restart_empty()
    return partial(setattr, cache.switches, "down", False)  # noqa: FBT003 - a value to set


def _trouble_process(world: World, slot: Slot, fault: Fault) -> None:
    process = slot.process
    if fault.kind == "clock":
        slot.offset += fault.amount
    elif process is None or process.dead:
        return
    elif fault.kind == "pause":
        world.pauses.append((process.name, world.loop.time(), world.loop.time() + fault.seconds))
        world.loop.pause(process, fault.seconds)
    elif fault.kind == "power":
        for other in world.slots:
            world.crash(other, fault.seconds)
        world.disk.cut_power()
    elif fault.amount and slot.disk is not None:
        # Within a job of the journal's thread, if one comes soon.
        slot.disk.dies_in = int(fault.amount)
        world.loop.outside(world.crash, slot, fault.seconds, process, delay=_SOON)
    else:
        _crash_in_a_call(world, slot, fault, process, world.loop.time() + _SOON)


def _crash_in_a_call(world: World, slot: Slot, fault: Fault, process: Process, until: float) -> None:
    """Kill a process while it serves somebody, if that comes soon."""
    if slot.process is not process:
        return
    serves = any(
        call.process == process.name and call.responded is None for call in world.notes.calls[-_LATEST:]
    )
    if not serves and world.loop.time() < until:
        world.loop.outside(_crash_in_a_call, world, slot, fault, process, until, delay=_STEP)
    else:
        # In one of its steps, not always the first.
        world.loop.outside(_end_process, world, slot, fault, process, delay=world.random.choice(_DELAYS))


def _end_process(world: World, slot: Slot, fault: Fault, process: Process) -> None:
    if slot.process is process:
        world.crash(slot, fault.seconds)
        slot.gone = slot.gone or fault.kind == "die"
