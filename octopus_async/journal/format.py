"""The lines of a journal: how they are encoded, checked and read back. Pure.

A line is one JSON object that begins with ``{"seq":N`` and ends with ``,"sum":"xxxxxxxx"}``. The
sum is a CRC-32 of all bytes before it, seeded with the name of the file that the line belongs to,
so that an intact line of another file (a disk's block used again, a copy) does not pass for one of
this file. CRC-32 finds every burst of up to 32 bits at any length, and any two flipped bits in
lines of up to 500 MB (Koopman, 32-Bit Cyclic Redundancy Codes for Internet Applications, 2002);
it is read and written by C code of the standard library at a quarter of the cost of BLAKE2b.

Kinds of lines, by the member that only they have: ``octopus`` (a file's first line), ``op`` (an
operation), ``unit`` (several, together), ``dead`` (an operation as dead letter), ``done`` (what a
target has applied) and ``drop`` (a dead letter that is forgotten).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias
from zlib import crc32

from pydantic_core import from_json, to_json

from octopus_async.errors import JournalError
from octopus_async.record import NO_VERSION, Fields, Key, Kind, Operation

FORMAT = 1
MAGIC = "octopus journal"
MOST_BYTES = 64 * 1024 * 1024
"""Longest line that is written, and longest that is looked at when reading."""
NUMBERS = 1 << 53
"""Above every number that a writer counts: what every reader of JSON can hold."""
_MOST_REASON = 4096
SUM = b',"sum":"%08x"}'
"""The end of a line, without the newline."""
SUM_LENGTH = len(SUM % 0)

Range: TypeAlias = "tuple[int, int]"
"""First and last sequence number, both included."""

_TEXT = rb'"([^"\\]*(?:\\.[^"\\]*)*)"'
_NAME = _TEXT.replace(b"([^", b"(?:[^", 1)
_VERSION = rb'"([0-9A-Za-z]{26})"'
_SEQ = rb'\{"seq":(\d{1,16})(?:,"durable":(\d{1,16}))?'
_OPERATION = (
    rb',"at":(-?\d{1,12}\.\d+),"op":"([a-z]+)","model":' + _TEXT + rb',"id":' + _TEXT
    + rb',"version":' + _VERSION + rb'(?:,"born":' + _VERSION + rb')?(?:,"if_version":' + _TEXT + rb")?"
    + rb'(,"provisional":true)?(?:,"targets":(\[' + _NAME + rb"(?:," + _NAME + rb')*\]))?(?:,"fields":(.*))?'
)  # fmt: skip
match_entry = re.compile(_SEQ + _OPERATION, re.DOTALL).fullmatch
"""Matches a line that holds one new operation: number, durable, and the members of `Raw`."""

_match_operation = re.compile(_OPERATION, re.DOTALL).fullmatch
_match_head = re.compile(_SEQ + rb"(.*)", re.DOTALL).fullmatch
_match_retry = re.compile(rb',"retries":(\d{1,16})(,.*)', re.DOTALL).fullmatch
_match_dead = re.compile(
    rb',"dead":(\d{1,16}),"target":('
    + _TEXT
    + rb'),"reason":('
    + _TEXT
    + rb'),"error":('
    + _TEXT
    + rb")(,.*)",
    re.DOTALL,
).fullmatch
_KINDS = {kind.value.encode(): kind for kind in Kind}
_VALUES = {id(kind): kind.value.encode() for kind in Kind}  # by id: hashing an enum's member runs Python code


class Raw(NamedTuple):
    """An operation as its line has it: bytes, and nothing that was not asked for decoded."""

    at: bytes
    op: bytes
    model: bytes
    id: bytes
    version: bytes
    born: bytes | None
    if_version: bytes | None
    provisional: bytes | None
    targets: bytes | None
    fields: bytes | None


class Entry(NamedTuple):
    """A line that holds one operation; ``retries`` names the dead letter that it was."""

    sequence: int
    raw: Raw
    retries: int | None = None


class Unit(NamedTuple):
    """A line that holds operations that belong together, numbered from ``sequence`` on."""

    sequence: int
    entries: tuple[Raw, ...]


class Dead(NamedTuple):
    """A line that makes an entry a dead letter: ``targets`` owe it no longer, as ``target`` refused it.

    ``rest`` is its body from the number on.
    """

    sequence: int
    entry: int
    target: str
    reason: str
    error: str
    raw: Raw
    rest: bytes
    targets: tuple[str, ...]


class Done(NamedTuple):
    """A line that says what a target has applied."""

    sequence: int
    target: str
    ranges: tuple[Range, ...]


class Drop(NamedTuple):
    """A line that forgets the dead letters of an entry."""

    sequence: int
    entry: int


Line: TypeAlias = "Entry | Unit | Dead | Done | Drop"


class Kept(NamedTuple):
    """What a header says of an earlier file.

    Attributes:
        last: the number of its last line; None where the file could not be read to its end.
        owed: what is still owed of it, by target, and all else is done; None if that is not said.
    """

    last: int | None
    owed: dict[str, list[Range]] | None


class Header(NamedTuple):
    """A file's first line, which is a checkpoint too.

    Attributes:
        format: version of the format.
        folder: name of the folder it belongs to.
        segment: number of the file.
        writer: name of the folder of the process that wrote it.
        at: when, seconds since 1970.
        first: sequence number of the first line that follows.
        durable: last number that is valid in the files before this one: later ones are void.
        keeps: the earlier files that are still needed, by number.
        dead: the entries that are dead letters at this moment, of those in files before this
            one; None where the header makes no statement about them.
    """

    format: int
    folder: str
    segment: int
    writer: str
    at: float
    first: int
    durable: int
    keeps: dict[int, Kept]
    dead: list[int] | None


def salt(folder: str, segment: int) -> int:
    """The seed of the sums in one file."""
    return crc32(f"{folder}/{segment}".encode())


def seal(body: bytes, seed: int) -> bytes:
    """The end of a line whose beginning is ``body``, without the newline."""
    return SUM % crc32(body, seed)


def compose(lines: Iterable[tuple[bytes, int]], first: int, durable: int, seed: int) -> bytes:
    """Number and seal a group of lines.

    Parameters:
        lines: each line's rest (what follows its number), and how many numbers it takes.
        first: the group's first number.
        durable: the last number that is durable before this group.
        seed: of the sums, see `salt`.
    """
    parts: list[bytes] = []
    number, mark = first, b',"durable":%d' % durable
    for rest, count in lines:
        body = b'{"seq":%d%s%s' % (number, mark, rest)
        parts.append(b'%s,"sum":"%08x"}\n' % (body, crc32(body, seed)))
        number, mark = number + count, b""
    return b"".join(parts)


def text(value: str) -> bytes:
    """A text as JSON. Raises JournalError for what UTF-8 cannot carry."""
    try:
        return to_json(value)
    except ValueError as error:
        raise JournalError(f"the journal cannot hold the text {value[:40]!r}: {error}") from None


_name = lru_cache(maxsize=4096)(text)
_names = lru_cache(maxsize=4096)(lambda names: b"[%s]" % b",".join(text(name) for name in names))


def encode_operation(
    operation: Operation, at: float, targets: Sequence[str] = (), *, provisional: bool = False
) -> bytes:
    """The members of a line that hold an operation; its payload is taken over as it is.

    Its versions must be versions: `item.item_of` has looked at them.

    Raises:
        JournalError: it cannot be written on one line of JSON.
    """
    payload = operation.payload
    if payload is None and operation.fields is not None:
        payload = to_json(operation.fields)
    if payload is not None and (b"\n" in payload or len(payload) > MOST_BYTES // 2):
        raise JournalError(f"the payload of {operation.key} does not fit on a line of the journal")
    born, condition = operation.born, operation.if_version
    return b',"at":%.3f,"op":"%s","model":%s,"id":%s,"version":"%s"%s%s%s%s%s' % (
        at,
        _VALUES[id(operation.kind)],
        _name(operation.key.model),
        text(operation.key.id),
        operation.version.encode(),
        b"" if born == NO_VERSION else b',"born":"%s"' % born.encode(),
        b"" if condition is None else b',"if_version":%s' % text(condition),
        b',"provisional":true' if provisional else b"",
        b',"targets":%s' % _names(tuple(targets)) if targets else b"",
        b"" if payload is None else b',"fields":%s' % payload,
    )


def encode_unit(
    operations: Sequence[Operation], at: float, targets: Sequence[str], *, provisional: bool = False
) -> bytes:
    """The members of a line that hold operations that belong together. Raises JournalError."""
    inner = b",".join(
        b"{%s}" % encode_operation(operation, at, targets, provisional=provisional)[1:]
        for operation in operations
    )
    if len(inner) > MOST_BYTES // 2:
        raise JournalError(f"a unit of {len(operations)} operations does not fit on a line of the journal")
    return b',"unit":[%s]' % inner


def encode_retry(entry: int, rest: bytes) -> bytes:
    """The members of a line that make the dead letter of ``entry`` pending again."""
    return b',"retries":%d%s' % (entry, rest)


def encode_dead(entry: int, target: str, reason: str, error: str, rest: bytes) -> bytes:
    """The members of a line that make an entry a dead letter."""
    said = reason[:_MOST_REASON].encode("utf-8", "replace").decode()
    return b',"dead":%d,"target":%s,"reason":%s,"error":%s%s' % (
        entry, _name(target), text(said), _name(error), rest
    )  # fmt: skip


def encode_done(target: str, ranges: Sequence[Range]) -> bytes:
    """The members of a line that say what a target has applied."""
    return b',"done":%s,"entries":%s' % (_name(target), to_json(ranges))


def encode_drop(entry: int) -> bytes:
    """The members of a line that forget the dead letters of an entry."""
    return b',"drop":%d' % entry


def encode_header(header: Header, seed: int) -> bytes:
    """A file's first line, with its newline."""
    members: dict[str, Any] = {"octopus": MAGIC, **header._asdict()}
    members["keeps"] = {str(number): kept._asdict() for number, kept in header.keeps.items()}
    body = to_json(members)[:-1]
    return body + seal(body, seed) + b"\n"


