"""Who wins: the contract's table of operations over stored states, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from octopus_async.errors import (
    BackendRefused,
    BackendTimeout,
    CircuitOpen,
    DuplicateRecord,
    JournalFull,
    OctopusError,
    RecordNotFound,
    SchemaMismatch,
    StaleRecord,
)
from octopus_async.record import (
    APPLIED,
    NO_VERSION,
    Key,
    Kind,
    Mode,
    Operation,
    Outcome,
    Status,
    Stored,
    born_after,
    decide,
    failed,
    rejected,
)

KEY = Key("Book", "7")
OTHER_BORN, BORN, OLDER, STORED, NEWER = ("0" * 25 + digit for digit in "12345")

STATES = {
    "nothing": None,
    "a tombstone": Stored(STORED, BORN, alive=False),
    "the same born": Stored(STORED, BORN, alive=True),
    "another born": Stored(STORED, OTHER_BORN, alive=True),
}
AGES = {"newer": NEWER, "same": STORED, "older": OLDER}

APPLY = None
DONE = APPLIED
SUPERSEDED = Outcome(Status.SUPERSEDED, stored=STORED)
BY_VERSION = [APPLY, DONE, SUPERSEDED]
ALWAYS = [APPLY] * 3
NOT_FOUND = [RecordNotFound] * 3
DUPLICATE = [DuplicateRecord] * 3

Cell = type[OctopusError] | Outcome | None

# Over nothing, a tombstone, the same born, another born; each by a newer, the same and an older version.
TABLE: dict[tuple[Kind, Mode], list[Sequence[Cell]]] = {
    (Kind.CREATE, Mode.LIVE): [ALWAYS, BY_VERSION, BY_VERSION, DUPLICATE],
    (Kind.CREATE, Mode.REPLAY): [ALWAYS, BY_VERSION, BY_VERSION, DUPLICATE],
    (Kind.CREATE, Mode.MIRROR): [ALWAYS, BY_VERSION, BY_VERSION, BY_VERSION],
    (Kind.UPDATE, Mode.LIVE): [NOT_FOUND, NOT_FOUND, BY_VERSION, BY_VERSION],
    (Kind.UPDATE, Mode.REPLAY): [ALWAYS, [RecordNotFound, DONE, SUPERSEDED], BY_VERSION, DUPLICATE],
    (Kind.UPDATE, Mode.MIRROR): [ALWAYS, BY_VERSION, BY_VERSION, BY_VERSION],
    (Kind.DELETE, Mode.LIVE): [ALWAYS, BY_VERSION, BY_VERSION, BY_VERSION],
    (Kind.DELETE, Mode.REPLAY): [ALWAYS, BY_VERSION, BY_VERSION, BY_VERSION],
    (Kind.DELETE, Mode.MIRROR): [ALWAYS, BY_VERSION, BY_VERSION, BY_VERSION],
}

CELLS = [
    pytest.param(kind, mode, stored, version, expected, id=f"{kind.value} {mode.value} over {state}, {age}")
    for (kind, mode), row in TABLE.items()
    for (state, stored), cells in zip(STATES.items(), row, strict=True)
    for (age, version), expected in zip(AGES.items(), cells, strict=True)
]


def operation(kind: Kind, version: str = NEWER, born: str = BORN, if_version: str | None = None) -> Operation:
    return Operation(kind, KEY, version, born, if_version=if_version)


def test_the_table_has_a_row_for_every_operation_and_mode() -> None:
    assert len(CELLS) == 3 * 3 * 4 * 3


@pytest.mark.parametrize(("kind", "mode", "stored", "version", "expected"), CELLS)
def test_every_cell(kind: Kind, mode: Mode, stored: Stored | None, version: str, expected: Cell) -> None:
    fresh = kind is Kind.CREATE and (stored is None or not stored.alive)
    assert_is(decide(operation(kind, version, born=version if fresh else BORN), stored, mode), expected)


@pytest.mark.parametrize(
    ("born", "version", "expected"),
    [
        (OTHER_BORN, NEWER, RecordNotFound),
        (OTHER_BORN, STORED, DONE),
        (OTHER_BORN, OLDER, SUPERSEDED),
        (STORED, NEWER, APPLY),
        (NEWER, NEWER, APPLY),
    ],
    ids=["deleted meanwhile", "the same version", "an older version", "born with it", "born after it"],
)
def test_a_replayed_create_that_stands_for_updates_too_revives_nothing(
    born: str, version: str, expected: Cell
) -> None:
    coalesced = operation(Kind.CREATE, version, born)
    assert_is(decide(coalesced, STATES["a tombstone"], Mode.REPLAY), expected)


CONDITIONS = {"matches": STORED, "does not match": "0" * 25 + "9"}
# Over the same states; where the condition matches, and where it does not.
CONDITIONAL: dict[str, list[Sequence[Cell]]] = {
    "matches": [
        NOT_FOUND,
        [RecordNotFound, DONE, RecordNotFound],
        BY_VERSION,
        BY_VERSION,
    ],
    "does not match": [
        NOT_FOUND,
        [RecordNotFound, DONE, RecordNotFound],
        [StaleRecord, DONE, StaleRecord],
        [StaleRecord, DONE, StaleRecord],
    ],
}


@pytest.mark.parametrize("kind", [Kind.UPDATE, Kind.DELETE], ids=lambda kind: kind.value)
@pytest.mark.parametrize(
    ("wanted", "stored", "version", "expected"),
    [
        pytest.param(CONDITIONS[condition], stored, version, expected, id=f"{condition} over {state}, {age}")
        for condition, row in CONDITIONAL.items()
        for (state, stored), cells in zip(STATES.items(), row, strict=True)
        for (age, version), expected in zip(AGES.items(), cells, strict=True)
    ],
)
def test_every_cell_under_a_condition(
    kind: Kind, wanted: str, stored: Stored | None, version: str, expected: Cell
) -> None:
    assert_is(decide(operation(kind, version, if_version=wanted), stored, Mode.LIVE), expected)


@pytest.mark.parametrize("mode", [Mode.REPLAY, Mode.MIRROR], ids=lambda mode: mode.value)
@pytest.mark.parametrize("kind", [Kind.UPDATE, Kind.DELETE], ids=lambda kind: kind.value)
@pytest.mark.parametrize("stored", STATES.values(), ids=STATES)
def test_a_condition_counts_for_a_live_write_alone(kind: Kind, mode: Mode, stored: Stored | None) -> None:
    plain = decide(operation(kind), stored, mode)
    conditional = decide(operation(kind, if_version=OLDER), stored, mode)
    assert gist(conditional) == gist(plain)


@pytest.mark.parametrize(("version", "expected"), list(zip(AGES.values(), BY_VERSION, strict=True)), ids=AGES)
def test_a_replayed_update_by_who_did_not_know_the_birth_meets_no_conflict(
    version: str, expected: Cell
) -> None:
    unknowing = operation(Kind.UPDATE, version, born=NO_VERSION)
    assert_is(decide(unknowing, STATES["another born"], Mode.REPLAY), expected)


@pytest.mark.parametrize("kind", [Kind.CREATE, Kind.UPDATE, Kind.DELETE], ids=lambda kind: kind.value)
def test_a_record_that_others_have_written_is_older_than_everything(kind: Kind) -> None:
    foreign = Stored(NO_VERSION, NO_VERSION, alive=True)
    assert decide(operation(kind, born=NO_VERSION), foreign, Mode.LIVE) is APPLY


def test_a_rejection_tells_the_stored_version() -> None:
    for kind, state in ((Kind.CREATE, "another born"), (Kind.UPDATE, "a tombstone")):
        outcome = decide(operation(kind), STATES[state], Mode.LIVE)
        assert outcome is not None
        assert outcome.stored == STORED
    stale = decide(operation(Kind.UPDATE, if_version=OLDER), STATES["the same born"], Mode.LIVE)
    assert stale is not None
    assert isinstance(stale.error, StaleRecord)
    assert stale.error.stored_version == stale.stored == STORED


def test_a_rejection_names_the_record() -> None:
    outcome = decide(operation(Kind.CREATE), STATES["another born"], Mode.LIVE)
    assert outcome is not None
    assert str(outcome.error) == "Book '7' exists already"


@pytest.mark.parametrize(
    ("born", "stored", "expected"),
    [
        (NEWER, None, NEWER),
        (NEWER, Stored(STORED, BORN, alive=True), NEWER),
        (OTHER_BORN, Stored(STORED, BORN, alive=True), BORN),
        (OTHER_BORN, Stored(STORED, BORN, alive=False), OTHER_BORN),
        (NO_VERSION, None, NO_VERSION),
        (NO_VERSION, Stored(STORED, BORN, alive=True), BORN),
        (NO_VERSION, Stored(STORED, BORN, alive=False), NO_VERSION),
    ],
    ids=[
        "known over nothing",
        "later than the stored one",
        "earlier than the stored one",
        "earlier than that of a tombstone",
        "unknown over nothing",
        "unknown",
        "unknown over a tombstone",
    ],
)
def test_the_birth_that_is_stored(born: str, stored: Stored | None, expected: str) -> None:
    assert born_after(operation(Kind.UPDATE, born=born), stored) == expected


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CircuitOpen("open"), Status.UNAVAILABLE),
        (BackendRefused("refused"), Status.UNAVAILABLE),
        (SchemaMismatch("no table"), Status.UNAVAILABLE),
        (BackendTimeout("in the queue", sent=False), Status.UNAVAILABLE),
        (BackendTimeout("on the way"), Status.UNKNOWN),
        (JournalFull("no answer says that it was not applied"), Status.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
def test_a_failure_is_unknown_unless_nothing_was_sent(error: OctopusError, status: Status) -> None:
    assert failed(error) == Outcome(status, error)


def test_a_rejection_is_an_outcome_with_its_error() -> None:
    error = DuplicateRecord("exists")
    assert rejected(error, STORED) == Outcome(Status.REJECTED, error, STORED)


def test_a_key_reads_as_a_person_would_name_it() -> None:
    assert str(KEY) == "Book '7'"


def assert_is(outcome: Outcome | None, expected: Cell) -> None:
    if isinstance(expected, type):
        assert outcome is not None
        assert outcome.status is Status.REJECTED
        assert type(outcome.error) is expected
    else:
        assert outcome == expected


def gist(outcome: Outcome | None) -> object:
    return outcome and (outcome.status, type(outcome.error), outcome.stored)
