"""A census of faults: how often each really struck, so that nobody can claim one that never happens.

What is counted is the harm done, not the intention: a crash counts as one within a call if a call
was cut by it, a late landing if a server carried out what its sender had given up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeAlias

from octopus_async.testing.simulation.history import OPEN, UNKNOWN, History

Census: TypeAlias = "Counter[str]"

FAULTS: dict[str, str] = {
    "primary down": "server: a request refused or cut, and the rows there again afterwards",
    "primary hung": "server: a request that lies there until it goes on, or is lost",
    "primary slow": "server: a request delayed",
    "primary error": "server: a request answered with an error",
    "primary lost acknowledgement": "server: a request carried out, and its answer lost",
    "primary read-only": "server: a write refused",
    "primary full": "server: a write that needs room refused",
    "primary wrong schema": "server: a table that lacks a column",
    "wrong schema at replay": "server: the same, met by a replayed operation",
    "replica down": "server",
    "replica hung": "server",
    "replica slow": "server",
    "replica error": "server",
    "replica lost acknowledgement": "server",
    "replica read-only": "server",
    "replica full": "server",
    "cache down": "server",
    "cache hung": "server",
    "cache slow": "server",
    "cache error": "server",
    "cache lost acknowledgement": "server",
    "cache full": "server: the new value refused, the old one gone, as memcached does",
    "cache half a batch": "server: some of a batch's answers lost",
    "late landing": "server: a write carried out after its sender had stopped waiting",
    "landing after death": "server: a write carried out after its sender had died",
    "eviction": "cache: a value forgotten",
    "cache restarted empty": "cache: with values that are gone",
    "cache restarted with old contents": "cache: a key older, or there again",
    "disk error": "disk: a call fails with EIO",
    "failed fsync": "disk: and the pages are lost",
    "disk full": "disk: ENOSPC",
    "short write": "disk: a part of a write",
    "slow disk": "disk: a job of the journal delayed",
    "power cut": "machine: every process dies, what was not synced is lost",
    "torn tail": "disk: a power cut in the middle of a write",
    "pause": "process: stopped for a while, as by SIGSTOP",
    "clock jump": "process: its wall clock is set, forward or back",
    "clock set back across a restart": "process: the successor's clock is behind the predecessor's",
    "crash": "process: killed, no matter where",
    "crash within a call": "process: killed at one of the steps of a caller's operation",
    "crash within a replay": "process: killed at one of the steps of a replay",
    "crash within a disk call": "process: killed on the journal's thread",
    "restart on pending entries": "process: a journal opened that owes something",
    "adoption": "process: the journal of a dead process taken over",
    "adoption of pending entries": "process: and something was owed in it",
    "fork": "process: forked for real; the child is asked what it holds and whether it refuses",
    "cancellation": "client: a caller cancelled before it was answered",
    "same own id by two processes": "client: creates of one own id by different processes",
    "duplicate refused": "client: a create told that there is one already",
    "re-creation": "client: a create acknowledged after a delete of the same key",
    "conflict at replay": "client: an acknowledged write found refused at replay, a dead letter",
    "unit of work": "client: several records in one entry of the journal",
    "unit cut": "client: one that was never answered, by a crash or a failed disk",
}
"""Each kind of fault, and where it is injected."""


def struck_clients(history: History) -> Census:
    """What happened to the callers of a run, as far as they can tell."""
    census: Census = Counter()
    calls = history.calls
    census["cancellation"] = sum(call.cancelled_at is not None for call in calls)
    census["duplicate refused"] = sum(call.error.startswith("DuplicateRecord") for call in calls)
    census["conflict at replay"] = sum(letter.target == "primary" for letter in history.final.dead)
    census["unit of work"] = len(history.final.units)
    cut = {call.key for call in calls if call.result in (OPEN, UNKNOWN)}
    census["unit cut"] = sum(not cut.isdisjoint(unit) for unit in history.final.units)
    for key in {call.key for call in calls if call.key.startswith("k")}:
        creates = [call for call in calls if call.key == key and call.kind == "create"]
        deletes = [call for call in calls if call.key == key and call.kind == "delete" and call.acknowledged]
        census["same own id by two processes"] += len({call.process for call in creates}) > 1
        for create in creates:
            before = any(str(delete.version) < str(create.version) for delete in deletes)
            census["re-creation"] += create.acknowledged and before
    return census


def table(struck: Census, seeds: Census) -> Iterator[str]:
    """The census as lines of a Markdown table.

    Parameters:
        struck: how often each fault struck.
        seeds: in how many seeds it did.
    """
    yield "| fault | where, and what counts | struck | in seeds |"
    yield "|---|---|--:|--:|"
    for name, where in FAULTS.items():
        yield f"| {name} | {where} | {struck[name]:,} | {seeds[name]:,} |"
