"""What a batch of operations comes to: `decide` over what is stored, and the rows to write.

Pure: an adapter loads what is stored under its locks, asks for one round of changes after the
other, and writes each. A round holds a key once, so that operations sharing a key keep order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from octopus_async.adapters._sql.rows import Row, Rows
from octopus_async.errors import InvalidRecord, OperationNotSupported, RecordRejected
from octopus_async.record import (
    APPLIED,
    NO_VERSION,
    WITHHELD,
    Key,
    Kind,
    Mode,
    Operation,
    Outcome,
    Stored,
    born_after,
    decide,
    decide_unit,
    rejected,
)

R = TypeVar("R", bound=Rows)


class Change(NamedTuple, Generic[R]):
    """An operation that is to be applied.

    Attributes:
        place: where it stands in the batch.
        operation: what it is.
        table: where.
        id: the value of the id's column.
        values: the columns' values; None for a delete.
        over: whether a living row is there.
        back: whether something newer is there, which a repair sets back.
        born: the born to store.
    """

    place: int
    operation: Operation
    table: R
    id: object
    values: tuple[object, ...] | None
    over: bool
    back: bool
    born: str


class Writes(NamedTuple, Generic[R]):
    """What changes come to in one table: ids to delete, and rows that begin with their id."""

    table: R
    deletes: list[object]
    updates: list[tuple[object, ...]]
    inserts: list[tuple[object, ...]]


class _Item(NamedTuple, Generic[R]):
    table: R
    id: object
    values: tuple[object, ...] | None


class Batch(Generic[R]):
    """Operations on their way through one transaction.

    Parameters:
        operations: creates, updates and deletes.
        table_of: finds a model's table; raises `SchemaMismatch`.
        mode: the column of the contract's table.
        whole: whether they are a unit of work, with no key twice: all of them are applied, or none.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        table_of: Callable[[str], R],
        mode: Mode,
        *,
        whole: bool = False,
    ) -> None:
        self.mode = mode
        self._whole = whole
        self._operations = operations
        self._outcomes: list[Outcome | None] = [None] * len(operations)
        self._items: dict[int, _Item[R]] = {}
        self._stored: dict[Key, Stored] = {}
        self.keys: dict[R, dict[Key, object]] = {}
        self._rounds: list[list[int]] = []
        self._enter(table_of)

    def _enter(self, table_of: Callable[[str], R]) -> None:
        rounds: dict[Key, int] = {}
        for index, operation in enumerate(self._operations):
            table = table_of(operation.key.model)
            try:
                item = _item(table, operation)
            except (InvalidRecord, OperationNotSupported) as error:
                self._outcomes[index] = rejected(error)
                continue
            self._items[index] = item
            self.keys.setdefault(table, {})[operation.key] = item.id
            turn = rounds[operation.key] = rounds.get(operation.key, -1) + 1
            if turn == len(self._rounds):
                self._rounds.append([])
            self._rounds[turn].append(index)

    @property
    def rounds(self) -> Sequence[Sequence[int]]:
        """Indices of operations, each key once in a round."""
        return self._rounds

    @property
    def outcomes(self) -> list[Outcome]:
        """One outcome each, once all rounds are settled."""
        if self.withholds:
            return [WITHHELD if it is None or it.error is None else it for it in self._outcomes]
        return [outcome for outcome in self._outcomes if outcome is not None]

    @property
    def touches_absent(self) -> bool:
        """Whether it may insert or delete rows, so that tombstones matter."""
        return any(
            self.mode is not Mode.LIVE or self._operations[index].kind is not Kind.UPDATE
            for index in self._items
        )

    @property
    def contends(self) -> bool:
        """Whether it has to have its keys for itself: deletes, replays, and mapped tables."""
        return self.mode in (Mode.REPLAY, Mode.MEND) or any(
            self._operations[index].kind is Kind.DELETE or not item.table.versioned
            for index, item in self._items.items()
        )

    def load(self, table: R, rows: Iterable[Row], side_rows: Iterable[Row]) -> None:
        """Take what is stored for a table's keys: rows of its ``states``, and of the side table."""
        side = {_text(row[0]): row[1:] for row in side_rows}
        main = {table.id_text(row[0]): row[1:] for row in rows}
        for key in self.keys[table]:
            stored = _stored(table, main.get(key.id), side.get(key.id))
            if stored is None:
                self._stored.pop(key, None)
            else:
                self._stored[key] = stored

    def decide(self, indices: Sequence[int]) -> list[Change[R]]:
        """Judge a round; what is not to be applied has its outcome after this."""
        if self._whole:
            return self._decide_whole()
        changes = []
        for index in indices:
            operation = self._operations[index]
            stored = self._stored.get(operation.key)
            outcome = self._outcomes[index] = decide(operation, stored, self.mode)
            if outcome is None:
                changes.append(self._change(index, stored))
        return changes

    def _change(self, index: int, stored: Stored | None) -> Change[R]:
        operation = self._operations[index]
        over = stored is not None and stored.alive
        back = stored is not None and stored.version > operation.version
        return Change(index, operation, *self._items[index], over, back, born_after(operation, stored))

    def _decide_whole(self) -> list[Change[R]]:
        """Judge all of it: gives every change of it, or none."""
        if self.withholds:
            return []
        stored = [self._stored.get(operation.key) for operation in self._operations]
        self._outcomes = list(decide_unit(self._operations, stored, self.mode))
        return [
            self._change(place, stored[place])
            for place, outcome in enumerate(self._outcomes)
            if outcome is None
        ]

    @property
    def withholds(self) -> bool:
        """Whether nothing of it may be kept, because it is a unit of work, and one of it was refused."""
        return self._whole and any(it is not None and it.error is not None for it in self._outcomes)

    def applied(self, changes: Iterable[Change[R]]) -> None:
        """These were written."""
        for change in changes:
            operation = change.operation
            self._outcomes[change.place] = APPLIED
            alive = operation.kind is not Kind.DELETE
            self._stored[operation.key] = Stored(operation.version, change.born, alive)

    def refuse(self, change: Change[R], error: RecordRejected) -> None:
        """The database refused this one."""
        self._outcomes[change.place] = rejected(error)


