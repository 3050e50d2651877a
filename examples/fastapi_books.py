"""A small books service that goes on serving while its database is down.

    pip install 'octopus-async[memcached,mysql]' fastapi uvicorn
    BOOKS_WRITE="mysql://app:secret@localhost/shop memcache://localhost" uvicorn fastapi_books:app

Without ``BOOKS_WRITE`` it keeps its books in SQLite, with a cache in this process.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from octopus_async import (
    Dao,
    DaoManager,
    DuplicateRecord,
    Model,
    RecordNotFound,
    RecordRejected,
    StaleRecord,
    Unavailable,
)


class Book(Model):
    """What is stored, and what is answered."""

    title: str = Field(max_length=200)
    author: str | None = None


class BookForm(BaseModel):
    """What a client may send."""

    title: str = Field(min_length=1, max_length=200)
    author: str | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """The manager lives as long as the service: one of them in each process."""
    async with DaoManager(
        write=os.environ.get("BOOKS_WRITE", "sqlite:///books.db memory://").split(),
        journal=os.environ.get("BOOKS_JOURNAL", "books-journal"),
        create_tables=True,
    ) as octopus:
        app.state.books = octopus.dao(Book)
        yield


app = FastAPI(title="Books", lifespan=lifespan)


def books_of(request: Request) -> Dao[Book]:
    """The Dao that the handlers await."""
    books: Dao[Book] = request.app.state.books
    return books


Books = Annotated[Dao[Book], Depends(books_of)]


@app.post("/books", status_code=201)
async def create(form: BookForm, books: Books, response: Response) -> Book:
    """Store a new book."""
    book = Book(**form.model_dump())
    await books.create(book)
    response.headers["Location"] = f"/books/{book.id}"
    response.headers["ETag"] = f'"{book.version}"'
    return book


@app.get("/books/{book_id}")
async def read(book_id: UUID, books: Books, response: Response) -> Book:
    """One book."""
    book = await books.get_one(book_id)
    response.headers["ETag"] = f'"{book.version}"'
    return book


@app.put("/books/{book_id}")
async def update(
    book_id: UUID,
    form: BookForm,
    books: Books,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> Book:
    """Change a book; with If-Match only if nobody else did meanwhile."""
    book = await books.get_one(book_id)
    book.title, book.author = form.title, form.author
    await books.update(book, if_version=if_match.strip('"') if if_match else None)
    response.headers["ETag"] = f'"{book.version}"'
    return book


@app.delete("/books/{book_id}", status_code=204)
async def delete(book_id: UUID, books: Books) -> None:
    """Delete a book."""
    await books.delete(await books.get_one(book_id))


def problem(status: int, error: Exception, **headers: str) -> JSONResponse:
    """An error as problem details (RFC 9457)."""
    return JSONResponse(
        {"status": status, "title": type(error).__name__, "detail": str(error)},
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


@app.exception_handler(RecordNotFound)
async def not_found(_: Request, error: RecordNotFound) -> JSONResponse:
    """There is no such book."""
    return problem(404, error)


@app.exception_handler(DuplicateRecord)
@app.exception_handler(StaleRecord)
async def conflict(_: Request, error: RecordRejected) -> JSONResponse:
    """Somebody else was first."""
    return problem(409, error)


@app.exception_handler(RecordRejected)
async def rejected(_: Request, error: RecordRejected) -> JSONResponse:
    """The database does not take such a book."""
    return problem(422, error)


@app.exception_handler(Unavailable)
async def unavailable(_: Request, error: Unavailable) -> JSONResponse:
    """Neither the database nor what stands in for it could do it now."""
    retry_after = str(math.ceil(error.retry_after or 1))
    return problem(503, error, **{"Retry-After": retry_after})
