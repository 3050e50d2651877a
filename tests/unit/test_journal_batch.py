"""Lines that are taken apart many at a time say what they say one by one."""

from __future__ import annotations

import pytest

from octopus_async.journal.batch import read_batches
from octopus_async.journal.format import Entry, decode, encode_operation, encode_retry
from octopus_async.journal.item import blob_of, item_of_raw
from octopus_async.record import NO_VERSION, Key, Kind, Operation

VERSIONS = [f"{number:026d}" for number in range(1000)]
TARGETS = ("primary", "replica")


def rest_of(number: int, operation: Operation, *, provisional: bool = False) -> bytes:
    return encode_operation(operation, 1_700_000_000.5 + number, TARGETS, provisional=provisional)


def create(number: int, id_: str = "", model: str = "Book") -> bytes:
    version = VERSIONS[number]
    return rest_of(
        number, Operation(Kind.CREATE, Key(model, id_ or f"id-{number}"), version, version, {"a": number})
    )


def update(number: int, born: str = VERSIONS[0]) -> bytes:
    return rest_of(
        number, Operation(Kind.UPDATE, Key("Book", f"id-{number}"), VERSIONS[number], born, {"a": ","})
    )


def delete(number: int) -> bytes:
    return rest_of(number, Operation(Kind.DELETE, Key("Book", f"id-{number}"), VERSIONS[number], NO_VERSION))


def conditional(number: int) -> bytes:
    operation = Operation(Kind.UPDATE, Key("Book", "x"), VERSIONS[number], VERSIONS[1], {}, None, VERSIONS[1])
    return rest_of(number, operation)


def numbered(rests: list[bytes], first: int = 1) -> list[bytes]:
    return [b'{"seq":%d%s%s' % (first + place, b',"durable":0' if place % 3 == 0 else b"", rest)
            for place, rest in enumerate(rests)]  # fmt: skip


def read(bodies: list[bytes], first: int = 1) -> list[tuple[int, bytes, bytes]]:
    """Traits, key and blob of each line, until one has to go the long way."""
    found: list[tuple[int, bytes, bytes]] = []
    for batch in read_batches(bodies, 0, first, len(bodies)):
        assert batch.sequence == first + len(found)
        assert batch.newest == max(blob[12:38] for blob in batch.blobs)
        found += [(batch.shared, key, blob) for key, blob in zip(batch.keys, batch.blobs, strict=True)]
    return found


def one_by_one(bodies: list[bytes]) -> list[tuple[int, bytes, bytes]]:
    found: list[tuple[int, bytes, bytes]] = []
    for body in bodies:
        line = decode(body)
        assert isinstance(line, Entry)
        item = item_of_raw(line.raw)
        found.append((item.shared, item.key, blob_of(line.sequence, item)))
    return found


@pytest.mark.parametrize(
    "rests",
    [
        [create(number) for number in range(3000 // 4)],
        [update(number) for number in range(1, 40)],
        [update(number, VERSIONS[number]) for number in range(1, 40)],
        [(create, update, delete)[number % 3](number) for number in range(1, 100)],
        [create(number, model=("Book", "Author")[number % 2]) for number in range(30)],
        [create(number, id_=f"größe-{number}") for number in range(30)],
        [rest_of(3, Operation(Kind.DELETE, Key("Book", "y"), VERSIONS[3], VERSIONS[1]), provisional=True)]
        * 9,
    ],
    ids=[
        "creates",
        "updates",
        "updates of what was born with them",
        "mixed",
        "models",
        "letters",
        "provisional",
    ],
)
def test_many_lines_say_what_each_of_them_says(rests: list[bytes]) -> None:
    bodies = numbered(rests)
    assert read(bodies) == one_by_one(bodies)


@pytest.mark.parametrize(
    "odd",
    [
        conditional(20),
        create(20, id_='quoted "id"'),
        encode_retry(3, create(20)),
        create(20).replace(b'"at":1', b'"at":-1'),
        create(20).replace(b'"at":1', b'"at":9999'),
        create(20).replace(b'"op":"create"', b'"op":"invent"'),
        create(20).replace(b',"targets":["primary","replica"]', b""),
        b',"done":"primary","entries":[[1,2]]',
    ],
    ids=[
        "condition",
        "escaped",
        "retry",
        "before 1970",
        "far moment",
        "unknown",
        "owed to nobody",
        "no operation",
    ],
)
def test_a_line_of_another_form_is_left_to_the_long_way_and_so_is_what_follows(odd: bytes) -> None:
    bodies = numbered([*map(create, range(20)), odd, *map(create, range(21, 40))])
    found = read(bodies)
    assert found == one_by_one(bodies[: len(found)])
    assert len(found) <= 20


def test_a_number_that_does_not_follow_ends_it() -> None:
    bodies = [*numbered([*map(create, range(8))]), *numbered([create(9)], first=10)]
    assert len(read(bodies)) == 8


def test_no_more_are_read_than_are_valid() -> None:
    bodies = numbered([*map(create, range(40))])
    assert sum(len(batch.keys) for batch in read_batches(bodies, 5, 6, 17)) == 17
