"""What is written and read, and which of it how often: uniform, and zipfian as YCSB has it. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, cycle
from typing import NamedTuple, TypeVar
from uuid import UUID

from octopus_async import Model

T = TypeVar("T")

_DRAWN = 20_000
_FNV_OFFSET, _FNV_PRIME, _64_BITS = 0xCBF29CE484222325, 1099511628211, (1 << 64) - 1
_FIELDS, _FIELD_BYTES = 10, 100


class Book(Model):
    """A small record."""

    title: str
    author: str | None = None
    year: int = 0


def book(number: int) -> Book:
    """A book as good as another."""
    return Book(title=f"A Tale of {number} Cities", author="Charles Dickens", year=1859)


class Item(Model, table="usertable"):
    """A record of YCSB: ten fields of a hundred bytes."""

    field0: str
    field1: str
    field2: str
    field3: str
    field4: str
    field5: str
    field6: str
    field7: str
    field8: str
    field9: str


def item(id_: UUID | None = None) -> Item:
    """A record of random letters; with a new id where none is given."""
    values = {f"field{number}": random.randbytes(_FIELD_BYTES // 2).hex() for number in range(_FIELDS)}
    return Item.model_validate(values if id_ is None else {**values, "id": id_})


class Mix(NamedTuple):
    """A workload of YCSB: the share of reads, and what the others are.

    Cooper et al., Benchmarking Cloud Serving Systems with YCSB, SoCC 2010, and the files
    workloads/workload[abcf] of its distribution.
    """

    name: str
    reads: float
    modifies: bool = False


MIXES = (
    Mix("A: 50 read, 50 update", 0.5),
    Mix("B: 95 read, 5 update", 0.95),
    Mix("C: 100 read", 1.0),
    Mix("F: 50 read, 50 read-modify-write", 0.5, modifies=True),
)
ZIPFIAN_CONSTANT = 0.99
"""YCSB's, in ZipfianGenerator."""


def uniform(things: Sequence[T]) -> Callable[[], T]:
    """Draws each as often as any other."""
    return _endless(random.choices(things, k=_DRAWN))


def zipfian(things: Sequence[T]) -> Callable[[], T]:
    """Draws the n-th most popular in proportion to 1/n**0.99, popularity being scattered by a hash.

    As YCSB's ScrambledZipfianGenerator, though exactly rather than by the approximation of Gray et
    al. (Quickly Generating Billion-Record Synthetic Databases, SIGMOD 1994), as there are few.
    """
    weights = [1 / (rank + 1) ** ZIPFIAN_CONSTANT for rank in range(len(things))]
    ranks = random.choices(range(len(things)), cum_weights=list(accumulate(weights)), k=_DRAWN)
    return _endless([things[_fnv(rank) % len(things)] for rank in ranks])


def decisions(share: float) -> Callable[[], bool]:
    """Says yes in that share of all cases."""
    return _endless([random.random() < share for _ in range(_DRAWN)])


def _endless(drawn: Sequence[T]) -> Callable[[], T]:
    # Drawn beforehand: what is measured is not the drawing.
    again: Iterator[T] = cycle(drawn)
    return again.__next__


def _fnv(number: int) -> int:
    """FNV-1a of 64 bits over a number's eight bytes, as YCSB scatters ranks."""
    value = _FNV_OFFSET
    for byte in number.to_bytes(8, "little"):
        value = ((value ^ byte) * _FNV_PRIME) & _64_BITS
    return value
