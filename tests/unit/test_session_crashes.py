"""Wherever a process dies, all of a session is in the primary in the end, or nothing."""

from __future__ import annotations

import asyncio
import shutil
from collections import OrderedDict
from pathlib import Path

import pytest

from octopus_async import DaoManager, KeyedModel
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.testing.faulty import Fault, FaultyAdapter
from tests.unit.stage import POLICY

STEP = 41  # bytes between two cuts: every field of every line is hit by one


class Account(KeyedModel):
    id: str
    balance: int = 0


def primary() -> FaultyAdapter:
    return FaultyAdapter(MemoryAdapter(durable=True, name="primary"))


def as_it_was(adapter: FaultyAdapter, other: FaultyAdapter) -> FaultyAdapter:
    """Another primary that holds the same."""
    assert isinstance(adapter.adapter, MemoryAdapter)
    assert isinstance(other.adapter, MemoryAdapter)
    other.adapter._entries = OrderedDict(adapter.adapter._entries)
    return other


def manager(adapter: FaultyAdapter, journal: Path) -> DaoManager:
    octopus = DaoManager([adapter], journal=journal, guard=POLICY, timeout=2.0)
    octopus.dao(Account)
    return octopus


async def move(octopus: DaoManager, amount: int) -> None:
    async with octopus.session() as session:
        (await session.get_one(Account, "a")).balance -= amount
        (await session.get_one(Account, "b")).balance += amount


async def outage(octopus: DaoManager, store: FaultyAdapter) -> None:
    assert await octopus.dao(Account).exists("a"), "whoever has never read has no table to read from"
    store.writes = Fault.REFUSE


async def outcome(adapter: FaultyAdapter, journal: Path) -> tuple[list[int], int]:
    """What the accounts come to, and how many dead letters there are, when what is left was replayed."""
    async with manager(adapter, journal) as octopus:
        async with asyncio.timeout(10):
            await octopus.drained()
        found = (await octopus.dao(Account).get_many(["a", "b"])).unwrap()
        assert octopus.journal is not None
        return [account.balance for account in found], len(octopus.journal.dead_letters())


async def opened(adapter: FaultyAdapter) -> None:
    async with DaoManager([adapter], guard=POLICY) as octopus:
        await octopus.dao(Account).create_many([Account(id="a", balance=10), Account(id="b")])


def cuts(journal: Path, copy: Path) -> list[tuple[int, Path]]:
    """The journal as a crash may have left it, cut at a byte behind its first line."""
    (segment,) = (it for it in journal.glob("*/*.jsonl") if b'"unit":' in it.read_bytes())
    data = segment.read_bytes()
    first, made = data.index(b"\n") + 1, []
    for end in sorted({first, *range(first, len(data), STEP), len(data) - 1, len(data)}):
        folder = copy / str(end)
        shutil.copytree(journal, folder)
        (folder / segment.relative_to(journal)).write_bytes(data[:end])
        made.append((end, folder))
    return made


async def test_wherever_the_journal_ends_all_of_a_session_is_replayed_or_nothing(tmp_path: Path) -> None:
    await opened(before := primary())
    away = as_it_was(before, primary())
    async with manager(away, tmp_path / "journal") as octopus:
        await outage(octopus, away)
        await move(octopus, 3)
        await move(octopus, 4)
        made = cuts(tmp_path / "journal", tmp_path / "cuts")
        away.heal()
    ends = [await outcome(as_it_was(before, primary()), folder) for _, folder in made]
    assert {tuple(balances) for balances, _ in ends} == {(10, 0), (7, 3), (3, 7)}
    assert ends == sorted(ends, reverse=True), "the longer the journal the more of it"
    assert {letters for _, letters in ends} == {0}


async def test_wherever_its_burial_ends_a_refused_session_leaves_nothing(tmp_path: Path) -> None:
    """What refused it is gone when the next process looks: half of it must not be applied then."""
    await opened(before := primary())
    away = as_it_was(before, primary())
    async with manager(away, tmp_path / "journal") as octopus:
        await outage(octopus, away)
        await move(octopus, 3)
        async with DaoManager([FaultyAdapter(away.adapter)], guard=POLICY) as elsewhere:
            await elsewhere.dao(Account).update(Account(id="b", balance=50))
        await away.adapter.open()
        away.heal()
        async with asyncio.timeout(10):
            await octopus.drained()
        made = cuts(tmp_path / "journal", tmp_path / "cuts")
    ends = [await outcome(as_it_was(before, primary()), folder) for _, folder in made]
    assert {(tuple(balances), letters) for balances, letters in ends} == {
        ((10, 0), 0),  # it never was in the journal
        ((7, 3), 0),  # it was, and nobody had refused it yet
        ((10, 0), 2),  # one of it was refused, or both
    }


@pytest.mark.parametrize("later", ["nothing", "one of its records", "all of its records"])
async def test_what_was_replayed_and_not_noted_is_replayed_again_and_changes_nothing(
    tmp_path: Path, later: str
) -> None:
    await opened(store := primary())
    async with manager(store, tmp_path / "journal") as octopus:
        await outage(octopus, store)
        await move(octopus, 3)
        shutil.copytree(tmp_path / "journal", tmp_path / "unnoted")
        store.heal()
        async with asyncio.timeout(10):
            await octopus.drained()
        accounts = octopus.dao(Account)
        for name in {"nothing": "", "one of its records": "a", "all of its records": "ab"}[later]:
            await accounts.update(Account(id=name, balance=100))
        expected = [account.balance for account in (await accounts.get_many("ab")).unwrap()]
    assert await outcome(store, tmp_path / "unnoted") == (expected, 0)


@pytest.mark.parametrize("fault", [Fault.LOSE, Fault.FAIL, Fault.REFUSE, Fault.LATE])
async def test_a_primary_that_fails_during_the_replay_has_all_of_it_once(
    tmp_path: Path, fault: Fault
) -> None:
    await opened(store := primary())
    async with manager(store, tmp_path / "journal") as octopus:
        await outage(octopus, store)
        await move(octopus, 3)
        await move(octopus, 4)
        store.delay = 0.3
        faults = iter([fault] * 3)
        store.writes = lambda: next(faults, None)
        async with asyncio.timeout(10):
            await octopus.drained()
        found = (await octopus.dao(Account).get_many("ab")).unwrap()
        assert [account.balance for account in found] == [3, 7]
        assert octopus.statistics().journal is not None
        await store.landed()
    assert await outcome(store, tmp_path / "journal") == ([3, 7], 0)


async def test_the_sessions_of_a_dead_process_are_taken_over_whole(tmp_path: Path) -> None:
    await opened(store := primary())
    async with manager(store, tmp_path / "first") as octopus:
        await outage(octopus, store)
        for amount in (1, 2, 3):
            await move(octopus, amount)
        (folder,) = (
            it.parent for it in (tmp_path / "first").glob("*/*.jsonl") if b'"unit"' in it.read_bytes()
        )
        taken = primary()
        await opened(taken)
        as_it_was(store, taken)
        async with DaoManager(
            [taken], journal=tmp_path / "second", guard=POLICY, timeout=2.0, adopt_every=0.05
        ) as heir:
            accounts = heir.dao(Account)
            shutil.copytree(folder, tmp_path / "second" / folder.name)
            async with asyncio.timeout(10):
                while (await accounts.get_one("a")).balance != 4:  # noqa: ASYNC110 - whenever it is adopted
                    await asyncio.sleep(0.02)
                await heir.drained()
            assert (await accounts.get_one("b")).balance == 6
            assert heir.journal is not None
            assert heir.journal.dead_letters() == []
        store.heal()