def writes_of(changes: Sequence[Change[R]]) -> list[Writes[R]]:
    """The rows of the models' tables that changes come to, sorted by id in each."""
    by_table: dict[R, Writes[R]] = {}
    for change in sorted(changes, key=lambda change: (change.operation.key.model, _order(change.id))):
        table = change.table
        writes = by_table.setdefault(table, Writes(table, [], [], []))
        stamp = (change.operation.version, change.born or None) if table.versioned else ()
        if change.values is None:
            if change.over:
                writes.deletes.append(change.id)
        else:
            rows = writes.updates if change.over else writes.inserts
            rows.append((change.id, *change.values, *stamp))
    return list(by_table.values())


def side_rows_of(changes: Iterable[Change[R]]) -> list[tuple[object, ...]]:
    """The rows of the side table that changes come to: model, id, version, born, deleted."""
    rows: list[tuple[object, ...]] = [
        (*change.operation.key, change.operation.version, change.born, change.values is None)
        for change in changes
        if change.values is None or change.back or not change.table.versioned
    ]
    return sorted(rows, key=lambda row: row[:2])


def _item(table: R, operation: Operation) -> _Item[R]:
    if operation.kind in (Kind.INVALIDATE, Kind.RETRACT):
        raise OperationNotSupported(f"{operation.key}: a SQL table forgets nothing")
    values = None if operation.kind is Kind.DELETE else table.values(operation.fields or {})
    return _Item(table, table.id_of(operation.key), values)


def _stored(table: Rows, row: Row | None, side: Row | None) -> Stored | None:
    version, born, deleted = side or (NO_VERSION, NO_VERSION, True)
    if row is None:
        # A row that was deleted behind our back counts as deleted at its version.
        return Stored(version, born, alive=False) if version else None
    if table.versioned:
        return Stored(max(row[0] or NO_VERSION, version), row[1] or NO_VERSION, alive=True)
    return Stored(version, NO_VERSION if deleted else born, alive=True)


def _text(value: Any) -> str:  # noqa: ANN401 - whatever the driver gave
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _order(id_: Any) -> Any:  # noqa: ANN401 - a text or an integer, alike within a table
    return id_.encode() if isinstance(id_, str) else id_
