"""The form in which a pending operation is kept in memory: one byte string, and traits that many share. Pure.

The byte string, a blob, is the sequence number, the second of journalling, the version, ``born``
where it is neither unknown nor the version itself, ``if_version`` with its length, and the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from octopus_async.errors import JournalError
from octopus_async.journal.format import (
    Raw,
    decode_fields,
    is_text,
    key_bytes,
    key_of,
    kind_of,
    plain,
    targets_of,
)
from octopus_async.journal.traits import TRAITS, Traits, index_of
from octopus_async.record import NO_VERSION, Operation

Blob: TypeAlias = bytes

_VERSION = 26
HEAD = struct.Struct(">QI")
_TAIL = HEAD.size
_BORN = _TAIL + _VERSION
_SIZE = struct.Struct(">I")
LATEST = (1 << 32) - 1


class Item(NamedTuple):
    """An operation ready for the overlay, all but its number.

    Attributes:
        key: see `format.key_bytes`.
        shared: the index of its traits.
        at: when it was journalled, whole seconds since 1970.
        tail: what follows number and time in its blob.
    """

    key: bytes
    shared: int
    at: int
    tail: bytes


_indexes: dict[tuple[object, ...], int] = {}
"""The traits of operations by what tells them apart; by a kind's id, as hashing it runs Python code."""


def item_of(
    operation: Operation, targets: Sequence[str], at: float, *, provisional: bool = False, unit: bool = False
) -> Item:
    """Prepare an operation. Raises JournalError for what cannot be kept."""
    kind, key, version, born, _, payload, condition = operation
    own = born == version
    known = born != NO_VERSION and not own
    names = tuple(targets)
    form = (id(kind), names, provisional, unit, own, known, condition is None, payload is None)
    index = _indexes.get(form)
    if index is None:
        traits = (kind, names, provisional, unit, own, known, condition is not None, payload is None)
        index = _indexes[form] = index_of(traits)
    for text in (version, born) if known else (version,):
        if len(text) != _VERSION or not text.isalnum() or not text.isascii():
            raise JournalError(f"not a version: {text[:40]!r}")
    tail = (version + born if known else version).encode()
    return Item(key_bytes(key), index, _second(at), _tail(tail, condition, payload))


_raw_indexes: dict[tuple[object, ...], int] = {}
"""The traits of operations as lines have them, which come by the million in a handful of forms."""


def item_of_raw(raw: Raw, *, unit: bool = False) -> Item:
    """Prepare what was read from a line. Raises ValueError or JournalError for what no writer writes."""
    own = raw.born == raw.version
    conditional, empty = raw.if_version is not None, raw.fields is None
    form = (raw.op, raw.targets, raw.provisional, raw.born is None, own, conditional, empty, unit)
    index = _raw_indexes.get(form)
    if index is None:
        index = _raw_indexes[form] = _index_of_raw(raw, unit=unit)
    tail = raw.version if raw.born is None or own else raw.version + raw.born
    condition = None if raw.if_version is None else plain(raw.if_version).decode()
    model = plain(raw.model)
    key = model + b"\0" + plain(raw.id)
    if b"\0" in model or not is_text(key):
        raise ValueError("its key is no text")
    return Item(key, index, _second(float(raw.at)), _tail(tail, condition, raw.fields))


def _index_of_raw(raw: Raw, *, unit: bool) -> int:
    kind = kind_of(raw)
    if kind is None:
        raise ValueError(f"no kind of operation: {raw.op!r}")
    own, known = raw.born == raw.version, raw.born is not None and raw.born != raw.version
    targets = targets_of(raw.targets) if raw.targets is not None else ()
    provisional, conditional = raw.provisional is not None, raw.if_version is not None
    return index_of((kind, targets, provisional, unit, own, known, conditional, raw.fields is None))


def _tail(versions: bytes, condition: str | None, payload: bytes | None) -> bytes:
    if condition is not None:
        encoded = condition.encode()
        versions += _SIZE.pack(len(encoded)) + encoded
    return versions if payload is None else versions + payload


def _second(at: float) -> int:
    return min(max(int(at), 0), LATEST)


def blob_of(sequence: int, item: Item) -> Blob:
    """What is kept of an operation, once its number is known."""
    return HEAD.pack(sequence, item.at) + item.tail


def sequence_of(blob: Blob) -> int:
    """The blob's sequence number."""
    return int.from_bytes(blob[:8], "big")


def at_of(blob: Blob) -> int:
    """When the blob's operation was journalled, whole seconds since 1970."""
    return int.from_bytes(blob[8:_TAIL], "big")


def version_of(blob: Blob) -> bytes:
    """The version of the blob's operation."""
    return blob[_TAIL:_BORN]


def born_of(blob: Blob, traits: Traits) -> bytes:
    """The ``born`` of the blob's operation; empty where it is not known."""
    if traits.own:
        return version_of(blob)
    return blob[_BORN : _BORN + _VERSION] if traits.born else b""


def operation_of(key: bytes, blob: Blob, traits: Traits) -> Operation:
    """The operation back, its payload decoded. Raises JournalError if that is not a JSON object."""
    end = _BORN + _VERSION if traits.born else _BORN
    condition = None
    if traits.conditional:
        (size,) = _SIZE.unpack_from(blob, end)
        start, end = end + _SIZE.size, end + _SIZE.size + size
        condition = blob[start:end].decode()
    payload = None if traits.empty else blob[end:]
    fields = None if payload is None else decode_fields(payload)
    version = version_of(blob).decode()
    born = version if traits.own else born_of(blob, traits).decode()
    return Operation(traits.kind, key_of(key), version, born, fields, payload, condition)


def operation_of_raw(raw: Raw) -> Operation:
    """The operation that a line holds. Raises ValueError or JournalError for what no writer writes."""
    item = item_of_raw(raw._replace(targets=b'[""]'))
    return operation_of(item.key, blob_of(0, item), TRAITS[item.shared])


def item_of_blob(key: bytes, blob: Blob, index: int) -> Item:
    """What a blob was made of."""
    return Item(key, index, at_of(blob), blob[_TAIL:])
