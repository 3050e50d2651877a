"""Two object-relational mappers on the same SQLite driver: SQLAlchemy 2 and Tortoise."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tortoise import Tortoise, fields
from tortoise.models import Model as TortoiseModel

from benchmarks.hand import POOL
from benchmarks.load import Book


class _Base(DeclarativeBase):
    pass


class AlchemyBook(_Base):
    """A book as SQLAlchemy has it."""

    __tablename__ = "alchemy"

    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    author: Mapped[str | None]
    year: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class TortoiseBook(TortoiseModel):
    """A book as Tortoise has it."""

    id = fields.CharField(max_length=32, primary_key=True)
    title = fields.TextField()
    author = fields.TextField(null=True)
    year = fields.IntField()
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta(TortoiseModel.Meta):
        """What Tortoise asks for."""

        table = "tortoise"


class Alchemy:
    """A session for each operation, as a request handler has it."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def insert(self, book: Book) -> None:
        """Store a new record."""
        async with self._sessions() as session:
            session.add(AlchemyBook(**_values(book)))
            await session.commit()

    async def select(self, id_: str) -> AlchemyBook:
        """Find a record."""
        async with self._sessions() as session:
            found = await session.get(AlchemyBook, id_)
        assert found is not None
        return found


@asynccontextmanager
async def alchemy(path: Path, books: Sequence[Book]) -> AsyncGenerator[Alchemy]:
    """Open a database file that holds some books."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=POOL, max_overflow=0)
    _settings(engine)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_Base.metadata.create_all)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        async with sessions() as session:
            session.add_all([AlchemyBook(**_values(book)) for book in books])
            await session.commit()
        yield Alchemy(sessions)
    finally:
        await engine.dispose()


def _settings(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _connected(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]  # a connection of whatever driver
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()


class TortoiseBooks:
    """The model's own calls, each in autocommit."""

    async def insert(self, book: Book) -> None:
        """Store a new record."""
        await TortoiseBook(**_values(book)).save(force_create=True)

    async def select(self, id_: str) -> TortoiseBook:
        """Find a record."""
        return await TortoiseBook.get(id=id_)


@asynccontextmanager
async def tortoise(path: Path, books: Sequence[Book]) -> AsyncGenerator[TortoiseBooks]:
    """Open a database file that holds some books."""
    await Tortoise.init(
        db_url=f"sqlite://{path}?journal_mode=WAL&synchronous=FULL", modules={"models": [__name__]}
    )
    try:
        await Tortoise.generate_schemas()
        await TortoiseBook.bulk_create([TortoiseBook(**_values(book)) for book in books])
        yield TortoiseBooks()
    finally:
        await Tortoise.close_connections()


def _values(book: Book) -> dict[str, object]:
    values = dict(book)
    values["id"] = book.id.hex
    return values
