"""The public surface as a user would use it: only type checkers read it, and without an ignore."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, assert_type
from uuid import UUID

from pydantic import ConfigDict, Field

from octopus_async import (
    Acknowledge,
    Adapter,
    Cascade,
    CopyProgress,
    Dao,
    DaoManager,
    Hedge,
    KeyedModel,
    Model,
    OctopusError,
    Order,
    Race,
    Receipt,
    RecordNotFound,
    Result,
    Results,
    Routing,
    Session,
    Settings,
    Statistics,
    Unavailable,
    WriteUnavailable,
    each,
)


class Book(Model, table="books", columns={"title": "headline"}):
    title: str
    author: str | None = None
    tags: list[str] = Field(default_factory=list)


class User(KeyedModel, name="Person", id_column="mail", provisional=False):
    model_config = ConfigDict(frozen=True)

    id: str
    name: str


class Counter(KeyedModel):
    id: int
    value: int = 0


class BookDao(Dao[Book]):
    async def retitle(self, book: Book, title: str) -> Receipt:
        book.title = title
        return await self.update(book, if_version=book.version)


def open_manager(adapter: Adapter) -> DaoManager:
    return DaoManager(
        write=["sqlite:///shop.db", "memory://?name=hot", adapter],
        read=Cascade("hot", "sqlite"),
        journal=Path("journal"),
        timeout=2.0,
        create_tables=True,
        acknowledge=Acknowledge.ALL,
        routings={Book: Routing(read=Race("hot", "sqlite"), order=Order.PRIMARY_FIRST)},
    )


def models() -> None:
    book = Book(title="Emma", tags=["novel"])
    user = User(id="jane@example.org", name="Jane")
    counter = Counter(id=7)
    assert_type(book.id, UUID)
    assert_type(user.id, str)
    assert_type(counter.id, int)
    assert_type(book.version, str | None)
    assert_type(Book.persisted_fields(), tuple[str, ...])
    assert_type(book.model_copy(), Book)


async def one_at_a_time(octopus: DaoManager) -> None:
    books = octopus.dao(Book)
    assert_type(books, Dao[Book])
    book = Book(title="Emma")
    receipt = await books.create(book, timeout=1.0)
    assert_type(receipt, Receipt)
    await receipt.settled()
    assert_type(await books.read(book.id), Book | None)
    assert_type(await books.read(str(book.id)), Book | None)
    assert_type(await books.get_one(book.id), Book)
    assert_type(await books.exists(book.id), bool)
    assert_type(await books.update(book, if_version=book.version), Receipt)
    assert_type(await books.delete(book), Receipt)
    assert_type(await books.delete(book.id, if_version=book.version), Receipt)


async def ids_of_their_own(octopus: DaoManager) -> None:
    users, counters = octopus.dao(User), octopus.dao(Counter)
    assert_type(users, Dao[User])
    assert_type(counters, Dao[Counter])
    assert_type(await users.get_one("jane@example.org"), User)
    assert_type(await counters.read(7), Counter | None)


async def a_dao_of_ones_own(octopus: DaoManager) -> None:
    books = octopus.dao(BookDao)
    assert_type(books, BookDao)
    book = await books.get_one("01a20908-f820-7c84-8ba2-17108c30ed0a")
    assert_type(book, Book)
    assert_type(await books.retitle(book, "Persuasion"), Receipt)


async def many_at_a_time(octopus: DaoManager) -> None:
    books = octopus.dao(Book)
    shelf = [Book(title=title) for title in ("Emma", "Persuasion")]
    created = await books.create_many(shelf)
    assert_type(created, Results[Receipt])
    assert_type(created.errors, list[OctopusError])
    assert_type(created.unwrap(), list[Receipt])
    assert_type(created[0], Result[Receipt])
    assert_type(created[0].unwrap(), Receipt)
    assert_type(created[0].error, OctopusError | None)
    ids = (book.id for book in shelf)
    assert_type(await books.read_many(ids), Results[Book | None])
    assert_type(await books.get_many(["x", "y"]), Results[Book])
    assert_type(await books.exists_many({book.id for book in shelf}), Results[bool])
    assert_type(await books.update_many(shelf, optimistic=True), Results[Receipt])
    assert_type(await books.delete_many(shelf), Results[Receipt])
    for result in await books.get_many(ids):
        assert_type(result, Result[Book])
        assert_type(result.value, Book | None)


async def streams(octopus: DaoManager, shelf: AsyncIterator[Book]) -> None:
    books = octopus.dao(Book)
    assert_type(await books.create_many(shelf), Results[Receipt])
    assert_type(await books.upsert_many([Book(title="Emma")]), Results[Receipt])
    assert_type(await books.update_many([Book(title="Emma")], only={"title"}), Results[Receipt])
    async for book, result in each(books.create, shelf, window=100):
        assert_type(book, Book)
        assert_type(result, Result[Receipt])
    async for id_, found in each(books.get_one, ["x"]):
        assert_type(id_, str)
        assert_type(found.unwrap(), Book)


async def conveniences(octopus: DaoManager) -> None:
    users = octopus.dao(User)
    user = User(id="jane@example.org", name="Jane")
    assert_type(await users.upsert(user), Receipt)
    found, receipt = await users.get_or_create(user)
    assert_type(found, User)
    assert_type(receipt, Receipt | None)
    assert_type(await users.update(user, only=["name"]), Receipt)
    await users.refresh(user, timeout=1.0)


async def units_of_work(octopus: DaoManager) -> None:
    async with octopus.session(timeout=1.0) as session:
        assert_type(session, Session)
        assert_type(await session.read(Book, "x"), Book | None)
        assert_type(await session.get_one(User, "jane@example.org"), User)
        assert_type(await session.exists(Counter, 7), bool)
        assert_type(await session.read_many(Counter, range(3)), Results[Counter | None])
        session.create(book := Book(title="Emma"))
        session.update(book)
        session.delete(book)
    assert_type(session.receipts, tuple[Receipt, ...])
    assert_type(session.journalled, bool)
    await session.settled()


async def moving(octopus: DaoManager) -> None:
    async for progress in octopus.copy("mysql", "postgres", Book, BookDao, resume={"Book": ""}):
        assert_type(progress, CopyProgress)
        assert_type(progress.point, str)


async def lifetimes(path: Path, settings: Settings) -> None:
    async with DaoManager(["sqlite:///shop.db"], read=Hedge("sqlite", delay=0.1)) as octopus:
        assert_type(octopus, DaoManager)
        await octopus.create_tables(Book, User)
        assert_type(octopus.statistics(), Statistics)
        await octopus.drained()
    manager = DaoManager.from_config(path)
    assert_type(manager, DaoManager)
    assert_type(await DaoManager.from_config(settings).open(), DaoManager)
    await manager.close()


async def errors(books: Dao[Book], id_: UUID) -> str | float | None:
    try:
        return (await books.get_one(id_)).title
    except RecordNotFound as error:
        assert_type(error, RecordNotFound)
        not_there: LookupError = error
        return str(not_there)
    except WriteUnavailable as error:
        assert_type(error.causes, dict[str, OctopusError])
        return None
    except Unavailable as error:
        assert_type(error.retry_after, float | None)
        assert_type(error.backend, str | None)
        return error.retry_after


def generic(octopus: DaoManager, models_: list[type[Book]]) -> dict[str, Dao[Any]]:
    return {model.__name__: octopus.dao(model) for model in models_}
