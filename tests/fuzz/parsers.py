"""The other parsers as targets: cache values, URLs, settings, memcached's replies, stored fields."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Coroutine
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

from aiomcache import ClientException
from pydantic import NaiveDatetime
from pydantic_core import from_json

from octopus_async.adapters._memcache_replies import Item, Replies
from octopus_async.cachevalue import EMPTY, Cell, decode_cell, encode_cell, encode_fields, record_of, seal
from octopus_async.config import adapter_for, settings_from_toml
from octopus_async.errors import ConfigurationError, InvalidRecord
from octopus_async.mapper import Mapper
from octopus_async.model import Model, utc_now
from octopus_async.record import Key, Record
from octopus_async.url import BackendURL
from tests.fuzz.mutation import mutated

VERSION, BORN = "01J" + "0" * 23, "01H" + "0" * 23
KEY = Key("Book", 'a "key" ☃')
FINGERPRINT = "c0ffeec0ffee"


# --- a cache's values

CELLS = (
    Cell(
        VERSION, BORN, encode_fields({"title": "A Tale of Two Cities", "tags": ["a", {"b": 1.5}], "n": None})
    ),
    Cell(VERSION, BORN),
    Cell(VERSION, marker=True),
    EMPTY,
)
CELL_SEEDS = [encode_cell(cell, KEY, FINGERPRINT)[8:] for cell in CELLS]


def read_forged_cell(data: bytes) -> None:
    """A value with the right checksum is of this key or a miss; its fields are an object or refused."""
    cell = decode_cell(seal(data), KEY, FINGERPRINT)
    if cell.marker:
        return
    try:
        record = record_of(KEY, cell)
    except ValueError:
        return
    assert record.key == KEY
    assert record.fields is None or isinstance(record.fields, dict)
    head = from_json(data.partition(b"\n")[0])
    assert tuple(head[2:4]) == KEY


def read_damaged_cell(data: bytes) -> None:
    """A damaged value is a miss, or what it was; the bytes are the seed of what is done to it."""
    chance = random.Random(data)
    true = [encode_cell(cell, KEY, FINGERPRINT) for cell in CELLS]
    place = chance.randrange(len(CELLS))
    damaged = mutated(true[place], chance)
    found = decode_cell(damaged, KEY, FINGERPRINT)
    assert found == EMPTY or (damaged == true[place] and found == CELLS[place])


# --- URLs

URL_SEEDS = [
    b"mysql://app:s%40cret@db:3306/shop?tls=true&name=main",
    b"mariadb://app@[::1]:3306/shop?connect_timeout=1.5",
    b"memcache://cache1:11211,cache2?ttl=300&item_limit=64MB&prefix=shop:",
    b"sqlite:///shop.db?synchronous=FULL",
    b"memory://?durable=true",
]


def read_url(data: bytes) -> None:
    """A URL is understood or refused as a mistake of configuration; shown, it reads back as it was shown."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        url = BackendURL.parse(text)
    except ConfigurationError as error:
        hostile_texts_stay_out(text, str(error))
        return
    assert BackendURL.parse(str(url)) == BackendURL.parse(str(BackendURL.parse(str(url))))
    assert str(BackendURL.parse(str(url))) == str(url)
    try:
        adapter = adapter_for(text)
    except ConfigurationError as error:
        _is_on_one_line(error)
    else:
        assert adapter.capabilities.write_batch > 0


def hostile_texts_stay_out(text: str, message: str) -> None:
    """A URL that was not understood may be all secret: of it, no more than its scheme is shown."""
    rest = text.partition("://")[2] or text
    assert len(rest) < 12 or rest not in message  # a short one may be a part of any sentence


def _is_on_one_line(error: Exception) -> None:
    assert str(error).isprintable()


# --- settings

