"""The same books service on aiohttp.

    pip install 'octopus-async[memcached,mysql,aiohttp]'
    export BOOKS_WRITE="mysql://app:secret@localhost/shop memcache://localhost"
    python -m aiohttp.web aiohttp_books:make_app

Without ``BOOKS_WRITE`` it keeps its books in SQLite, with a cache in this process.
"""

from __future__ import annotations

import os
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from octopus_async import Dao, DaoManager, Model
from octopus_async.integrations.aiohttp import Journalled, acknowledge, dao_of, install


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


async def create(request: web.Request) -> web.Response:
    """Store a new book."""
    book = Book(**(await form_of(request)).model_dump())
    receipt = await books_of(request).create(book)
    answer = shown(book, status=201)
    answer.headers["Location"] = f"/books/{book.id}"
    return acknowledge(request, receipt, answer)


async def read(request: web.Request) -> web.Response:
    """One book."""
    return shown(await books_of(request).get_one(id_of(request)))


async def update(request: web.Request) -> web.Response:
    """Change a book; with If-Match only if nobody else did meanwhile."""
    form = await form_of(request)
    book = await books_of(request).get_one(id_of(request))
    book.title, book.author = form.title, form.author
    if_match = request.headers.get("If-Match")
    receipt = await books_of(request).update(book, if_version=if_match.strip('"') if if_match else None)
    return acknowledge(request, receipt, shown(book))


async def delete(request: web.Request) -> web.Response:
    """Delete a book."""
    books = books_of(request)
    receipt = await books.delete(await books.get_one(id_of(request)))
    return acknowledge(request, receipt, web.Response(status=204))


def books_of(request: web.Request) -> Dao[Book]:
    """The Dao that the handlers await."""
    return dao_of(request, Book)


def id_of(request: web.Request) -> UUID:
    """The book that is asked for."""
    try:
        return UUID(request.match_info["book_id"])
    except ValueError:
        raise web.HTTPNotFound from None


async def form_of(request: web.Request) -> BookForm:
    """What the client sent."""
    try:
        return BookForm.model_validate_json(await request.read())
    except ValidationError as error:
        raise web.HTTPUnprocessableEntity(
            text=error.json(include_input=False), content_type="application/json"
        ) from None


def shown(book: Book, *, status: int = 200) -> web.Response:
    """A book as the answer."""
    answer = web.Response(text=book.model_dump_json(), status=status, content_type="application/json")
    answer.headers["ETag"] = f'"{book.version}"'
    return answer


def make_app(_: list[str] | None = None) -> web.Application:
    """The application, as ``python -m aiohttp.web`` asks for it."""
    app = web.Application()
    install(app, make_manager, journalled=Journalled.HEADER)  # errors, /healthz and /readyz too
    app.router.add_post("/books", create)
    app.router.add_get("/books/{book_id}", read)
    app.router.add_put("/books/{book_id}", update)
    app.router.add_delete("/books/{book_id}", delete)
    return app
