"""What backends still have to apply, in memory: the newest of a key at once, the oldest work in order. Pure.

A million pending operations must neither fill the memory nor stall the garbage collector, so an
entry is one byte string and four bytes in an array; what entries have in common is kept once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeAlias

from octopus_async.backend import PendingUnit, Run
from octopus_async.journal.batch import Batch
from octopus_async.journal.coalesce import Pending, alone, coalesce
from octopus_async.journal.format import Range, ranges_of
from octopus_async.journal.hot import HotKey
from octopus_async.journal.item import (
    Blob,
    Item,
    at_of,
    blob_of,
    item_of_blob,
    operation_of,
    sequence_of,
    version_of,
)
from octopus_async.journal.queue import KeyQueue
from octopus_async.journal.traits import TRAITS, index_of, index_without
from octopus_async.journal.units import Units
from octopus_async.record import Operation

Blobs: TypeAlias = "Blob | tuple[Blob, ...] | HotKey"
"""The pending operations of a key in the order of their versions."""

_SHARDS = 48
"""Dictionaries over which keys are spread: growing one of them does not stop the event loop for long."""

_FEW = 8
"""So many blobs of a key are kept in a tuple, which the garbage collector does not look into."""

_PAGE = 4096
_MOST_IN_RUN = 4096


class _Target:
    """What one target has not applied: how many entries, and of which keys, as they came to be owed.

    A key leaves the queue when it comes to the front and is owed no more. Those that are set aside
    wait in queues of their own, by the reason for it.
    """

    __slots__ = ("aside", "owed", "queue")

    def __init__(self) -> None:
        self.aside: dict[str, KeyQueue] = {}
        self.owed = 0
        self.queue = KeyQueue()


class Overlay:
    """Every pending entry, by key and in order, with the targets that have not applied it yet."""

    def __init__(self) -> None:
        self.pending = 0
        self._stale = False
        self._shards: list[dict[bytes, Blobs]] = [{} for _ in range(_SHARDS)]
        # For each number the index of its traits; behind them, how many are pending.
        self._pages: dict[int, array[int]] = {}
        self._targets: dict[str, _Target] = {}
        self._owing: dict[int, list[_Target]] = {}
        self.units = Units()

    def add(self, sequence: int, item: Item) -> None:
        """Take in an entry that is owed to somebody."""
        key, index = item.key, item.shared
        self._page(sequence // _PAGE)[sequence % _PAGE] = index
        self._count(sequence // _PAGE, 1)
        owing = self._owing.get(index) or self._owing_of(index)
        shard = self._shards[hash(key) % _SHARDS]
        for target in owing:
            target.owed += 1
            if key not in shard:
                target.queue.put(key)
        self._keep(shard, key, blob_of(sequence, item), index)

    def bind(self, sequence: int, keys: Sequence[bytes]) -> None:
        """The entries of these keys, numbered from ``sequence`` on, belong together."""
        self.units.bind(sequence, keys)

    def unit(self, target: str, sequence: int) -> PendingUnit:
        """What ``target`` owes of the unit of work of which an entry is a part."""
        runs: list[Run] = []
        ready = True
        for number, key in self.units.members(sequence):
            if self.is_owed(number, target):
                first = next(self.entries(key, target))
                ready = ready and sequence_of(first.blob) == number
                runs.append(alone(key, first)._replace(unit=self.units.of(number)))
        return PendingUnit(tuple(runs), ready, self.units.is_broken(sequence))

    def add_batch(self, batch: Batch) -> None:
        """Take in many entries at once."""
        sequence, index, left = batch.sequence, batch.shared, len(batch.keys)
        while left:
            slot = sequence % _PAGE
            count = min(left, _PAGE - slot)
            self._page(sequence // _PAGE)[slot : slot + count] = array("I", [index]) * count
            self._count(sequence // _PAGE, count)
            sequence, left = sequence + count, left - count
        shards, fresh = self._shards, list[bytes]()
        owing = self._owing.get(index) or self._owing_of(index)
        for key, blob in zip(batch.keys, batch.blobs, strict=True):
            shard = shards[hash(key) % _SHARDS]
            if shard.setdefault(key, blob) is blob:
                fresh.append(key)
            else:
                self._keep(shard, key, blob, index)
        for target in owing:
            target.owed += len(batch.keys)
            target.queue.put_all(fresh)

    def newest(self, key: bytes, target: str) -> Operation | None:
        """The operation of the greatest version that ``target`` has not applied yet."""
        blobs = self._shards[hash(key) % _SHARDS].get(key)
        last = self._last(blobs, target) if blobs is not None else None
        return operation_of(key, last.blob, last.traits) if last else None

    def owes(self, target: str) -> int:
        """How many entries ``target`` has not applied yet."""
        known = self._targets.get(target)
        return 0 if known is None else known.owed

    def owes_key(self, target: str, key: bytes) -> bool:
        """Whether ``target`` has not applied everything known of ``key``."""
        blobs = self._shards[hash(key) % _SHARDS].get(key)
        return blobs is not None and self._last(blobs, target) is not None

    def owes_version(self, target: str, key: bytes, version: str) -> bool:
        """Whether ``target`` has not applied the operation of ``key`` at ``version`` yet."""
        wanted = version.encode()
        return any(version_of(pending.blob) == wanted for pending in self.entries(key, target))

    def doubts(self, target: str, key: bytes) -> bool:
        """Whether ``target`` may still refuse the newest that it has not applied yet of ``key``."""
        blobs = self._shards[hash(key) % _SHARDS].get(key)
        last = self._last(blobs, target) if blobs is not None else None
        return last is not None and last.traits.provisional

    def owed_by_target(self) -> dict[str, int]:
        """How many entries each target has not applied yet, where there are any."""
        return {name: target.owed for name, target in self._targets.items() if target.owed}

    def is_owed(self, sequence: int, target: str) -> bool:
        """Whether ``target`` has not applied that entry yet."""
        return target in TRAITS[self._index(sequence)].targets

    def entries(self, key: bytes, target: str) -> Iterator[Pending]:
        """What ``target`` has not applied yet of a key, in the order of versions."""
        blobs = self._shards[hash(key) % _SHARDS].get(key, ())
        for blob in blobs.owed_by(target) if isinstance(blobs, HotKey) else _each(blobs):
            traits = TRAITS[self._index(sequence_of(blob))]
            if target in traits.targets:
                yield Pending(blob, traits)

    def runs(self, target: str, limit: int) -> list[Run]:
        """The oldest work owed to ``target``: one run for each of at most ``limit`` keys."""
        queue, passed, seen = self._target(target).queue, list[bytes](), set[bytes]()
        runs: list[Run] = []
        while queue and len(runs) < limit:
            key = queue.take()
            blobs = self._shards[hash(key) % _SHARDS].get(key)
            last = self._last(blobs, target) if blobs is not None else None
            if last is None:
                continue
            passed.append(key)
            if key not in seen and not self.units.holds_back(key):
                seen.add(key)
                if blobs is last.blob:
                    run = alone(key, last)
                else:
                    run = coalesce(key, islice(self.entries(key, target), _MOST_IN_RUN))
                unit = self.units.of(run.sequences[0])
                runs.append(run._replace(unit=unit) if unit else run)
        queue.put_back(passed)
        return runs

    def set_aside(self, target: str, keys: Iterable[bytes], reason: str) -> None:
        """Give no run of these, which `runs` has just given, until they are brought back."""
        known, passed = self._target(target), list[bytes]()
        aside = known.aside.setdefault(reason, KeyQueue())
        left = {key for key in keys if self.owes_key(target, key)}
        while left and known.queue:
            key = known.queue.take()
            if key in left:
                left.discard(key)
                aside.put(key)
            else:
                passed.append(key)
        known.queue.put_back(passed)

    def bring_back(self, target: str, reason: str, least: int) -> None:
        """Give runs of the first ``least`` keys, or a few more, that were set aside for that reason."""
        known = self._target(target)
        if reason in known.aside:
            known.queue.take_over(known.aside[reason], least)
            if not known.aside[reason]:
                del known.aside[reason]

    def finish(self, target: str, key: bytes, sequences: Iterable[int]) -> list[int]:
        """``target`` owes entries of a key no longer; gives those of them that it did owe."""
        finished = [sequence for sequence in sequences if self._strike(sequence, target)]
        blobs = self._shards[hash(key) % _SHARDS].get(key)
        if finished and isinstance(blobs, HotKey):
            blobs.finished(target, len(finished))
        if finished and not (isinstance(blobs, HotKey) and len(blobs.blobs) > _FEW):
            self._discard(key)
        return finished

    def strike(self, target: str, first: int, last: int) -> None:
        """``target`` owes the entries of a range no longer. To be followed by `sweep`, once for many."""
        for number, slots in self._slots(first, last):
            for sequence in range(number * _PAGE + slots.start, number * _PAGE + slots.stop):
                self._stale |= self._strike(sequence, target)

    def keep_only(self, owed: Mapping[str, Sequence[Range]], first: int, last: int) -> None:
        """Of the entries of a range nothing but ``owed`` is owed. To be followed by `sweep`."""
        for target in list(self._targets):
            position = first
            for begin, end in sorted(owed.get(target, ())):
                self.strike(target, position, begin - 1)
                position = max(position, end + 1)
            self.strike(target, position, last)

    def sweep(self) -> None:
        """Let go of what `strike` and `keep_only` have finished."""
        if not self._stale:
            return
        self._stale = False
        for shard in self._shards:
            for key in list(shard):
                self._discard(key)

    def any_in(self, first: int, last: int) -> bool:
        """Whether an entry of that range is pending."""
        # A page that is there has something pending in it.
        return any(
            len(slots) == _PAGE or any(self._pages[number][slots.start : slots.stop])
            for number, slots in self._slots(first, last)
        )

    def owed_in(self, first: int, last: int) -> dict[str, list[Range]]:
        """What of a range is pending, by target."""
        pending: dict[str, list[int]] = {}
        for number, slots in self._slots(first, last):
            base, page = number * _PAGE, self._pages[number]
            for slot in slots:
                for target in TRAITS[page[slot]].targets:
                    pending.setdefault(target, []).append(base + slot)
        return {target: ranges_of(numbers) for target, numbers in pending.items()}

    def oldest(self) -> float | None:
        """When the oldest pending entry was journalled, seconds since 1970."""
        oldest = self.oldest_of()
        return None if oldest is None else oldest[0]

    def oldest_of(self) -> tuple[float, str] | None:
        """The same, and who has not applied it yet; None where nothing is pending."""
        heads = [
            (head, name)
            for name, target in self._targets.items()
            for queue in (target.queue, *target.aside.values())
            if (head := self._head(name, queue)) is not None
        ]
        return min(heads, default=None)

    def _head(self, target: str, queue: KeyQueue) -> float | None:
        while queue:
            key = queue.take()
            first = next(self.entries(key, target), None)
            if first is not None:
                queue.put_back([key])
                return at_of(first.blob)
        return None

    def all(self) -> Iterator[tuple[bytes, Pending]]:
        """Everything pending, in no order."""
        for shard in self._shards:
            for key, blobs in shard.items():
                for blob in _each(blobs):
                    traits = TRAITS[self._index(sequence_of(blob))]
                    if traits.targets:
                        yield key, Pending(blob, traits)

    def absorb(self, other: Overlay) -> Iterator[None]:
        """Take in everything of another overlay; pauses now and then, so that others can run."""
        with self.units.taken_over(other.units):
            for count, (key, (blob, traits)) in enumerate(other.all()):
                self.add(sequence_of(blob), item_of_blob(key, blob, index_of(traits)))
                if not count % _PAGE:
                    yield

    def _target(self, name: str) -> _Target:
        target = self._targets.get(name)
        if target is None:
            target = self._targets[name] = _Target()
        return target

    def _owing_of(self, index: int) -> list[_Target]:
        owing = self._owing[index] = [self._target(name) for name in TRAITS[index].targets]
        return owing

    def _page(self, number: int) -> array[int]:
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = array("I", bytes(4 * _PAGE + 4))
        return page

    def _count(self, number: int, count: int) -> None:
        self._pages[number][_PAGE] += count
        self.pending += count

    def _keep(self, shard: dict[bytes, Blobs], key: bytes, blob: Blob, index: int) -> None:
        known = shard.get(key)
        if known is None:
            shard[key] = blob
        else:
            self._queue_anew(key, known, index)
            shard[key] = self._joined(known, blob, index)

    def _queue_anew(self, key: bytes, known: Blobs, index: int) -> None:
        """Queue a key that is pending already for those targets that owed nothing of it."""
        for name in TRAITS[index].targets:
            if self._last(known, name) is None:
                self._targets[name].queue.put(key)

    def _index(self, sequence: int) -> int:
        page = self._pages.get(sequence // _PAGE)
        return 0 if page is None else page[sequence % _PAGE]

    def _joined(self, blobs: Blobs, blob: Blob, index: int) -> Blobs:
        if isinstance(blobs, HotKey):
            blobs.insert(blob, TRAITS[index].targets)
            return blobs
        return self._bundle(sorted([*_each(blobs), blob], key=version_of))

    def _bundle(self, blobs: list[Blob]) -> Blobs:
        if len(blobs) > _FEW:
            return HotKey(blobs, self._index)
        return tuple(blobs) if len(blobs) > 1 else blobs[0]

    def _last(self, blobs: Blobs, target: str) -> Pending | None:
        if isinstance(blobs, HotKey):
            last = blobs.last_owed_by(target)
            return None if last is None else Pending(last, TRAITS[self._index(sequence_of(last))])
        for blob in (blobs,) if isinstance(blobs, bytes) else reversed(blobs):
            traits = TRAITS[self._index(sequence_of(blob))]
            if target in traits.targets:
                return Pending(blob, traits)
        return None

    def _slots(self, first: int, last: int) -> Iterator[tuple[int, range]]:
        """The pages that hold a part of a range of numbers, and the slots there."""
        begin, end = first // _PAGE, last // _PAGE + 1
        few = end - begin < len(self._pages)
        numbers = range(begin, end) if few else sorted(self._pages)
        for number in [number for number in numbers if begin <= number < end and number in self._pages]:
            base = number * _PAGE
            yield number, range(max(0, first - base), min(_PAGE, last - base + 1))

    def _strike(self, sequence: int, target: str) -> bool:
        number, slot = divmod(sequence, _PAGE)
        page = self._pages.get(number)
        if page is None or target not in TRAITS[page[slot]].targets:
            return False
        page[slot] = index_without(page[slot], target)
        self._targets[target].owed -= 1
        if not page[slot]:
            self.units.forget(sequence)
            self.pending -= 1
            page[_PAGE] -= 1
            if not page[_PAGE]:
                del self._pages[number]
        return True

    def _discard(self, key: bytes) -> None:
        """Forget those blobs of a key that nobody owes any more."""
        shard = self._shards[hash(key) % _SHARDS]
        blobs = shard.get(key, ())
        left = [blob for blob in _each(blobs) if self._index(sequence_of(blob))]
        if not left:
            shard.pop(key, None)
        elif not isinstance(blobs, bytes):
            shard[key] = self._bundle(left)


def _each(blobs: Blobs) -> Iterator[Blob]:
    if isinstance(blobs, HotKey):
        return iter(blobs.blobs)
    return iter((blobs,) if isinstance(blobs, bytes) else blobs)
