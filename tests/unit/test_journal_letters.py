"""Dead letters, and who waits for what became of an entry."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from octopus_async.errors import (
    ConstraintViolated,
    DuplicateRecord,
    JournalCorrupt,
    JournalError,
    ManagerClosed,
    RecordNotFound,
    RecordRejected,
)
from octopus_async.events import Events
from octopus_async.journal import FileJournal
from octopus_async.journal.letters import Letter
from octopus_async.record import Kind
from tests.crash.journals import (
    PRIMARY,
    REPLICA,
    Failure,
    FaultyDisk,
    GatedDisk,
    crash,
    create,
    delete,
    key,
    opened,
    pending,
    update,
)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncGenerator[FileJournal]:
    async with opened(tmp_path / "j") as journal:
        yield journal


async def bury(journal: FileJournal, target: str = PRIMARY, error: str = "DuplicateRecord") -> None:
    await journal.bury(target, journal.runs(target, 1)[0], "it exists already", error)


async def test_a_buried_run_is_dead_letters_one_for_each_entry(journal: FileJournal) -> None:
    operations = [create(), update(title="two")]
    numbers = [await journal.append(operation, [PRIMARY], provisional=True) for operation in operations]
    await bury(journal)
    letters = journal.dead_letters()
    assert [letter.sequence for letter in letters] == numbers
    assert [letter.operation for letter in letters] == operations
    assert {(letter.target, letter.reason, letter.error) for letter in letters} == {
        (PRIMARY, "it exists already", "DuplicateRecord")
    }
    assert not journal.owes(PRIMARY)
    assert journal.newest(key(), PRIMARY) is None
    assert journal.statistics().dead_letters == 2


async def test_what_is_pending_behind_it_goes_with_it_and_says_why(journal: FileJournal) -> None:
    first = await journal.append(create(), [PRIMARY], provisional=True)
    second = await journal.append(delete(), [PRIMARY])
    other = await journal.append(create("b"), [PRIMARY])
    await bury(journal)
    letters = {letter.sequence: letter for letter in journal.dead_letters()}
    assert list(letters) == [first, second]
    assert letters[second].reason == f"it follows entry {first}, which was refused: it exists already"
    assert [run.sequences for run in pending(journal)] == [(other,)]


async def test_the_overlay_keeps_the_key_until_the_dead_letter_is_durable(tmp_path: Path) -> None:
    disk = GatedDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        await journal.append(create(), [PRIMARY])
        async with disk.holding():
            buried = journal.bury(PRIMARY, journal.runs(PRIMARY, 1)[0], "no", "DuplicateRecord")
            await disk.sync_begun()
            assert journal.owes_key(PRIMARY, key())
            assert journal.dead_letters() == []
        await buried
        assert not journal.owes_key(PRIMARY, key())


async def test_a_dead_letter_that_cannot_be_written_leaves_the_key_pending(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        await journal.append(create(), [PRIMARY])
        disk.failures.append(Failure("sync", 1, times=2))
        with pytest.raises(JournalError):
            await bury(journal)
        assert journal.owes_key(PRIMARY, key())
        assert journal.dead_letters() == []
        await bury(journal)
        assert len(journal.dead_letters()) == 1


async def test_an_entry_that_is_dead_for_one_target_is_still_owed_by_the_others(journal: FileJournal) -> None:
    number = await journal.append(create(), [PRIMARY, REPLICA])
    await bury(journal)
    assert journal.owes(REPLICA) == 1
    await bury(journal, REPLICA)
    assert [(letter.sequence, letter.target) for letter in journal.dead_letters()] == [
        (number, PRIMARY),
        (number, REPLICA),
    ]
    assert journal.statistics().pending == 0


async def test_what_the_primary_refused_its_replicas_do_not_get_even_after_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        entry = await journal.append(create(), [PRIMARY, REPLICA], provisional=True)
        await journal.append(update(), [PRIMARY, REPLICA])
        missed = await journal.append(create("b"), [REPLICA])
        run = pending(journal)[0]
        await journal.bury(PRIMARY, run, "it exists already", "DuplicateRecord", spare=[REPLICA])
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert len(journal.dead_letters()) == 2
        assert [run.sequences for run in pending(journal, REPLICA)] == [(missed,)]
        await journal.retry(entry)
        assert (journal.owes(PRIMARY), journal.owes(REPLICA)) == (1, 2)


async def test_the_replicas_waiters_hear_of_it_too(journal: FileJournal) -> None:
    entry = await journal.append(create(), [PRIMARY, REPLICA])
    waiting = journal.settled(entry, REPLICA)
    await journal.bury(PRIMARY, pending(journal)[0], "it exists already", "DuplicateRecord", spare=[REPLICA])
    with pytest.raises(DuplicateRecord):
        await waiting


async def test_a_later_record_of_the_key_is_judged_by_itself(journal: FileJournal) -> None:
    first = create()
    again = create()
    operations = [first, update(born=first.version), delete(born=first.version)]
    for operation in [*operations, again, update(born=again.version)]:
        await journal.append(operation, [PRIMARY], provisional=True)
    again_updated = journal.newest(key(), PRIMARY)
    await bury(journal)
    assert [letter.operation for letter in journal.dead_letters()] == operations
    assert journal.newest(key(), PRIMARY) == again_updated
    (run,) = pending(journal)
    assert (run.operation.kind, run.operation.born) == (Kind.CREATE, again.version)


async def test_what_another_process_wrote_without_knowing_of_it_is_judged_by_itself(tmp_path: Path) -> None:
    """Simulation seeds 306 and 2137."""
    async with opened(tmp_path / "j") as dying, opened(tmp_path / "j") as living:
        refused = await living.append(create(), [PRIMARY], provisional=True)
        deleted = await dying.append(delete(), [PRIMARY])
        await crash(dying)
        await living.adopt()
        await bury(living)
        assert [letter.sequence for letter in living.dead_letters()] == [refused]
        assert [run.sequences for run in pending(living)] == [(deleted,)]


async def test_a_refused_entry_is_pending_until_all_that_follow_it_are_dead(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path / "j", disk=disk) as journal:
        numbers = [await journal.append(operation, [PRIMARY]) for operation in (create(), update(), delete())]
        (run,) = pending(journal)
        run = run._replace(sequences=run.sequences[:2])
        disk.failures.append(Failure("write", 2, times=2))
        with pytest.raises(JournalError):
            await journal.bury(PRIMARY, run, "it exists already", "DuplicateRecord")
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert [letter.sequence for letter in journal.dead_letters()] == numbers[1:]
        assert [run.sequences for run in pending(journal)] == [(numbers[0],)]


async def test_dead_letters_survive_a_crash_and_are_not_pending(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        await journal.append(create(), [PRIMARY])
        await journal.append(update(), [PRIMARY])
        await bury(journal)
        letters = journal.dead_letters()
        await crash(journal)
    for _ in range(3):
        async with opened(tmp_path / "j") as journal:
            assert journal.dead_letters() == letters
            assert pending(journal) == []


async def test_a_retried_dead_letter_is_pending_again_under_a_new_number(journal: FileJournal) -> None:
    old = await journal.append(create(), [PRIMARY])
    await bury(journal)
    (letter,) = journal.dead_letters()
    new = await journal.retry(old)
    assert new > old
    assert journal.dead_letters() == []
    (run,) = pending(journal)
    assert (run.sequences, run.operation, run.provisional) == ((new,), letter.operation, True)
    assert run.at >= letter.at


async def test_a_retry_is_owed_by_all_that_refused_it(journal: FileJournal) -> None:
    old = await journal.append(create(), [PRIMARY, REPLICA])
    await bury(journal)
    await bury(journal, REPLICA)
    await journal.retry(old)
    assert (journal.owes(PRIMARY), journal.owes(REPLICA)) == (1, 1)


async def test_a_dead_letter_that_two_send_again_at_once_is_sent_again_once(journal: FileJournal) -> None:
    old = await journal.append(create(), [PRIMARY])
    await bury(journal)
    given_up, *others = [journal.retry(old) for _ in range(3)]
    given_up.cancel()
    new = set(await asyncio.gather(*others))
    assert len(new) == 1
    assert [run.sequences for run in pending(journal)] == [tuple(new)]


async def test_retrying_and_dropping_survive_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        for name in "abc":
            await journal.append(create(name), [PRIMARY])
        for _ in range(3):
            await bury(journal)
        first, second, third = (letter.sequence for letter in journal.dead_letters())
        await journal.retry(first)
        await journal.drop(second)
        await crash(journal)
    async with opened(tmp_path / "j") as journal:
        assert [letter.sequence for letter in journal.dead_letters()] == [third]
        assert [run.operation.key.id for run in pending(journal)] == ["a"]


async def test_what_is_no_dead_letter_can_be_neither_retried_nor_dropped(journal: FileJournal) -> None:
    number = await journal.append(create(), [PRIMARY])
    for call in (journal.retry, journal.drop):
        with pytest.raises(JournalError, match=f"no dead letter {number}"):
            await call(number)


async def test_burying_what_is_settled_meanwhile_buries_nothing(journal: FileJournal) -> None:
    await journal.append(create(), [PRIMARY])
    (run,) = pending(journal)
    journal.settle(PRIMARY, [run])
    await journal.bury(PRIMARY, run, "no", "DuplicateRecord")
    assert journal.dead_letters() == []


async def test_settled_waits_until_the_target_has_applied_it(journal: FileJournal) -> None:
    first = await journal.append(create(), [PRIMARY, REPLICA])
    second = await journal.append(update(), [PRIMARY])
    waiting = [
        journal.settled(first, PRIMARY),
        journal.settled(first, PRIMARY),
        journal.settled(second, PRIMARY),
    ]
    of_replica = journal.settled(first, REPLICA)
    waiting[1].cancel()
    journal.settle(PRIMARY, pending(journal))
    await asyncio.gather(waiting[0], waiting[2])
    assert not of_replica.done()
    journal.settle(REPLICA, pending(journal, REPLICA))
    await of_replica


async def test_settled_answers_after_the_fact_too(journal: FileJournal) -> None:
    number = await journal.append(create(), [PRIMARY])
    journal.settle(PRIMARY, pending(journal))
    await journal.settled(number, PRIMARY)
    await journal.settled(number, REPLICA)


async def test_settled_raises_the_error_of_a_dead_letter_before_and_after_the_fact(
    journal: FileJournal,
) -> None:
    number = await journal.append(create(), [PRIMARY])
    waiting = journal.settled(number, PRIMARY)
    await bury(journal)
    for future in (waiting, journal.settled(number, PRIMARY)):
        with pytest.raises(DuplicateRecord, match=f"dead letter {number}.*it exists already"):
            await future


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ConstraintViolated", ConstraintViolated),
        ("RecordNotFound", RecordNotFound),
        ("KeyboardInterrupt", RecordRejected),
        ("Mapping", RecordRejected),
        ("no such", RecordRejected),
    ],
)
async def test_the_error_is_of_the_class_that_was_named_or_a_rejection(
    journal: FileJournal, name: str, expected: type[Exception]
) -> None:
    number = await journal.append(create(), [PRIMARY])
    await bury(journal, error=name)
    with pytest.raises(expected) as raised:
        await journal.settled(number, PRIMARY)
    assert type(raised.value) is expected


async def test_settled_follows_a_dead_letter_that_was_retried(journal: FileJournal) -> None:
    number = await journal.append(create(), [PRIMARY])
    await bury(journal)
    again = await journal.retry(number)
    waiting = journal.settled(number, PRIMARY)
    assert not waiting.done()
    await bury(journal)
    with pytest.raises(DuplicateRecord):
        await waiting
    await journal.retry(again)
    journal.settle(PRIMARY, pending(journal))
    await journal.settled(number, PRIMARY)


async def test_nobody_is_told_that_a_dropped_dead_letter_was_applied(journal: FileJournal) -> None:
    number = await journal.append(create(), [PRIMARY])
    await bury(journal)
    await journal.drop(number)
    with pytest.raises(DuplicateRecord):
        await journal.settled(number, PRIMARY)


async def test_who_still_waits_when_the_journal_closes_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path / "j") as journal:
        waiting = journal.settled(await journal.append(create(), [PRIMARY]), PRIMARY)
    with pytest.raises(ManagerClosed, match="replayed when it is opened again"):
        await waiting


async def test_a_letter_that_is_not_what_was_written_is_an_error_of_the_journal() -> None:
    with pytest.raises(JournalCorrupt, match="dead letter 3"):
        Letter(3, PRIMARY, b',"drop":3', 1).opened()


async def test_a_delete_is_a_dead_letter_like_any_other(journal: FileJournal) -> None:
    operation = delete()
    await journal.append(operation, [PRIMARY])
    await bury(journal)
    (letter,) = journal.dead_letters()
    assert letter.operation == operation
    assert letter.operation.kind is Kind.DELETE


async def test_no_crash_leaves_a_replica_what_its_primary_has_refused(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "j")
    await journal.open(Events())
    await journal.append(create("a"), [PRIMARY, REPLICA])
    await journal.append(update("a"), [PRIMARY, REPLICA])
    (run,) = journal.runs(PRIMARY, 10)
    await journal.bury(PRIMARY, run, "taken", "DuplicateRecord", spare=[REPLICA])
    assert journal.owes(PRIMARY) == journal.owes(REPLICA) == 0
    assert len(journal.dead_letters()) == 2
    await crash(journal)
    (segment,) = (tmp_path / "j").glob("writer-*/000001.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    for kept in range(3, len(lines) + 1):
        copy = tmp_path / f"{kept}"
        shutil.copytree(tmp_path / "j", copy)
        (copy / segment.relative_to(tmp_path / "j")).write_bytes(b"".join(lines[:kept]))
        async with opened(copy) as journal:
            refused = {letter.sequence for letter in journal.dead_letters()}
            assert not refused & {number for each in journal.runs(REPLICA, 10) for number in each.sequences}
