"""The overlay: what is newest, what is owed and in which order, and what is coalesced into one operation."""

from __future__ import annotations

import random
import time

import pytest

from octopus_async.backend import Run
from octopus_async.journal.format import key_bytes
from octopus_async.journal.item import item_of
from octopus_async.journal.overlay import Overlay
from octopus_async.record import Key, Kind, Operation
from tests.crash.journals import PRIMARY, REPLICA, clock, create, delete, key, update


class Shelf:
    """An overlay with numbers given by itself."""

    def __init__(self) -> None:
        self.overlay = Overlay()
        self.sequence = 0

    def put(
        self,
        operation: Operation,
        *targets: str,
        provisional: bool = False,
        unit: bool = False,
        at: float = 1.0,
        sequence: int | None = None,
    ) -> int:
        self.sequence = sequence or self.sequence + 1
        item = item_of(operation, targets or (PRIMARY,), at, provisional=provisional, unit=unit)
        self.overlay.add(self.sequence, item)
        return self.sequence

    def run(self, target: str = PRIMARY) -> Run:
        (run,) = self.overlay.runs(target, 1)
        return run

    def settle(self, run: Run, target: str = PRIMARY) -> None:
        self.overlay.finish(target, key_bytes(run.operation.key), run.sequences)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def test_the_newest_operation_of_a_key_is_found_at_once(shelf: Shelf) -> None:
    shelf.put(create())
    newest = update(title="later")
    shelf.put(newest)
    assert shelf.overlay.newest(key_bytes(key()), PRIMARY) == newest


def test_what_was_appended_comes_back_as_it_was(shelf: Shelf) -> None:
    born = clock.next()
    for operation in (
        create(),
        update(born=born),
        update()._replace(if_version=born),
        update(born=born)._replace(if_version=""),
        delete(born=born),
        delete()._replace(kind=Kind.RETRACT),
        create('Ünïcødé " \\ / \x01 \U0001f419'),
        update("", title=""),
    ):
        sequence = shelf.put(operation)
        assert shelf.overlay.newest(key_bytes(operation.key), PRIMARY) == operation
        shelf.overlay.finish(PRIMARY, key_bytes(operation.key), [sequence])


def test_nothing_is_known_of_a_key_that_nobody_wrote(shelf: Shelf) -> None:
    shelf.put(create("a"))
    assert shelf.overlay.newest(key_bytes(key("b")), PRIMARY) is None
    assert not shelf.overlay.owes_key(PRIMARY, key_bytes(key("b")))


def test_keys_whose_texts_run_together_are_different_keys(shelf: Shelf) -> None:
    shelf.put(create()._replace(key=Key("Book", "s1")))
    assert shelf.overlay.newest(key_bytes(Key("Books", "1")), PRIMARY) is None


def test_an_entry_is_owed_by_each_of_its_targets_until_that_one_has_applied_it(shelf: Shelf) -> None:
    sequence = shelf.put(create(), PRIMARY, REPLICA)
    shelf.settle(shelf.run(PRIMARY))
    assert (shelf.overlay.owes(PRIMARY), shelf.overlay.owes(REPLICA), shelf.overlay.pending) == (0, 1, 1)
    assert not shelf.overlay.is_owed(sequence, PRIMARY)
    assert shelf.overlay.is_owed(sequence, REPLICA)
    shelf.settle(shelf.run(REPLICA), REPLICA)
    assert shelf.overlay.pending == 0
    assert shelf.overlay.owed_by_target() == {}


@pytest.mark.parametrize("count", [1, 3, 20], ids=["one", "a few", "many"])
def test_a_version_is_owed_until_its_target_has_applied_it(shelf: Shelf, count: int) -> None:
    versions = [operation.version for operation in (update() for _ in range(count)) if shelf.put(operation)]
    owed = [shelf.overlay.owes_version(PRIMARY, key_bytes(key()), version) for version in versions]
    assert all(owed)
    assert not shelf.overlay.owes_version(PRIMARY, key_bytes(key()), update().version)
    assert not shelf.overlay.owes_version(REPLICA, key_bytes(key()), versions[0])
    shelf.settle(shelf.run())
    assert not any(shelf.overlay.owes_version(PRIMARY, key_bytes(key()), version) for version in versions)


def test_newest_and_owes_key_look_at_one_target_alone(shelf: Shelf) -> None:
    shelf.put(create(), REPLICA)
    assert shelf.overlay.newest(key_bytes(key()), PRIMARY) is None
    assert shelf.overlay.owes_key(REPLICA, key_bytes(key()))


def test_the_oldest_work_comes_first_and_one_run_for_each_key(shelf: Shelf) -> None:
    for name in ("a", "b", "a", "c"):
        shelf.put(update(name))
    runs = shelf.overlay.runs(PRIMARY, 10)
    assert [(run.operation.key.id, run.sequences) for run in runs] == [
        ("a", (1, 3)),
        ("b", (2,)),
        ("c", (4,)),
    ]


