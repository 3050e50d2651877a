"""The orders service: a session for each request, which is written before the client is told."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from octopus_async import State

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_orders.py"


@asynccontextmanager
async def shop(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[tuple[httpx.AsyncClient, Any]]:
    """The service, with a client and its module."""
    monkeypatch.setenv("ORDERS_WRITE", f"sqlite:///{folder}/orders.db memory://")
    monkeypatch.setenv("ORDERS_JOURNAL", str(folder / "journal"))
    spec = importlib.util.spec_from_file_location("fastapi_orders", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "fastapi_orders", module)
    spec.loader.exec_module(module)
    transport = httpx.ASGITransport(module.app, raise_app_exceptions=False)
    async with (
        module.app.router.lifespan_context(module.app),
        httpx.AsyncClient(transport=transport, base_url="http://orders") as client,
    ):
        yield client, module


async def left(client: httpx.AsyncClient) -> int:
    return int((await client.get("/stock/tea")).json()["left"])


async def test_an_order_and_its_stock_are_written_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop(tmp_path, monkeypatch) as (client, module):
        assert (await client.get("/stock/tea")).status_code == 404
        assert (await client.put("/stock/tea?left=5")).status_code == 204
        taken = await client.post("/orders?article=tea&count=3")
        assert taken.status_code == 201
        assert await left(client) == 2
        orders = module.app.state.octopus.dao(module.Order)
        assert await orders.exists(taken.json()["id"])

        assert (await client.post("/orders?article=tea&count=3")).status_code == 422
        assert await left(client) == 2, "a request that fails writes nothing"


async def test_who_comes_late_is_told_so_and_nothing_is_sold_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop(tmp_path, monkeypatch) as (client, _):
        await client.put("/stock/tea?left=10")
        answers = await asyncio.gather(*(client.post("/orders?article=tea&count=1") for _ in range(10)))
        codes = [answer.status_code for answer in answers]
        assert set(codes) <= {201, 409}, "the conflict at the end of the session is the response"
        assert codes.count(201) >= 1
        assert await left(client) == 10 - codes.count(201)


async def test_the_service_goes_on_without_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop(tmp_path, monkeypatch) as (client, module):
        await client.put("/stock/tea?left=5")
        octopus = module.app.state.octopus
        octopus.backends["sqlite"].writes.force(State.FORCED_OPEN)
        assert (await client.post("/orders?article=tea&count=1")).status_code == 201
        assert (await client.post("/orders?article=tea&count=1")).status_code == 201
        assert await left(client) == 3
        octopus.backends["sqlite"].writes.release()
        async with asyncio.timeout(10):
            await octopus.drained()
        assert octopus.statistics().journal.dead_letters == 0
        assert await left(client) == 3
