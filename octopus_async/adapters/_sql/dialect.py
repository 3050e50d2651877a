"""In what databases differ when a statement is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from octopus_async.adapters._sql.values import Codec
from octopus_async.schema import Column, Type

SIDE = "octopus_versions"
"""The side table: tombstones, the versions of mapped tables, and the reserved rows."""
VERSION, BORN = "octopus_version", "octopus_born"
"""The columns that a table of ours has beside the model's."""


@dataclass(frozen=True)
class Dialect:
    """How statements are written for one kind of server.

    Attributes:
        quote: writes an identifier.
        mark: stands for a bound value.
        text_of: how an id's column is written as text that compares with the side table's ids.
        exactly: a condition on an id's column whose collation takes different ids for one.
        codecs: how values are written and read.
        column_type: the type of a column of ours.
        id_types: the type of an id's column of ours.
        version_type: the type of a version's column of ours.
        later: the later of a born that is stored and a bound one, each empty where it is not known.
        suffix: what ends a statement that creates a table.
        side: the statement that creates the side table.
        unless_dead: ends an INSERT .. SELECT, so that it inserts nothing where a tombstone is as new.
        overwrite: follows the rows of an INSERT that is to change those columns of a row that is there,
            found by its key.
    """

    quote: Callable[[str], str]
    mark: str
    text_of: str
    exactly: str
    codecs: Mapping[Type, Codec]
    column_type: Callable[[Column], str]
    id_types: Mapping[Type, str]
    version_type: str
    later: str
    suffix: str
    side: str
    unless_dead: str
    overwrite: Callable[[str, Sequence[str]], str]


@dataclass(frozen=True)
class ServerDialect(Dialect):
    """Of a server that is sent its statements with their values written out.

    Attributes:
        literal: writes a value out; raises `InvalidRecord` for what has no such form.
    """

    literal: Callable[[object], str]
