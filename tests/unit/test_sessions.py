"""Sessions: one object for each key, and all that was changed is written as one, or nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import ConfigDict, Field

from octopus_async import (
    Capabilities,
    ConfigurationError,
    DaoManager,
    DuplicateRecord,
    InvalidRecord,
    KeyedModel,
    Model,
    OperationNotSupported,
    ReadUnavailable,
    RecordNotFound,
    RecordRejected,
    Routing,
    SessionEnded,
    StaleRecord,
    WriteUnavailable,
)
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.events import DeadLettered, WriteJournalled
from octopus_async.testing.faulty import Fault
from tests.unit.stage import POLICY, Stage, Strict, stage


class Account(KeyedModel):
    id: str
    balance: int = 0
    notes: list[str] = Field(default_factory=list)


class Transfer(Model):
    amount: int


class Frozen(KeyedModel):
    model_config = ConfigDict(frozen=True)

    id: str
    text: str


async def opened(it: Stage, **balances: int) -> None:
    await it.manager.dao(Account).create_many(
        Account(id=name, balance=balance) for name, balance in balances.items()
    )


async def balances(it: Stage, *names: str) -> list[int | None]:
    found = await it.manager.dao(Account).read_many(names)
    return [None if account is None else account.balance for account in found.unwrap()]


async def at_primary(it: Stage, *names: str) -> list[object]:
    return [(await it.held("primary", Account(id=name)) or {}).get("balance") for name in names]


async def move(it: Stage, amount: int, *, fail: bool = False) -> None:
    async with it.manager.session() as session:
        giver = await session.get_one(Account, "a")
        taker = await session.get_one(Account, "b")
        giver.balance -= amount
        taker.balance += amount
        session.create(Transfer(amount=amount))
        if fail:
            raise LookupError("changed our mind")


# -- the identity map ------------------------------------------------------------------------------


async def test_there_is_one_object_for_each_key(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=1)
        async with it.manager.session() as session:
            first, second = await asyncio.gather(session.read(Account, "a"), session.read(Account, "a"))
            assert first is second
            assert (await session.read_many(Account, ["a", "b"])).unwrap() == [first, None]
            assert await session.exists(Account, "a")
            with pytest.raises(RecordNotFound):
                await session.get_one(Account, "b")
        assert it.primary.calls["apply_unit"] == 0, "who changes nothing writes nothing"


async def test_reads_inside_see_the_sessions_own_changes_and_reads_outside_do_not(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=1, b=2)
        async with it.manager.session() as session:
            (await session.get_one(Account, "a")).balance = 10
            session.delete(await session.get_one(Account, "b"))
            session.create(new := Account(id="c", balance=3))
            assert (await session.get_one(Account, "a")).balance == 10
            assert await session.read(Account, "b") is None
            assert await session.read(Account, "c") is new
            assert await balances(it, "a", "b", "c") == [1, 2, None]
        assert await balances(it, "a", "b", "c") == [10, None, 3]
        assert await at_primary(it, "a", "b", "c") == [10, None, 3]


async def test_nested_values_count_as_changes(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=1)
        async with it.manager.session() as session:
            (await session.get_one(Account, "a")).notes.append("changed in place")
        assert (await it.manager.dao(Account).get_one("a")).notes == ["changed in place"]


async def test_a_changed_copy_takes_the_place_of_what_was_read(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.manager.dao(Frozen).create(Frozen(id="a", text="one"))
        async with it.manager.session() as session:
            read = await session.get_one(Frozen, "a")
            session.update(read.model_copy(update={"text": "two"}))
            assert (await session.get_one(Frozen, "a")).text == "two"
        assert (await it.manager.dao(Frozen).get_one("a")).text == "two"


async def test_what_was_read_elsewhere_is_written_over_the_version_it_had_there(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=1)
        accounts = it.manager.dao(Account)
        mine, stale = await accounts.get_one("a"), await accounts.get_one("a")
        mine.balance = 5
        async with it.manager.session() as session:
            session.update(mine)
            assert await session.read(Account, "a") is mine
        assert await balances(it, "a") == [5]
        with pytest.raises(StaleRecord):
            async with it.manager.session() as session:
                session.delete(stale)
        with pytest.raises(InvalidRecord, match="never stored or read"):
            async with it.manager.session() as session:
                session.update(Account(id="a"))


async def test_creating_and_deleting_in_one_session(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=1)
        async with it.manager.session() as session:
            session.create(short := Account(id="short"))
            session.create(short)
            with pytest.raises(DuplicateRecord):
                session.create(Account(id="short"))
            session.delete(short)
            old = await session.get_one(Account, "a")
            with pytest.raises(DuplicateRecord):
                session.create(Account(id="a"))
            session.delete(old)
            with pytest.raises(RecordNotFound):
                session.update(old)
            session.create(Account(id="a", balance=7))
        assert await balances(it, "a", "short") == [7, None]
        assert len(session.receipts) == 1


# -- all or nothing --------------------------------------------------------------------------------


async def test_everything_is_written_in_one_transaction_and_caches_afterwards(tmp_path: Path) -> None:
    async with stage(tmp_path, replica=True) as it:
        await opened(it, a=10, b=0)
        applied = it.primary.calls["apply"]
        await move(it, 3)
        assert (it.primary.calls["apply_unit"], it.primary.calls["apply"]) == (1, applied)
        await it.drained()
        for backend in ("primary", "replica", "cache"):
            found = [await it.held(backend, Account(id=name)) for name in "ab"]
            assert [fields and fields["balance"] for fields in found] == [7, 3], backend


async def test_models_learn_their_version_and_the_session_its_receipts(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        async with it.manager.session() as session:
            session.create(account := Account(id="a"))
            session.create(transfer := Transfer(amount=1))
            assert account.version is None
            assert list(session.receipts) == []
        assert [receipt.version for receipt in session.receipts] == [account.version, transfer.version]
        assert not session.journalled
        await session.settled()
        account.balance = 4
        await it.manager.dao(Account).update(account, if_version=account.version)


async def test_if_the_block_raises_nothing_is_written(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=10, b=0)
        with pytest.raises(LookupError, match="changed our mind"):
            await move(it, 3, fail=True)
        assert it.primary.calls["apply_unit"] == 0
        assert await at_primary(it, "a", "b") == [10, 0]


async def test_a_cancelled_block_writes_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=10)

        async def dawdle() -> None:
            async with it.manager.session() as session:
                (await session.get_one(Account, "a")).balance = 0
                await asyncio.sleep(60)

        task = asyncio.create_task(dawdle())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await at_primary(it, "a") == [10]


async def test_a_commit_that_has_begun_goes_on_when_its_caller_is_cancelled(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=10, b=0)
        it.primary.writes = Fault.SLOW
        task = asyncio.create_task(move(it, 3))
        await it.until(lambda: it.primary.calls["apply_unit"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await it.drained()
        assert await at_primary(it, "a", "b") == [7, 3]


async def test_what_cannot_be_stored_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=1)
        with pytest.raises(InvalidRecord, match=r"Account\.notes|Account"):
            async with it.manager.session() as session:
                (await session.get_one(Account, "a")).balance = 2
                session.create(Account(id="b", notes=["a NUL \0"]))
        assert it.primary.calls["apply_unit"] == 0


async def test_a_session_that_is_too_large_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octopus_async.session.MOST_CHANGES", 2)
    async with stage(tmp_path) as it:
        with pytest.raises(InvalidRecord, match="at most 2 records"):
            async with it.manager.session() as session:
                for name in "abc":
                    session.create(Account(id=name))
        assert await balances(it, "a") == [None]


async def test_an_ended_session_is_of_no_use(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        async with it.manager.session() as session:
            pass
        for call in (session.create, session.update, session.delete):
            with pytest.raises(SessionEnded):
                call(Account(id="a"))
        with pytest.raises(SessionEnded):
            await session.read(Account, "a")
        with pytest.raises(SessionEnded):
            async with session:
                pass


# -- conflicts -------------------------------------------------------------------------------------


async def test_a_conflict_names_each_key_and_nothing_is_written(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=1, b=2, c=3)
        accounts = it.manager.dao(Account)
        with pytest.raises(StaleRecord, match="Account 'a', Account 'b' were changed") as caught:
            async with it.manager.session() as session:
                for name in "abc":
                    (await session.get_one(Account, name)).balance = 0
                await accounts.update(Account(id="a", balance=10))
                await accounts.delete("b")
        assert set(caught.value.causes) == {("Account", "a"), ("Account", "b")}
        assert await at_primary(it, "a", "b", "c") == [10, None, 3]
        assert await balances(it, "a", "b", "c") == [10, None, 3]


async def test_what_was_only_read_may_change(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=1, b=2)
        async with it.manager.session() as session:
            await session.read(Account, "a")
            (await session.get_one(Account, "b")).balance = 0
            await it.manager.dao(Account).update(Account(id="a", balance=10))
        assert await balances(it, "a", "b") == [10, 0]


async def test_a_record_of_the_same_id_is_a_duplicate(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=1, b=2)
        with pytest.raises(DuplicateRecord, match="Account 'a' exists"):
            async with it.manager.session() as session:
                (await session.get_one(Account, "b")).balance = 0
                await asyncio.sleep(0)
                session.create(Account(id="a"))
        assert await balances(it, "a", "b") == [1, 2]
        with pytest.raises(RecordRejected) as caught:
            async with it.manager.session() as session:
                (await session.get_one(Account, "b")).balance = 0
                await it.manager.dao(Account).update(Account(id="b", balance=5))
                session.create(Account(id="a"))
        assert {key[1]: type(error) for key, error in caught.value.causes.items()} == {
            "a": DuplicateRecord,
            "b": StaleRecord,
        }


async def test_sessions_at_the_same_time_do_not_lose_each_others_changes(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=100, b=0)

        async def insist() -> None:
            while True:
                try:
                    return await move(it, 1)
                except StaleRecord:
                    await asyncio.sleep(0.001)

        await asyncio.gather(*(insist() for _ in range(8)))
        assert await at_primary(it, "a", "b") == [92, 8]


# -- outages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.FAIL, Fault.HANG, Fault.LOSE, Fault.LATE])
async def test_in_an_outage_all_of_it_is_one_entry_of_the_journal(tmp_path: Path, fault: Fault) -> None:
    async with stage(tmp_path, replica=True) as it:
        await opened(it, a=10, b=0)
        it.primary.delay = 0.4
        it.primary.writes = fault
        async with it.manager.session() as session:
            (await session.get_one(Account, "a")).balance -= 3
            (await session.get_one(Account, "b")).balance += 3
        assert session.journalled
        assert all(receipt.provisional for receipt in session.receipts)
        assert await balances(it, "a", "b") == [7, 3]
        assert len(it.seen(WriteJournalled)) == 2
        it.primary.heal()
        async with asyncio.timeout(5):
            await session.settled()
        await it.drained()
        for backend in ("primary", "replica", "cache"):
            found = [await it.held(backend, Account(id=name)) for name in "ab"]
            assert [fields and fields["balance"] for fields in found] in ([7, 3], [None, None]), backend
        assert await at_primary(it, "a", "b") == [7, 3]
        assert it.seen(DeadLettered) == []


async def test_it_is_replayed_in_one_transaction(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=10, b=0)
        it.primary.writes = Fault.REFUSE
        await move(it, 1)
        await move(it, 2)
        await it.manager.dao(Account).update(Account(id="a", balance=50))
        before = it.primary.calls["apply_unit"]
        it.primary.heal()
        await it.drained()
        assert it.primary.calls["apply_unit"] - before == 2
        assert await at_primary(it, "a", "b") == [50, 3]


async def test_a_session_on_what_waits_in_the_journal_queues_up_behind_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=10, b=0)
        it.primary.writes = Fault.REFUSE
        await move(it, 1)
        with pytest.raises(StaleRecord, match="Account 'a'"):
            async with it.manager.session() as session:
                (await session.get_one(Account, "a")).balance = 0
                await it.manager.dao(Account).update(Account(id="a", balance=20))
        await move(it, 1)
        it.primary.heal()
        await it.drained()
        assert await at_primary(it, "a", "b") == [19, 2]


async def test_a_conflict_found_at_replay_makes_dead_letters_of_all_of_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=10, b=0, c=0)
        elsewhere = DaoManager([it.primary.adapter])
        it.primary.writes = Fault.REFUSE
        async with it.manager.session() as session:
            (await session.get_one(Account, "a")).balance -= 3
            (await session.get_one(Account, "b")).balance += 3
        async with it.manager.session() as later:
            (await later.get_one(Account, "b")).balance += 1
            (await later.get_one(Account, "c")).balance += 1
        async with elsewhere:
            await elsewhere.dao(Account).update(Account(id="a", balance=99))
            await it.primary.adapter.open()
            it.primary.heal()
            await it.drained()
            with pytest.raises(StaleRecord):
                async with asyncio.timeout(5):
                    await session.settled()
            with pytest.raises(RecordRejected):
                await later.settled()
            assert it.manager.journal is not None
            letters = it.manager.journal.dead_letters()
            assert sorted(letter.operation.key.id for letter in letters) == ["a", "b", "b", "c"]
            assert await at_primary(it, "a", "b", "c") == [99, 0, 0], "what built on it goes with it"
            assert await balances(it, "a", "b", "c") == [99, 0, 0]


async def test_a_model_may_rather_be_refused(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.primary.writes = Fault.REFUSE
        with pytest.raises(WriteUnavailable, match=r"Strict.*provisional=False"):
            async with it.manager.session() as session:
                session.create(Strict(id="a"))
                session.create(Transfer(amount=1))


async def test_without_a_journal_an_outage_refuses_it_and_says_so() -> None:
    async with stage(None) as it:
        await opened(it, a=1)
        it.primary.writes = Fault.REFUSE
        with pytest.raises(WriteUnavailable, match=r"Account 'a'.*no journal.*Nothing was written") as caught:
            async with it.manager.session() as session:
                (await session.get_one(Account, "a")).balance = 2
        assert {"primary", "journal"} <= set(caught.value.causes)


async def test_a_read_that_nobody_can_answer_is_told(tmp_path: Path) -> None:
    async with stage(tmp_path, cache=False) as it:
        it.primary.break_down(Fault.REFUSE)
        async with it.manager.session() as session:
            with pytest.raises(ReadUnavailable):
                await session.read(Account, "a")


async def test_a_cache_that_misses_it_is_not_read_until_it_was_told(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await opened(it, a=10, b=0)
        it.cache.writes = Fault.REFUSE
        await move(it, 3)
        assert await balances(it, "a", "b") == [7, 3]


# -- without transactions --------------------------------------------------------------------------


@asynccontextmanager
async def plain() -> AsyncGenerator[DaoManager]:
    """A primary that has no transactions."""
    store = MemoryAdapter(durable=True, name="db")
    store._capabilities = Capabilities(durable=True, scan=True)
    async with DaoManager([store], guard=POLICY) as octopus:
        yield octopus


async def test_a_primary_without_transactions_refuses_what_it_cannot_do() -> None:
    async with plain() as octopus:
        with pytest.raises(OperationNotSupported, match=r"db has no transactions.*atomic=False"):
            async with octopus.session() as session:
                session.create(Account(id="a"))
        assert not await octopus.dao(Account).exists("a")


async def test_without_transactions_each_change_is_a_write_of_its_own_and_its_failure_is_named() -> None:
    async with plain() as octopus:
        accounts = octopus.dao(Account)
        await accounts.create_many([Account(id="a"), Account(id="b")])
        async with octopus.session(atomic=False) as session:
            (await session.get_one(Account, "a")).balance = 1
            session.create(Account(id="c"))
        assert len(session.receipts) == 2
        with pytest.raises(
            StaleRecord, match="1 of 2 changes were not written, and the others were"
        ) as caught:
            async with octopus.session(atomic=False) as session:
                (await session.get_one(Account, "a")).balance = 2
                (await session.get_one(Account, "b")).balance = 2
                await accounts.update(Account(id="b", balance=9))
        assert set(caught.value.causes) == {("Account", "b")}
        assert [account.balance for account in (await accounts.get_many("ab")).unwrap()] == [2, 9]
        assert [receipt.key.id for receipt in session.receipts] == ["a"]


async def test_what_is_kept_in_different_places_is_no_unit() -> None:
    one, other = MemoryAdapter(durable=True, name="one"), MemoryAdapter(durable=True, name="other")
    async with DaoManager([one], backends=[other], routings={Account: Routing(write=("other",))}) as octopus:
        with pytest.raises(ConfigurationError, match="one, other"):
            async with octopus.session() as session:
                session.create(Account(id="a"))
                session.create(Transfer(amount=1))
        async with octopus.session(atomic=False) as session:
            session.create(Account(id="a"))
            session.create(Transfer(amount=1))
        assert len(session.receipts) == 2
