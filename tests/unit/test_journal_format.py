"""The journal's lines: written so that others can read them, and read so that no flipped bit passes."""

from __future__ import annotations

import json
from zlib import crc32

import pytest

from octopus_async.errors import JournalError
from octopus_async.journal.format import (
    FORMAT,
    SUM_LENGTH,
    Dead,
    Done,
    Drop,
    Entry,
    Header,
    Kept,
    Line,
    Unit,
    compose,
    decode,
    decode_fields,
    decode_header,
    encode_dead,
    encode_done,
    encode_drop,
    encode_header,
    encode_operation,
    encode_retry,
    encode_unit,
    key_bytes,
    key_of,
    ranges_of,
    salt,
    seal,
)
from octopus_async.journal.item import item_of_raw, operation_of_raw
from octopus_async.record import Key, Kind, Operation
from tests.crash.journals import PRIMARY, REPLICA, clock, create, delete, update

SEED = salt("writer", 1)


def line(rest: bytes, number: int = 7) -> bytes:
    return compose([(rest, 1)], number, number - 1, SEED)


def read(rest: bytes) -> Line:
    found = decode(line(rest)[: -SUM_LENGTH - 1])
    assert found is not None
    return found


@pytest.mark.parametrize(
    "operation",
    [
        create(),
        update(born=clock.next()),
        update()._replace(if_version='"}\n'),
        delete(),
        create('é " \\ \x01 \U0001f419'),
        Operation(Kind.INVALIDATE, Key('odd"model\\', ""), clock.next(), ""),
    ],
    ids=["create", "update", "conditional", "delete", "odd id", "odd model"],
)
def test_an_operation_comes_back_as_it_was(operation: Operation) -> None:
    found = read(encode_operation(operation, 12.5, [PRIMARY, 'odd "name]'], provisional=True))
    assert isinstance(found, Entry)
    assert operation_of_raw(found.raw) == operation
    assert (found.sequence, found.raw.at, found.raw.provisional is not None) == (7, b"12.500", True)


def test_a_line_is_one_json_object_with_its_number_first_and_its_sum_last() -> None:
    written = line(encode_operation(create("1", "x"), 12.5, [PRIMARY, REPLICA]))
    members = json.loads(written)
    assert next(iter(members)) == "seq"
    assert list(members)[-1] == "sum"
    assert written.endswith(b"}\n")
    assert written.count(b"\n") == 1
    assert (members["seq"], members["durable"], members["op"], members["id"]) == (7, 6, "create", "1")
    assert (members["targets"], members["fields"]) == ([PRIMARY, REPLICA], {"title": "x"})


def test_the_payload_is_written_byte_for_byte() -> None:
    payload = b'{"title" : 1.10,"n":1e2}'
    rest = encode_operation(create()._replace(payload=payload), 1.0, [PRIMARY])
    assert rest.endswith(b'"fields":' + payload)
    found = read(rest)
    assert isinstance(found, Entry)
    assert found.raw.fields == payload


def test_only_the_first_line_of_a_group_says_what_was_durable_before_it() -> None:
    rest = encode_operation(create(), 1.0, [PRIMARY])
    group = [json.loads(each) for each in compose([(rest, 1), (rest, 1)], 5, 3, SEED).splitlines()]
    assert [each.get("durable") for each in group] == [3, None]
    assert [each["seq"] for each in group] == [5, 6]


def test_a_unit_is_one_line_that_takes_a_number_for_each_operation() -> None:
    operations = [create("a"), update("b", born=clock.next()), delete("c")]
    group = compose([(encode_unit(operations, 1.0, [PRIMARY]), 3), (encode_drop(1), 1)], 5, 4, SEED)
    first, second = group.splitlines()
    found = decode(first[:-SUM_LENGTH])
    assert isinstance(found, Unit)
    assert [operation_of_raw(raw) for raw in found.entries] == operations
    assert all(item_of_raw(raw, unit=True).shared for raw in found.entries)
    assert decode(second[:-SUM_LENGTH]) == Drop(8, 1)


def test_a_dead_letter_says_what_it_was_and_why() -> None:
    operation = create()
    rest = encode_operation(operation, 3.0)
    found = read(encode_dead(3, PRIMARY, 'a "reason"\n\ud800', "DuplicateRecord", rest))
    assert isinstance(found, Dead)
    assert (found.entry, found.target, found.error) == (3, PRIMARY, "DuplicateRecord")
    assert found.reason == 'a "reason"\n?'
    assert operation_of_raw(found.raw) == operation


def test_a_retry_names_the_dead_letter_that_it_was() -> None:
    found = read(encode_retry(3, encode_operation(create(), 3.0, [PRIMARY])))
    assert isinstance(found, Entry)
    assert found.retries == 3


def test_what_is_done_is_written_as_ranges() -> None:
    assert read(encode_done(PRIMARY, [(1, 4), (9, 9)])) == Done(7, PRIMARY, ((1, 4), (9, 9)))


def test_ranges_are_the_shortest() -> None:
    assert ranges_of([1, 2, 3, 5, 7, 8]) == [(1, 3), (5, 5), (7, 8)]
    assert ranges_of([]) == []


def test_a_header_comes_back_as_it_was() -> None:
    header = Header(
        FORMAT,
        "writer",
        3,
        "other",
        1.5,
        9,
        8,
        {1: Kept(5, None), 2: Kept(7, {PRIMARY: [(1, 4), (6, 6)]})},
        [2, 5],
    )
    written = encode_header(header, SEED)
    assert decode_header(written[: -SUM_LENGTH - 1]) == header
    assert json.loads(written)["octopus"] == "octopus journal"


