"""What a cache missed: which keys it is not read for, and until when."""

from __future__ import annotations

import pytest

from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.events import CacheBehind, Event, Events
from octopus_async.guard import Guard
from octopus_async.record import Key, Kind, Miss, Mode, Operation, Record
from octopus_async.strategies.debts import CacheDebts
from octopus_async.testing.operations import Author

TTL = 60.0


class Subject(CacheDebts):
    """The debts of a cache, on a clock that the test moves by hand."""

    def __init__(self, most_keys: int = 1_000) -> None:
        self.time = 100.0
        self.told: list[Event] = []
        self.cache = MemoryAdapter(ttl=TTL, now=lambda: self.time)
        super().__init__(Guard(self.cache), lambda: self.time, Events(self.told.append), most_keys=most_keys)

    async def pay(self) -> None:
        """Tell the cache everything that it missed."""
        for operation in self.due(1_000):
            await self.cache.apply([operation], Mode.MIRROR)
            self.paid(operation)

    def owed(self, limit: int = 1_000) -> list[tuple[str, Kind]]:
        """The ids that are due, and what the cache is to be told of them."""
        return [(operation.key.id, operation.kind) for operation in self.due(limit)]


@pytest.fixture
def debts() -> Subject:
    return Subject()


@pytest.fixture
def author() -> Author:
    return Author("Book")


def key(name: str) -> Key:
    """A book's key."""
    return Key("Book", name)


def update(author: Author, name: str) -> Operation:
    """An update of that book, newer than all before."""
    return author.update(key(name), {"n": 1})


def retraction(operation: Operation) -> Operation:
    """What takes that operation back."""
    return Operation(Kind.RETRACT, operation.key, operation.version, operation.born)


async def test_a_cache_is_not_read_for_a_key_that_it_missed_until_it_was_told(
    debts: Subject, author: Author
) -> None:
    missed = update(author, "a")
    debts.add(missed, sent=False)
    assert debts.owes(key("a"))
    assert not debts.owes(key("b"))
    assert debts.total == 1
    (due,) = debts.due(10)
    debts.paid(due)
    assert not debts.owes(key("a"))
    assert debts.total == 0


def test_what_it_missed_is_invalidated_without_keeping_its_fields(debts: Subject, author: Author) -> None:
    missed = update(author, "a")
    debts.add(missed, sent=False)
    assert debts.due(10) == [Operation(Kind.INVALIDATE, missed.key, missed.version, missed.born)]


def test_a_retraction_stays_one(debts: Subject, author: Author) -> None:
    refused = update(author, "a")
    debts.add(retraction(refused), sent=False)
    assert debts.due(10) == [retraction(refused)]


# -- order, bounds ---------------------------------------------------------------------------------


def test_the_oldest_are_due_first_and_as_many_as_were_asked_for(debts: Subject, author: Author) -> None:
    for name in "abcd":
        debts.add(update(author, name), sent=False)
    assert [name for name, _ in debts.owed(3)] == ["a", "b", "c"]
    debts.add(update(author, "a"), sent=False)
    assert [name for name, _ in debts.owed()] == ["b", "c", "d", "a"]


def test_a_key_is_owed_once_by_its_newest_version(debts: Subject, author: Author) -> None:
    older, newer = update(author, "a"), update(author, "a")
    debts.add(newer, sent=False)
    debts.add(older, sent=False)
    (due,) = debts.due(10)
    assert (due.kind, due.version) == (Kind.INVALIDATE, newer.version)
    assert debts.total == 1


def test_what_is_too_much_to_remember_makes_the_cache_distrusted_for_its_time_to_live(
    author: Author,
) -> None:
    debts = Subject(most_keys=3)
    for name in "abcd":
        debts.add(update(author, name), sent=False)
    assert debts.told == [CacheBehind("memory", TTL)]
    assert debts.total == 0
    assert debts.owes(key("never written"))
    debts.time += TTL - 0.1
    assert debts.owes(key("never written"))
    debts.time += 0.2
    assert not debts.owes(key("never written"))
    assert not debts.owes(key("a"))


def test_debts_go_on_while_the_cache_is_distrusted(author: Author) -> None:
    debts = Subject(most_keys=3)
    for name in "abcd":
        debts.add(update(author, name), sent=False)
    debts.time += TTL - 1.0
    debts.add(update(author, "e"), sent=False)
    debts.time += 2.0
    assert debts.owes(key("e"))
    assert not debts.owes(key("a"))


def test_a_further_overflow_makes_the_distrust_last_longer(author: Author) -> None:
    debts = Subject(most_keys=3)
    for _ in range(2):
        for name in "abcd":
            debts.add(update(author, name), sent=False)
        debts.time += TTL - 1.0
    assert debts.owes(key("a"))
    assert len(debts.told) == 2


# -- the time to live ------------------------------------------------------------------------------


