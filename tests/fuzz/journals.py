"""The journal's reader as a target: with sums that are right over whatever there is, and with true files."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import NamedTuple

from octopus_async.errors import JournalError
from octopus_async.journal import inspect as reading
from octopus_async.journal.format import (
    FORMAT,
    MAGIC,
    SUM_LENGTH,
    Header,
    Kept,
    compose,
    encode_dead,
    encode_done,
    encode_drop,
    encode_header,
    encode_operation,
    encode_retry,
    encode_unit,
    salt,
    seal,
)
from octopus_async.journal.inspect import PendingEntry, Summary
from octopus_async.journal.root import Root
from octopus_async.record import Fields, Key, Kind, Operation
from tests.fuzz.mutation import mutated

ROOT = Path("/journal")
WRITER = "writer-0000000000000001-0123abcd"
_TARGETS = ["mysql", "replica"]


class Image:
    """A journal's folder in memory, to be read and not to be changed: a `Disk` as far as readers need one."""

    def __init__(self, segments: dict[int, bytes], ceiling: bytes | None = None) -> None:
        self._files = {ROOT / WRITER / f"{number:06d}.jsonl": data for number, data in segments.items()}
        if ceiling is not None:
            self._files[ROOT / "ceiling"] = ceiling
        self._open: dict[int, bytes] = {}

    def check_folder(self, path: Path) -> None:
        if path not in (ROOT, ROOT / WRITER):
            raise FileNotFoundError(path)

    def make_folder(self, path: Path) -> None:
        raise OSError(errno.EROFS, "it is to be read", str(path))

    def list_folder(self, path: Path) -> list[str]:
        if path == ROOT:
            return [WRITER, "lock"]
        if path != ROOT / WRITER:
            raise FileNotFoundError(path)
        return [file.name for file in self._files if file.parent == path]

    def open(self, path: Path) -> int:
        if path not in self._files:
            raise FileNotFoundError(path)
        number = len(self._open) + 1
        self._open[number] = self._files[path]
        return number

    def size(self, file: int) -> int:
        return len(self._open[file])

    def read(self, file: int, offset: int, length: int) -> bytes:
        return self._open[file][offset : offset + length]

    def close(self, file: int) -> None:
        del file

    def lock(self, path: Path, seconds: float = 0.0, *, shared: bool = False) -> int | None:
        del path, seconds, shared
        return 0


class Found(NamedTuple):
    """What a reader made of an image."""

    summary: Summary
    pending: dict[int, PendingEntry]


def found_in(image: Image) -> Found:
    """Read it all. Raises JournalError."""
    summary = reading.inspect(ROOT, disk=image)  # type: ignore[arg-type]
    entries = list(reading.pending(ROOT, disk=image))  # type: ignore[arg-type]
    return Found(summary, {entry.sequence: entry for entry in entries})


# --- true files


def _version(number: int) -> str:
    return f"01J{number:023d}"


def _operation(kind: Kind, number: int, name: str, title: str | None = None) -> Operation:
    payload = None if title is None else b'{"title":"%s","count":%d}' % (title.encode(), number)
    fields: Fields | None = None if title is None else {"title": title, "count": number}
    born = _version(number) if kind is Kind.CREATE else _version(1)
    condition = _version(2) if kind is Kind.UPDATE and number % 2 else None
    return Operation(kind, Key("Book", name), _version(number), born, fields, payload, condition)


_DEAD = _operation(Kind.CREATE, 21, "d", "dead")


def _lines() -> list[tuple[bytes, int]]:
    creates = [_operation(Kind.CREATE, number, f"b{number}", "A title") for number in range(10, 16)]
    odd = _operation(Kind.CREATE, 16, 'ü "\\ \x01', "Große Wörter 🐙")
    updates = [_operation(Kind.UPDATE, number, "b10", f"title {number}") for number in (17, 18)]
    unit = [_operation(Kind.CREATE, 19, "u1", "one"), _operation(Kind.DELETE, 20, "u2")]
    rests = [encode_operation(each, 12.5, _TARGETS, provisional=each is creates[0]) for each in creates]
    rests += [encode_operation(each, 13.5, _TARGETS) for each in (odd, *updates)]
    dead = encode_operation(_DEAD, 14.0)
    return [
        *((rest, 1) for rest in rests),
        (encode_unit(unit, 15.0, _TARGETS), 2),
        (encode_done("mysql", [(2, 3)]), 1),
        (encode_dead(4, "mysql", "it exists already", "DuplicateRecord", dead), 1),
        (encode_dead(5, "replica", "it exists already", "DuplicateRecord", dead), 1),
        (encode_retry(4, encode_operation(_DEAD, 16.0, _TARGETS)), 1),
        (encode_drop(5), 1),
        (encode_operation(_operation(Kind.DELETE, 23, "b11"), 17.0, ["mysql"]), 1),
    ]


