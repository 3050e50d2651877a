"""How records lie in MongoDB: one document each, with ``_id``, the model's fields, and ``octopus``.

``octopus`` holds the version (``v``), the version of the create (``b``), and for a tombstone, which has no
fields, ``gone: true``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from bson import Int64, encode
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from octopus_async.clock import is_version
from octopus_async.errors import InvalidRecord, SchemaMismatch
from octopus_async.record import NO_VERSION, Fields, Key, Kind, Mode, Operation, Record, Stored, Value
from octopus_async.schema import Column, Schema, Type

Document: TypeAlias = "Mapping[str, Any]"

STAMP = "octopus"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_INT64 = range(-(2**63), 2**63)
_VERSION, _BORN = {"$ifNull": ["$octopus.v", ""]}, {"$ifNull": ["$octopus.b", ""]}
_GONE = {"$eq": ["$octopus.gone", True]}
_REFUSE = {"$toInt": {"$concat": ["refused: ", {"$toString": "$_id"}]}}
"""An error for this write alone, and it depends on the document, so that no optimiser meets it beforehand."""


class Collection:
    """A model's collection, and its records as documents.

    Raises `SchemaMismatch` if the model has a field that no document can have.
    """

    def __init__(self, schema: Schema, backend: str) -> None:
        self.schema = schema
        self.name = schema.table
        for column in schema.columns:
            if column.name in ("_id", STAMP) or column.name.startswith("$") or "." in column.name:
                msg = (
                    f"{backend}: {schema.model} has a field {column.name!r}, which no document here can have"
                )
                raise SchemaMismatch(msg, backend=backend)

    def id_of(self, key: Key) -> str | int | None:
        """The ``_id`` of a key; None if no record can have it."""
        if self.schema.id_type is not Type.INTEGER:
            return key.id
        return int(key.id) if _INTEGER.fullmatch(key.id) and int(key.id) in _INT64 else None

    def key_of(self, document: Document) -> Key | None:
        """The key of a document; None if somebody else's is not one of ours."""
        id_ = document["_id"]
        wanted = int if self.schema.id_type is Type.INTEGER else str
        is_ours = isinstance(id_, wanted) and not isinstance(id_, bool)
        return Key(self.schema.model, str(int(id_) if wanted is int else id_)) if is_ours else None

    def record_of(self, key: Key, document: Document) -> Record:
        """The record or tombstone in a document."""
        version, born, alive = stored_in(document)
        fields = None
        if alive:
            fields = {
                column.field: _value(column, document.get(column.name)) for column in self.schema.columns
            }
        return Record(key, version, born, fields)

    def body(self, operation: Operation, id_: str | int, *, stamped: bool = False) -> RawBSONDocument:
        """What a write sets, encoded once. Raises `InvalidRecord` for what BSON can't carry.

        With ``stamped`` it is the whole document that a create inserts.
        """
        document: dict[str, Any] = {"_id": id_}
        if stamped:
            document[STAMP] = {"v": operation.version, "b": operation.born}
        fields: Fields = operation.fields or {}
        if operation.kind is not Kind.DELETE:
            for column in self.schema.columns:
                value = fields.get(column.field)
                if column.type is Type.BINARY and isinstance(value, str):
                    document[column.name] = base64.b64decode(value)
                else:
                    document[column.name] = value
        try:
            return RawBSONDocument(encode(document))
        except (BSONError, ValueError, OverflowError, RecursionError, TypeError) as error:
            raise InvalidRecord(f"{operation.key} can't be written as BSON: {type(error).__name__}") from None


def stored_in(document: Document) -> Stored:
    """As much of a document as `decide` needs."""
    stamp = document.get(STAMP)
    stamp = stamp if isinstance(stamp, Mapping) else {}
    version, born = (str(stamp[name]) if is_version(stamp.get(name)) else NO_VERSION for name in ("v", "b"))
    return Stored(version, born, stamp.get("gone") is not True)


def update_of(
    operation: Operation, mode: Mode, id_: str | int, body: RawBSONDocument
) -> list[dict[str, Any]]:
    """The update that does an operation if `decide` says so, and else fails: one step of the server."""
    nothing = {"$eq": ["$$ROOT", {"_id": {"$literal": id_}}]}  # what an upsert begins with
    alive = {"$not": [{"$or": [nothing, _GONE]}]}
    stamp: dict[str, Any] = {
        "v": operation.version,
        "b": {"$cond": [alive, {"$max": [operation.born, _BORN]}, operation.born]},
    }
    if operation.kind is Kind.DELETE:
        stamp["gone"] = True
        parts: list[Any] = [{"$literal": body}]
    else:
        # What others have added to a document stays there.
        parts = [{"$cond": [alive, "$$ROOT", {}]}, {"$literal": body}]
    guard = _guard(operation, mode, nothing, alive)
    return [{"$replaceWith": {"$cond": [guard, {"$mergeObjects": [*parts, {STAMP: stamp}]}, _REFUSE]}}]


def _guard(operation: Operation, mode: Mode, nothing: Any, alive: Any) -> Any:  # noqa: ANN401 - an expression of the server
    """`record.decide` in the server's terms: whether it is to be applied."""
    newer = {"$lt": [_VERSION, operation.version]}
    as_wanted = {"$eq": [_VERSION, operation.if_version]}
    if mode is Mode.MEND and operation.if_version is not None:
        return {"$or": [newer, {"$and": [{"$not": [nothing]}, as_wanted]}]}
    if mode is Mode.LIVE and operation.if_version is not None:
        return {"$and": [alive, newer, as_wanted]}
    if mode in (Mode.MIRROR, Mode.MEND) or operation.kind is Kind.DELETE:
        return newer
    same_born = {"$eq": [_BORN, operation.born]}
    if operation.kind is Kind.CREATE:
        # It may stand for a create and later updates, and between these somebody deleted the record.
        deleted_since = {"$and": [_GONE, {"$lt": [operation.born, _VERSION]}]}
        unlike = {"$and": [alive, {"$not": [same_born]}]}
        return {"$and": [newer, {"$not": [{"$or": [deleted_since, unlike]}]}]}
    if mode is Mode.LIVE:
        return {"$and": [alive, newer]}
    known = [{"$or": [nothing, same_born]}] if operation.born != NO_VERSION else []
    return {"$and": [newer, {"$not": [_GONE]}, *known]}


def _value(column: Column, value: Any) -> Value:  # noqa: ANN401 - whatever a document holds
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if column.type is Type.REAL and isinstance(value, int):
        return float(value)
    if isinstance(value, Decimal128):
        return str(value)
    if isinstance(value, datetime):  # written by others, who have no more than milliseconds
        local = column.type is Type.LOCAL_TIMESTAMP
        text = value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        return text if local else f"{text}Z"
    return _plain(value)


def _plain(value: Any) -> Value:  # noqa: ANN401 - whatever a document holds
    """Nested values in Python's own types."""
    if isinstance(value, Int64):
        return int(value)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | bool | int | float | None) else str(value)
