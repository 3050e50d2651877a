"""The guarded backend: breaker, deadline and batching around an adapter that misbehaves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.backend import Answer
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    CircuitOpen,
    ConfigurationError,
    OctopusError,
    SchemaMismatch,
    Unavailable,
)
from octopus_async.events import BreakerChanged, Event, Events, SchemaDiffers
from octopus_async.guard import BreakerPolicy, Guard, GuardPolicy, State
from octopus_async.record import (
    APPLIED,
    Key,
    Kind,
    Miss,
    Mode,
    Operation,
    Outcome,
    Record,
    Status,
    failed,
    rejected,
)
from octopus_async.schema import Schema, Type
from octopus_async.testing.cancellation import Moment, cancel_at
from octopus_async.testing.faulty import Fault, FaultyAdapter
from octopus_async.testing.operations import Author

QUICK = BreakerPolicy(open_for=0.02, open_at_most=0.05, jitter=0.0)
POLICY = GuardPolicy(timeout=0.05, open_timeout=0.05, reads=QUICK, writes=QUICK)
SECRET = "hunter2"  # noqa: S105 - stands for one, to be looked for in messages


class Store(MemoryAdapter):
    """A durable backend, some of whose tables may be missing, and which raises what it is told to."""

    def __init__(self, *, durable: bool = True, batch_bytes: int = 1_000_000) -> None:
        super().__init__(durable=durable)
        self._capabilities = replace(self._capabilities, batch_bytes=batch_bytes)
        self.missing: set[str] = set()
        self.checked: Counter[str] = Counter()
        self.errors: dict[str, BaseException] = {}
        self.outcomes: list[Outcome] | None = None
        self.batches: list[int] = []
        self.forgets_one = False

    async def open(self) -> None:
        self._raise("open")
        await super().open()

    async def close(self) -> None:
        self._raise("close")
        await super().close()

    async def ping(self) -> None:
        self._raise("ping")
        await super().ping()

    async def probe(self) -> None:
        self._raise("probe")
        await super().probe()

    async def prepare(self, schema: Schema, *, create: bool) -> None:
        self._raise("prepare")
        self.checked[schema.model] += 1
        if schema.model in self.missing and not create:
            raise SchemaMismatch(f"{schema.model} has no table", backend=self.name)
        self.missing.discard(schema.model)

    async def read(self, keys: Sequence[Key]) -> list[Answer]:
        self.batches.append(len(keys))
        self._raise("read")
        for key in keys:
            if key.model in self.missing:
                raise SchemaMismatch(f"{key.model} has no table", backend=self.name)
        answers = await super().read(keys)
        return answers[1:] if self.forgets_one else answers

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        self.batches.append(len(operations))
        self._raise("apply")
        if self.outcomes is not None:
            return self.outcomes
        outcomes = await super().apply([op for op in operations if op.key.model not in self.missing], mode)
        rest = iter(outcomes)
        absent = failed(SchemaMismatch("no table", backend=self.name))
        return [absent if op.key.model in self.missing else next(rest) for op in operations]

    def _raise(self, method: str) -> None:
        error = self.errors.get(method)
        if error is not None:
            raise error


class Stage:
    """A guard around a faulty adapter, opened, and the events that it told."""

    def __init__(self, store: Store | None = None) -> None:
        self.told: list[Event] = []
        self.store = Store() if store is None else store  # an empty one is false
        self.faulty = FaultyAdapter(self.store)
        self.guard = Guard(self.faulty, Events(self.told.append), POLICY)
        self.author = Author("Book")

    @property
    def moves(self) -> list[tuple[str, str]]:
        """Direction and new state of each move of a breaker."""
        return [(told.direction, told.after) for told in self.told if isinstance(told, BreakerChanged)]

    @property
    def differing(self) -> list[str]:
        """The models that were told not to fit."""
        return [told.model for told in self.told if isinstance(told, SchemaDiffers)]

    def create(self, model: str = "Book") -> Operation:
        """A create of a new record."""
        key = Key(model, self.author.key().id)
        return self.author.create(key, {"n": 1})

    def submit(self, operation: Operation, seconds: float = 1.0) -> asyncio.Future[Outcome]:
        """Write it through the lane."""
        return self.guard.submit(operation, Mode.LIVE, asyncio.get_running_loop().time() + seconds)

    def fetch(self, key: Key, seconds: float = 1.0) -> asyncio.Future[Answer | Unavailable]:
        """Read it through the lane."""
        return self.guard.fetch(key, asyncio.get_running_loop().time() + seconds)

    async def closes(self, direction: str) -> None:
        """Wait until that breaker is closed again."""
        async with asyncio.timeout(2.0):
            breaker = self.guard.reads if direction == "reads" else self.guard.writes
            while breaker.state is not State.CLOSED:  # noqa: ASYNC110 - the breaker announces it, but to one
                await asyncio.sleep(0.005)


def schema(model: str) -> Schema:
    """A model without fields."""
    return Schema(model, model.lower(), "id", Type.TEXT, ())


@pytest.fixture
async def stage() -> AsyncGenerator[Stage]:
    stage = Stage()
    await stage.guard.open()
    yield stage
    stage.faulty.heal()
    stage.store.errors.clear()
    await stage.guard.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"


# -- the usual way ---------------------------------------------------------------------------------


async def test_a_write_and_a_read_pass(stage: Stage) -> None:
    operation = stage.create()
    assert await stage.submit(operation) == APPLIED
    answer = await stage.fetch(operation.key)
    assert isinstance(answer, Record)
    assert (answer.version, answer.fields) == (operation.version, {"n": 1})


async def test_calls_of_one_moment_are_one_physical_call(stage: Stage) -> None:
    operations = [stage.create() for _ in range(5)]
    await asyncio.gather(*(stage.submit(operation) for operation in operations))
    await asyncio.gather(*(stage.fetch(operation.key) for operation in operations))
    assert stage.store.batches == [5, 5]


async def test_live_and_mirrored_writes_share_no_batch(stage: Stage) -> None:
    deadline = asyncio.get_running_loop().time() + 1.0
    modes = (Mode.LIVE, Mode.MIRROR, Mode.MIRROR)
    await asyncio.gather(*(stage.guard.submit(stage.create(), mode, deadline) for mode in modes))
    assert stage.store.batches == [1, 2]


async def test_batches_in_bulk_keep_the_adapters_limits(stage: Stage) -> None:
    operations = [stage.create() for _ in range(1_001)]
    assert set(await stage.guard.apply(operations, Mode.MIRROR)) == {APPLIED}
    answers = await stage.guard.read([operation.key for operation in operations])
    assert [answer.key for answer in answers if isinstance(answer, Record)] == [op.key for op in operations]
    assert stage.store.batches == [500, 500, 1] * 2


async def test_batches_in_bulk_keep_the_adapters_limit_of_bytes() -> None:
    stage = Stage(Store(batch_bytes=1_000))
    await stage.guard.open()
    sizes = (400, 400, 400, 5_000, 400)
    operations = [stage.create()._replace(payload=b"x" * size) for size in sizes]
    assert await stage.guard.apply(operations, Mode.MIRROR) == [APPLIED] * 5
    assert stage.store.batches == [2, 1, 1, 1]
    await stage.guard.close()


async def test_one_physical_call_is_one_count_for_the_breaker(stage: Stage) -> None:
    await asyncio.gather(*(stage.submit(stage.create()) for _ in range(10)))
    assert stage.guard.statistics().writes.calls == 1


# -- failures, timeouts, rejections ----------------------------------------------------------------


async def test_a_refused_connection_opens_the_breaker_and_was_certainly_not_applied(stage: Stage) -> None:
    stage.faulty.writes = Fault.REFUSE
    outcome = await stage.submit(stage.create())
    assert outcome.status is Status.UNAVAILABLE
    assert isinstance(outcome.error, BackendRefused)
    assert stage.guard.writes.state is State.OPEN


async def test_timeouts_in_a_row_open_the_breaker_and_are_unknown(stage: Stage) -> None:
    stage.faulty.writes = Fault.HANG
    for _ in range(3):
        assert stage.guard.writes.passes
        outcome = await stage.submit(stage.create())
        assert outcome.status is Status.UNKNOWN
        assert isinstance(outcome.error, BackendTimeout)
    assert stage.guard.writes.state is State.OPEN
    assert stage.guard.reads.state is State.CLOSED


async def test_a_failing_write_side_leaves_the_reads_alone(stage: Stage) -> None:
    operation = stage.create()
    await stage.submit(operation)
    stage.faulty.writes = Fault.REFUSE
    await stage.submit(stage.create())
    assert not stage.guard.writes.passes
    assert isinstance(await stage.fetch(operation.key), Record)


async def test_an_open_breaker_answers_at_once_without_a_call(stage: Stage) -> None:
    stage.guard.writes.force(State.FORCED_OPEN)
    stage.guard.reads.force(State.FORCED_OPEN)
    before = stage.faulty.calls.copy()
    written, read = stage.submit(stage.create()), stage.fetch(stage.author.key())
    assert written.result().status is Status.UNAVAILABLE
    assert isinstance(written.result().error, CircuitOpen)
    assert isinstance(read.result(), CircuitOpen)
    (outcome,) = await stage.guard.apply([stage.create()], Mode.MIRROR)
    assert outcome.status is Status.UNAVAILABLE
    with pytest.raises(CircuitOpen):
        await stage.guard.read([stage.author.key()])
    with pytest.raises(CircuitOpen):
        await stage.guard.ping()
    assert stage.faulty.calls == before


async def test_an_open_breaker_says_when_to_try_again(stage: Stage) -> None:
    stage.faulty.break_down(Fault.REFUSE)
    await stage.submit(stage.create())
    error = stage.submit(stage.create()).result().error
    assert isinstance(error, CircuitOpen)
    assert error.backend == "memory"
    assert error.retry_after is not None
    assert 0 < error.retry_after <= QUICK.open_at_most


async def test_what_waits_when_the_breaker_opens_is_answered_at_once(stage: Stage) -> None:
    stage.faulty.writes = Fault.HANG
    first = stage.submit(stage.create())
    await asyncio.sleep(0.005)
    waiting = [stage.submit(stage.create()) for _ in range(3)]
    stage.guard.writes.trip("as another call was refused")
    assert [future.result().status for future in waiting] == [Status.UNAVAILABLE] * 3
    stage.faulty.heal()
    assert await first == APPLIED


async def test_rejections_prove_that_the_backend_is_alive(stage: Stage) -> None:
    operation = stage.create()
    await stage.submit(operation)
    for _ in range(30):
        again = operation._replace(version=stage.author.clock.next(), born="another")
        assert (await stage.submit(again)).status is Status.REJECTED
    assert stage.guard.writes.state is State.CLOSED
    assert stage.guard.statistics().writes.bad == 0


async def test_one_answer_in_a_batch_proves_life(stage: Stage) -> None:
    down = failed(BackendRefused("a node is down", backend="memory"))
    stage.store.outcomes = [down, rejected(OctopusError("duplicate")), down]
    await stage.guard.apply([stage.create() for _ in range(3)], Mode.MIRROR)
    assert stage.moves == []
    stage.store.outcomes = [down, down]
    await stage.guard.apply([stage.create() for _ in range(2)], Mode.MIRROR)
    assert stage.moves == [("writes", "open")]


async def test_a_cancelled_call_tells_the_breaker_nothing(stage: Stage) -> None:
    stage.faulty.break_down(Fault.HANG)
    calls = [
        asyncio.create_task(stage.guard.ping()),
        asyncio.create_task(stage.guard.probe()),
        asyncio.ensure_future(stage.guard.apply([stage.create()], Mode.MIRROR)),
    ]
    await asyncio.sleep(0.005)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert all(call.cancelled() for call in calls)
    statistics = stage.guard.statistics()
    assert (statistics.reads.calls, statistics.writes.calls) == (0, 0)
    assert statistics.writes_under_way == 0


async def test_a_deadline_is_kept_though_the_backend_hangs(stage: Stage) -> None:
    stage.faulty.break_down(Fault.HANG)
    loop = asyncio.get_running_loop()
    start = loop.time()
    written, read = stage.submit(stage.create(), 0.02), stage.fetch(stage.author.key(), 0.02)
    assert (await written).status is Status.UNKNOWN
    assert isinstance(await read, BackendTimeout)
    assert loop.time() - start < 0.02 + 0.1


async def test_what_never_left_the_queue_is_unavailable_and_not_unknown(stage: Stage) -> None:
    stage.faulty.writes = Fault.HANG
    first = stage.submit(stage.create(), 1.0)
    await asyncio.sleep(0.005)
    queued = stage.submit(stage.create(), 0.02)
    assert (await queued).status is Status.UNAVAILABLE
    assert not first.done()
    assert stage.faulty.calls["apply"] == 1


@pytest.mark.parametrize("error", [OSError(SECRET), ValueError(SECRET), KeyError(SECRET)])
async def test_a_foreign_exception_becomes_one_of_our_tree_without_its_text(
    stage: Stage, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    stage.store.errors = dict.fromkeys(("apply", "read", "ping", "probe"), error)
    (outcome,) = await stage.guard.apply([stage.create()], Mode.MIRROR)
    answer = await stage.fetch(stage.author.key())
    assert outcome.status is Status.UNKNOWN
    for told in (outcome.error, answer):
        assert isinstance(told, BackendFailed)
        assert type(error).__name__ in str(told)
        assert SECRET not in f"{told} {told!r}"
    for call in (stage.guard.ping, stage.guard.probe):
        with pytest.raises(BackendFailed):
            await call()
    assert SECRET not in caplog.text


async def test_a_cancellation_that_leaks_out_of_a_driver_is_a_failure_of_the_backend(stage: Stage) -> None:
    stage.store.errors = dict.fromkeys(("apply", "read", "ping"), asyncio.CancelledError())
    (outcome,) = await stage.guard.apply([stage.create()], Mode.MIRROR)
    assert outcome.status is Status.UNKNOWN
    assert isinstance(outcome.error, BackendFailed)
    assert isinstance(await stage.fetch(stage.author.key()), BackendFailed)
    with pytest.raises(BackendFailed):
        await stage.guard.ping()


async def test_an_adapter_that_forgets_an_answer_has_failed(stage: Stage) -> None:
    stage.store.forgets_one = True
    answers = await asyncio.gather(*(stage.fetch(stage.author.key()) for _ in range(3)))
    assert [type(answer) for answer in answers] == [BackendFailed] * 3
    with pytest.raises(BackendFailed):
        await stage.guard.read([stage.author.key()])
    stage.store.outcomes = [APPLIED]
    outcomes = await asyncio.gather(stage.submit(stage.create()), stage.submit(stage.create()))
    assert [type(outcome.error) for outcome in outcomes] == [BackendFailed] * 2


# -- probes ----------------------------------------------------------------------------------------


async def test_writes_come_back_by_a_probe_that_writes_and_not_by_a_ping(stage: Stage) -> None:
    stage.faulty.writes = Fault.REFUSE
    await stage.submit(stage.create())
    await asyncio.sleep(0.1)  # a ping would succeed all the while
    assert stage.guard.writes.state is not State.CLOSED
    assert stage.faulty.calls["probe"] >= 1
    stage.faulty.heal()
    await stage.closes("writes")
    assert stage.faulty.calls["ping"] == 0
    assert await stage.submit(stage.create()) == APPLIED
    assert stage.moves[0] == ("writes", "open")
    assert stage.moves[-1] == ("writes", "closed")


async def test_reads_come_back_by_a_ping(stage: Stage) -> None:
    stage.faulty.reads = Fault.REFUSE
    await stage.fetch(stage.author.key())
    stage.faulty.heal()
    await stage.closes("reads")
    assert stage.faulty.calls["ping"] >= 1
    assert stage.faulty.calls["probe"] == 0


async def test_users_make_no_call_while_probes_fail(stage: Stage) -> None:
    stage.faulty.writes = Fault.REFUSE
    await stage.submit(stage.create())
    before = stage.faulty.calls["apply"]
    for _ in range(20):
        assert isinstance((await stage.submit(stage.create())).error, CircuitOpen)
        await asyncio.sleep(0.005)
    assert stage.faulty.calls["apply"] == before


async def test_a_probe_that_hangs_is_given_up_and_made_again(stage: Stage) -> None:
    stage.faulty.writes = Fault.REFUSE
    await stage.submit(stage.create())
    stage.faulty.writes = Fault.HANG
    await asyncio.sleep(0.25)
    assert 2 <= stage.faulty.calls["probe"] <= 6
    stage.faulty.heal()
    await stage.closes("writes")


async def test_probes_are_paced_by_the_back_off(stage: Stage) -> None:
    stage.faulty.writes = Fault.REFUSE
    await stage.submit(stage.create())
    await asyncio.sleep(0.3)
    assert 3 <= stage.faulty.calls["probe"] <= 8


async def test_a_backend_that_lost_its_tables_while_it_was_away_is_given_them_again(stage: Stage) -> None:
    stage.guard.learn(schema("Book"), create=True)
    stage.store.missing = {"Book"}
    stage.store.errors = {"probe": SchemaMismatch("no table for probes", backend="memory")}
    stage.guard.writes.trip("for the test")
    await stage.closes("writes")
    assert await stage.submit(stage.create()) == APPLIED


async def test_a_probe_that_raises_anything_is_made_again(stage: Stage) -> None:
    stage.store.errors = {"probe": RuntimeError(SECRET)}
    stage.guard.writes.trip("for the test")
    await asyncio.sleep(0.1)
    assert stage.guard.writes.state is not State.CLOSED
    stage.store.errors = {}
    await stage.closes("writes")
    assert SECRET not in repr(stage.told)


async def test_a_table_that_does_not_fit_is_told_once_until_its_problem_changes(stage: Stage) -> None:
    async def write(problem: str | None) -> None:
        stage.store.errors = {} if problem is None else {"apply": SchemaMismatch(problem)}
        await stage.submit(stage.create())

    for problem in ("no title", "no title", "no author", "no author", None, "no author"):
        await write(problem)
    told = [told.problem for told in stage.told if isinstance(told, SchemaDiffers)]
    assert told == ["no title", "no author", "no author"]


async def test_a_cancellation_that_leaks_out_of_a_driver_ends_no_probing(stage: Stage) -> None:
    stage.store.errors = {"probe": asyncio.CancelledError()}
    stage.guard.writes.trip("for the test")
    await asyncio.sleep(0.1)
    stage.store.errors = {}
    await stage.closes("writes")


async def test_a_breaker_that_opens_as_its_probe_ends_is_probed_again(stage: Stage) -> None:
    stage.guard.writes.trip("for the test")
    probe = stage.guard._probers["writes"].task
    assert probe is not None
    while not probe.done():  # noqa: ASYNC110 - it has to be seen in the turn in which it ends
        await asyncio.sleep(0)
    stage.guard.writes.trip("again, before the loop's next turn")
    assert not stage.guard.writes.passes
    await stage.closes("writes")


async def test_a_breaker_that_opens_in_the_listener_of_its_closing_is_probed_again(stage: Stage) -> None:
    def trip(event: Event) -> None:
        if isinstance(event, BreakerChanged) and event.after == "closed" and len(stage.moves) < 5:
            stage.guard.writes.trip("by a listener")

    stage.guard._events.subscribe(trip)
    stage.guard.writes.trip("for the test")
    await asyncio.sleep(0.2)
    await stage.closes("writes")
    assert [after for _, after in stage.moves].count("open") > 1


async def test_a_breaker_forced_open_is_not_probed_until_it_is_released(stage: Stage) -> None:
    stage.guard.writes.trip("for the test")
    stage.guard.writes.force(State.FORCED_OPEN)
    await asyncio.sleep(0.1)
    assert stage.faulty.calls["probe"] == 0
    assert stage.guard.writes.state is State.FORCED_OPEN
    stage.guard.writes.release()
    await stage.closes("writes")
    assert stage.faulty.calls["probe"] == 1


# -- opening and closing ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [Fault.REFUSE, Fault.HANG, OSError(SECRET)], ids=["refuse", "hang", "foreign"]
)
async def test_a_backend_that_cannot_be_opened_is_opened_later_by_a_probe(fault: Fault | Exception) -> None:
    stage = Stage()
    if isinstance(fault, Fault):
        stage.faulty.opens = fault
    else:
        stage.store.errors = {"open": fault}
    with pytest.raises(Unavailable) as caught:
        await stage.guard.open()
    assert SECRET not in str(caught.value)
    assert not stage.guard.reads.passes
    assert not stage.guard.writes.passes
    assert isinstance(stage.submit(stage.create()).result().error, CircuitOpen)
    stage.faulty.heal()
    stage.store.errors = {}
    await stage.closes("reads")
    await stage.closes("writes")
    assert await stage.submit(stage.create()) == APPLIED
    await stage.guard.close()
    assert SECRET not in repr(stage.told)


async def test_a_wrong_set_up_is_said_as_such_when_opening() -> None:
    stage = Stage()
    stage.store.errors = {"open": ConfigurationError("the driver is missing: install octopus-async[mysql]")}
    with pytest.raises(ConfigurationError, match="install"):
        await stage.guard.open()
    await stage.guard.close()


async def test_both_probes_open_the_adapter_once() -> None:
    stage = Stage()
    stage.faulty.opens = Fault.REFUSE
    with pytest.raises(BackendRefused):
        await stage.guard.open()
    stage.faulty.opens = None
    await stage.closes("reads")
    await stage.closes("writes")
    assert stage.faulty.calls["open"] == 2
    await stage.guard.close()


@pytest.mark.parametrize("was_down", [False, True], ids=["was well", "was down"])
async def test_a_closed_guard_can_be_opened_again(*, was_down: bool) -> None:
    stage = Stage()
    stage.faulty.opens = Fault.REFUSE if was_down else None
    if was_down:
        with pytest.raises(BackendRefused):
            await stage.guard.open()
    else:
        await stage.guard.open()
    await stage.guard.close()
    stage.faulty.heal()
    await stage.guard.open()
    await stage.closes("reads")
    await stage.closes("writes")
    operation = stage.create()
    assert await stage.submit(operation) == APPLIED
    assert isinstance(await stage.fetch(operation.key), Record)
    await stage.guard.close()


async def test_closing_is_bounded_though_the_backend_hangs(stage: Stage) -> None:
    stage.faulty.break_down(Fault.HANG)
    futures: list[asyncio.Future[Outcome]] = [stage.submit(stage.create()) for _ in range(2)]
    reads = [stage.fetch(stage.author.key()) for _ in range(2)]
    stage.guard.writes.trip("so that there is a probe")
    await asyncio.sleep(0.03)
    start = asyncio.get_running_loop().time()
    await stage.guard.close()
    assert asyncio.get_running_loop().time() - start < 3 * POLICY.timeout + POLICY.open_timeout + 0.1
    assert all(future.done() for future in futures)
    assert all(future.done() for future in reads)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_leaves_no_task_and_settles_what_waits(stage: Stage) -> None:
    stage.faulty.writes = Fault.HANG
    sent = stage.submit(stage.create())
    await asyncio.sleep(0.005)
    queued = stage.submit(stage.create())
    bulk = asyncio.create_task(_one(stage.guard, stage.create()))
    await asyncio.sleep(0.005)
    await stage.guard.close()
    assert sent.result().status is Status.UNKNOWN
    assert queued.result().status is Status.UNAVAILABLE
    assert (await bulk).status is Status.UNAVAILABLE


async def test_a_closed_guard_answers_at_once_and_asks_nobody(stage: Stage) -> None:
    await stage.guard.close()
    before = stage.faulty.calls.copy()
    assert stage.submit(stage.create()).result().status is Status.UNAVAILABLE
    assert isinstance(stage.fetch(stage.author.key()).result(), BackendFailed)
    assert (await _one(stage.guard, stage.create())).status is Status.UNAVAILABLE
    with pytest.raises(BackendFailed, match="clos"):
        await stage.guard.ping()
    assert stage.faulty.calls == before
    assert stage.guard.statistics().reads.calls == 0


async def test_an_adapter_that_fails_to_close_stops_nobody(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.store.errors = {"close": OSError(SECRET)}
    await stage.guard.close()
    assert "memory" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("moment", list(Moment))
async def test_closing_that_was_cancelled_at_any_await_can_be_made_good(moment: Moment) -> None:
    for step in range(1, 50):
        stage = Stage()
        await stage.guard.open()
        stage.faulty.writes = Fault.HANG
        future = stage.submit(stage.create())
        stage.guard.reads.trip("so that there is a probe")
        await asyncio.sleep(0)
        reached = await cancel_at(stage.guard.close(), step, moment)
        await stage.guard.close()
        assert future.done()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        if not reached:
            return
    pytest.fail("closing took more steps than that")


@pytest.mark.parametrize("moment", list(Moment))
async def test_a_call_cancelled_at_any_await_leaks_no_slot(stage: Stage, moment: Moment) -> None:
    stage.faulty.writes = Fault.SLOW
    stage.faulty.delay = 0.005
    for step in range(1, 50):
        line = [asyncio.create_task(_one(stage.guard, stage.create())) for _ in range(2)]
        await asyncio.sleep(0)
        reached = await cancel_at(_one(stage.guard, stage.create()), step, moment)
        assert [await other for other in line] == [APPLIED] * 2
        assert stage.guard.statistics().writes_under_way == 0
        if not reached:
            return
    pytest.fail("the call took more steps than that")


async def _one(guard: Guard, operation: Operation) -> Outcome:
    (outcome,) = await guard.apply([operation], Mode.LIVE)
    return outcome


# -- models whose tables do not fit ----------------------------------------------------------------


@pytest.fixture
async def torn(stage: Stage) -> Stage:
    """A stage that knows two models, of which one has no table."""
    stage.guard.learn(schema("Book"), create=False)
    stage.guard.learn(schema("Author"), create=False)
    stage.store.missing = {"Author"}
    return stage


async def test_a_table_that_does_not_fit_fails_its_own_model_in_a_batch_of_writes(torn: Stage) -> None:
    fits, differs = torn.create("Book"), torn.create("Author")
    good, bad = await asyncio.gather(torn.submit(fits), torn.submit(differs))
    assert good == APPLIED
    assert bad.status is Status.UNAVAILABLE
    assert isinstance(bad.error, SchemaMismatch)
    assert torn.differing == ["Author"]


async def test_a_table_that_does_not_fit_fails_its_own_model_in_a_batch_of_reads(torn: Stage) -> None:
    operation = torn.create("Book")
    await torn.submit(operation)
    good, bad = await asyncio.gather(torn.fetch(operation.key), torn.fetch(torn.create("Author").key))
    assert isinstance(good, Record)
    assert isinstance(bad, SchemaMismatch)
    assert set(torn.differing) == {"Author"}


async def test_a_table_lost_after_it_was_checked_fails_its_own_model_alone(torn: Stage) -> None:
    torn.store.missing = set()
    book, author = torn.create("Book"), torn.create("Author")
    await asyncio.gather(torn.submit(book), torn.submit(author))
    torn.store.missing = {"Author"}
    good, bad = await asyncio.gather(torn.fetch(book.key), torn.fetch(author.key))
    assert isinstance(good, Record)
    assert isinstance(bad, SchemaMismatch)
    assert set(torn.differing) == {"Author"}
    outcomes = await asyncio.gather(torn.submit(torn.create("Book")), torn.submit(torn.create("Author")))
    assert outcomes[0] == APPLIED
    assert isinstance(outcomes[1].error, SchemaMismatch)
    assert set(torn.differing) == {"Author"}


async def test_a_table_that_does_not_fit_does_not_open_the_breaker(torn: Stage) -> None:
    for _ in range(30):
        await torn.submit(torn.create("Author"))
        await torn.fetch(torn.create("Author").key)
    assert torn.guard.writes.state is State.CLOSED
    assert torn.guard.reads.state is State.CLOSED
    assert torn.moves == []


async def test_a_table_that_was_mended_is_used_again(torn: Stage) -> None:
    await torn.submit(torn.create("Author"))
    torn.store.missing = set()
    assert await torn.submit(torn.create("Author")) == APPLIED
    checked = torn.store.checked["Author"]
    assert await torn.submit(torn.create("Author")) == APPLIED
    assert torn.store.checked["Author"] == checked


async def test_a_model_is_prepared_at_its_first_use_and_created_on_request(stage: Stage) -> None:
    stage.store.missing = {"Book"}
    stage.guard.learn(schema("Book"), create=True)
    assert stage.store.checked["Book"] == 0
    assert await stage.submit(stage.create("Book")) == APPLIED
    assert await stage.submit(stage.create("Book")) == APPLIED
    assert stage.store.checked["Book"] == 1


async def test_preparing_ahead_says_what_does_not_fit(torn: Stage) -> None:
    await torn.guard.prepare(schema("Book"), create=False)
    with pytest.raises(SchemaMismatch):
        await torn.guard.prepare(schema("Author"), create=False)


class Failing(Store):
    """A store that fails for one of its models."""

    async def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        if operations[0].key.model == "Book":
            raise BackendRefused("the connection is gone", backend=self.name)
        return await super().apply(operations, mode)


async def test_what_was_applied_is_said_so_though_the_backend_fails_for_the_next_model() -> None:
    stage = Stage(Failing())
    await stage.guard.open()
    applied, not_applied = stage.create("Author"), stage.create("Book")
    outcomes = await stage.guard.apply([not_applied, applied], Mode.MIRROR)
    assert [outcome.status for outcome in outcomes] == [Status.UNAVAILABLE, Status.APPLIED]
    await stage.guard.close()


# -- fills -----------------------------------------------------------------------------------------


@pytest.fixture
async def cache() -> AsyncGenerator[Stage]:
    stage = Stage(Store(durable=False))
    await stage.guard.open()
    yield stage
    stage.faulty.heal()
    await stage.guard.close()


async def miss(stage: Stage) -> tuple[Record, Miss]:
    """A record, and the lease that lets this reader fill it."""
    key = stage.author.key()
    lease = await stage.fetch(key)
    assert isinstance(lease, Miss)
    version = stage.author.clock.next()
    return Record(key, version, version, {"n": 1}), lease


async def test_a_fill_is_made_in_the_background(cache: Stage) -> None:
    record, lease = await miss(cache)
    cache.guard.fill(record, lease)
    await asyncio.sleep(0.005)
    assert isinstance(await cache.fetch(record.key), Record)


async def test_fills_are_dropped_while_the_cache_is_unwell(cache: Stage) -> None:
    record, lease = await miss(cache)
    cache.guard.writes.force(State.FORCED_OPEN)
    cache.guard.fill(record, lease)
    await asyncio.sleep(0.005)
    assert cache.faulty.calls["fill"] == 0
    assert isinstance(await cache.fetch(record.key), Miss)


async def test_fills_are_dropped_beyond_a_bound_while_the_cache_hangs(cache: Stage) -> None:
    record, lease = await miss(cache)
    cache.faulty.writes = Fault.HANG
    for number in range(3_000):
        cache.guard.fill(record._replace(key=Key("Book", str(number))), lease)
    assert cache.guard._fill_lane.queued == 1_000
    await cache.guard.close()
    assert cache.guard._fill_lane.queued <= 1_000
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_fill_that_fails_disturbs_nobody_and_is_counted(cache: Stage) -> None:
    record, lease = await miss(cache)
    cache.faulty.writes = Fault.FAIL
    cache.guard.fill(record, lease)
    await asyncio.sleep(0.005)
    assert cache.guard.statistics().writes.bad == 1
    assert (await cache.guard.apply([_invalidation(cache, record.key)], Mode.MIRROR))[
        0
    ].status is Status.UNAVAILABLE


def _invalidation(stage: Stage, key: Key) -> Operation:
    return Operation(Kind.INVALIDATE, key, stage.author.clock.next(), "")


async def test_a_scan_teaches_the_adapter_its_model_first() -> None:
    adapter = MemoryAdapter(durable=True)
    schema = Schema("Book", "book", "id", Type.TEXT, ())
    prepared: list[str] = []
    prepare = adapter.prepare

    async def note(schema: Schema, *, create: bool) -> None:
        prepared.append(schema.model)
        await prepare(schema, create=create)

    adapter.prepare = note  # type: ignore[method-assign]
    guard = Guard(adapter)
    await guard.open()
    guard.learn(schema, create=True)
    assert [record async for record in guard.scan("Book")] == []
    assert prepared == ["Book"]
    await guard.close()


class Instant(Store):
    """Reads at once, but for a failure; its writes wait."""

    apply_now = None  # type: ignore[assignment]  # a guard asks whether it is there: with it, it could not fail

    def read_now(self, key: Key) -> Answer:
        self._raise("read_now")
        return self._find(key, 0.0)

    async def read(self, keys: Sequence[Key]) -> list[Answer]:
        self.batches.append(len(keys))
        self._raise("read")
        return [self._find(key, 0.0) for key in keys]


class TestAnAdapterThatReadsAtOnce:
    @pytest.fixture
    async def instant(self) -> AsyncGenerator[tuple[Guard, Instant]]:
        store = Instant()
        guard = Guard(store, policy=POLICY)
        await guard.open()
        await guard.prepare(Schema("Book", "books", "id", Type.TEXT, ()), create=True)
        yield guard, store
        await guard.close()

    async def test_a_read_is_answered_before_its_caller_waits(self, instant: tuple[Guard, Instant]) -> None:
        guard, store = instant
        future = guard.fetch(Key("Book", "1"), asyncio.get_running_loop().time() + 1)
        assert future.done()
        assert (future.result(), store.batches) == (None, [])

    async def test_a_model_that_it_was_not_taught_is_taught_first(
        self, instant: tuple[Guard, Instant]
    ) -> None:
        guard, store = instant
        guard.learn(Schema("Author", "authors", "id", Type.TEXT, ()), create=True)
        assert await guard.fetch(Key("Author", "1"), asyncio.get_running_loop().time() + 1) is None
        assert (store.checked["Author"], store.batches) == (1, [1])
        assert guard.fetch(Key("Author", "1"), asyncio.get_running_loop().time() + 1).done()

    async def test_what_fails_at_once_is_asked_again_and_counted(
        self, instant: tuple[Guard, Instant]
    ) -> None:
        guard, store = instant
        refused = BackendRefused("gone", backend="memory")
        store.errors = {"read_now": refused}
        assert await guard.fetch(Key("Book", "1"), asyncio.get_running_loop().time() + 1) is None
        assert store.batches == [1]
        store.errors = {"read_now": refused, "read": refused, "ping": refused}
        assert await guard.fetch(Key("Book", "1"), asyncio.get_running_loop().time() + 1) is refused
        assert guard.reads.state is State.OPEN
        store.errors = {}
        asked = guard.fetch(Key("Book", "1"), asyncio.get_running_loop().time() + 1)
        assert isinstance(await asked, CircuitOpen), "a breaker that is open is not gone around"
