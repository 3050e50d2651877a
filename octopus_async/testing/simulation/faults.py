"""Lets a fault of the scenario happen to a server, the disk or a process, and end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from octopus_async.testing.simulation.cacheserver import CacheServer
from octopus_async.testing.simulation.fork import fork
from octopus_async.testing.simulation.loop import Process
from octopus_async.testing.simulation.scenario import CACHE, DISK, PATIENCE, PRIMARY, Fault
from octopus_async.testing.simulation.server import Server

if TYPE_CHECKING:
    from octopus_async.testing.simulation.world import Slot, World


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
        world.census["clock jump"] += 1
    elif fault.kind == "clock_restart":
        slot.offset_at_restart += fault.amount
    elif process is None or process.dead:
        return
    elif fault.kind == "pause":
        world.census["pause"] += 1
        world.pauses.append((process.name, world.loop.time(), world.loop.time() + fault.seconds))
        world.loop.pause(process, fault.seconds)
    elif fault.kind == "fork":
        fork(world, slot)
    elif fault.kind == "power":
        _cut_power_soon(world, slot, fault)
    else:
        _crash_soon(world, slot, fault, process)


def _cut_power_soon(world: World, slot: Slot, fault: Fault) -> None:
    """Let every process die, and the disk with them: while it is written to, if that comes soon."""
    cut: list[bool] = []

    def cut_power() -> None:
        if cut or world.is_healed:
            return
        cut.append(True)
        world.census["power cut"] += 1
        for other in world.slots:
            world.crash(other, fault.seconds)
        world.disk.cut_power()

    if fault.amount and slot.disk is not None:
        slot.disk.dies_at_sync, slot.disk.on_death = int(fault.amount), cut_power
    world.loop.outside(cut_power, delay=PATIENCE[fault.kind] if fault.amount else 0.0)


def _crash_soon(world: World, slot: Slot, fault: Fault, process: Process) -> None:
    """Kill a process within what it is to be killed in, or anywhere if that does not come soon."""

    def crash() -> None:
        if slot.process is process and not process.dead and not world.is_healed:
            world.crash(slot, fault.seconds)
            slot.gone = slot.gone or fault.kind == "die"

    steps = int(fault.amount) or world.random.randint(1, 24)
    process.on_doom = crash
    if fault.kind == "crash_disk" and slot.disk is not None:
        slot.disk.dies_in, slot.disk.on_death = steps, crash
    else:
        process.armed["replay" if fault.kind == "crash_replay" else "write"] = steps
    world.loop.outside(crash, delay=PATIENCE[fault.kind])
