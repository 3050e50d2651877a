"""A fork of a simulated process, for real: the child is asked what it holds, and whether it refuses."""

from __future__ import annotations

import os
import warnings
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from octopus_async.errors import ManagerClosed
from octopus_async.testing.simulation.client import MODELS, Item, Named

if TYPE_CHECKING:
    from octopus_async.manager import DaoManager
    from octopus_async.testing.simulation.world import Slot, World


def fork(world: World, slot: Slot) -> None:
    """Fork in the middle of whatever is going on; note what is wrong in the child.

    The child is the operating system's, with the library's own hooks; it ends at once, so that the
    run does not depend on it. Where there is no ``fork`` nothing happens.
    """
    if slot.manager is None or not hasattr(os, "fork"):
        return
    world.census["fork"] += 1
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Newer interpreters warn of threads that the child lacks: the simulation has none.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            os.write(writing, "\n".join(_wrong_in_child(world, slot, slot.manager)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    world.final.problems += [f"in the child of a fork: {line}" for line in said.splitlines()]


def _wrong_in_child(world: World, slot: Slot, manager: DaoManager) -> Iterator[str]:
    if slot.process is not None and (held := world.disk.open_files(slot.process)):
        yield f"it holds {held} descriptors of the journal, and their locks"
    items, named = (manager.dao(model) for model in MODELS)
    calls: dict[str, Coroutine[Any, Any, object]] = {
        "read": named.read("k0"),
        "create": items.create(Item(value="of a child")),
        "update": named.update(Named(id="k0", value="of a child")),
        "delete": named.delete("k0"),
    }
    for name, call in calls.items():
        try:
            call.send(None)
        except ManagerClosed:
            continue
        except BaseException as error:  # noqa: BLE001 - whatever else it is is wrong
            yield f"{name}: {error!r}"
        else:
            yield f"{name} went on"
