"""A shop that takes an order and its share of the stock together, or neither: one session for each request.

pip install octopus-async fastapi uvicorn
uvicorn fastapi_orders:app
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from octopus_async import (
    DaoManager,
    KeyedModel,
    Model,
    RecordNotFound,
    Session,
    StaleRecord,
    Unavailable,
)


class Stock(KeyedModel):
    """How much of an article is left."""

    id: str
    left: int


class Order(Model):
    """An order that was taken."""

    article: str
    count: int


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """The manager lives as long as the service."""
    async with DaoManager(
        write=os.environ.get("ORDERS_WRITE", "sqlite:///orders.db memory://").split(),
        journal=os.environ.get("ORDERS_JOURNAL", "orders-journal"),
        create_tables=True,
    ) as octopus:
        app.state.octopus = octopus
        yield


async def session_of(request: Request) -> AsyncGenerator[Session]:
    """A session that is written when the handler has returned, and given up when it has raised."""
    octopus: DaoManager = request.app.state.octopus
    async with octopus.session() as session:
        yield session


# Of the scope "function" it ends before the response is sent: what it raises becomes the response.
OneSession = Annotated[Session, Depends(session_of, scope="function")]

app = FastAPI(title="Orders", lifespan=lifespan)


@app.put("/stock/{article}", status_code=204)
async def fill(article: str, left: int, session: OneSession) -> None:
    """Say how much there is of an article."""
    stock = await session.read(Stock, article)
    if stock is None:
        session.create(Stock(id=article, left=left))
    else:
        stock.left = left


@app.get("/stock/{article}")
async def look(article: str, session: OneSession) -> Stock:
    """How much there is of an article."""
    return await session.get_one(Stock, article)


@app.post("/orders", status_code=201)
async def order(article: str, count: int, session: OneSession, response: Response) -> Order:
    """Take an order, and what it needs from the stock: both or neither."""
    stock = await session.get_one(Stock, article)
    stock.left -= count
    session.create(taken := Order(article=article, count=count))
    if stock.left < 0:
        raise HTTPException(422, "there is not so much of it")
    response.headers["Location"] = f"/orders/{taken.id}"
    return taken


@app.exception_handler(RecordNotFound)
async def not_found(_: Request, error: RecordNotFound) -> JSONResponse:
    """There is no such article."""
    return JSONResponse({"detail": str(error)}, status_code=404)


@app.exception_handler(StaleRecord)
async def stale(_: Request, error: StaleRecord) -> JSONResponse:
    """Another order was quicker: the client may try again."""
    return JSONResponse({"detail": str(error)}, status_code=409)


@app.exception_handler(Unavailable)
async def unavailable(_: Request, error: Unavailable) -> JSONResponse:
    """Neither the database nor the journal could take it now."""
    return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": "1"})
