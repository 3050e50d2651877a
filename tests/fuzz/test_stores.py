"""Hostile keys, values and names on real stores: nothing is confused, nothing gets into a protocol."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, cast
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus_async.backend import Adapter
from octopus_async.errors import InvalidRecord, OctopusError
from octopus_async.mapper import MAX_ID_BYTES, Mapper
from octopus_async.model import KeyedModel, utc_now
from octopus_async.record import APPLIED, Key, Mode, Record
from octopus_async.schema import Column, Schema, Type
from octopus_async.testing.operations import ALL_TYPES, Author, fields_of
from tests.fuzz.budget import fuzzed
from tests.fuzz.parsers import Colour, Everything

INJECTIONS = (
    "x\r\nflush_all\r\n",
    "x 0 0 1\r\n1\r\nset octopus:canary 0 0 1\r\n1",
    "x\r\nquit\r\n",
    "' OR '1'='1",
    "'; DELETE FROM contract_records; --",
    '"; DROP TABLE contract_records; --',
    "\\'; DROP TABLE contract_records; -- ",
    "`; DROP TABLE contract_records; -- `",
    "%s%(x)s%%",
    "? :id $1 @x",
    "/**/ UNION SELECT 1 --",
    "a:b",
    "#0123456789abcdef",
    "octopus:ContractRecord:x",
    "\\0\\n\\Z",
    "../../etc/passwd",
    "\x7f\x1b[2J",
    "\u202e\u200b\ufeff",
)
_FRAGMENTS = st.sampled_from(
    [*INJECTIONS, " ", "\r\n", "\t", "%", "'", '"', "`", "\\", "\x01", "é", "🔑" * 60, "y" * 250]
)
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
ENDS = st.one_of(
    _TEXT, st.sampled_from(INJECTIONS), st.lists(_FRAGMENTS, min_size=1, max_size=4).map("".join)
)


def lookalikes(text: str) -> set[str]:
    """The text, and what collations, trimming, encodings or a cut at 250 bytes could take for it."""
    others = (
        text.upper(),
        text.lower(),
        text + " ",
        " " + text,
        text.strip(),
        text + "\n",
        quote(text),
        text.replace("\\", "\\\\"),
        text.replace("'", "''"),
        unicodedata.normalize("NFC", text),
        unicodedata.normalize("NFKD", text),
        text.encode()[:250].decode(errors="ignore"),
    )
    return {text, *others}


@given(ends=st.lists(ENDS, min_size=1, max_size=4))
@fuzzed(25)
async def test_two_different_keys_never_meet(adapter: Adapter, ends: list[str]) -> None:
    await adapter.prepare(ALL_TYPES, create=True)
    author, start = Author(), uuid4().hex
    texts = sorted({start + other for end in ends for other in lookalikes(end)})
    keys = [Key(author.model, text) for text in texts if len(text.encode()) <= MAX_ID_BYTES]
    canary = author.create(author.key(), fields_of(title="canary"))
    created = [author.create(key, fields_of(count=count, title=key.id)) for count, key in enumerate(keys)]
    assert await adapter.apply([canary, *created], Mode.LIVE) == [APPLIED] * (len(keys) + 1)
    gone, changed, *_ = [*keys, keys[0]]
    update = author.update(changed, fields_of(title="changed"))
    delete = author.delete(gone)
    for operation in (update, delete):
        assert await adapter.apply([operation], Mode.LIVE) == [APPLIED]
    expected = {operation.key: operation.fields for operation in (canary, *created, update, delete)}
    answers = await adapter.read(list(expected))
    assert {key: living(answer) for key, answer in zip(expected, answers, strict=True)} == expected


def living(answer: object) -> object:
    return answer.fields if isinstance(answer, Record) else None


IDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", "\0", "a\0b", "\ud800", "é" * 513, "x" * 1025, "x" * 1024]),
    st.integers(),
    st.floats(),
    st.none(),
    st.binary(),
    st.booleans(),
)


class Shelf(KeyedModel):
    id: str
    title: str = ""


def is_an_id(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        return False
    return 0 < len(value.encode()) <= MAX_ID_BYTES


@given(id_=IDS)
@fuzzed(150)
def test_an_id_that_no_store_keeps_is_refused_before_anything_is_sent(id_: object) -> None:
    mapper = Mapper(Shelf)
    if is_an_id(id_):
        assert mapper.key(id_) == Key("Shelf", cast("str", id_))
    else:
        with pytest.raises(InvalidRecord, match=r"Shelf\.id"):
            mapper.key(id_)


# --- values

_VALUES = {
    "title": st.text(max_size=60) | st.sampled_from(INJECTIONS),
    "count": st.integers(-(1 << 65), 1 << 65),
    "ratio": st.floats(),
    "flag": st.booleans(),
    "raw": st.binary(max_size=60),
    "at": st.datetimes(timezones=st.just(UTC)) | st.datetimes(),
    "local": st.datetimes(),
    "day": st.dates(),
    "hour": st.times(),
    "amount": st.decimals(allow_nan=True),
    "tag": st.uuids(),
    "colour": st.sampled_from(Colour),
    "tree": st.dictionaries(
        st.text(max_size=8), st.lists(st.integers() | st.text(max_size=8), max_size=3), max_size=3
    ),
    "anything": st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=8,
    ),
}
MODELS = st.lists(
    st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in _VALUES.items()}),
    min_size=1,
    max_size=8,
)
MAPPER = Mapper(Everything)


@given(chosen=MODELS)
@fuzzed(25)
async def test_a_model_comes_back_equal_or_is_refused(
    adapter: Adapter, chosen: Sequence[dict[str, Any]]
) -> None:
    await adapter.prepare(MAPPER.schema, create=True)
    author, kept = Author("Everything"), dict[Key, Everything]()
    operations = []
    for values in chosen:
        model = Everything.model_construct(id=uuid4(), **{**dict.fromkeys(_VALUES), **values})
        try:
            fields, payload = MAPPER.encode(model, utc_now(), create=True)
        except InvalidRecord:
            continue
        key = MAPPER.key_of(model)
        kept[key] = model
        operations.append(author.create(key, fields)._replace(payload=payload))
    assert await adapter.apply(operations, Mode.LIVE) == [APPLIED] * len(operations)
    answers = await adapter.read(list(kept)) if kept else []
    for answer, model in zip(answers, kept.values(), strict=True):
        assert isinstance(answer, Record)
        found = MAPPER.decode(answer)
        for name in _VALUES:
            assert same(getattr(found, name), getattr(model, name)), name


def same(found: object, given: object) -> bool:
    kinds = (Decimal, datetime, date)
    return found == given and (type(found) is type(given) or isinstance(given, kinds) or given is None)


# --- names

_NAMES = st.one_of(
    st.sampled_from(
        [
            'a"b',
            "a`b",
            "a'b",
            "a%sb",
            "a%%b",
            "a b",
            "a;--",
            "a?b",
            "a:b",
            "SELECT",
            "a\\b",
            "é",
            "a\nb",
            "a.b",
            "a/*",
            "a]b",
        ]
    ),
    st.text(
        st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs", "Cc", "Zs"]), min_size=1, max_size=20
    ),
)


@pytest.mark.parametrize("bare", ["sqlite", "mysql", "postgres"], indirect=True)
@given(table=_NAMES, id_column=_NAMES, column=_NAMES)
@fuzzed(20)
async def test_names_of_tables_and_columns_are_quoted(
    adapter: Adapter, table: str, id_column: str, column: str
) -> None:
    await adapter.prepare(ALL_TYPES, create=True)
    author = Author("Oddly")
    canary = Author().create(Author().key(), fields_of(title="canary"))
    assert await adapter.apply([canary], Mode.LIVE) == [APPLIED]
    columns = (Column("title", f"c{column}", Type.TEXT, nullable=True),)
    schema = Schema("Oddly", f"t{uuid4().hex[:12]}{table}", f"i{id_column}", Type.TEXT, columns)
    try:
        await adapter.prepare(schema, create=True)
    except OctopusError:
        pass  # the server takes no such name, and says so
    else:
        created = author.create(author.key(), {"title": "one"})
        update = author.update(created.key, {"title": "two"}, born=created.born)
        assert await adapter.apply([created], Mode.LIVE) == [APPLIED]
        assert await adapter.apply([update, author.delete(author.key())], Mode.REPLAY) == [APPLIED] * 2
        (answer,) = await adapter.read([created.key])
        assert living(answer) == {"title": "two"}
    (answer,) = await adapter.read([canary.key])
    assert living(answer) == canary.fields
