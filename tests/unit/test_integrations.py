"""What a web framework is given: problem details, health, a manager for as long as the application lives."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from uuid import UUID

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from fastapi import Depends, FastAPI

import octopus_async.integrations.aiohttp as for_aiohttp
import octopus_async.integrations.fastapi as for_fastapi
from octopus_async import ConfigurationError, Dao, DaoManager, FileJournal, Model, State, errors
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.integrations.health import Health, Readiness, health_of
from octopus_async.integrations.journalled import Journalled
from octopus_async.integrations.problem import ANSWERED, problem_of

NOBODY = UUID("00000000-0000-7000-8000-000000000000")


class Book(Model):
    title: str


Make = Callable[[], DaoManager]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A manager on a primary and a cache in memory."""
    primary, cache = MemoryAdapter(name="primary", durable=True), MemoryAdapter(name="cache")
    return lambda: DaoManager([primary, cache], journal=tmp_path / "journal")


@pytest.fixture
async def manager(make: Make) -> AsyncGenerator[DaoManager]:
    async with make() as manager:
        yield manager


class TestProblems:
    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (errors.RecordNotFound("there is no Book"), 404),
            (errors.DuplicateRecord("there is one"), 409),
            (errors.StaleRecord("another version"), 409),
            (errors.ConstraintViolated("not unique"), 422),
            (errors.InvalidRecord("a NUL"), 422),
            (errors.ReadUnavailable("nobody"), 503),
            (errors.WriteUnavailable("nobody"), 503),
            (errors.CircuitOpen("open"), 503),
            (errors.ManagerClosed("closing"), 503),
        ],
    )
    def test_each_error_of_a_record_or_an_outage_has_a_status(
        self, error: errors.OctopusError, status: int
    ) -> None:
        problem = problem_of(error)
        assert problem.status == status
        assert json.loads(problem.body)["title"] == type(error).__name__
        assert isinstance(error, ANSWERED)

    def test_what_is_wrong_with_the_set_up_is_no_client_s_business(self) -> None:
        assert not issubclass(errors.ConfigurationError, ANSWERED)
        assert not issubclass(errors.JournalError, ANSWERED)
        assert problem_of(errors.ConfigurationError("no such backend")).status == 500

    def test_an_outage_says_when_to_come_back_and_nothing_of_the_backends(self) -> None:
        problem = problem_of(errors.ReadUnavailable("mysql at 10.0.0.7 refused app", retry_after=2.3))
        assert problem.headers == {"Retry-After": "3"}
        assert b"10.0.0.7" not in problem.body

    def test_a_write_of_unknown_fate_is_not_said_to_have_failed(self) -> None:
        late = errors.WriteUnavailable("nobody", causes={"mysql": errors.BackendTimeout("late")})
        unsent = errors.WriteUnavailable("nobody", causes={"mysql": errors.CircuitOpen("open")})
        assert "may or may not" in problem_of(late).detail
        assert "may or may not" not in problem_of(unsent).detail


class TestHealth:
    async def test_all_is_well(self, manager: DaoManager) -> None:
        health = health_of(manager)
        assert (health.readiness, health.notes, health.status) == (Readiness.READY, (), 200)
        assert {name: backend.role for name, backend in health.backends.items()} == {
            "primary": "primary",
            "cache": "cache",
        }

    async def test_with_a_journal_a_primary_that_takes_no_writes_degrades_the_service(
        self, manager: DaoManager
    ) -> None:
        manager.backends["primary"].writes.force(State.FORCED_OPEN)
        assert (health_of(manager).readiness, health_of(manager).status) == (Readiness.DEGRADED, 200)
        await manager.dao(Book).create(Book(title="waits"))
        health = health_of(manager)
        assert "primary: 1 operations wait in the journal" in health.notes
        assert health.journal is not None
        assert health.journal.pending == 1
        manager.backends["primary"].writes.release()
        await manager.drained()
        assert health_of(manager).readiness is Readiness.READY

    async def test_a_cache_that_is_down_degrades_it(self, manager: DaoManager) -> None:
        manager.backends["cache"].reads.force(State.FORCED_OPEN)
        assert health_of(manager).readiness is Readiness.DEGRADED
        assert health_of(manager).notes == ("cache: the breaker of reads is forced open",)

    async def test_with_nobody_to_read_it_is_unavailable(self, manager: DaoManager) -> None:
        for guard in manager.backends.values():
            guard.reads.force(State.FORCED_OPEN)
        assert (health_of(manager).readiness, health_of(manager).status) == (Readiness.UNAVAILABLE, 503)

    async def test_without_a_journal_a_primary_that_takes_no_writes_makes_it_unavailable(self) -> None:
        async with DaoManager([MemoryAdapter(name="primary", durable=True)]) as manager:
            manager.backends["primary"].writes.force(State.FORCED_OPEN)
            assert health_of(manager).notes[0] == "primary takes no writes, and there is no journal"
            assert health_of(manager).readiness is Readiness.UNAVAILABLE

    async def test_a_full_journal_counts_only_while_it_is_needed(self, tmp_path: Path) -> None:
        journal = FileJournal(tmp_path / "journal", max_bytes=1)
        async with DaoManager([MemoryAdapter(name="primary", durable=True)], journal=journal) as manager:
            manager.backends["primary"].writes.force(State.FORCED_OPEN)
            await manager.dao(Book).create(Book(title="the last that there is room for"))
            assert health_of(manager).readiness is Readiness.UNAVAILABLE
            manager.backends["primary"].writes.force(State.FORCED_CLOSED)
            assert health_of(manager).readiness is Readiness.DEGRADED
            await manager.drained()
            assert health_of(manager).readiness is Readiness.READY

    async def test_it_can_be_answered_as_json(self, manager: DaoManager) -> None:
        said = json.loads(json.dumps(health_of(manager).as_json()))
        assert said["readiness"] == "ready"
        assert said["backends"]["cache"] == {
            "role": "cache",
            "reads": "closed",
            "writes": "closed",
            "retry_in": 0.0,
        }
        assert set(said) == set(Health.__dataclass_fields__)


