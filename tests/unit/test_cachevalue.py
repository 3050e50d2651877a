"""The rule that says who wins in a cache, and the bytes in which a value travels."""

from __future__ import annotations

import itertools
import json
from zlib import crc32

import pytest

from octopus_async.cachevalue import (
    EMPTY,
    Cell,
    cell_of,
    decode_cell,
    decode_fields,
    encode_cell,
    encode_fields,
    record_of,
    settle,
)
from octopus_async.errors import InvalidRecord
from octopus_async.record import APPLIED, NO_VERSION, Key, Kind, Operation, Outcome, Record, Status

KEY = Key("Book", "a\nkey of 'any' \"kind\" ☃")
FINGERPRINT = "c0ffeec0ffee"
BORN, OLD, MIDDLE, NEW = ("0" * 25 + digit for digit in "1234")
PAYLOAD = b'{"title":"A Tale of Two Cities"}'

RECORD = Cell(MIDDLE, BORN, PAYLOAD)
TOMBSTONE = Cell(MIDDLE, BORN)
MARKER = Cell(MIDDLE, marker=True)
CELLS = {"nothing": None, "empty": EMPTY, "marker": MARKER, "tombstone": TOMBSTONE, "record": RECORD}


def operation(kind: Kind, version: str, born: str = BORN) -> Operation:
    with_fields = kind in (Kind.CREATE, Kind.UPDATE)
    return Operation(kind, KEY, version, born, {} if with_fields else None, b"{}" if with_fields else None)


class TestWhoWins:
    @pytest.mark.parametrize("kind", [Kind.CREATE, Kind.UPDATE, Kind.DELETE], ids=lambda kind: kind.value)
    @pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
    def test_the_newer_is_stored_over_anything(self, kind: Kind, cell: Cell | None) -> None:
        stored = Cell(NEW, BORN, None if kind is Kind.DELETE else b"{}")
        assert settle(operation(kind, NEW), cell) == (APPLIED, stored)

    @pytest.mark.parametrize("kind", [Kind.CREATE, Kind.UPDATE, Kind.DELETE], ids=lambda kind: kind.value)
    @pytest.mark.parametrize("cell", [MARKER, TOMBSTONE, RECORD], ids=["marker", "tombstone", "record"])
    def test_the_older_changes_nothing(self, kind: Kind, cell: Cell) -> None:
        outcome, after = settle(operation(kind, OLD), cell)
        assert outcome == Outcome(Status.SUPERSEDED, stored=MIDDLE)
        assert after is cell

    @pytest.mark.parametrize("cell", [TOMBSTONE, RECORD], ids=["tombstone", "record"])
    def test_the_same_version_is_done_already(self, cell: Cell) -> None:
        outcome, after = settle(operation(Kind.UPDATE, MIDDLE), cell)
        assert outcome == APPLIED
        assert after is cell

    def test_a_marker_takes_the_very_version_of_its_floor(self) -> None:
        assert settle(operation(Kind.UPDATE, MIDDLE), MARKER) == (APPLIED, Cell(MIDDLE, BORN, b"{}"))

    def test_an_update_of_unknown_birth_keeps_the_birth_of_a_record_alone(self) -> None:
        update = operation(Kind.UPDATE, NEW, NO_VERSION)
        births = {name: settle(update, cell)[1].born for name, cell in CELLS.items()}  # type: ignore[union-attr]
        assert births == {"nothing": "", "empty": "", "marker": "", "tombstone": "", "record": BORN}

    @pytest.mark.parametrize("version", [MIDDLE, NEW])
    @pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
    def test_an_invalidation_leaves_a_marker_with_its_floor(self, cell: Cell | None, version: str) -> None:
        invalidation = operation(Kind.INVALIDATE, version, NO_VERSION)
        outcome, after = settle(invalidation, cell)
        assert (outcome, after) == (APPLIED, Cell(version, marker=True))
        assert after is not cell, "a lease that was given before has to end"

    @pytest.mark.parametrize("cell", [MARKER, TOMBSTONE, RECORD], ids=["marker", "tombstone", "record"])
    def test_an_invalidation_spares_the_newer(self, cell: Cell) -> None:
        outcome, after = settle(operation(Kind.INVALIDATE, OLD, NO_VERSION), cell)
        assert outcome == Outcome(Status.SUPERSEDED, stored=MIDDLE)
        assert after is cell

    @pytest.mark.parametrize("cell", [TOMBSTONE, RECORD], ids=["tombstone", "record"])
    def test_a_retraction_forgets_its_version(self, cell: Cell) -> None:
        assert settle(operation(Kind.RETRACT, MIDDLE, NO_VERSION), cell) == (APPLIED, EMPTY)

    @pytest.mark.parametrize(
        ("cell", "version"),
        [
            *itertools.product([TOMBSTONE, RECORD], [OLD, NEW]),
            *itertools.product([None, EMPTY, MARKER], [OLD, MIDDLE, NEW]),
        ],
    )
    def test_a_retraction_spares_everything_else(self, cell: Cell | None, version: str) -> None:
        outcome, after = settle(operation(Kind.RETRACT, version, NO_VERSION), cell)
        assert outcome == APPLIED
        assert after is cell


