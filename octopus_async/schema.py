"""What a backend has to know of a model: its table, its columns, and a fingerprint of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from hashlib import blake2b


class Type(Enum):
    """The type of a stored value, and how `octopus_async.record.Value` carries it."""

    TEXT = "text"
    INTEGER = "integer"
    """Signed, 64 bits."""
    REAL = "real"
    """A finite double."""
    BOOLEAN = "boolean"
    BINARY = "binary"
    """Carried as base64 text."""
    TIMESTAMP = "timestamp"
    """A moment, carried as ``2026-01-31T12:00:00.000000Z``: always UTC and six digits."""
    LOCAL_TIMESTAMP = "local_timestamp"
    """A naive datetime, carried as ``2026-01-31T12:00:00.000000``."""
    DATE = "date"
    """Carried as ``2026-01-31``."""
    TIME = "time"
    """A naive time of day, carried as ``12:00:00.000000``."""
    DECIMAL = "decimal"
    """Carried as text; at most 35 digits before the point and 30 after it."""
    UUID = "uuid"
    """Carried as 36 characters of text."""
    JSON = "json"
    """Anything nested, carried as it is."""


@dataclass(frozen=True, slots=True)
class Column:
    """One persisted field: its name on the model and in the table, its type, if it may be null.

    ``max_length`` is in characters, where the model declares it for a text.
    """

    field: str
    name: str
    type: Type
    nullable: bool
    max_length: int | None = None


@dataclass(frozen=True)
class Schema:
    """How a model is stored.

    Attributes:
        model: the model's name, as in every `Key`.
        table: the table's name in SQL backends.
        id_column: the id's column there.
        id_type: TEXT, INTEGER or UUID.
        columns: the other fields, in order.
        constrained: whether a constraint of the primary may refuse a record (a unique or
            foreign key), so that it has to be asked before the others.
    """

    model: str
    table: str
    id_column: str
    id_type: Type
    columns: tuple[Column, ...]
    constrained: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """Twelve characters that change when a stored value could mean something else."""
        text = ";".join(
            f"{column.field}:{column.type.value}:{column.nullable}"
            for column in sorted(self.columns, key=lambda column: column.field)
        )
        text = f"{self.model}|{self.id_type.value}|{text}"
        return blake2b(text.encode(), digest_size=6).hexdigest()

    @cached_property
    def by_field(self) -> dict[str, Column]:
        """The columns by the names of their fields."""
        return {column.field: column for column in self.columns}
