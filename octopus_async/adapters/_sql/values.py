"""How stored values travel to SQL columns and back: exactly, and leniently where others wrote them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn, cast

from octopus_async.record import Value

Encode = Callable[[Any], object]
Decode = Callable[[Any], Value]

_MOMENT_LENGTH = len("2026-01-31T12:00:00.000000Z")
_TIMESTAMP_LENGTH = len("2026-01-31 12:00:00.000000")
_TIME_LENGTH = len("12:00:00.000000")
_INTEGER_LIMIT = 1 << 63
_LARGE_REAL = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?e\+\d+')
_SECONDS = re.compile(r"(.*\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?\Z", re.DOTALL)


class Codec(NamedTuple):
    """How one type is written and read; None where the driver's own form is the stored value."""

    encode: Encode | None = None
    decode: Decode | None = None


def encode_binary(value: str) -> bytes:
    """Base64 text as the bytes that it stands for."""
    return base64.b64decode(value, validate=True)


def decode_binary(value: bytes) -> str:
    """Bytes as base64 text."""
    return base64.b64encode(value).decode()


def encode_json(value: Value) -> str:
    """A nested value as JSON text, which both kinds of server keep as it is."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def decode_json(value: str | bytes) -> Value:
    """JSON text as the nested value. Raises ValueError or RecursionError for anything else."""
    return cast("Value", json.loads(value, parse_constant=_refuse_constant))


def encode_jsonb(value: Value) -> str:
    """A nested value as JSON whose floats jsonb gives back as floats.

    It keeps numbers as decimals: 1e+16 would come back as the integer 10000000000000000.
    """
    text = encode_json(value)
    return _LARGE_REAL.sub(_written_out, text) if "e+" in text else text


def decode_jsonb(text: str) -> Value:
    """The nested value of JSON text; an integer past 64 bits was a float in other hands."""
    return cast("Value", json.loads(text, parse_int=_integer))


def _written_out(match: re.Match[str]) -> str:
    text = match[0]
    return text if text.startswith('"') else f"{Decimal(text):f}.0"


def _integer(text: str) -> int | float:
    number = int(text) if len(text) <= len(str(-_INTEGER_LIMIT)) else _INTEGER_LIMIT
    return number if -_INTEGER_LIMIT <= number < _INTEGER_LIMIT else float(text)


def encode_timestamp(value: str) -> str:
    """``2026-01-31T12:00:00.000000Z``, or without Z, as a DATETIME literal."""
    return value.removesuffix("Z").replace("T", " ")


def decode_timestamp(value: str) -> str:
    """A DATETIME as the text of a moment in UTC."""
    return value if len(value) == _MOMENT_LENGTH else decode_local_timestamp(value) + "Z"


def decode_local_timestamp(value: str) -> str:
    """A DATETIME as the text of a naive moment; six digits, whatever the column keeps."""
    return _six_digits(value, _TIMESTAMP_LENGTH).replace(" ", "T")


def decode_time(value: str) -> str:
    """A TIME as the text of a time of day; six digits, whatever the column keeps."""
    return _six_digits(value, _TIME_LENGTH)


def decode_decimal(value: str) -> str:
    """A DECIMAL without the zeros that its column's scale added."""
    text = str(value)
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def decode_text(value: bytes) -> str:
    """The text of a binary column. Raises ValueError if it is none."""
    return value.decode()


def decoded(decode: Decode, value: Any) -> Value:  # noqa: ANN401 - whatever the driver gave
    """A column's value; one that others wrote in a form of their own is left to the model to judge."""
    try:
        return decode(value)
    except (AttributeError, TypeError, ValueError, RecursionError):
        return decode_binary(value) if isinstance(value, bytes) else value


def _six_digits(text: str, length: int) -> str:
    if len(text) == length:
        return text
    match = _SECONDS.match(text.removesuffix("Z"))
    return text if match is None else f"{match[1]}.{match[2] or '':0<6}"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
