"""What the layers ask of each other: the Adapter, Backend and Journal protocols."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from octopus_async.errors import Unavailable
from octopus_async.events import Events
from octopus_async.record import Key, Miss, Mode, Operation, Outcome, Record
from octopus_async.schema import Schema

Answer: TypeAlias = "Record | Miss | None"
"""What a read gives for a key: the record (a tombstone included), a cache's lease, or nothing."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do, and how it likes to be asked.

    Attributes:
        durable: it keeps what it was given; False for a cache, which may forget.
        readable: False for a backend that can only be written to.
        transactional: it is a `UnitAdapter`, and `apply_unit` applies all or nothing.
        read_batch: most keys of one `read`.
        write_batch: most operations of one `apply`.
        batch_bytes: most bytes of payload in one `apply`.
        read_concurrency: most calls of `read` at once.
        write_concurrency: most calls of `apply` at once.
        ttl: seconds after which a cache forgets a value; None for a durable backend.
        scan: whether `scan` works.
    """

    durable: bool
    readable: bool = True
    transactional: bool = False
    read_batch: int = 500
    write_batch: int = 500
    batch_bytes: int = 4 * 1024 * 1024
    read_concurrency: int = 4
    write_concurrency: int = 1
    ttl: float | None = None
    scan: bool = False


@runtime_checkable
class Adapter(Protocol):
    """One backend, bare: one driver behind a small interface that always takes batches.

    An adapter raises nothing but errors of `octopus_async.errors`. It has no deadlines of its
    own (its connecting aside): a call that takes too long is cancelled, and must leave the
    adapter usable, with no connection of its pool in doubt.
    """

    @property
    def name(self) -> str:
        """The name by which strategies, receipts and messages call it."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    async def open(self) -> None:
        """Connect. Raises `Unavailable`; may be called again after that, and after `close`."""
        ...

    async def close(self) -> None:
        """Release everything; bounded in time; harmless when it is not open."""
        ...

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        """Learn a model, and check or (with ``create``) create what it needs.

        Called before a model's first use, and again after a `SchemaMismatch`.
        Raises `SchemaMismatch` naming what is missing, or `Unavailable`.
        """
        ...

    async def ping(self) -> None:
        """Prove that reads work. Raises `Unavailable`."""
        ...

    async def probe(self) -> None:
        """Prove that writes work, by a write to a reserved row or key. Raises `Unavailable`."""
        ...

    async def read(self, keys: Sequence[Key]) -> Sequence[Answer]:
        """Look up keys (each at most once in a call); one answer each, in their order.

        A durable backend answers None for a tombstone or gives it; a cache gives it, and a
        `Miss` with a lease for what it does not have. Raises `Unavailable`.
        """
        ...

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply operations, in order where they share a key, each as `record.decide` says.

        Gives one outcome each, in their order; a rejected one does not stop the others.
        Raises `Unavailable` when all of them failed alike.
        """
        ...


@runtime_checkable
class CacheAdapter(Adapter, Protocol):
    """A backend that may forget, and can be filled by readers."""

    async def fill(self, items: Sequence[tuple[Record, Miss]]) -> None:
        """Store each record if its lease still holds and nothing newer is there; else drop it.

        Raises `Unavailable`.
        """
        ...


@runtime_checkable
class InstantReader(Protocol):
    """An adapter that can look one key up at once, without ever waiting: in memory of this host."""

    def read_now(self, key: Key) -> Answer:
        """As `Adapter.read`, for one key of a model that it was taught. Raises `Unavailable`."""
        ...


@runtime_checkable
class InProcessAdapter(CacheAdapter, Protocol):
    """A backend in this process's own memory: while it is open it answers at once, and nothing can fail.

    So there is nothing to batch, to time or to count, and its guard calls it without a detour.
    """

    def read_now(self, key: Key) -> Answer:
        """As `read`, for one key."""
        ...

    def apply_now(self, operation: Operation, mode: Mode) -> Outcome:
        """As `apply`, for one operation."""
        ...

    def fill_now(self, record: Record, lease: Miss) -> None:
        """As `fill`, for one record."""
        ...


@runtime_checkable
class ScanAdapter(Adapter, Protocol):
    """A backend that can list its records."""

    def scan(
        self, model: str, *, after: str = "", batch: int = 500, beyond: Record | None = None
    ) -> AsyncIterator[Record]:
        """All of a model's records, living ones and tombstones, of versions above ``after``.

        In an order of its own, in which ``beyond``, a record of an earlier scan, says where to go on.
        """
        ...


@runtime_checkable
class UnitAdapter(Adapter, Protocol):
    """A backend with transactions, which can apply operations that belong together."""

    async def apply_unit(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply all operations, or none, as `record.decide_unit` says; one outcome each, in their order.

        No key is among them twice. If the backend refuses one, the others are `record.WITHHELD`.
        Raises `Unavailable`.
        """
        ...