def decode_header(body: bytes) -> Header | None:
    """Read a checked first line back; None if it is none. Of other formats only the version counts."""
    try:
        members = from_json(body + b"}", allow_inf_nan=False)
        if members.pop("octopus") != MAGIC:
            return None
        if members["format"] != FORMAT:
            return Header(number_of(members["format"]), "", 0, "", 0.0, 0, 0, {}, None)
        for name in ("segment", "first", "durable"):
            number_of(members[name])
        members["keeps"] = {int(number): _decode_kept(kept) for number, kept in members["keeps"].items()}
        dead = members["dead"]
        members["dead"] = None if dead is None else [number_of(entry) for entry in dead]
        members["writer"] = str(members["writer"])
        return Header(**members)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def number_of(value: object) -> int:
    """Check a number that JSON holds. Raises ValueError for what no writer counts."""
    if type(value) is not int or not 0 <= value < NUMBERS:
        raise ValueError("not a number of the journal")
    return value


def _decode_kept(members: dict[str, Any]) -> Kept:
    owed = members["owed"]
    if owed is not None:
        owed = {str(target): decode_ranges(ranges) for target, ranges in owed.items()}
    last = members["last"]
    return Kept(last if last is None else number_of(last), owed)


def decode_ranges(ranges: Any) -> list[Range]:  # noqa: ANN401 - what JSON holds
    """Check a list of ranges. Raises ValueError or TypeError."""
    checked = [(number_of(first), number_of(last)) for first, last in ranges]
    if any(first > last for first, last in checked):
        raise ValueError("a range ends before it begins")
    return checked


