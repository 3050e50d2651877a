"""The replay is paced by the backend's latency, and gets done at any latency."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from octopus_async import GuardPolicy, Outcome, State
from octopus_async.record import Mode, Operation
from octopus_async.testing.faulty import Fault
from tests.unit.stage import Book, stage


async def test_a_backend_slow_at_every_call_gets_more_than_one_operation_a_call(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, cache=False, guard=GuardPolicy(timeout=5)) as it:
        breaker = it.manager.backends["primary"].writes
        breaker.force(State.FORCED_OPEN)
        receipts = await it.books.create_many(Book(title=str(number)) for number in range(300))
        it.primary.delay = 0.25
        it.primary.writes = Fault.SLOW
        breaker.release()
        async with asyncio.timeout(20):
            await asyncio.gather(*(receipt.settled() for receipt in receipts.unwrap()))
        assert it.primary.calls["apply"] <= 10


async def test_a_batch_that_takes_longer_than_allowed_is_tried_again_as_a_smaller_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path, cache=False) as it:
        breaker = it.manager.backends["primary"].writes
        breaker.force(State.FORCED_OPEN)
        receipts = await it.books.create_many(Book(title=str(number)) for number in range(100))
        apply = it.primary.apply

        async def crawl(operations: Sequence[Operation], mode: Mode) -> Sequence[Outcome]:
            await asyncio.sleep(0.01 * len(operations))
            return await apply(operations, mode)

        monkeypatch.setattr(it.primary, "apply", crawl)
        breaker.release()
        async with asyncio.timeout(20):
            await asyncio.gather(*(receipt.settled() for receipt in receipts.unwrap()))
        assert 100 / 20 <= it.primary.calls["apply"] <= 100 / 4