def test_no_more_runs_are_given_than_were_asked_for(shelf: Shelf) -> None:
    for name in "abc":
        shelf.put(create(name))
    assert [run.operation.key.id for run in shelf.overlay.runs(PRIMARY, 2)] == ["a", "b"]
    assert [run.operation.key.id for run in shelf.overlay.runs(PRIMARY, 2)] == ["a", "b"]


def test_keys_can_be_set_aside_until_they_are_brought_back_in_order(shelf: Shelf) -> None:
    def ids() -> list[str]:
        return [run.operation.key.id for run in shelf.overlay.runs(PRIMARY, 9)]

    for name in "abcde":
        shelf.put(create(name), at=float(ord(name)))
    shelf.overlay.set_aside(PRIMARY, [key_bytes(key("a")), key_bytes(key("c"))], "reason")
    shelf.overlay.set_aside(PRIMARY, [key_bytes(key("b"))], "another")
    shelf.put(update("a", title="while it is aside"))
    assert ids() == ["d", "e"]
    assert shelf.overlay.oldest() == ord("a")
    shelf.overlay.bring_back(PRIMARY, "reason", 9)
    assert ids() == ["a", "c", "d", "e"]
    shelf.overlay.bring_back(PRIMARY, "another", 9)
    shelf.overlay.bring_back(PRIMARY, "another", 9)
    assert ids() == ["b", "a", "c", "d", "e"]


def test_what_was_set_aside_comes_back_in_parts(shelf: Shelf) -> None:
    names = [f"{number:05}" for number in range(5000)]
    for name in names:
        shelf.put(create(name))
    shelf.overlay.set_aside(PRIMARY, [key_bytes(key(name)) for name in names], "reason")
    found: list[str] = []
    while len(found) < len(names):
        assert shelf.overlay.runs(PRIMARY, 1) == []
        shelf.overlay.bring_back(PRIMARY, "reason", 100)
        runs = shelf.overlay.runs(PRIMARY, 10_000)
        assert 100 <= len(runs) <= 1200
        found += [run.operation.key.id for run in runs]
        for run in runs:
            shelf.settle(run)
    assert found == names


def test_a_key_that_is_owed_no_more_is_not_looked_for_when_it_is_set_aside(shelf: Shelf) -> None:
    for name in "ab":
        shelf.put(create(name))
    shelf.settle(shelf.run())
    shelf.overlay.set_aside(PRIMARY, [key_bytes(key("a"))], "reason")
    shelf.overlay.bring_back(PRIMARY, "reason", 9)
    assert [run.operation.key.id for run in shelf.overlay.runs(PRIMARY, 9)] == ["b"]


def test_a_key_that_is_written_again_after_it_was_settled_is_owed_again(shelf: Shelf) -> None:
    shelf.put(create())
    shelf.settle(shelf.run())
    shelf.put(update())
    assert shelf.run().sequences == (2,)
    assert len(shelf.overlay.runs(PRIMARY, 10)) == 1


def test_a_create_and_its_updates_are_one_create_with_the_last_state(shelf: Shelf) -> None:
    first, second = create(), update()
    last = update(title="three", born=first.version)
    for operation in (first, second, last):
        shelf.put(operation)
    operation = shelf.run().operation
    assert operation == last._replace(kind=Kind.CREATE, born=first.version)
    assert shelf.run().sequences == (1, 2, 3)


def test_updates_are_one_update_with_the_first_condition_and_the_last_state(shelf: Shelf) -> None:
    condition = clock.next()
    shelf.put(update()._replace(if_version=condition), at=7.0)
    last = update(title="three")
    shelf.put(last, at=8.0)
    assert shelf.run().operation == last._replace(if_version=condition)
    assert shelf.run().at == 7.0


def test_a_delete_swallows_the_updates_before_it(shelf: Shelf) -> None:
    shelf.put(update())
    shelf.put(update())
    last = delete()
    shelf.put(last)
    assert shelf.run().operation == last
    assert shelf.run().sequences == (1, 2, 3)


def test_a_delete_swallows_a_create_that_nobody_can_refuse(shelf: Shelf) -> None:
    first = create()
    shelf.put(first)
    last = delete()
    shelf.put(last)
    assert shelf.run().operation == last._replace(born=first.version)
    assert shelf.run().sequences == (1, 2)


def test_a_delete_does_not_swallow_a_provisional_create(shelf: Shelf) -> None:
    shelf.put(create(), provisional=True)
    shelf.put(update())
    shelf.put(delete())
    run = shelf.run()
    assert (run.operation.kind, run.sequences, run.provisional) == (Kind.CREATE, (1, 2), True)
    shelf.settle(run)
    assert (shelf.run().operation.kind, shelf.run().sequences) == (Kind.DELETE, (3,))