def decode(body: bytes) -> Line | None:
    """Read a checked line back; None for what no writer of this format writes."""
    found = match_entry(body)
    if found is not None:
        groups = found.groups()
        return Entry(int(groups[0]), Raw._make(groups[2:]))
    head = _match_head(body)
    if head is None:
        return None
    try:
        return _decode_rest(int(head[1]), head[3])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def durable_of(body: bytes) -> int | None:
    """The last number that was durable when this line's group was written, if the line says so."""
    head = _match_head(body)
    return int(head[2]) if head is not None and head[2] is not None else None


def _decode_rest(sequence: int, rest: bytes) -> Line | None:
    retry = _match_retry(rest)
    if retry is not None:
        raw = decode_raw(retry[2])
        return raw and Entry(sequence, raw, int(retry[1]))
    dead = _match_dead(rest)
    if dead is not None:
        raw = decode_raw(dead[8])
        target, reason, error = (str(from_json(dead[place])) for place in (2, 4, 6))
        owing = (target,) if raw is None or raw.targets is None else targets_of(raw.targets)
        return raw and Dead(sequence, int(dead[1]), target, reason, error, raw, rest, owing)
    members = from_json(b'{"":0%s}' % rest, allow_inf_nan=False)
    if "unit" in members:
        return Unit(sequence, tuple(_raw_of(entry) for entry in members["unit"]))
    if "done" in members:
        return Done(sequence, str(members["done"]), tuple(decode_ranges(members["entries"])))
    return Drop(sequence, number_of(members["drop"]))


