"""The power is cut before each call to the disk, and each state that it may leave is opened."""

from __future__ import annotations

import asyncio
import random

import pytest

from octopus_async.events import Events
from octopus_async.journal import FileJournal
from tests.crash.cuts import FOLDER, Cut, Judge, random_life
from tests.crash.journals import PRIMARY, REPLICA, ROUNDS, InlineRunner, create, delete, update
from tests.crash.powercut import PowerDisk

pytestmark = pytest.mark.timeout(60 * ROUNDS)

STATES = 24 * ROUNDS


async def states_of(cut: Cut) -> int:
    judge = Judge()
    await judge.judge(cut)
    return len(judge.opened)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octopus_async.journal.commit._PATIENCE", 0.001)


async def pause() -> None:
    await asyncio.sleep(0.005)


async def test_from_the_first_call_to_the_first_records() -> None:
    cut = Cut({FOLDER.parent: None}, most=STATES)
    journal = cut.journal()
    await journal.open(Events())
    await cut.reserve(journal, 7_000)
    await cut.append(journal, "a")
    await cut.append(journal, "b", "c", "d")
    await cut.unit(journal, "u1", "u2", "u3")
    cut.settle(journal, 2)
    await cut.append(journal, "e")
    await cut.reserve(journal, 9_000)
    await journal.close()
    assert await states_of(cut) > 50


async def test_through_rotations_and_checkpoints() -> None:
    cut = Cut(most=STATES)
    journal = cut.journal()
    await journal.open(Events())
    await cut.append(journal, "old", targets=(REPLICA,))
    for turn in range(4):
        await cut.append(journal, *[f"{turn}-{number}" for number in range(5)], targets=(PRIMARY, REPLICA))
        cut.settle(journal, 4)
        cut.settle(journal, 2, REPLICA)
        await pause()
    cut.settle(journal, 99)
    await pause()
    cut.settle(journal, 99, REPLICA)
    await pause()
    await cut.append(journal, "last")
    await journal.close()
    assert await states_of(cut) > 50


async def test_through_dead_letters_that_are_carried_retried_and_dropped() -> None:
    cut = Cut(most=STATES)
    journal = cut.journal()
    await journal.open(Events())
    for name in ("x", "y", "z"):
        await cut.append(journal, name)
        await cut.bury(journal, name)
    for turn in range(2):
        await cut.append(journal, *[f"{turn}-{number}" for number in range(5)])
        cut.settle(journal, 99)
        await pause()
    await cut.free(journal, journal.drop)
    await cut.free(journal, journal.retry)
    await cut.append(journal, *[f"2-{number}" for number in range(5)])
    cut.settle(journal, 99)
    await pause()
    await journal.close()
    assert await states_of(cut) > 50


async def test_through_an_adoption_and_the_removal_of_what_was_taken_over() -> None:
    first = Cut(most=1)
    journal = first.journal()
    await journal.open(Events())
    await first.append(journal, "a", "b", "c", targets=(PRIMARY, REPLICA))
    await first.append(journal, "x")
    first.settle(journal, 1)
    await pause()
    journal._is_open = False
    cut = Cut(next(first.disk.states(1)), most=STATES)
    cut.told = first.told
    journal = cut.journal()
    await journal.open(Events())
    await cut.append(journal, "d")
    cut.settle(journal, 2)
    await pause()
    cut.settle(journal, 99)
    cut.settle(journal, 99, REPLICA)
    await pause()
    await cut.append(journal, "e")
    await journal.close()
    assert await states_of(cut) > 50


async def test_of_one_key_the_newest_state_survives() -> None:
    cut = Cut(most=STATES)
    journal = cut.journal()
    await journal.open(Events())
    history = [create("k"), update("k"), update("k", "three"), delete("k"), create("k", "again")]
    acknowledged: list[tuple[int, str]] = []
    for operation in history:
        await journal.append(operation, [PRIMARY])
        acknowledged.append((len(cut.moments), operation.version))
    await journal.close()
    for place, moment in enumerate(cut.moments):
        least = max((version for then, version in acknowledged if then <= place), default="")
        for state in [*moment.states, *moment.holed]:
            found = FileJournal(FOLDER, disk=PowerDisk(state), runner=InlineRunner())
            await found.open(Events())
            newest = found.newest(history[0].key, PRIMARY)
            assert (newest.version if newest is not None else "") >= least
            found._is_open = False


@pytest.mark.parametrize("seed", range(3 * ROUNDS))
async def test_through_a_life_of_chance_and_through_its_recovery(seed: int) -> None:
    chance = random.Random(seed)
    cut, judge = Cut(most=3, chance=chance), Judge(chance, deep=True)
    await random_life(cut, chance)
    await judge.judge(cut)
    assert len(judge.opened) > 50
