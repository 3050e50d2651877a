"""What a cache holds for a key: the rule that says who wins there, and the bytes it travels as.

The bytes are a checksum and two JSON documents with a line feed between them. The checksum is the
CRC-32 of all that follows, as eight digits: a bit that memory or a network has flipped makes a miss,
not another record. The head is an array of seven: format, kind, model, id, fingerprint of the schema,
version, born. The fields follow, as an object; tombstones and markers have none.
``5a3c01fe[1,"r","Book","7","c0ffee...","01J...","01J..."]`` is a checksum and a head.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from zlib import crc32

from pydantic_core import from_json, to_json

from octopus_async.clock import VERSION_PATTERN, is_version
from octopus_async.errors import InvalidRecord
from octopus_async.record import (
    APPLIED,
    NO_VERSION,
    Fields,
    Key,
    Kind,
    Mode,
    Operation,
    Outcome,
    Record,
    Status,
    Stored,
    Value,
    born_after,
    decide,
)

_FORMAT = 1
_RECORD, _TOMBSTONE, _MARKER = _KINDS = ("r", "t", "m")
_HEAD_LENGTH = 7
_HEAD_LIMIT = 16 * 1024
_SUM_LENGTH = 8
_USUAL_END = re.compile(rf'"({VERSION_PATTERN})","({VERSION_PATTERN})"\]'.encode())


class Cell(NamedTuple):
    """What a cache holds for a key: a record, a tombstone or a marker.

    Attributes:
        version: of the record; of a marker, the floor below which nothing is taken.
        born: the version of the record's create.
        payload: the fields as JSON; None for a tombstone and a marker.
        marker: whether it only stands for a key that readers miss.
    """

    version: str = NO_VERSION
    born: str = NO_VERSION
    payload: bytes | None = None
    marker: bool = False


EMPTY = Cell(marker=True)
"""A marker without a floor: a place for a lease, which any record may take."""


def settle(operation: Operation, cell: Cell | None) -> tuple[Outcome, Cell | None]:
    """Say what a cache that holds ``cell`` must do with ``operation``, of any kind.

    Returns:
        What to report, and what to hold from now on: the same cell if nothing is to be changed.
    """
    if operation.kind is Kind.INVALIDATE:
        return _invalidate(operation.version, cell)
    if operation.kind is Kind.RETRACT:
        return APPLIED, EMPTY if _is_record_of(operation.version, cell) else cell
    alive = cell is not None and cell.payload is not None
    stored = None if cell is None else Stored(cell.version, cell.born, alive)
    if cell is None or not cell.marker or operation.version < cell.version:
        outcome = decide(operation, stored, Mode.MIRROR)
        if outcome is not None:
            return outcome, cell
    return APPLIED, Cell(operation.version, born_after(operation, stored), operation.payload)


def _invalidate(version: str, cell: Cell | None) -> tuple[Outcome, Cell | None]:
    if cell is not None and cell.version > version:
        return Outcome(Status.SUPERSEDED, stored=cell.version), cell
    return APPLIED, Cell(version, marker=True)


def _is_record_of(version: str, cell: Cell | None) -> bool:
    return cell is not None and not cell.marker and cell.version == version


def cell_of(record: Record) -> Cell | None:
    """What a cache holds once it was filled with ``record``; None if that can't be written."""
    if record.fields is None:
        return Cell(record.version, record.born)
    try:
        return Cell(record.version, record.born, encode_fields(record.fields))
    except InvalidRecord:
        return None


def record_of(key: Key, cell: Cell) -> Record:
    """The record or tombstone in ``cell``, fresh. Raises ValueError for malformed fields."""
    fields = None if cell.payload is None else decode_fields(cell.payload)
    return Record(key, cell.version, cell.born, fields)


def encode_fields(fields: Fields) -> bytes:
    """Write fields as compact JSON. Raises `InvalidRecord` for what JSON can't carry."""
    try:
        payload = to_json(fields)
        if b"NaN" in payload or b"Infinity" in payload:
            decode_fields(payload)
    except ValueError as error:
        raise InvalidRecord(f"the fields can't be written as JSON: {error}") from None
    return payload


def decode_fields(payload: bytes) -> dict[str, Value]:
    """Read fields; the parser bounds their nesting. Raises ValueError for anything else."""
    fields = from_json(payload, allow_inf_nan=False)
    if not isinstance(fields, dict):
        raise ValueError("the fields are not a JSON object")  # noqa: TRY004 - input, no argument
    return fields


def encode_cell(cell: Cell, key: Key, fingerprint: str) -> bytes:
    """Write a cell as the bytes that are described above."""
    kind = _MARKER if cell.marker else _TOMBSTONE if cell.payload is None else _RECORD
    head = to_json([_FORMAT, kind, key.model, key.id, fingerprint, cell.version, cell.born])
    return seal(head if cell.payload is None else b"%b\n%b" % (head, cell.payload))


def seal(document: bytes) -> bytes:
    """Put the checksum before what it covers."""
    return b"%08x%b" % (crc32(document), document)


def decode_cell(data: bytes, key: Key, fingerprint: str) -> Cell:
    """Read the bytes that a cache held for ``key``; never raises.

    What is foreign, damaged or of another key reads as an empty marker. What has another
    fingerprint reads as a marker as well, with its version for a floor: whoever wrote it may
    know more than the primary of this moment.
    """
    document = data[_SUM_LENGTH:]
    if data[:_SUM_LENGTH] != b"%08x" % crc32(document):
        return EMPTY
    head, _, payload = document.partition(b"\n")
    versions = _versions_of_usual(head, key, fingerprint)
    if versions is not None:
        return Cell(versions[1].decode(), versions[2].decode(), payload)
    try:
        kind, written_by, version, born = _parse_head(head, key)
    except ValueError:
        return EMPTY
    if kind == _MARKER or written_by != fingerprint:
        return Cell(version, marker=True)
    return Cell(version, born, payload if kind == _RECORD else None)


def _versions_of_usual(head: bytes, key: Key, fingerprint: str) -> re.Match[bytes] | None:
    """Version and born of the head that a living record of this key has; None for any other head.

    Nearly all heads are such: what is known beforehand is compared, which takes half as long as parsing it.
    """
    if '"' in key.id or "\\" in key.id:
        return None  # these stand escaped in a head
    start = f'[{_FORMAT},"{_RECORD}","{key.model}","{key.id}","{fingerprint}",'.encode()
    return _USUAL_END.fullmatch(head, len(start)) if head.startswith(start) else None


def _parse_head(head: bytes, key: Key) -> tuple[str, str, str, str]:
    parts = from_json(head) if len(head) <= _HEAD_LIMIT else None
    if not isinstance(parts, list) or len(parts) != _HEAD_LENGTH:
        raise ValueError("not a head")
    written_format, kind, model, key_id, fingerprint, version, born = parts
    if written_format != _FORMAT or kind not in _KINDS or model != key.model or key_id != key.id:
        raise ValueError("of another format or key")
    if not _is_version_or_none(version) or not _is_version_or_none(born):
        raise ValueError("no version")
    return kind, fingerprint, version, born


def _is_version_or_none(text: object) -> bool:
    return text == NO_VERSION or is_version(text)
