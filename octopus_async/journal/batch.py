"""New operations read from many lines at once, for the million lines of a long outage. Pure.

One search takes some hundred lines apart, and columns of values are made of what it finds. Whatever
is not of the most frequent forms is left to `decode` and `item_of_raw`, which take line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, TypeAlias

from octopus_async.errors import JournalError
from octopus_async.journal.format import Raw, is_text
from octopus_async.journal.item import HEAD, LATEST, Blob, item_of_raw

_FEW, _MANY = 8, 1024
_PLAIN = rb'"([^"\\\n]*)"'
_NAME = rb'"[^"\\\n]*"'
_VERSION = rb'"([0-9A-Za-z]{26})"'
_find = re.compile(
    rb'^\{"seq":(\d{1,16})(?:,"durable":\d{1,16})?,"at":(\d{1,10})\.\d+,"op":"([a-z]+)","model":' + _PLAIN
    + rb',"id":' + _PLAIN + rb',"version":' + _VERSION + rb'(?:,"born":(?:"(\6)"|' + _VERSION
    + rb'))?(,"provisional":true)?(?:,"targets":(\[' + _NAME + rb"(?:," + _NAME
    + rb')*\]))?(?:,"fields":(.+))?$',
    re.MULTILINE,
).findall  # fmt: skip

_Found: TypeAlias = "tuple[bytes, ...]"


class Batch(NamedTuple):
    """Operations that follow each other in number and have the same traits.

    Attributes:
        sequence: the number of the first.
        shared: the index of their traits.
        keys, blobs: of each.
        newest: the greatest version.
    """

    sequence: int
    shared: int
    keys: list[bytes]
    blobs: list[Blob]
    newest: bytes


def read_batches(bodies: Sequence[bytes], start: int, sequence: int, most: int) -> Iterator[Batch]:
    """Read the lines of new operations that are numbered from ``sequence`` on; stop before any other.

    Parameters:
        bodies: intact lines without their sums.
        start: the first of them to read.
        sequence: the number that it must have.
        most: how many to read at most.
    """
    end, size = min(start + most, len(bodies)), _FEW
    while start < end:
        part = bodies[start : min(start + size, end)]
        batches = _read(part, sequence)
        yield from batches
        if not batches:
            return
        # A line of another form costs a search through no more lines than were read before it.
        start, sequence, size = start + len(part), sequence + len(part), min(size * 2, _MANY)


def _read(lines: Sequence[bytes], sequence: int) -> list[Batch]:
    """All of these lines; nothing if any of them has to go the long way."""
    found: list[_Found] = _find(b"\n".join(lines))
    if len(found) != len(lines):
        return []
    batches: list[Batch] = []
    groups = [found] if _are_alike(found) else [list(group) for _, group in groupby(found, _form)]
    for group in groups:
        batch = _batch(group, sequence)
        if batch is None:
            return []
        batches.append(batch)
        sequence += len(group)
    return batches


def _are_alike(found: list[_Found]) -> bool:
    """Whether all have the form of the first; looked at in columns, as there are many."""
    _, _, ops, models, _, versions, owns, borns, provisionals, targets, fields = zip(*found, strict=True)
    return (
        all(len(set(column)) == 1 for column in (ops, models, provisionals, targets))
        and (owns == versions or not any(owns))
        and all(all(column) or not any(column) for column in (borns, fields))
    )


def _form(line: _Found) -> tuple[object, ...]:
    _, _, op, model, _, _, own, born, provisional, targets, fields = line
    return op, model, bool(own), bool(born), provisional, targets, bool(fields)


def _batch(found: list[_Found], sequence: int) -> Batch | None:
    """A batch of lines that are alike; None if they are not what a writer writes."""
    numbers, moments, _, _, ids, versions, _, borns, _, _, fields = zip(*found, strict=True)
    seconds, following = list(map(int, moments)), range(sequence, sequence + len(found))
    try:
        shared = item_of_raw(_raw_of(found[0])).shared
    except (ValueError, JournalError):
        return None
    if not shared or list(map(int, numbers)) != list(following) or max(seconds) > LATEST:
        return None
    prefix = found[0][3] + b"\0"
    keys = [prefix + id_ for id_ in ids]
    if not b"".join(ids).isascii() and not all(map(is_text, keys)):
        return None
    blobs = map(b"".join, zip(map(HEAD.pack, following, seconds), versions, borns, fields, strict=True))
    return Batch(sequence, shared, keys, list(blobs), max(versions))


def _raw_of(line: _Found) -> Raw:
    _, at, op, model, id_, version, own, born, provisional, targets, fields = line
    return Raw(
        at, op, model, id_, version, own or born or None, None, provisional or None, targets or None,
        fields or None,
    )  # fmt: skip
