"""The contract suite over every adapter, bare and guarded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from octopus_async.backend import Adapter
from octopus_async.guard import Guard
from octopus_async.record import Miss, Record
from octopus_async.testing.contract import (
    CacheContract,
    DurableContract,
    ScanContract,
    ServerContract,
    Subject,
    UnitContract,
)


class GuardedCache(Subject):
    """A guard offers a record to its cache and does not wait: here the test does."""

    async def fill(self, record: Record, miss: Miss) -> None:
        guard = self.adapter
        assert isinstance(guard, Guard)
        guard.fill(record, miss)
        while guard._fill_lane.queued or guard._fill_lane.under_way:  # noqa: ASYNC110 - the guard announces no end of fills
            await asyncio.sleep(0)


class TestCaches(CacheContract):
    @pytest.fixture(params=["memory_cache", "shm", "memcached", "redis", "redis_in_cluster"])
    def bare(self, request: pytest.FixtureRequest) -> Adapter:
        found: Adapter = request.getfixturevalue(request.param)
        return found

    def make_subject(self, adapter: Adapter) -> Subject:
        return GuardedCache(adapter) if isinstance(adapter, Guard) else Subject(adapter)


class TestDurableBackends(DurableContract, ScanContract):
    @pytest.fixture(
        params=[
            *("memory", "sqlite", "mysql", "asyncmy", "postgres", "mongodb", "rest"),
            *("sqlalchemy_sqlite", "sqlalchemy_mysql", "sqlalchemy_postgres"),
        ]
    )
    def bare(self, request: pytest.FixtureRequest) -> Adapter:
        found: Adapter = request.getfixturevalue(request.param)
        return found


class TestARestServiceWithoutBulkRequests(DurableContract, ScanContract):
    """Bare alone: with them, a guard asks for single records all the same."""

    @pytest.fixture
    def bare(self, rest_singly: Adapter) -> Adapter:
        return rest_singly

    @pytest.fixture
    async def adapter(self, bare: Adapter) -> AsyncGenerator[Adapter]:
        await bare.open()
        yield bare
        await bare.close()


class TestBackendsWithTransactions(UnitContract):
    @pytest.fixture(
        params=[
            *("memory", "sqlite", "mysql", "asyncmy", "postgres", "mongodb_in_set"),
            *("sqlalchemy_sqlite", "sqlalchemy_mysql", "sqlalchemy_postgres"),
        ]
    )
    def bare(self, request: pytest.FixtureRequest) -> Adapter:
        found: Adapter = request.getfixturevalue(request.param)
        return found


class TestServersThatAreAway(ServerContract):
    @pytest.fixture(
        params=[
            "sqlite_nowhere",
            "mysql_nowhere",
            "asyncmy_nowhere",
            "postgres_nowhere",
            "sqlalchemy_mysql_nowhere",
            "sqlalchemy_postgres_nowhere",
            "rest_nowhere",
            "memcached_nowhere",
            "shm_nowhere",
            "mongodb_nowhere",
            "redis_nowhere",
            "redis_cluster_nowhere",
        ]
    )
    def nowhere(self, request: pytest.FixtureRequest) -> Adapter:
        found: Adapter = request.getfixturevalue(request.param)
        return found
