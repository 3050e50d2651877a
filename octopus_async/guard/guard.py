"""The guarded backend: batching, breaker, deadline, adapter - in this order, and written here alone.

The breaker counts one physical call, however many callers wait for it. A guard is an adapter
itself, and beside that offers what strategies need: one key or operation at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from octopus_async.backend import (
    Adapter,
    Answer,
    CacheAdapter,
    Capabilities,
    InProcessAdapter,
    InstantReader,
    PeekAdapter,
    ScanAdapter,
    UnitAdapter,
)
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    CircuitOpen,
    OctopusError,
    OperationNotSupported,
    SchemaMismatch,
    Unavailable,
)
from octopus_async.events import BreakerChanged, Events
from octopus_async.guard.breaker import Breaker, BreakerStatistics, Failure, State, Transition
from octopus_async.guard.lane import Lane, LaneLimits
from octopus_async.guard.policy import BreakerPolicy, GuardPolicy
from octopus_async.guard.preparation import Preparation
from octopus_async.guard.prober import Prober
from octopus_async.guard.split import batches, by_model, parts
from octopus_async.guard.unit import UnitCall
from octopus_async.record import NOT_TAKEN, Key, Miss, Mode, Operation, Outcome, Record, failed
from octopus_async.schema import Schema

T = TypeVar("T")
R = TypeVar("R")
_log = logging.getLogger("octopus_async")
_FILL_QUEUE = 1000  # fills are a favour: beyond this they are dropped


@dataclass(frozen=True, slots=True)
class GuardStatistics:
    """A guarded backend at one moment."""

    reads: BreakerStatistics
    writes: BreakerStatistics
    queued_reads: int
    queued_writes: int
    reads_under_way: int
    writes_under_way: int


class Guard:
    """Guards one adapter.

    Parameters:
        adapter: the bare backend; opened and closed by the guard.
        events: is told when a breaker moves, and when a table does not fit its model.
        policy: its times and thresholds.
        uniform: random numbers between two bounds, for the breakers' jitter.
    """

    def __init__(
        self,
        adapter: Adapter,
        events: Events | None = None,
        policy: GuardPolicy | None = None,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.adapter = adapter
        self.name = adapter.name  # kept at hand, as each call asks for it again and again
        self.policy = policy or GuardPolicy()
        self._events = events or Events()
        self._uniform = uniform
        self._in_process = adapter if isinstance(adapter, InProcessAdapter) else None
        self._instant = adapter if isinstance(adapter, InstantReader) else None
        self._models = Preparation(adapter, self._events)
        self._is_open = False
        self._opening = asyncio.Lock()
        self._closing = False
        capabilities = adapter.capabilities
        self.reads = self._breaker("reads", self.policy.reads)
        self.writes = self._breaker("writes", self.policy.writes)
        self._probers = {
            "reads": Prober(self.reads, lambda: self._probe("reads")),
            "writes": Prober(self.writes, lambda: self._probe("writes")),
        }
        self._read_lane = Lane[Key, "Answer | Unavailable"](
            self._run_reads,
            lambda _, sent: self._too_late(sent=sent),
            lambda _: self._queue_full(),
            LaneLimits(capabilities.read_batch, capabilities.batch_bytes, capabilities.read_concurrency),
        )
        self._write_lane = Lane[Operation, Outcome](
            self._run_writes,
            lambda _, sent: failed(self._too_late(sent=sent)),
            lambda _: failed(self._queue_full()),
            LaneLimits(capabilities.write_batch, capabilities.batch_bytes, capabilities.write_concurrency),
        )
        self._units: set[asyncio.Task[None]] = set()
        self._fill_lane = Lane["tuple[Record, Miss]", None](
            self._run_fills,
            lambda _, _sent: None,
            lambda _: None,
            LaneLimits(capabilities.write_batch, capabilities.batch_bytes, 1, _FILL_QUEUE),
        )

    @property
    def capabilities(self) -> Capabilities:
        """The adapter's capabilities."""
        return self.adapter.capabilities

    # -- what strategies use ---------------------------------------------------------------------

    def at_hand(self, key: Key) -> Record | None:
        """What an adapter in this process's own memory has of a key; None where it has to be asked."""
        if self._in_process is None or not self._is_open or not self.reads.passes:
            return None
        answer = self._in_process.read_now(key)
        return answer if isinstance(answer, Record) else None

    def fetch(self, key: Key, deadline: float) -> asyncio.Future[Answer | Unavailable]:
        """Look one key up, batched with what else is asked for at this moment.

        The future gives an `Unavailable` as its result rather than raising it.
        """
        if not self.reads.passes:
            return _done(self._circuit_open("reads", self.reads))
        if self._in_process is not None and self._is_open:
            return _done(self._in_process.read_now(key))
        if self._instant is not None and self._may_read_at_once(key):
            # What fails is asked again below, where it is counted.
            with contextlib.suppress(Unavailable):
                return _done(self._instant.read_now(key))
        return self._read_lane.add(key, key, None, 0, deadline)

    def _may_read_at_once(self, key: Key) -> bool:
        return self._is_open and self.reads.state is State.CLOSED and self._models.covers({key.model})

    def submit(self, operation: Operation, mode: Mode, deadline: float) -> asyncio.Future[Outcome]:
        """Apply one operation, batched with what else is written at this moment."""
        if not self.writes.passes:
            return _done(failed(self._circuit_open("writes", self.writes)))
        if self._in_process is not None and self._is_open:
            return _done(self._in_process.apply_now(operation, mode))
        return self._write_lane.add(operation, operation.key, mode, len(operation.payload or b""), deadline)

    @property
    def has_units(self) -> bool:
        """Whether it can apply operations together, or none of them."""
        return self.capabilities.transactional and isinstance(self.adapter, UnitAdapter)

    def submit_unit(
        self, operations: Sequence[Operation], mode: Mode, deadline: float
    ) -> asyncio.Future[Sequence[Outcome]]:
        """Apply all operations or none, in a physical call of their own."""
        if not self.writes.passes:
            return _done([failed(self._circuit_open("writes", self.writes))] * len(operations))
        call = UnitCall(
            len(operations),
            deadline,
            lambda begun: self._write_lane.bulk(lambda: begun(self._run_unit(operations, mode))),
            lambda sent: failed(self._too_late(sent=sent)),
        )
        self._units.add(call.task)
        call.task.add_done_callback(self._units.discard)
        return call.future

    def fill(self, record: Record, lease: Miss) -> None:
        """Offer a record to a cache; dropped when the cache is busy or unwell."""
        if not self.writes.passes or self._closing:
            return
        if self._in_process is not None and self._is_open:
            self._in_process.fill_now(record, lease)
        else:
            deadline = asyncio.get_running_loop().time() + self.policy.timeout
            self._fill_lane.add((record, lease), record.key, None, 0, deadline)

    @property
    def has_waiting_writes(self) -> bool:
        """Whether live writes wait for a free worker."""
        return self._write_lane.queued > 0

    def statistics(self) -> GuardStatistics:
        """Its figures now."""
        return GuardStatistics(
            self.reads.statistics(),
            self.writes.statistics(),
            self._read_lane.queued,
            self._write_lane.queued,
            self._read_lane.under_way,
            self._write_lane.under_way,
        )

    # -- the adapter protocol --------------------------------------------------------------------

    async def open(self) -> None:
        """Open the adapter. On failure the breakers open, probes go on trying, and it raises."""
        self._closing = False
        for lane in (self._read_lane, self._write_lane, self._fill_lane):
            lane.open()
        # After an earlier close, breakers may be open that nobody probes.
        for prober in self._probers.values():
            prober.start()
        try:
            await self._open_adapter()
        except Unavailable as error:
            self.reads.trip(str(error))
            self.writes.trip(str(error))
            raise

    async def close(self) -> None:
        """Give calls under way a moment, settle the rest, and close the adapter."""
        self._closing = True
        probes = [prober.task for prober in self._probers.values() if prober.task is not None]
        for probe in probes:
            probe.cancel()
        if probes:
            await asyncio.wait(probes, timeout=self.policy.timeout)
        lanes = (self._read_lane, self._write_lane, self._fill_lane)
        await asyncio.gather(*(lane.close(self.policy.timeout) for lane in lanes))
        await self._end_units()
        self._is_open = False
        self._models.forget()
        try:
            async with asyncio.timeout(self.policy.open_timeout):
                await self._contained(self.adapter.close())
        except TimeoutError:
            _log.warning("backend %s did not close within %g s", self.name, self.policy.open_timeout)
        except Exception as error:  # noqa: BLE001 - what one backend lets lie must not keep others open
            _log.warning("backend %s failed to close: %s", self.name, type(error).__name__)

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        """Learn a model; check or create what it needs at once. Raises `Unavailable`."""
        self.learn(schema, create=create)
        await self._guarded(self.writes, "writes", lambda: self._models.ensure({schema.model}))

    def learn(self, schema: Schema, *, create: bool) -> None:
        """Learn a model; what it needs is checked or created at its first use."""
        self._models.learn(schema, create=create)

    async def ping(self) -> None:
        """Prove that reads work. Raises `Unavailable`."""
        await self._guarded(self.reads, "reads", self.adapter.ping)

    async def probe(self) -> None:
        """Prove that writes work. Raises `Unavailable`."""
        await self._guarded(self.writes, "writes", self.adapter.probe)

    async def read(self, keys: Sequence[Key]) -> Sequence[Answer]:
        """Look up keys in physical calls of their own. Raises `Unavailable`."""
        answers: list[Answer] = []
        for part in parts(keys, self.capabilities.read_batch):
            found = await self._read_lane.bulk(lambda part=part: self._run_reads(part, None))  # type: ignore[misc]
            for answer in found:
                if isinstance(answer, Unavailable):
                    raise answer
                answers.append(answer)
        return answers

    async def peek(self, keys: Sequence[Key]) -> Sequence[Record | None]:
        """Look into the backend without a trace; by a read where its adapter cannot. Raises `Unavailable`."""
        records: list[Record | None] = []
        for part in parts(keys, self.capabilities.read_batch):
            records += await self._read_lane.bulk(lambda part=part: self._run_peek(part))  # type: ignore[misc]
        return records

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply operations in physical calls of their own; one outcome each, raising nothing."""
        outcomes: list[Outcome] = []
        for part in batches(operations, self.capabilities):
            outcomes += await self._write_lane.bulk(lambda part=part: self._run_writes(part, mode))  # type: ignore[misc]
        return outcomes

    async def apply_unit(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        """Apply all operations or none, in one physical call; one outcome each, raising nothing."""
        return await self._write_lane.bulk(lambda: self._run_unit(operations, mode))

    def scan(
        self, model: str, *, after: str = "", batch: int = 500, beyond: Record | None = None
    ) -> AsyncIterator[Record]:
        """All records of a model. Raises `OperationNotSupported` where the adapter cannot."""
        if not isinstance(self.adapter, ScanAdapter) or not self.capabilities.scan:
            msg = f"backend {self.name} cannot list its records"
            raise OperationNotSupported(msg)
        return self._scan(self.adapter, model, after, batch, beyond)

    async def _scan(
        self, adapter: ScanAdapter, model: str, after: str, batch: int, beyond: Record | None
    ) -> AsyncIterator[Record]:
        await self._guarded(self.reads, "reads", lambda: self._models.ensure({model}))
        async for record in adapter.scan(model, after=after, batch=batch, beyond=beyond):
            yield record

    # -- physical calls --------------------------------------------------------------------------

    async def _run_reads(self, keys: Sequence[Key], _: object) -> Sequence[Answer | Unavailable]:
        try:
            return await self._guarded(self.reads, "reads", lambda: self._read(keys))
        except SchemaMismatch as error:
            if len({key.model for key in keys}) == 1:
                return [error] * len(keys)
            return await by_model(keys, keys, lambda part: self._run_reads(part, None))
        except Unavailable as error:
            return [error] * len(keys)

    async def _run_peek(self, keys: Sequence[Key]) -> Sequence[Record | None]:
        return await self._guarded(self.reads, "reads", lambda: self._peek(keys))

    async def _peek(self, keys: Sequence[Key]) -> Sequence[Record | None]:
        await self._models.ensure({key.model for key in keys})
        if isinstance(self.adapter, PeekAdapter):
            return await self._watched(self.adapter.peek(keys), keys)
        answers = await self._watched(self.adapter.read(keys), keys)
        return [answer if isinstance(answer, Record) else None for answer in answers]

    async def _run_writes(self, operations: Sequence[Operation], mode: object) -> Sequence[Outcome]:
        try:
            return await self._guarded(
                self.writes, "writes", lambda: self._apply(operations, cast("Mode", mode)), _verdict
            )
        except Unavailable as error:
            return [failed(error)] * len(operations)

    async def _run_unit(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        try:
            return await self._guarded(
                self.writes, "writes", lambda: self._apply_unit(operations, mode), _verdict
            )
        except Unavailable as error:
            return [failed(error)] * len(operations)

    async def _apply_unit(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        if not isinstance(self.adapter, UnitAdapter):
            message = f"backend {self.name} has no transactions"
            raise BackendFailed(message, backend=self.name, sent=False)
        keys = [operation.key for operation in operations]
        await self._models.ensure({key.model for key in keys})
        outcomes = await self._watched(self.adapter.apply_unit(operations, mode), keys)
        self._models.judge(keys, outcomes)
        return outcomes

    async def _end_units(self) -> None:
        if self._units:
            await asyncio.wait(self._units, timeout=self.policy.timeout)
        for task in list(self._units):
            task.cancel()
        if self._units:
            await asyncio.wait(self._units, timeout=self.policy.timeout)

    async def _run_fills(self, items: Sequence[tuple[Record, Miss]], _: object) -> Sequence[None]:
        adapter = cast("CacheAdapter", self.adapter)
        try:
            await self._guarded(self.writes, "writes", lambda: adapter.fill(items))
        except Unavailable as error:
            _log.debug("backend %s took no fill: %s", self.name, error)
        return [None] * len(items)

    async def _read(self, keys: Sequence[Key]) -> Sequence[Answer]:
        await self._models.ensure({key.model for key in keys})
        return await self._watched(self.adapter.read(keys), keys)

    async def _apply(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        keys = [operation.key for operation in operations]
        models = {key.model for key in keys}
        if len(models) > 1 and not self._models.covers(models):
            return await self._apply_by_model(operations, mode)
        await self._models.ensure(models)
        try:
            outcomes = await self._watched(self.adapter.apply(operations, mode), keys)
        except SchemaMismatch:
            if len(models) == 1:
                raise
            return await self._apply_by_model(operations, mode)
        self._models.judge(keys, outcomes)
        return outcomes

    async def _apply_by_model(self, operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
        async def apply(part: Sequence[Operation]) -> Sequence[Outcome]:
            try:
                return await self._apply(part, mode)
            except Unavailable as error:  # of this part alone: others may have been applied
                return [failed(error)] * len(part)

        return await by_model(operations, [operation.key for operation in operations], apply)

    async def _watched(self, call: Awaitable[Sequence[T]], keys: Sequence[Key]) -> Sequence[T]:
        try:
            results = await call
        except SchemaMismatch as error:
            models = {key.model for key in keys}
            if len(models) == 1:  # of several it is not known whose fault it is: each is asked alone
                self._models.differs(models.pop(), error)
            raise
        if len(results) != len(keys):
            message = f"backend {self.name} gave {len(results)} answers for {len(keys)} keys"
            raise BackendFailed(message, backend=self.name)
        return results

    async def _guarded(
        self,
        breaker: Breaker,
        direction: str,
        make_call: Callable[[], Awaitable[T]],
        verdict: Callable[[T], Unavailable | None] = lambda _: None,
    ) -> T:
        """One physical call under breaker and timeout. Raises nothing but `Unavailable`."""
        if self._closing:
            raise self._too_late(sent=False)
        generation = breaker.enter()
        if generation is None:
            raise self._circuit_open(direction, breaker)
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            async with asyncio.timeout(self.policy.timeout):
                result = await self._contained(make_call())
        except Exception as error:  # noqa: BLE001 - whatever it is, it leaves here as one of our tree
            unavailable = self._as_unavailable(error)
            self._judge(breaker, generation, unavailable, loop.time() - start)
            raise unavailable from (None if unavailable is error else error)
        self._judge(breaker, generation, verdict(result), loop.time() - start)
        return result

    async def _contained(self, call: Awaitable[T]) -> T:
        """Await the adapter. A cancellation of its driver's own must not end the task that asks."""
        try:
            return await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            message = f"backend {self.name} gave a call up of its own accord"
            raise BackendFailed(message, backend=self.name) from None

    def _as_unavailable(self, error: Exception) -> Unavailable:
        if isinstance(error, Unavailable):
            return error
        if isinstance(error, TimeoutError):
            message = f"backend {self.name} did not answer within {self.policy.timeout:g} s"
            return BackendTimeout(message, backend=self.name)
        # An adapter must not let this through; the write behind it still deserves the journal.
        _log.error("adapter %s raised %s, which is not of our tree", self.name, type(error).__name__)
        return BackendFailed(f"backend {self.name} failed: {type(error).__name__}", backend=self.name)

    def _judge(self, breaker: Breaker, generation: int, error: Unavailable | None, seconds: float) -> None:
        if error is None or error.alive:
            breaker.succeeded(generation, seconds)
        else:
            breaker.failed(generation, _failure(error), str(error))

    # -- breakers and their probes ---------------------------------------------------------------

    def _breaker(self, direction: str, policy: BreakerPolicy) -> Breaker:
        return Breaker(
            policy,
            lambda: asyncio.get_running_loop().time(),
            lambda transition: self._moved(direction, transition),
            self._uniform,
        )

    def _moved(self, direction: str, transition: Transition) -> None:
        breaker = self.reads if direction == "reads" else self.writes
        if not breaker.passes:
            error = self._circuit_open(direction, breaker)
            if direction == "reads":
                self._read_lane.flush(lambda _: error)
            else:
                self._write_lane.flush(lambda _: failed(error))
        if not self._closing:
            self._probers[direction].start()
        self._events.emit(
            BreakerChanged(
                self.name, direction, transition.before.value, transition.after.value, transition.reason
            )
        )

    async def _probe(self, direction: str) -> None:
        try:
            await self._open_adapter()
            async with asyncio.timeout(self.policy.timeout):
                await self._contained(self.adapter.ping() if direction == "reads" else self.adapter.probe())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told as one of our tree
            raise self._as_unavailable(error) from None

    async def _open_adapter(self) -> None:
        async with self._opening:
            if self._is_open:
                return
            try:
                async with asyncio.timeout(self.policy.open_timeout):
                    await self._contained(self.adapter.open())
            except TimeoutError:
                message = f"backend {self.name} could not be opened within {self.policy.open_timeout:g} s"
                raise BackendTimeout(message, backend=self.name, sent=False) from None
            except OctopusError:
                raise
            except Exception as error:
                raise self._as_unavailable(error) from error
            self._is_open = True

    # -- errors ----------------------------------------------------------------------------------

    def _circuit_open(self, direction: str, breaker: Breaker) -> CircuitOpen:
        return CircuitOpen(
            f"the breaker of backend {self.name} is {breaker.state.value} for {direction}",
            backend=self.name,
            retry_after=breaker.retry_in,
        )

    def _too_late(self, *, sent: bool) -> Unavailable:
        if self._closing:
            return BackendFailed(f"backend {self.name} is closed", backend=self.name, sent=sent)
        where = "answered" if sent else "asked"
        return BackendTimeout(
            f"backend {self.name} could not be {where} before the deadline", backend=self.name, sent=sent
        )

    def _queue_full(self) -> Unavailable:
        return BackendFailed(f"too many calls wait for backend {self.name}", backend=self.name, sent=False)


def _verdict(outcomes: Sequence[Outcome]) -> Unavailable | None:
    """What a batch's outcomes say of the backend: failed only if nothing in it was answered."""
    worst: Unavailable | None = None
    for outcome in outcomes:
        if outcome.status not in NOT_TAKEN:
            return None
        error = outcome.error
        if not isinstance(error, Unavailable) or error.alive:
            return None
        worst = error
    return worst


def _failure(error: Unavailable) -> Failure:
    if isinstance(error, BackendRefused):
        return Failure.REFUSED
    return Failure.TIMEOUT if isinstance(error, BackendTimeout) else Failure.ERROR


def _done(result: T) -> asyncio.Future[T]:
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


__all__ = ["Guard", "GuardStatistics"]
