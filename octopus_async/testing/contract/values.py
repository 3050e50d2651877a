"""Values and ids that stores were seen to change, confuse or refuse."""

from __future__ import annotations

import base64
from decimal import Decimal

from octopus_async.record import Fields, Value
from octopus_async.testing.operations import fields_of


def _deep(levels: int) -> Value:
    return {"down": [_deep(levels - 1)]} if levels else "bottom"


VALUES: dict[str, Fields] = {
    "nothing but nulls": fields_of(),
    "unicode beyond the BMP": fields_of(title="𝔘𝔫𝔦𝔠𝔬𝔡𝔢 👩‍👩‍👧‍👦 \U0010fffd", tree={"🐙": "🐙"}),
    "empty text": fields_of(title="", tree=""),
    "blanks and line ends": fields_of(title="  a\tb\r\nc\r\n  \n "),
    "control characters": fields_of(title="".join(map(chr, range(1, 32))) + "\x7f\x85\u2028"),
    "quotes and wildcards": fields_of(title="'\"`\\\\ %_;--/* :name ? $1 %s {0}"),
    "both forms of an accent": fields_of(title="\u00e9 e\u0301"),
    "the largest integers": fields_of(count=2**63 - 1, order=-(2**63)),
    "zero is not null": fields_of(count=0, order=0, ratio=0.0, flag=False),
    "floats to the last bit": fields_of(ratio=0.1 + 0.2, tree=[5e-324, 1.7976931348623157e308, -0.1]),
    "the largest float": fields_of(ratio=1.7976931348623157e308),
    "a tiny float": fields_of(ratio=-2.2250738585072014e-308),
    "true": fields_of(flag=True),
    "every byte": fields_of(raw=base64.b64encode(bytes(range(256))).decode()),
    "no bytes": fields_of(raw=""),
    "moments to the microsecond": fields_of(
        at="2026-01-31T23:59:59.123457Z",
        local="1999-12-31T00:00:00.000001",
        day="2024-02-29",
        hour="23:59:59.999999",
    ),
    "moments long ago and far ahead": fields_of(
        at="1000-01-01T00:00:00.000000Z", local="9999-12-31T23:59:59.999999", day="9999-12-31"
    ),
    "the widest decimal": fields_of(amount="-" + "9" * 35 + "." + "9" * 30),
    "a small decimal": fields_of(amount="0.1"),
    "a UUID": fields_of(tag="0190b3b0-0000-7000-8000-00000000abcd"),
    "nested JSON": fields_of(
        tree={"": [], "a": {"b": [None, True, 1, 1.5, "c", {"d": {}}]}, "deep": _deep(30)}
    ),
    "a JSON array": fields_of(tree=[2**63 - 1, -(2**63), []]),
    "300 kB of text": fields_of(title="Grüße, 世界! " * 18_000),
    "300 kB of JSON": fields_of(tree=[{"number": number, "text": "x" * 90} for number in range(2500)]),
}

LOOKALIKES = (
    "key",
    "KEY",
    "Key",
    "key ",
    "key  ",
    " key",
    "key\t",
    "key\n",
    "key\r\n",
    "key\x01",
    "key\x7f",
    "k\u00e9y",
    "ke\u0301y",
    "k\u1ebdy",
    "ke\u200by",
    "стра\u00dfe",
    "страss",
    "ключ",
    "キー",
    "ｋｅｙ",
    "🔑",
    "\U0001f5dd",
    "key:key",
    "key%20",
    "key\\",
    "key'",
    'key"',
    "key\u00a0",
    "0",
    "00",
    "1e3",
    "1000",
)
"""Ends of ids that collations, trimming, number parsing or a protocol's blanks take for one."""

LONG_IDS = ("x" * 180, "x" * 181, "🔑" * 62, "é" * 128, "y" * 991 + "a", "y" * 991 + "b", "🔑" * 248)
"""Ends of ids that make 32 characters before them longer than 250 bytes, and up to 1,024."""


def comparable(fields: Fields | None) -> dict[str, object] | None:
    """Fields such that equal ones compare so: a store may write a decimal with other zeros."""
    if fields is None:
        return None
    amount = fields.get("amount")
    return {**fields, "amount": Decimal(amount) if isinstance(amount, str) else amount}
