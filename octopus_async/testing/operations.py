"""Writes operations for tests, and says what a store has to make of them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from octopus_async.cachevalue import encode_fields
from octopus_async.clock import Clock
from octopus_async.record import (
    APPLIED,
    Fields,
    Key,
    Kind,
    Mode,
    Operation,
    Outcome,
    Record,
    Stored,
    born_after,
    decide,
)
from octopus_async.schema import Column, Schema, Type

ALL_TYPES = Schema(
    model="ContractRecord",
    table="contract_records",
    id_column="id",
    id_type=Type.TEXT,
    columns=(
        Column("title", "title", Type.TEXT, nullable=True),
        Column("count", "how_many", Type.INTEGER, nullable=True),
        Column("order", "order", Type.INTEGER, nullable=True),
        Column("ratio", "ratio", Type.REAL, nullable=True),
        Column("flag", "flag", Type.BOOLEAN, nullable=True),
        Column("raw", "raw", Type.BINARY, nullable=True),
        Column("at", "at", Type.TIMESTAMP, nullable=True),
        Column("local", "local", Type.LOCAL_TIMESTAMP, nullable=True),
        Column("day", "day", Type.DATE, nullable=True),
        Column("hour", "hour", Type.TIME, nullable=True),
        Column("amount", "amount", Type.DECIMAL, nullable=True),
        Column("tag", "tag", Type.UUID, nullable=True),
        Column("tree", "tree", Type.JSON, nullable=True),
    ),
)
"""A model with a field of every type; a column has another name, and one is a word of SQL."""

_NULLS: Fields = dict.fromkeys(column.field for column in ALL_TYPES.columns)


def fields_of(**values: object) -> Fields:
    """A full state of `ALL_TYPES`: these fields, the others null."""
    return {**_NULLS, **values}  # type: ignore[dict-item]  # a test may try any value


class Author:
    """Writes operations, each of a version newer than the one before.

    Parameters:
        model: the model's name.
        clock: issues the versions.
    """

    def __init__(self, model: str = ALL_TYPES.model, clock: Clock | None = None) -> None:
        self.model = model
        self.clock = clock or Clock()

    def key(self, suffix: str = "") -> Key:
        """A key that no other test has."""
        return Key(self.model, uuid4().hex + suffix)

    def create(self, key: Key, fields: Fields, *, version: str = "", born: str = "") -> Operation:
        """A create; its version is ``born`` unless that is given."""
        version = version or self.clock.next()
        return Operation(Kind.CREATE, key, version, born or version, fields, encode_fields(fields))

    def update(
        self, key: Key, fields: Fields, *, version: str = "", born: str = "", if_version: str | None = None
    ) -> Operation:
        """An update; by a caller who never read the record unless ``born`` is given."""
        payload = encode_fields(fields)
        return Operation(
            Kind.UPDATE, key, version or self.clock.next(), born, fields, payload, if_version=if_version
        )

    def delete(
        self, key: Key, *, version: str = "", born: str = "", if_version: str | None = None
    ) -> Operation:
        """A delete."""
        return Operation(Kind.DELETE, key, version or self.clock.next(), born, if_version=if_version)

    def invalidate(self, key: Key, version: str) -> Operation:
        """Make a cache forget what is as old as that version."""
        return Operation(Kind.INVALIDATE, key, version, "")

    def retract(self, key: Key, version: str) -> Operation:
        """Make a cache forget exactly that version."""
        return Operation(Kind.RETRACT, key, version, "")


class Reference:
    """A store that does what `octopus_async.record.decide` says, and nothing else."""

    def __init__(self) -> None:
        self.records: dict[Key, Record] = {}

    def apply(self, operations: Sequence[Operation], mode: Mode) -> list[Outcome]:
        """Apply operations, one after the other."""
        return [self._apply(operation, mode) for operation in operations]

    def _apply(self, operation: Operation, mode: Mode) -> Outcome:
        record = self.records.get(operation.key)
        stored = record and Stored(record.version, record.born, record.fields is not None)
        outcome = decide(operation, stored, mode)
        if outcome is not None:
            return outcome
        born = born_after(operation, stored)
        self.records[operation.key] = Record(operation.key, operation.version, born, operation.fields)
        return APPLIED
