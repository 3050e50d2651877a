"""P5, and P2 for a server: creates, updates and reads in MariaDB."""

from __future__ import annotations

from benchmarks import hand
from benchmarks.load import Book, book, uniform
from benchmarks.rig import Operation, Rig
from benchmarks.rows import Goal, at_least, at_most
from octopus_async import DaoManager

_GOALS = {"create": at_least(4), "update": at_least(4), "read": at_least(5)}


async def run(rig: Rig) -> None:
    """Measure MariaDB."""
    async with (
        DaoManager([rig.mariadb.url], create_tables=True) as octopus,
        hand.mariadb(rig.mariadb) as database,
    ):
        books = octopus.dao(Book)
        stored = [book(number) for number in range(rig.sizes.records)]
        (await books.create_many(stored)).unwrap()
        await database.upsert_many([hand.BOOKS_MARIADB.values(made) for made in stored])
        one, ids = uniform(stored), uniform([made.id for made in stored])
        keys = uniform([made.id.hex for made in stored])
        sides: dict[str, tuple[Operation, Operation]] = {
            "create": (lambda: books.create(book(0)), lambda: database.insert(book(0))),
            "update": (lambda: books.update(_changed(one())), lambda: database.update(_changed(one()))),
            "read": (lambda: books.get_one(ids()), lambda: database.select(keys())),
        }
        for tasks in rig.sizes.tasks:
            for name, (ours, theirs) in sides.items():
                goal, figure = _goal(rig, tasks, name)
                await rig.compare(f"{figure}{name}: MariaDB", ours, "by hand", theirs, tasks, goal)


def _goal(rig: Rig, tasks: int, name: str) -> tuple[Goal | None, str]:
    if tasks == 1:
        return at_most(1.15), "P2 "
    return (_GOALS[name], "P5 ") if tasks == rig.sizes.many else (None, "")


def _changed(made: Book) -> Book:
    made.year += 1
    return made