def test_a_create_after_a_delete_begins_a_run_of_its_own(shelf: Shelf) -> None:
    for operation in (update(), delete(), create(), update()):
        shelf.put(operation)
    assert (shelf.run().operation.kind, shelf.run().sequences) == (Kind.DELETE, (1, 2))
    shelf.settle(shelf.run())
    assert (shelf.run().operation.kind, shelf.run().sequences) == (Kind.CREATE, (3, 4))


def test_an_update_after_a_delete_is_left_to_be_refused_by_itself(shelf: Shelf) -> None:
    shelf.put(delete())
    shelf.put(update())
    assert (shelf.run().operation.kind, shelf.run().sequences) == (Kind.DELETE, (1,))


def test_an_update_of_another_record_of_that_id_does_not_join(shelf: Shelf) -> None:
    shelf.put(update(born=clock.next()))
    shelf.put(update(born=clock.next()))
    assert shelf.run().sequences == (1,)


def test_an_update_that_knows_more_than_the_first_does_not_join(shelf: Shelf) -> None:
    shelf.put(update())
    shelf.put(update(born=clock.next()))
    assert shelf.run().sequences == (1,)


def test_deletes_are_one_delete(shelf: Shelf) -> None:
    shelf.put(delete())
    last = delete()
    shelf.put(last)
    assert shelf.run().operation == last
    assert shelf.run().sequences == (1, 2)


def test_invalidations_are_one_and_retractions_stay_apart(shelf: Shelf) -> None:
    for _ in range(2):
        shelf.put(delete("i")._replace(kind=Kind.INVALIDATE))
    for _ in range(2):
        shelf.put(delete("r")._replace(kind=Kind.RETRACT))
    assert [run.sequences for run in shelf.overlay.runs(PRIMARY, 5)] == [(1, 2), (3,)]


def test_what_belongs_to_a_unit_is_not_coalesced_with_anything(shelf: Shelf) -> None:
    shelf.put(update())
    shelf.put(update(), unit=True)
    shelf.put(update(), unit=True)
    shelf.put(update())
    found = []
    while runs := shelf.overlay.runs(PRIMARY, 1):
        found.append(runs[0].sequences)
        shelf.settle(runs[0])
    assert found == [(1,), (2,), (3,), (4,)]


def test_a_run_is_provisional_if_one_of_its_operations_is(shelf: Shelf) -> None:
    shelf.put(update())
    shelf.put(update(), provisional=True)
    assert shelf.run().provisional


def test_what_one_target_has_applied_is_not_in_its_run_but_in_the_others(shelf: Shelf) -> None:
    shelf.put(update(), PRIMARY, REPLICA)
    shelf.settle(shelf.run(PRIMARY))
    shelf.put(update(), PRIMARY, REPLICA)
    assert shelf.run(PRIMARY).sequences == (2,)
    assert shelf.run(REPLICA).sequences == (1, 2)


def test_operations_of_a_key_are_taken_in_the_order_of_versions_not_of_arrival(shelf: Shelf) -> None:
    first, second, third = create(), update(title="two"), update(title="three")
    shelf.put(second)
    shelf.put(first)
    shelf.put(third)
    run = shelf.run()
    assert (run.operation.kind, run.operation.version, run.sequences) == (
        Kind.CREATE,
        third.version,
        (2, 1, 3),
    )


def test_the_age_is_that_of_the_oldest_that_is_still_pending(shelf: Shelf) -> None:
    shelf.put(create("a"), at=5.0)
    shelf.put(create("b"), REPLICA, at=6.0)
    assert shelf.overlay.oldest() == 5.0
    shelf.settle(shelf.run())
    assert shelf.overlay.oldest() == 6.0
    shelf.settle(shelf.run(REPLICA), REPLICA)
    assert shelf.overlay.oldest() is None


def test_a_hot_key_is_drained_in_long_runs(shelf: Shelf) -> None:
    for _ in range(10_000):
        shelf.put(update("hot"))
    lengths = []
    while runs := shelf.overlay.runs(PRIMARY, 1):
        lengths.append(len(runs[0].sequences))
        shelf.settle(runs[0])
    assert sum(lengths) == 10_000
    assert len(lengths) == 3


def test_a_hot_key_that_a_replica_owes_costs_the_others_nothing(shelf: Shelf) -> None:
    for _ in range(20_000):
        shelf.put(update("hot"), REPLICA)
    shelf.put(update("other"), PRIMARY)
    start = time.perf_counter()
    for _ in range(500):
        assert not shelf.overlay.owes_key(PRIMARY, key_bytes(key("hot")))
        assert shelf.overlay.newest(key_bytes(key("hot")), PRIMARY) is None
    assert time.perf_counter() - start < 0.5  # a walk through all of them takes milliseconds, each time