def decode_raw(rest: bytes) -> Raw | None:
    """Read the members that hold an operation; None if they do not."""
    found = _match_operation(rest)
    return None if found is None else Raw._make(found.groups())


def _raw_of(members: dict[str, Any]) -> Raw:
    """An operation of a unit, whose line had to be decoded as a whole."""
    fields = members.pop("fields", None)
    rest = b"," + to_json(members)[1:-1] + (b"" if fields is None else b',"fields":%s' % to_json(fields))
    found = _match_operation(rest)
    if found is None:
        raise ValueError("not an operation")
    return Raw._make(found.groups())


def decode_fields(payload: bytes) -> Fields:
    """The fields of a payload. Raises JournalError for what is no JSON object."""
    try:
        fields = from_json(payload, allow_inf_nan=False)
    except ValueError as error:
        raise JournalError(f"a payload in the journal is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise JournalError("a payload in the journal is not a JSON object")
    return fields


def kind_of(raw: Raw) -> Kind | None:
    """What the operation does; None if this library has no such kind."""
    return _KINDS.get(raw.op)


def plain(value: bytes) -> bytes:
    """The UTF-8 of a JSON text without its quotation marks."""
    return value if b"\\" not in value else str(from_json(b'"%s"' % value)).encode()


@lru_cache(maxsize=4096)
def targets_of(value: bytes) -> tuple[str, ...]:
    """The names in a JSON list. Raises ValueError."""
    names = from_json(value)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a target's name is a text")
    return tuple(names)


def key_bytes(key: Key) -> bytes:
    """A key as one byte string. Raises JournalError for what UTF-8 cannot carry."""
    try:
        return f"{key.model}\0{key.id}".encode()
    except UnicodeEncodeError as error:
        raise JournalError(f"the journal cannot hold the key {key}: {error}") from None


def is_text(value: bytes) -> bool:
    """Whether it is UTF-8, as a key has to be; quick for ASCII."""
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def key_of(value: bytes) -> Key:
    """The key of `key_bytes`."""
    model, _, identity = value.partition(b"\0")
    return Key(model.decode(), identity.decode())


def ranges_of(numbers: Iterable[int]) -> list[Range]:
    """Sorted numbers as ranges."""
    ranges: list[Range] = []
    first = last = -1
    for number in numbers:
        if number != last + 1 or first < 0:
            if first >= 0:
                ranges.append((first, last))
            first = number
        last = number
    if first >= 0:
        ranges.append((first, last))
    return ranges