def _header(segment: int, first: int, durable: int, keeps: dict[int, Kept]) -> Header:
    return Header(FORMAT, WRITER, segment, WRITER, 12.0, first, durable, keeps, [4] if keeps else None)


def _true_files() -> dict[int, bytes]:
    """Two files, the second of which begins with a checkpoint of the first."""
    lines = _lines()
    width = sum(count for _, count in lines)
    first = encode_header(_header(1, 2, 1, {}), salt(WRITER, 1))
    first += compose(lines[:5], 2, 1, salt(WRITER, 1))
    first += compose(lines[5:], 7, 6, salt(WRITER, 1))
    end = 1 + width
    kept = {1: Kept(end, {"mysql": [(4, end)], "replica": [(2, end)]})}
    second = encode_header(_header(2, end + 1, end, kept), salt(WRITER, 2))
    more = [
        (encode_operation(_operation(Kind.CREATE, 30 + n, f"c{n}", "later"), 20.0, _TARGETS), 1)
        for n in range(4)
    ]
    second += compose(more, end + 1, end, salt(WRITER, 2))
    return {1: first, 2: second}


def _without_done(files: dict[int, bytes]) -> dict[int, bytes]:
    """The first file as if nothing in it had been applied."""
    return {1: b"".join(line for line in files[1].splitlines(keepends=True) if b'"done"' not in line)}


TRUE_FILES = _true_files()
TRUE = found_in(Image(TRUE_FILES))
ONE_FILE = {1: TRUE_FILES[1]}
TRUE_ONE = found_in(Image(ONE_FILE))
_EVER = {
    operation.version: operation
    for operation in (
        *(entry.operation for entry in TRUE.pending.values()),
        *(entry.operation for entry in found_in(Image(_without_done(TRUE_FILES))).pending.values()),
        _DEAD,
    )
}
"""Everything that the true files hold, applied or not."""


# --- what is tried


def read_forged(data: bytes) -> None:
    """A file whose every line bears the sum that is right for it reads, or is refused as the journal's error.

    So whatever lies behind the sums is reached. The first byte says in which file the lines are.
    """
    number = 1 if data[:1] < b"\x80" else 2
    seed = salt(WRITER, number)
    forged = b"".join(body + seal(body, seed) + b"\n" for body in data[1:].split(b"\n"))
    try:
        found = found_in(Image({**TRUE_FILES, number: forged}))
    except JournalError:
        return
    for entry in found.pending.values():
        assert isinstance(entry.operation, Operation)


def read_ceiling(data: bytes) -> None:
    """A ceiling with the right sum reads as numbers, or is refused or replaced, and that reported."""
    root = Root(Image(TRUE_FILES, data + seal(data, 0) + b"\n"), ROOT, lambda: 0.0)  # type: ignore[arg-type]
    try:
        ceiling = root.ceiling()
    except JournalError:
        return
    assert isinstance(ceiling.milliseconds, int)
    assert isinstance(ceiling.sequence, int)


def read_damaged(data: bytes) -> None:
    """Of damaged files only true entries are read, and unless they are whole lines the damage is reported.

    The bytes are the seed of what is done to the files.
    """
    chance = random.Random(data)
    files, true = chance.choice([(TRUE_FILES, TRUE), (ONE_FILE, TRUE_ONE)])
    number = chance.choice(list(files))
    damaged = mutated(files[number], chance, list(TRUE_FILES.values()))
    check_damaged({**files, number: damaged}, files, true)


def check_damaged(files: dict[int, bytes], honest: dict[int, bytes], true: Found) -> None:
    """What `read_damaged` says, of these files."""
    try:
        found = found_in(Image(files))
    except JournalError:
        return
    for sequence, entry in found.pending.items():
        operation = _EVER.get(entry.operation.version)
        assert operation == entry.operation, f"entry {sequence} was changed"
    letters = {letter.operation.version: letter.operation for letter in found.summary.dead_letters}
    assert letters.items() <= _EVER.items()
    if found != true and not found.summary.damage:
        assert _is_cut_between_lines(files, honest), "damage was not noticed"


def _is_cut_between_lines(files: dict[int, bytes], honest: dict[int, bytes]) -> bool:
    """Whether whole lines are gone from the very end: nothing in a file can tell of lines after it."""
    last = max(honest)
    cut = files[last]
    earlier_whole = all(files[number] == honest[number] for number in honest if number != last)
    return earlier_whole and honest[last].startswith(cut) and cut[-1:] in (b"\n", b"")


def _bodies(data: bytes) -> bytes:
    return b"\n".join(line[:-SUM_LENGTH] for line in data.splitlines())


FORGED_SEEDS = [b"\x00" + _bodies(TRUE_FILES[1]), b"\xff" + _bodies(TRUE_FILES[2])]
CEILING_SEEDS = [
    b'{"octopus":"%s","format":1,"milliseconds":1700000000000,"sequence":1048577' % MAGIC.encode()
]