def fastapi_app(make: Make, journalled: Journalled) -> FastAPI:
    app = FastAPI()
    for_fastapi.install(app, make, journalled=journalled)

    @app.post("/books", status_code=201)
    async def create(
        books: Annotated[Dao[Book], for_fastapi.dao_of(Book)],
        acknowledge: Annotated[for_fastapi.Acknowledge, Depends(for_fastapi.acknowledgement)],
    ) -> None:
        acknowledge(await books.create(Book(title="A Tale of Two Cities")))

    @app.get("/books/{book_id}")
    async def read(book_id: UUID, books: Annotated[Dao[Book], for_fastapi.dao_of(Book)]) -> Book:
        return await books.get_one(book_id)

    return app


def aiohttp_app(make: Make, journalled: Journalled) -> web.Application:
    async def create(request: web.Request) -> web.Response:
        receipt = await for_aiohttp.dao_of(request, Book).create(Book(title="A Tale of Two Cities"))
        return for_aiohttp.acknowledge(request, receipt, web.Response(status=201))

    async def read(request: web.Request) -> web.Response:
        book = await for_aiohttp.dao_of(request, Book).get_one(request.match_info["book_id"])
        return web.Response(text=book.model_dump_json())

    app = web.Application()
    for_aiohttp.install(app, make, journalled=journalled)
    app.router.add_post("/books", create)
    app.router.add_get("/books/{book_id}", read)
    return app


@asynccontextmanager
async def served(framework: str, make: Make, journalled: Journalled) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of an application that has begun, of either framework."""
    if framework == "fastapi":
        app = fastapi_app(make, journalled)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
        ):
            yield client
    else:
        async with (
            TestClient(TestServer(aiohttp_app(make, journalled))) as server,
            httpx.AsyncClient(base_url=str(server.make_url("/")), trust_env=False) as client,
        ):
            yield client


@pytest.mark.parametrize("framework", ["fastapi", "aiohttp"])
class TestInstalled:
    @pytest.mark.parametrize(
        ("journalled", "status", "said"),
        [
            (Journalled.SILENT, 201, None),
            (Journalled.HEADER, 201, "journalled"),
            (Journalled.ACCEPTED, 202, "journalled"),
        ],
    )
    async def test_a_write_in_the_journal_alone_says_so_as_configured(
        self, make: Make, framework: str, journalled: Journalled, status: int, said: str | None
    ) -> None:
        managers: list[DaoManager] = []

        def noted() -> DaoManager:
            managers.append(make())
            return managers[-1]

        async with served(framework, noted, journalled) as client:
            applied = await client.post("/books")
            assert (applied.status_code, applied.headers.get("Octopus-Write")) == (201, None)
            managers[0].backends["primary"].writes.force(State.FORCED_OPEN)
            kept = await client.post("/books")
            assert (kept.status_code, kept.headers.get("Octopus-Write")) == (status, said)

    async def test_errors_are_problem_details(self, make: Make, framework: str) -> None:
        async with served(framework, make, Journalled.SILENT) as client:
            answer = await client.get(f"/books/{NOBODY}")
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["title"] == "RecordNotFound"

    async def test_health_is_answered(self, make: Make, framework: str) -> None:
        async with served(framework, make, Journalled.SILENT) as client:
            assert (await client.get("/healthz")).json() == {"status": "alive"}
            ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["readiness"]) == (200, "ready")


class TestFastAPI:
    async def test_the_lifespan_that_an_application_has_runs_inside_the_manager_s(self, make: Make) -> None:
        seen: list[bool] = []

        @asynccontextmanager
        async def own(app: FastAPI) -> AsyncGenerator[dict[str, str]]:
            await app.state.octopus.dao(Book).create(Book(title="seeded"))
            yield {"own": "state"}
            seen.append(app.state.octopus.statistics().writing == 0)

        app = FastAPI(lifespan=own)
        for_fastapi.install(app, make)
        async with app.router.lifespan_context(app) as state:
            assert state == {"own": "state"}
        assert seen == [True]

    async def test_an_application_can_start_again(self, make: Make) -> None:
        app = fastapi_app(make, Journalled.SILENT)
        for _ in range(2):
            async with app.router.lifespan_context(app):
                assert health_of(app.state.octopus).readiness is Readiness.READY
        assert not hasattr(app.state, "octopus")

    def test_it_is_installed_once(self, make: Make) -> None:
        app = fastapi_app(make, Journalled.SILENT)
        with pytest.raises(ConfigurationError, match="installed"):
            for_fastapi.install(app, make)

    async def test_without_its_lifespan_it_answers_503(self, make: Make) -> None:
        app = fastapi_app(make, Journalled.SILENT)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200