def test_of_a_header_of_another_format_only_the_version_counts() -> None:
    header = Header(FORMAT + 1, "writer", 3, "other", 1.5, 9, 8, {}, None)
    body = encode_header(header, SEED)[: -SUM_LENGTH - 1].replace(b'"keeps"', b'"news"')
    found = decode_header(body)
    assert found is not None
    assert found.format == FORMAT + 1


def test_the_sum_is_a_crc_32_seeded_with_the_files_name() -> None:
    body = b'{"seq":1,"drop":2'
    assert seal(body, SEED) == b',"sum":"%08x"}' % crc32(body, crc32(b"writer/1"))
    assert seal(body, SEED) != seal(body, salt("writer", 2))


def test_every_flipped_bit_of_a_line_is_noticed() -> None:
    written = line(encode_operation(create(), 1.0, [PRIMARY]))[:-1]
    for bit in range(len(written) * 8):
        changed = bytearray(written)
        changed[bit // 8] ^= 1 << bit % 8
        body, end = bytes(changed[:-SUM_LENGTH]), bytes(changed[-SUM_LENGTH:])
        assert seal(body, SEED) != end


def test_every_two_flipped_bits_close_together_are_noticed() -> None:
    written = line(encode_drop(5))[:-1]
    for first in range(len(written) * 8 - 32):
        for second in range(first + 1, first + 32):
            changed = bytearray(written)
            changed[first // 8] ^= 1 << first % 8
            changed[second // 8] ^= 1 << second % 8
            assert seal(bytes(changed[:-SUM_LENGTH]), SEED) != bytes(changed[-SUM_LENGTH:])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"seq":1',
        b'{"seq":1,"what":2',
        b'{"seq":-1,"drop":2',
        b'{"seq":1,"drop":"x"',
        b'{"seq":1,"done":"mysql","entries":[[2,1]]',
        b'{"seq":1,"done":"mysql","entries":7',
        b'{"seq":1,"done":"mysql","entries":[[NaN,1]]',
        b'{"seq":1,"unit":[{"op":"create"}]',
        b'{"seq":1,"unit":' + b"[" * 5000 + b"]" * 5000,
        b'{"seq":%s,"drop":1' % (b"9" * 5000),
        b'{"seq":1,"dead":1,"target":"a","reason":"b","error":"c","op":"x"',
    ],
)
def test_what_no_writer_writes_is_no_line(body: bytes) -> None:
    assert decode(body) is None


@pytest.mark.parametrize(
    "body", [b"", b"[", b"{}", b'{"octopus":1', b'{"octopus":"octopus journal","format":"x"']
)
def test_what_is_no_header_is_none(body: bytes) -> None:
    assert decode_header(body) is None


@pytest.mark.parametrize(
    "payload", [b"", b"[1]", b"{", b'{"a":NaN}', b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"]
)
def test_a_payload_that_is_no_json_object_is_an_error_of_the_journal(payload: bytes) -> None:
    with pytest.raises(JournalError):
        decode_fields(payload)


def test_a_payload_on_two_lines_is_refused() -> None:
    with pytest.raises(JournalError, match="does not fit"):
        encode_operation(create()._replace(payload=b'{\n"title":1}'), 1.0, [PRIMARY])


def test_a_text_that_utf8_cannot_carry_is_refused() -> None:
    with pytest.raises(JournalError, match="cannot hold"):
        encode_operation(create("\ud800"), 1.0, [PRIMARY])
    with pytest.raises(JournalError, match="cannot hold"):
        key_bytes(Key("Book", "\ud800"))


def test_a_key_comes_back_as_it_was() -> None:
    for each in (Key("Book", ""), Key("Book", "a\0b"), Key("Bööк", "\U0001f419")):
        assert key_of(key_bytes(each)) == each


@pytest.mark.parametrize(
    "rest",
    [
        b',"at":1.0,"op":"create","model":"Book","id":"\xff","version":"%s"' % (b"0" * 26),
        b',"at":1.0,"op":"create","model":"Bo\xffk","id":"1","version":"%s"' % (b"0" * 26),
        b',"at":1.0,"op":"create","model":"Bo\\u0000k","id":"1","version":"%s"' % (b"0" * 26),
        b',"at":1.0,"op":"conjure","model":"Book","id":"1","version":"%s"' % (b"0" * 26),
    ],
    ids=["id that is no text", "model that is no text", "model with a NUL", "unknown kind"],
)
def test_an_operation_that_no_writer_writes_is_a_value_error(rest: bytes) -> None:
    found = read(rest)
    assert isinstance(found, Entry)
    with pytest.raises(ValueError, match=r"kind|text"):
        item_of_raw(found.raw)


@pytest.mark.parametrize("number", [b'"1"', b"1.5", b"true", b"-1", b"null", b"1e400", b"9" * 30])
@pytest.mark.parametrize("member", ["segment", "first", "durable"])
def test_a_header_whose_numbers_are_none_is_no_header(member: str, number: bytes) -> None:
    header = Header(FORMAT, "writer", 3, "other", 1.5, 9, 8, {}, [])
    body = encode_header(header, SEED)[: -SUM_LENGTH - 1]
    before = b'"%s":%d' % (member.encode(), getattr(header, member))
    forged = body.replace(before, b'"%s":%s' % (member.encode(), number))
    assert forged != body
    assert decode_header(forged) is None