def test_a_debt_ends_with_the_time_to_live_as_the_cache_has_forgotten_by_then(
    debts: Subject, author: Author
) -> None:
    debts.add(update(author, "a"), sent=False)
    debts.time += TTL / 2
    debts.add(update(author, "b"), sent=False)
    debts.time += TTL / 2 + 0.1
    assert [name for name, _ in debts.owed()] == ["b"]
    assert not debts.owes(key("a"))
    assert debts.owes(key("b"))


def test_missing_a_key_again_lets_its_time_begin_anew(debts: Subject, author: Author) -> None:
    first = update(author, "a")
    debts.add(first, sent=False)
    debts.time += TTL - 1.0
    debts.add(first, sent=False)
    debts.time += 2.0
    assert [name for name, _ in debts.owed()] == ["a"]


def test_what_was_sent_is_owed_until_it_is_paid_as_it_may_land_whenever_a_cache_goes_on(
    debts: Subject, author: Author
) -> None:
    debts.add(update(author, "a"), sent=True)
    debts.add(update(author, "a"), sent=False)
    debts.add(update(author, "b"), sent=False)
    debts.time += 10 * TTL
    assert [name for name, _ in debts.owed()] == ["a"]
    assert debts.owes(key("a"))


def test_a_cache_to_which_too_much_was_sent_is_trusted_a_time_to_live_after_it_answers(
    author: Author,
) -> None:
    debts = Subject(most_keys=3)
    for name in "abcd":
        debts.add(update(author, name), sent=name == "b")
    debts.time += 10 * TTL
    assert debts.owes(key("never written"))
    debts.answers()
    debts.time += TTL - 0.1
    debts.answers()
    assert debts.owes(key("never written"))
    debts.time += 0.2
    assert not debts.owes(key("never written"))


# -- paying ----------------------------------------------------------------------------------------


def test_an_older_version_does_not_pay_a_newer_debt(debts: Subject, author: Author) -> None:
    older, newer = update(author, "a"), update(author, "a")
    debts.add(older, sent=False)
    (due,) = debts.due(10)
    debts.add(newer, sent=False)  # while the cache is told of the older one
    debts.paid(due)
    assert debts.owes(key("a"))
    (due,) = debts.due(10)
    assert due.version == newer.version
    debts.paid(due)
    assert not debts.owes(key("a"))


def test_a_newer_version_pays_an_older_debt(debts: Subject, author: Author) -> None:
    older, newer = update(author, "a"), update(author, "a")
    debts.add(older, sent=False)
    debts.paid(newer)
    assert not debts.owes(key("a"))


def test_paying_what_is_not_owed_changes_nothing(debts: Subject, author: Author) -> None:
    debts.add(update(author, "a"), sent=False)
    debts.paid(update(author, "b"))
    assert debts.total == 1


def test_a_retraction_does_not_pay_an_invalidation_that_came_meanwhile(
    debts: Subject, author: Author
) -> None:
    missed, refused = update(author, "a"), update(author, "a")
    debts.add(retraction(refused), sent=False)
    (due,) = debts.due(10)
    debts.add(missed, sent=False)  # while the cache is told of the retraction
    debts.paid(due)
    assert debts.owes(key("a"))


# -- two debts of one key --------------------------------------------------------------------------


async def stale_after(debts: Subject, cached: list[Operation], missed: list[Operation]) -> bool:
    """Whether the cache still answers with something, having been told of all that it missed."""
    await debts.cache.open()
    for operation in cached:
        await debts.cache.apply([operation], Mode.MIRROR)
    for operation in missed:
        debts.add(operation, sent=False)
    await debts.pay()
    assert debts.total == 0
    (answer,) = await debts.cache.read([key("a")])
    assert isinstance(answer, Record | Miss)
    return isinstance(answer, Record)


async def test_a_missed_write_is_not_forgotten_over_the_retraction_of_a_later_one(
    debts: Subject, author: Author
) -> None:
    cached, missed, refused = (update(author, "a") for _ in range(3))
    assert not await stale_after(debts, [cached], [missed, retraction(refused)])


async def test_a_missed_write_that_is_heard_of_after_a_later_retraction_is_not_forgotten(
    debts: Subject, author: Author
) -> None:
    cached, missed, refused = (update(author, "a") for _ in range(3))
    assert not await stale_after(debts, [cached], [retraction(refused), missed])


async def test_two_retractions_of_a_key_are_both_made(debts: Subject, author: Author) -> None:
    first, second = update(author, "a"), update(author, "a")
    assert not await stale_after(debts, [first], [retraction(first), retraction(second)])
    assert not await stale_after(debts, [second], [retraction(second), retraction(first)])


async def test_a_missed_write_and_its_own_retraction_leave_nothing_older(
    debts: Subject, author: Author
) -> None:
    cached, refused = update(author, "a"), update(author, "a")
    assert not await stale_after(debts, [cached], [refused, retraction(refused)])


async def test_a_retraction_alone_leaves_what_is_older(debts: Subject, author: Author) -> None:
    cached, refused = update(author, "a"), update(author, "a")
    assert await stale_after(debts, [cached], [retraction(refused), retraction(refused)])
