"""The breaker, judged by the list of its transitions, on a clock that the test moves by hand."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from octopus_async.guard import Breaker, BreakerPolicy, Failure, State, Transition

POLICY = BreakerPolicy(
    failures_in_a_row=3,
    window=10.0,
    minimum_calls=10,
    bad_rate=0.5,
    slow_after=1.0,
    open_for=1.0,
    backoff=2.0,
    open_at_most=5.0,
    jitter=0.0,
    permits=1,
    permit_for=2.0,
    successes=1,
)


class Subject(Breaker):
    """A breaker with its clock and the transitions it told of."""

    def __init__(self, policy: BreakerPolicy = POLICY, random: float = 0.0) -> None:
        self.time = 100.0
        self.told: list[Transition] = []
        share = random
        super().__init__(
            policy, lambda: self.time, self.told.append, lambda low, high: low + (high - low) * share
        )

    @property
    def path(self) -> list[State]:
        """The states it went through."""
        return [transition.after for transition in self.told]

    def call(self, failure: Failure | None = None, seconds: float = 0.01) -> None:
        """Make one call that ends like this."""
        generation = self.enter()
        assert generation is not None
        if failure is None:
            self.succeeded(generation, seconds)
        else:
            self.failed(generation, failure)

    def open_up(self) -> None:
        """Have it open, by a refused connection."""
        self.call(Failure.REFUSED)
        assert self.state is State.OPEN

    def probe(self, *, well: bool) -> None:
        """Wait until it is time for a probe, and make one."""
        self.time += self.retry_in
        permit = self.permit()
        assert permit is not None
        if well:
            self.probe_succeeded(permit)
        else:
            self.probe_failed(permit, "still down")


@pytest.fixture
def breaker() -> Subject:
    return Subject()


def test_it_is_closed_at_first_and_lets_calls_pass(breaker: Subject) -> None:
    assert breaker.passes
    assert breaker.enter() is not None
    assert not breaker.wants_probe
    assert breaker.permit() is None
    assert breaker.told == []


# -- opening ---------------------------------------------------------------------------------------


def test_a_refused_connection_opens_it_at_once(breaker: Subject) -> None:
    breaker.call(Failure.REFUSED)
    assert breaker.told == [Transition(State.CLOSED, State.OPEN, "connection refused")]
    assert not breaker.passes
    assert breaker.enter() is None


@pytest.mark.parametrize("failure", [Failure.TIMEOUT, Failure.ERROR])
def test_three_failures_in_a_row_open_it_and_two_do_not(breaker: Subject, failure: Failure) -> None:
    breaker.call(failure)
    breaker.call(failure)
    assert breaker.told == []
    breaker.call(failure)
    assert breaker.told == [Transition(State.CLOSED, State.OPEN, f"3 in a row: {failure.value}")]


def test_timeouts_and_errors_make_one_row(breaker: Subject) -> None:
    for failure in (Failure.TIMEOUT, Failure.ERROR, Failure.TIMEOUT):
        breaker.call(failure)
    assert breaker.path == [State.OPEN]


def test_an_answer_in_between_breaks_the_row(breaker: Subject) -> None:
    for _ in range(4):
        breaker.call(Failure.TIMEOUT)
        breaker.call(Failure.TIMEOUT)
        breaker.call()
        breaker.time += POLICY.window  # so that the rate plays no part
    assert breaker.told == []


def test_a_rejection_is_an_answer_and_proves_life(breaker: Subject) -> None:
    # What is answered by a rejection is told as a success: there is no other word for it.
    breaker.call(Failure.TIMEOUT)
    breaker.call(Failure.TIMEOUT)
    breaker.call()
    assert breaker.statistics().in_a_row == 0


def test_the_reason_of_the_last_failure_is_told(breaker: Subject) -> None:
    for number in range(3):
        breaker.failed(0, Failure.TIMEOUT, f"no answer to call {number}")
    assert [told.reason for told in breaker.told] == ["3 in a row: no answer to call 2"]


def test_the_rate_of_bad_calls_opens_it(breaker: Subject) -> None:
    for _ in range(5):
        breaker.call()
        breaker.call(Failure.ERROR)
    assert breaker.told == [Transition(State.CLOSED, State.OPEN, "5 of 10 calls were bad, the last: error")]


def test_the_rate_does_not_count_below_the_minimum_of_calls(breaker: Subject) -> None:
    for _ in range(4):
        breaker.call()
        breaker.call(Failure.ERROR)
    assert breaker.told == []
    assert breaker.statistics().bad == 4


def test_a_rate_below_the_threshold_keeps_it_closed(breaker: Subject) -> None:
    for _ in range(20):
        breaker.call()
        breaker.call()
        breaker.call(Failure.ERROR)
    assert breaker.told == []


def test_slow_calls_are_bad_calls(breaker: Subject) -> None:
    for _ in range(5):
        breaker.call()
        breaker.call(seconds=1.5)
    assert [told.reason for told in breaker.told] == ["5 of 10 calls were bad, the last: slow calls"]


def test_without_a_threshold_no_call_is_slow() -> None:
    breaker = Subject(replace(POLICY, slow_after=None))
    for _ in range(50):
        breaker.call(seconds=1000.0)
    assert breaker.told == []


def test_slow_answers_alone_make_no_row_of_failures(breaker: Subject) -> None:
    for _ in range(5):
        breaker.call(seconds=1.5)
    assert breaker.told == []


def test_calls_older_than_the_window_are_forgotten(breaker: Subject) -> None:
    for _ in range(4):
        breaker.call()
        breaker.call(Failure.ERROR)
    breaker.time += POLICY.window + 0.1
    assert breaker.statistics().calls == 0
    breaker.call()
    breaker.call(Failure.ERROR)
    assert breaker.told == []


def test_the_window_slides(breaker: Subject) -> None:
    for _ in range(30):
        breaker.call()
        breaker.time += 1.0
    assert breaker.statistics().calls == pytest.approx(10, abs=1)


def test_the_window_takes_a_bounded_amount_of_memory(breaker: Subject) -> None:
    tracemalloc.start()
    for number in range(20_000):
        breaker.time += 0.0001
        breaker.call(Failure.ERROR if number % 5 == 0 else None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    statistics = breaker.statistics()
    assert (statistics.calls, statistics.bad) == (20_000, 4_000)
    assert peak < 50_000


# -- cancellation, generations ---------------------------------------------------------------------


def test_a_cancelled_call_is_neither_a_success_nor_a_failure(breaker: Subject) -> None:
    breaker.call(Failure.TIMEOUT)
    breaker.call(Failure.TIMEOUT)
    before = breaker.statistics()
    assert breaker.enter() is not None  # and no word of how it ended
    assert breaker.statistics() == before
    breaker.call(Failure.TIMEOUT)
    assert breaker.path == [State.OPEN]


def test_a_late_failure_of_an_older_generation_does_not_open_it_again(breaker: Subject) -> None:
    late = breaker.enter()
    assert late is not None
    breaker.open_up()
    breaker.probe(well=True)
    breaker.failed(late, Failure.REFUSED)
    assert breaker.path == [State.OPEN, State.HALF_OPEN, State.CLOSED]
    assert breaker.statistics().calls == 0


def test_a_late_success_of_an_older_generation_closes_nothing(breaker: Subject) -> None:
    late = breaker.enter()
    assert late is not None
    breaker.open_up()
    breaker.succeeded(late, 0.01)
    assert breaker.path == [State.OPEN]
    breaker.time += breaker.retry_in
    breaker.permit()
    breaker.succeeded(late, 0.01)
    assert breaker.path == [State.OPEN, State.HALF_OPEN]


def test_a_late_success_does_not_break_a_row_of_failures(breaker: Subject) -> None:
    late = breaker.enter()
    assert late is not None
    breaker.open_up()
    breaker.probe(well=True)
    breaker.call(Failure.TIMEOUT)
    breaker.call(Failure.TIMEOUT)
    breaker.succeeded(late, 0.01)
    breaker.call(Failure.TIMEOUT)
    assert breaker.path == [State.OPEN, State.HALF_OPEN, State.CLOSED, State.OPEN]


def test_many_failures_of_one_generation_open_it_once(breaker: Subject) -> None:
    generations = [breaker.enter() for _ in range(5)]
    for generation in generations:
        assert generation is not None
        breaker.failed(generation, Failure.REFUSED)
    assert breaker.path == [State.OPEN]
    assert breaker.retry_in == POLICY.open_for


# -- backing off -----------------------------------------------------------------------------------


def test_the_open_time_doubles_up_to_a_cap(breaker: Subject) -> None:
    breaker.open_up()
    pauses = []
    for _ in range(5):
        pauses.append(breaker.retry_in)
        breaker.probe(well=False)
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_an_outage_of_months_overflows_nothing() -> None:
    breaker = Subject(replace(POLICY, backoff=10.0))
    breaker.open_up()
    for _ in range(2_000):
        breaker.probe(well=False)
    assert breaker.retry_in == POLICY.open_at_most


def test_jitter_shortens_the_open_time_by_its_share_at_most() -> None:
    for random, pause in ((0.0, 1.0), (0.5, 0.9), (1.0, 0.8)):
        breaker = Subject(replace(POLICY, jitter=0.2), random)
        breaker.open_up()
        assert breaker.retry_in == pytest.approx(pause)


def test_closing_forgets_the_back_off(breaker: Subject) -> None:
    breaker.open_up()
    breaker.probe(well=False)
    breaker.probe(well=True)
    breaker.open_up()
    assert breaker.retry_in == POLICY.open_for


def test_no_probe_is_admitted_before_its_time(breaker: Subject) -> None:
    breaker.open_up()
    breaker.time += 0.99
    assert breaker.permit() is None
    assert breaker.state is State.OPEN
    breaker.time += 0.01
    assert breaker.permit() is not None
    assert breaker.path == [State.OPEN, State.HALF_OPEN]


# -- half-open -------------------------------------------------------------------------------------


def test_half_open_is_for_probes_alone(breaker: Subject) -> None:
    breaker.open_up()
    breaker.time += breaker.retry_in
    assert breaker.permit() is not None
    assert breaker.enter() is None
    assert not breaker.passes


def test_a_probe_that_succeeds_closes_it(breaker: Subject) -> None:
    breaker.open_up()
    breaker.probe(well=True)
    assert breaker.told[1:] == [
        Transition(State.OPEN, State.HALF_OPEN, "time for a probe"),
        Transition(State.HALF_OPEN, State.CLOSED, "a probe succeeded"),
    ]


def test_a_probe_that_fails_opens_it_again_with_the_reason(breaker: Subject) -> None:
    breaker.open_up()
    breaker.probe(well=False)
    assert breaker.told[-1] == Transition(State.HALF_OPEN, State.OPEN, "a probe failed: still down")


def test_as_many_probes_have_to_succeed_as_the_policy_says() -> None:
    breaker = Subject(replace(POLICY, successes=3))
    breaker.open_up()
    breaker.probe(well=True)
    breaker.probe(well=True)
    breaker.probe(well=False)
    for _ in range(3):
        assert breaker.path[-1] is not State.CLOSED  # successes of before the failure count no more
        breaker.probe(well=True)
    assert breaker.path[-1] is State.CLOSED


def test_permits_are_bounded(breaker: Subject) -> None:
    breaker = Subject(replace(POLICY, permits=2))
    breaker.open_up()
    breaker.time += breaker.retry_in
    assert breaker.permit() is not None
    assert breaker.permit() is not None
    assert breaker.permit() is None


def test_a_dropped_probe_proves_nothing_and_frees_its_permit(breaker: Subject) -> None:
    breaker.open_up()
    breaker.time += breaker.retry_in
    permit = breaker.permit()
    assert permit is not None
    breaker.probe_dropped(permit)
    assert breaker.state is State.HALF_OPEN
    assert breaker.permit() is not None


def test_a_permit_that_was_not_given_back_expires(breaker: Subject) -> None:
    breaker.open_up()
    breaker.time += breaker.retry_in
    lost = breaker.permit()
    assert lost is not None
    breaker.time += POLICY.permit_for - 0.1
    assert breaker.permit() is None
    breaker.time += 0.1
    assert breaker.permit() is not None
    breaker.probe_failed(lost, "very late")
    breaker.probe_succeeded(lost)
    assert breaker.state is State.HALF_OPEN


def test_a_permit_counts_once(breaker: Subject) -> None:
    breaker = Subject(replace(POLICY, successes=2))
    breaker.open_up()
    breaker.time += breaker.retry_in
    permit = breaker.permit()
    assert permit is not None
    breaker.probe_succeeded(permit)
    breaker.probe_succeeded(permit)
    assert breaker.state is State.HALF_OPEN


def test_a_permit_of_an_earlier_half_open_means_nothing_in_a_later_one() -> None:
    breaker = Subject(replace(POLICY, permits=2))
    breaker.open_up()
    breaker.time += breaker.retry_in
    early, other = breaker.permit(), breaker.permit()
    assert early is not None
    assert other is not None
    breaker.probe_failed(other, "still down")
    breaker.time += breaker.retry_in
    assert breaker.permit() is not None
    breaker.probe_succeeded(early)
    assert breaker.state is State.HALF_OPEN


# -- tripped, and by hand --------------------------------------------------------------------------


def test_it_can_be_tripped_for_a_backend_that_could_not_be_opened(breaker: Subject) -> None:
    breaker.trip("no such host")
    breaker.trip("no such host")
    assert breaker.told == [Transition(State.CLOSED, State.OPEN, "no such host")]
    assert breaker.wants_probe


@pytest.mark.parametrize("state", [State.FORCED_OPEN, State.FORCED_CLOSED, State.DISABLED])
def test_what_is_set_by_hand_stays_until_it_is_released(breaker: Subject, state: State) -> None:
    breaker.force(state)
    breaker.trip("no such host")
    generation = breaker.enter()
    for _ in range(50):
        if generation is not None:
            breaker.failed(generation, Failure.REFUSED)
    breaker.time += 3600.0
    assert breaker.permit() is None
    assert not breaker.wants_probe
    assert breaker.told == [Transition(State.CLOSED, state, "by hand")]
    assert breaker.passes is (state is not State.FORCED_OPEN)


def test_forced_open_lets_nothing_pass_though_all_is_well(breaker: Subject) -> None:
    breaker.force(State.FORCED_OPEN)
    assert breaker.enter() is None


@pytest.mark.parametrize("failure", list(Failure))
def test_forced_closed_still_counts_what_happens(breaker: Subject, failure: Failure) -> None:
    breaker.force(State.FORCED_CLOSED)
    for _ in range(6):
        breaker.call(failure)
    breaker.call()
    statistics = breaker.statistics()
    assert (statistics.calls, statistics.bad) == (7, 6)


def test_disabled_counts_nothing(breaker: Subject) -> None:
    breaker.force(State.DISABLED)
    breaker.call(Failure.REFUSED)
    breaker.call()
    assert breaker.statistics().calls == 0


def test_a_released_breaker_asks_for_a_probe_at_once(breaker: Subject) -> None:
    breaker.force(State.FORCED_CLOSED)
    breaker.release()
    assert breaker.path == [State.FORCED_CLOSED, State.OPEN]
    assert breaker.retry_in == 0.0
    breaker.probe(well=True)
    assert breaker.state is State.CLOSED


def test_releasing_what_was_not_forced_changes_nothing(breaker: Subject) -> None:
    breaker.release()
    breaker.open_up()
    breaker.release()
    assert breaker.path == [State.OPEN]
    assert breaker.retry_in == POLICY.open_for


def test_a_probe_from_before_does_not_move_a_forced_breaker(breaker: Subject) -> None:
    breaker.open_up()
    breaker.time += breaker.retry_in
    permit = breaker.permit()
    assert permit is not None
    breaker.force(State.FORCED_OPEN)
    breaker.probe_succeeded(permit)
    assert breaker.state is State.FORCED_OPEN


def test_a_call_from_before_does_not_move_a_released_breaker(breaker: Subject) -> None:
    generation = breaker.enter()
    assert generation is not None
    breaker.force(State.FORCED_CLOSED)
    breaker.release()
    breaker.probe(well=True)
    breaker.failed(generation, Failure.REFUSED)
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize("state", [State.CLOSED, State.OPEN, State.HALF_OPEN])
def test_it_cannot_be_forced_into_a_state_that_is_its_own(breaker: Subject, state: State) -> None:
    with pytest.raises(ValueError, match="forced open, forced closed or disabled"):
        breaker.force(state)
    assert breaker.told == []


def test_forcing_the_same_twice_tells_once(breaker: Subject) -> None:
    breaker.force(State.DISABLED)
    breaker.force(State.DISABLED)
    assert breaker.path == [State.DISABLED]