@runtime_checkable
class PeekAdapter(Adapter, Protocol):
    """A backend that can be looked into without a trace."""

    async def peek(self, keys: Sequence[Key]) -> Sequence[Record | None]:
        """What is stored for keys, tombstones included; one answer each, in their order.

        A cache leaves no lease for what it does not have. Raises `Unavailable`.
        """
        ...


class Backend(Protocol):
    """A guarded backend as the strategies see it: one key or operation at a time, batched below.

    Deadlines are moments of the running loop's clock. The futures are never left pending past
    their deadline; cancelling one stops waiting, not what was sent.
    """

    @property
    def name(self) -> str:
        """The name by which strategies, receipts and messages call it."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    def at_hand(self, key: Key) -> Record | None:
        """What it has of a key in this process's own memory; None where it has to be asked."""
        ...

    def fetch(self, key: Key, deadline: float) -> asyncio.Future[Answer | Unavailable]:
        """Look one key up. The future gives an `Unavailable` as its result, and never raises."""
        ...

    def submit(self, operation: Operation, mode: Mode, deadline: float) -> asyncio.Future[Outcome]:
        """Apply one operation. The future never raises; operations of one key keep their order."""
        ...

    def fill(self, record: Record, lease: Miss) -> None:
        """Offer a record to a cache; dropped when the cache is busy or unwell."""
        ...

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply many operations at once, ordered against nothing. Never raises."""
        ...

    @property
    def has_units(self) -> bool:
        """Whether it can apply operations together, or none of them."""
        ...

    def submit_unit(
        self, operations: Sequence[Operation], mode: Mode, deadline: float
    ) -> asyncio.Future[Sequence[Outcome]]:
        """See `UnitAdapter.apply_unit`. The future never raises. The caller holds the keys."""
        ...

    async def apply_unit(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """The same without a deadline. Never raises."""
        ...

    def scan(
        self, model: str, *, after: str = "", batch: int = 500, beyond: Record | None = None
    ) -> AsyncIterator[Record]:
        """See `ScanAdapter.scan`. Raises `Unavailable`, or `OperationNotSupported` where it cannot."""
        ...


class Run(NamedTuple):
    """Pending operations of one key, coalesced into the one that has the same effect.

    Attributes:
        operation: first kind and condition, last state and version.
        sequences: the journal's numbers of the entries it stands for, in order.
        provisional: whether the primary may still refuse it.
        at: when the oldest of them was journalled, seconds since 1970.
        unit: the number of the unit of work of which it is a part; 0 for none.
    """

    operation: Operation
    sequences: tuple[int, ...]
    provisional: bool
    at: float
    unit: int = 0


class PendingUnit(NamedTuple):
    """A unit of work that waits in the journal.

    Attributes:
        runs: its operations that are owed still, one run each.
        ready: whether each of them is the first that is owed of its key.
        broken: whether another of its operations was refused, so that these must not be applied.
    """

    runs: tuple[Run, ...]
    ready: bool
    broken: bool


class DeadLetter(NamedTuple):
    """An acknowledged operation that its target refused.

    Attributes:
        sequence: its number in the journal; names it for retry and drop.
        operation: what it was.
        target: the backend that refused it.
        reason: why, for a person.
        error: the name of the error's class.
        at: when it was journalled, seconds since 1970.
    """

    sequence: int
    operation: Operation
    target: str
    reason: str
    error: str
    at: float


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """A journal at one moment. Ages and times are seconds; sizes are bytes.

    ``refusal`` says why it takes nothing more at this moment; None while it does.
    """

    pending: int
    pending_by_target: dict[str, int]
    dead_letters: int
    bytes: int
    segments: int
    oldest_age: float
    appended: int
    synced: int
    refusal: str | None = None


class Journal(Protocol):
    """Where operations wait for backends that could not take them, durably.

    All methods but `open`, `close` and `adopt` return at once; what takes time is awaited on
    the future they return. Cancelling such a future stops waiting and nothing else.
    """

    async def open(self, events: Events) -> int:
        """Recover what is there and make it ready.

        Returns:
            The moment (milliseconds since 1970) above which the clock has to start: the durable
            ceiling, or the newest version held if that is later.

        Raises:
            JournalLocked, JournalCorrupt, JournalError.
        """
        ...

    async def close(self) -> None:
        """Make everything durable, and release files, lock and thread."""
        ...

    def reserve(self, milliseconds: int) -> asyncio.Future[None]:
        """Raise the durable ceiling of versions to that moment. The future raises JournalError."""
        ...

    def mark(self, marks: Mapping[str, str]) -> asyncio.Future[None]:
        """Make low-water marks durable, in place of earlier ones. The future raises JournalError.

        A mark is a version of a model: whatever this process wrote of that model up to it is, for
        each of its replicas, applied there or durable here. After an unclean stop the next opener
        finds it (`inherited`), and brings the replicas up to the primary from there. An empty
        version stands for the beginning, an empty name for all models. With no marks at all
        nothing is in doubt, and nobody looks.
        """
        ...

    def inherited(self) -> Mapping[str, str]:
        """The marks of the dead writers that were taken over since this was asked last.

        They stay durable here until a call of `mark` after this one: that has to say them again,
        unless what they ask for has been done.
        """
        ...

    def append(
        self, operation: Operation, targets: Sequence[str], *, provisional: bool = False
    ) -> asyncio.Future[int]:
        """Write down an operation that ``targets`` still have to apply.

        The future gives its sequence number once it is durable, and the operation is in the
        overlay by then. It raises `JournalFull` or another `JournalError` when it is not; if the
        error's operation may have reached the disk all the same, a reopening may find it.
        """
        ...

    def append_unit(
        self, operations: Sequence[Operation], targets: Sequence[str], *, provisional: bool = False
    ) -> asyncio.Future[Sequence[int]]:
        """Write down operations that belong together: all of them are found again, or none."""
        ...

    def newest(self, key: Key, target: str) -> Operation | None:
        """The newest operation of ``key`` that ``target`` has not applied yet: the overlay."""
        ...

    def owes(self, target: str) -> int:
        """How many operations ``target`` has not applied yet."""
        ...

    def owes_key(self, target: str, key: Key) -> bool:
        """Whether ``target`` has not applied everything known of ``key``."""
        ...

    def owes_version(self, target: str, key: Key, version: str) -> bool:
        """Whether the operation of ``key`` at ``version`` is one that ``target`` has not applied yet."""
        ...

    def doubts(self, target: str, key: Key) -> bool:
        """Whether ``target`` may still refuse the newest operation of ``key`` that waits for it."""
        ...

    def runs(self, target: str, limit: int) -> Sequence[Run]:
        """The oldest work owed to ``target``: one run for each of at most ``limit`` keys."""
        ...

    def unit(self, target: str, run: Run) -> PendingUnit:
        """The unit of work of which ``run`` is a part."""
        ...

    def set_aside(self, target: str, keys: Collection[Key], reason: str) -> None:
        """Give ``target`` no run of these keys, which `runs` has just given, until `bring_back`."""
        ...

    def bring_back(self, target: str, reason: str, least: int) -> None:
        """Give runs again of the first ``least`` keys, or a few more, set aside for that reason."""
        ...

    def settle(self, target: str, runs: Sequence[Run]) -> None:
        """``target`` has applied these. Forgotten at once; made durable in the background."""
        ...

    def noted(self, target: str, key: Key) -> asyncio.Future[None] | None:
        """Done when it is durable that ``target`` owes nothing of ``key``; None if it is.

        What is done is noted a little later. Until then a crash makes it pending again, and it
        would be read in place of what was written since: a write that bypasses the journal is
        acknowledged only after this. A disk that fails ends the waiting as well.
        """
        ...

    def bury(
        self, target: str, run: Run, reason: str, error: str, *, spare: Sequence[str] = ()
    ) -> asyncio.Future[str]:
        """Move a run, and what is pending for the same record behind it, to the dead letters.

        In the same step the targets in ``spare`` owe it no longer. The overlay
        keeps the key until the dead letters are durable. The future gives the newest version of
        what was moved.
        """
        ...

    def settled(self, sequence: int, target: str) -> asyncio.Future[None]:
        """Done when ``target`` has applied that entry; raises its error if it is a dead letter."""
        ...

    def dead_letters(self) -> Sequence[DeadLetter]:
        """All dead letters, oldest first."""
        ...

    def retry(self, sequence: int) -> asyncio.Future[int]:
        """Make a dead letter pending again. The future gives its new number.

        Whoever asks for the same while that is going on gets the same number.
        """
        ...

    def drop(self, sequence: int) -> asyncio.Future[None]:
        """Forget a dead letter for good."""
        ...

    async def adopt(self) -> int:
        """Take over the journals that dead processes left in the same folder.

        Returns:
            The moment (milliseconds since 1970) that the clock has to be above; 0 for no change.
        """
        ...

    def statistics(self) -> JournalStatistics:
        """The journal's figures now."""
        ...

    def forget_process(self) -> None:
        """In a forked child: close the descriptors without touching files or the lock's owner."""
        ...