def test_a_hot_key_is_given_to_each_target_from_where_that_one_stands(shelf: Shelf) -> None:
    for _ in range(100):
        shelf.put(update("hot"), PRIMARY, REPLICA)
    shelf.settle(shelf.run(REPLICA), REPLICA)
    late = update("hot", "late")
    shelf.put(late, REPLICA)
    assert shelf.run(REPLICA).sequences == (101,)
    assert shelf.run(PRIMARY).sequences == tuple(range(1, 101))
    early = update("hot", version="0" * 26)
    shelf.put(early, PRIMARY, REPLICA)
    assert shelf.run(REPLICA).sequences == (102, 101)
    assert shelf.run(PRIMARY).sequences == (102, *range(1, 101))
    shelf.settle(shelf.run(PRIMARY))
    shelf.settle(shelf.run(REPLICA), REPLICA)
    assert shelf.overlay.pending == 0
    assert not any(shelf.overlay._shards)


def test_settling_what_is_not_owed_changes_nothing(shelf: Shelf) -> None:
    shelf.put(create())
    run = shelf.run()
    shelf.settle(run)
    shelf.settle(run)
    shelf.settle(run, REPLICA)
    assert shelf.overlay.pending == 0


def test_ranges_say_what_is_pending_by_target(shelf: Shelf) -> None:
    for number in range(1, 8):
        shelf.put(create(str(number)), PRIMARY, *([REPLICA] if number == 2 else []))
    for name in "35":
        shelf.overlay.finish(PRIMARY, key_bytes(key(name)), [int(name)])
    assert shelf.overlay.owed_in(2, 6) == {PRIMARY: [(2, 2), (4, 4), (6, 6)], REPLICA: [(2, 2)]}
    assert shelf.overlay.any_in(4, 4)
    assert not shelf.overlay.any_in(3, 3)
    assert not shelf.overlay.any_in(8, 99_999)


def test_only_what_a_checkpoint_lists_stays_pending(shelf: Shelf) -> None:
    for number in range(1, 10):
        shelf.put(create(str(number)), PRIMARY, REPLICA)
    shelf.overlay.keep_only({PRIMARY: [(2, 3), (5, 5)]}, 1, 6)
    shelf.overlay.sweep()
    assert [run.sequences[0] for run in shelf.overlay.runs(PRIMARY, 99)] == [2, 3, 5, 7, 8, 9]
    assert [run.sequences[0] for run in shelf.overlay.runs(REPLICA, 99)] == [7, 8, 9]


def test_another_overlay_is_taken_in_with_its_order_of_versions(shelf: Shelf) -> None:
    first, second, third = create(), update(), update()
    shelf.put(second, PRIMARY, REPLICA, sequence=5_000_000)
    other = Shelf()
    other.put(first, sequence=10)
    other.put(third, sequence=11)
    other.put(create("b"), REPLICA)
    for _ in shelf.overlay.absorb(other.overlay):
        pass
    assert shelf.run().sequences == (10, 5_000_000, 11)
    assert shelf.overlay.owed_by_target() == {PRIMARY: 3, REPLICA: 2}
    assert shelf.overlay.pending == 4


def test_a_random_history_ends_as_a_plain_dictionary_says() -> None:
    chance = random.Random(5)
    shelf, model = Shelf(), dict[int, tuple[str, set[str]]]()
    for _ in range(3_000):
        if chance.random() < 0.6:
            name = f"k{int(chance.random() ** 3 * 40)}"
            targets = chance.choice([(PRIMARY,), (REPLICA,), (PRIMARY, REPLICA)])
            operation = chance.choice([create(name), update(name), delete(name)])
            model[shelf.put(operation, *targets)] = (name, set(targets))
        else:
            target = chance.choice([PRIMARY, REPLICA])
            for run in shelf.overlay.runs(target, chance.randrange(1, 9)):
                shelf.settle(run, target)
                for sequence in run.sequences:
                    model[sequence][1].discard(target)
        for target in (PRIMARY, REPLICA):
            assert shelf.overlay.owes(target) == sum(target in owed for _, owed in model.values())
    for target in (PRIMARY, REPLICA):
        left = {sequence for sequence, (_, owed) in model.items() if target in owed}
        found = set[int]()
        while runs := shelf.overlay.runs(target, 7):
            for run in runs:
                assert {model[sequence][0] for sequence in run.sequences} == {run.operation.key.id}
                found.update(run.sequences)
                shelf.settle(run, target)
        assert found == left
    assert shelf.overlay.pending == 0
    assert not any(shelf.overlay._shards)
    assert not shelf.overlay._pages