TOML_SEEDS = [
    b"".join(
        [
            b'write = ["mysql://app:pw@db/shop", "memcache://c1"]\njournal = "j"\ntimeout = 2.5\n',
            b"strict = true\n",
            b'order = "primary first"\nacknowledge = "primary"\nclose_timeout = 1\n',
            b'[read]\nstrategy = "hedge"\nbackends = ["mysql"]\ndelay = 0.1\n',
            b'[models.Book]\nwrite = ["memcache"]\nread = {strategy = "race"}\n',
        ]
    ),
    b'write = ["sqlite:///${HOME}/x.db"]\nretention = 1e3\nadopt_every = 7\n',
]


def read_settings(data: bytes) -> None:
    """A file of settings is understood or refused as a mistake of configuration."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            settings = settings_from_toml(Path(file.name))
        except ConfigurationError:
            return
    assert settings.write
    assert settings.timeout > 0


# --- memcached's replies

_ASKED = [b"octopus:Book:1", b"octopus:Book:2"]
_LIMIT = 1000
REPLY_SEEDS = [
    b"STORED\r\nVALUE octopus:Book:1 0 5 17\r\nhello\r\nVALUE octopus:Book:2 0 0 18\r\n\r\nEND\r\n",
    b"NOT_STORED\r\nEND\r\n",
    b"EXISTS\r\nVALUE octopus:Book:2 0 2000 18\r\n" + b"x" * 2000 + b"\r\nEND\r\n",
    b"SERVER_ERROR out of memory storing object\r\nEND\r\n",
]


class _Stream:
    """As much of a stream as the parser uses, in pieces of a length that the data say."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._size = (data[0] if data else 0) + 1
        self.read_count = 0

    async def read(self, size: int) -> bytes:
        self.read_count += 1
        piece, self._data = self._data[: min(size, self._size)], self._data[min(size, self._size) :]
        return piece


def read_replies(data: bytes) -> None:
    """Replies are the ones asked for, or the driver's error, or the end of the stream; values are bounded."""
    stream, found = _Stream(data), dict[bytes, Item]()

    async def parse() -> None:
        replies = Replies(stream)  # type: ignore[arg-type]
        await replies.store()
        await replies.items(_ASKED, found, _LIMIT)
        replies.finish()

    with contextlib.suppress(ClientException, EOFError):
        _run(parse())
    assert set(found) <= set(_ASKED)
    assert all(len(item.data) <= _LIMIT and item.data in data for item in found.values())
    assert stream.read_count <= len(data) + 1


def _run(call: Coroutine[Any, Any, None]) -> None:
    try:
        call.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for what it was given already")


# --- stored fields


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Everything(Model):
    title: str | None = None
    count: int | None = None
    ratio: float | None = None
    flag: bool | None = None
    raw: bytes | None = None
    at: datetime | None = None
    local: NaiveDatetime | None = None
    day: date | None = None
    hour: time | None = None
    amount: Decimal | None = None
    tag: UUID | None = None
    colour: Colour | None = None
    tree: dict[str, list[int | str]] | None = None
    anything: Any = None


MAPPER = Mapper(Everything)
_FULL = Everything(
    title="A Tale",
    count=3,
    ratio=1.5,
    flag=True,
    raw=b"\0\xff",
    at=datetime.fromisoformat("2026-01-31T23:59:59.123457+00:00"),
    local=datetime.fromisoformat("1999-12-31T00:00:00.000001"),
    day=date(2024, 2, 29),
    hour=time(23, 59, 59, 999999),
    amount=Decimal("-12.340"),
    tag=UUID(int=7),
    colour=Colour.BLUE,
    tree={"a": [1, "b"]},
    anything=[None, {"x": 1}],
)
FIELD_SEEDS = [MAPPER.encode(model, utc_now(), create=True)[1] for model in (_FULL, Everything())]


def read_fields(data: bytes) -> None:
    """What a store gives for a record becomes a model whose fields have their types, or is refused."""
    try:
        fields = from_json(data, allow_inf_nan=False)
    except ValueError:
        return
    if not isinstance(fields, dict):
        return
    try:
        model = MAPPER.decode(Record(Key("Everything", str(UUID(int=1))), VERSION, BORN, fields))
    except InvalidRecord as error:
        _is_on_one_line(error)
        return
    assert Everything.model_validate(model.model_dump(warnings=False)) is not None
