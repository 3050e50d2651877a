"""A small books service that goes on serving while its database is down.

    pip install 'octopus-async[memcached,mysql,fastapi]' uvicorn
    BOOKS_WRITE="mysql://app:secret@localhost/shop memcache://localhost" uvicorn fastapi_books:app

Without ``BOOKS_WRITE`` it keeps its books in SQLite, with a cache in this process.
"""

from __future__ import annotations

import os
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Header, Response
from pydantic import BaseModel, Field

from octopus_async import Dao, DaoManager, Model
from octopus_async.integrations.fastapi import Acknowledge, Journalled, acknowledgement, dao_of, install


class Book(Model):
    """What is stored, and what is answered."""

    title: str = Field(max_length=200)
    author: str | None = None


class BookForm(BaseModel):
    """What a client may send."""

    title: str = Field(min_length=1, max_length=200)
    author: str | None = None


def make_manager() -> DaoManager:
    """The manager lives as long as the service: one of them in each process."""
    return DaoManager(
        write=os.environ.get("BOOKS_WRITE", "sqlite:///books.db memory://").split(),
        journal=os.environ.get("BOOKS_JOURNAL", "books-journal"),
        create_tables=True,
    )


app = FastAPI(title="Books")
install(app, make_manager, journalled=Journalled.HEADER)  # lifespan, answers to errors, /healthz and /readyz

Books = Annotated[Dao[Book], dao_of(Book)]
Acknowledged = Annotated[Acknowledge, Depends(acknowledgement)]


@app.post("/books", status_code=201)
async def create(form: BookForm, books: Books, acknowledge: Acknowledged, response: Response) -> Book:
    """Store a new book."""
    book = Book(**form.model_dump())
    acknowledge(await books.create(book))
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
async def update(  # noqa: PLR0913 - a dependency each
    book_id: UUID,
    form: BookForm,
    books: Books,
    acknowledge: Acknowledged,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> Book:
    """Change a book; with If-Match only if nobody else did meanwhile."""
    book = await books.get_one(book_id)
    book.title, book.author = form.title, form.author
    acknowledge(await books.update(book, if_version=if_match.strip('"') if if_match else None))
    response.headers["ETag"] = f'"{book.version}"'
    return book


@app.delete("/books/{book_id}", status_code=204)
async def delete(book_id: UUID, books: Books, acknowledge: Acknowledged) -> None:
    """Delete a book."""
    acknowledge(await books.delete(await books.get_one(book_id)))