class TestBytes:
    @pytest.mark.parametrize(
        "cell", [cell for cell in CELLS.values() if cell], ids=[name for name, cell in CELLS.items() if cell]
    )
    def test_a_cell_comes_back_as_it_was(self, cell: Cell) -> None:
        assert decode_cell(encode_cell(cell, KEY, FINGERPRINT), KEY, FINGERPRINT) == cell

    def test_the_form_is_as_documented(self) -> None:
        data = encode_cell(RECORD, Key("Book", "7"), FINGERPRINT)
        assert int(data[:8], 16) == crc32(data[8:])
        head, payload = data[8:].split(b"\n")
        assert json.loads(head) == [1, "r", "Book", "7", FINGERPRINT, MIDDLE, BORN]
        assert payload == PAYLOAD

    def test_every_cut_of_a_value_is_a_miss(self) -> None:
        data = encode_cell(RECORD, KEY, FINGERPRINT)
        for end in range(len(data)):
            assert decode_cell(data[:end], KEY, FINGERPRINT) is EMPTY

    def test_every_flipped_bit_of_a_value_is_a_miss(self) -> None:
        for cell in (RECORD, TOMBSTONE, MARKER):
            data = encode_cell(cell, KEY, FINGERPRINT)
            for bit in range(len(data) * 8):
                changed = bytearray(data)
                changed[bit // 8] ^= 1 << bit % 8
                assert decode_cell(bytes(changed), KEY, FINGERPRINT) is EMPTY

    def test_another_key_is_a_miss(self) -> None:
        data = encode_cell(RECORD, KEY, FINGERPRINT)
        for other in (Key("Book", "8"), Key("Film", KEY.id)):
            assert decode_cell(data, other, FINGERPRINT) is EMPTY

    @pytest.mark.parametrize("cell", [RECORD, TOMBSTONE], ids=["record", "tombstone"])
    def test_another_fingerprint_is_a_miss_that_takes_nothing_older(self, cell: Cell) -> None:
        data = encode_cell(cell, KEY, "another")
        assert decode_cell(data, KEY, FINGERPRINT) == Cell(MIDDLE, marker=True)

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"[]",
            b"null",
            b"1",
            b"{",
            b"{}{}",
            b'{"a":NaN}',
            b'{"a":Infinity}',
            b'{"a":"\xff"}',
            b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}",
            b'{"a":' + b"9" * 5000 + b"}",
        ],
    )
    def test_hostile_fields_are_a_value_error(self, payload: bytes) -> None:
        with pytest.raises(ValueError, match=r".*"):
            decode_fields(payload)

    @pytest.mark.parametrize(
        "fields",
        [{"a": float("nan")}, {"a": [float("inf")]}, {"a": "\ud800"}, {"a": object()}],
        ids=["NaN", "infinity", "lone surrogate", "object"],
    )
    def test_fields_that_json_cannot_carry_are_invalid(self, fields: dict[str, object]) -> None:
        with pytest.raises(InvalidRecord):
            encode_fields(fields)  # type: ignore[arg-type]
        assert cell_of(Record(KEY, NEW, BORN, fields)) is None  # type: ignore[arg-type]

    def test_the_words_nan_and_infinity_are_text_like_any_other(self) -> None:
        fields = {"title": "NaN, Infinity and -Infinity"}
        assert decode_fields(encode_fields(fields)) == fields

    def test_a_record_and_its_tombstone_make_cells(self) -> None:
        assert cell_of(Record(KEY, NEW, BORN, None)) == Cell(NEW, BORN)
        record = Record(KEY, NEW, BORN, {"title": "x"})
        cell = cell_of(record)
        assert cell is not None
        assert cell == Cell(NEW, BORN, b'{"title":"x"}')
        assert record_of(KEY, cell) == record
