"""What stands in memcached, byte by byte, and as somebody reads it who knows the documentation alone."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from octopus_async.adapters._memcache_form import Form
from octopus_async.adapters._memcache_replies import Item
from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.cachevalue import Cell
from octopus_async.record import Key

PAGE = Path(__file__).parents[2] / "docs" / "backends" / "memcached.md"
FINGERPRINT = "0f343b0931126a20"
BORN, VERSION = "05N5V6KG1G001H2M4K6P8R0T2W", "05N5V6KM0R001H2M4K6P8R0T2W"
FORM = Form("octopus:", 300.0, 1024**2, wall=lambda: 1_800_000_000.0, fingerprints={"Book": FINGERPRINT})

GOLDEN = {
    "a record": (
        Key("Book", "7"),
        Cell(VERSION, BORN, b'{"title":"Emma","pages":474,"tags":["novel"]}'),
        """\
f9846d89[1,"r","Book","7","0f343b0931126a20","05N5V6KM0R001H2M4K6P8R0T2W","05N5V6KG1G001H2M4K6P8R0T2W"]
{"title":"Emma","pages":474,"tags":["novel"]}""",
        "octopus:Book:7",
    ),
    "a tombstone": (
        Key("Book", "7"),
        Cell(VERSION, BORN),
        '404defd7[1,"t","Book","7","0f343b0931126a20","05N5V6KM0R001H2M4K6P8R0T2W","05N5V6KG1G001H2M4K6P8R0T2W"]',
        "octopus:Book:7",
    ),
    "a marker": (
        Key("Book", 'Müller "\\\n☃'),
        Cell(VERSION, marker=True),
        'b911a4de[1,"m","Book","Müller \\"\\\\\\n☃","0f343b0931126a20","05N5V6KM0R001H2M4K6P8R0T2W",""]',
        "octopus:#cfcb0f038dc692dfaf33b940da11357caf0a56f31e759f4e02258f036211386d",
    ),
}


def crc32(data: bytes) -> int:
    """Bit by bit, so that nothing is shared with what is tested."""
    rest = 0xFFFFFFFF
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = (rest >> 1) ^ (0xEDB88320 if rest & 1 else 0)
    return rest ^ 0xFFFFFFFF


def read_by_the_page(value: bytes) -> dict[str, object] | None:
    """A reader of values, after the documentation; None for what is none."""
    if not re.fullmatch(rb"[0-9a-f]{8}", value[:8]) or int(value[:8], 16) != crc32(value[8:]):
        return None
    head, _, fields = value[8:].partition(b"\n")
    form, kind, model, key, fingerprint, version, born = json.loads(head)
    if form != 1:
        return None
    return {
        "kind": {"r": "record", "t": "tombstone", "m": "marker"}[kind],
        "model": model,
        "id": key,
        "fingerprint": fingerprint,
        "version": version,
        "born": born,
        "fields": json.loads(fields) if kind == "r" else None,
    }


def place_by_the_page(key: str, servers: list[str]) -> str:
    """A server for ``Model:id``, after the documentation."""
    seeds = {server: hashlib.blake2b(server.encode()).digest() for server in servers}
    return max(servers, key=lambda server: hashlib.blake2b(key.encode(), key=seeds[server]).digest())


@pytest.mark.parametrize("what", GOLDEN)
def test_the_bytes_are_these(what: str) -> None:
    key, cell, value, _ = GOLDEN[what]
    assert FORM.encode(key, cell) == value.encode()
    assert FORM.decode(key, Item(value.encode(), b"")) == cell


@pytest.mark.parametrize("what", GOLDEN)
def test_who_knows_the_page_alone_can_read_them(what: str) -> None:
    key, cell, _, _ = GOLDEN[what]
    assert read_by_the_page(FORM.encode(key, cell)) == {
        "kind": what.removeprefix("a "),
        "model": key.model,
        "id": key.id,
        "fingerprint": FINGERPRINT,
        "version": cell.version,
        "born": cell.born,
        "fields": None if cell.payload is None else json.loads(cell.payload),
    }


def test_who_knows_the_page_alone_sees_damage() -> None:
    key, cell, _, _ = GOLDEN["a record"]
    value = bytearray(FORM.encode(key, cell))
    for at in range(len(value)):
        value[at] ^= 4
        assert read_by_the_page(bytes(value)) is None
        value[at] ^= 4


def test_the_page_shows_a_value_as_it_is() -> None:
    assert GOLDEN["a record"][2] in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("what", GOLDEN)
def test_the_keys_are_these(what: str) -> None:
    key, _, _, wire = GOLDEN[what]
    assert FORM.wire_key(key) == wire.encode()


def test_a_command_is_this() -> None:
    assert FORM.store(b"set", b"octopus:Book:7", b"{}", 299.2) == b"set octopus:Book:7 0 300 2\r\n{}\r\n"
    month = 31 * 24 * 3600
    dated = b"cas octopus:Book:7 0 %d 2 99\r\n{}\r\n" % (1_800_000_000 + month)
    assert FORM.store(b"cas", b"octopus:Book:7", b"{}", month, b"99") == dated


def test_who_knows_the_page_alone_finds_a_keys_server() -> None:
    addresses = [("cache1", 11211), ("cache2", 11211), ("10.0.0.3", 11311)]
    adapter = MemcacheAdapter(addresses)
    adapter._shards = tuple(adapter._make_shard(host, port) for host, port in addresses)
    servers = [f"{host}:{port}" for host, port in addresses]
    places = []
    for number in range(200):
        place = place_by_the_page(f"Book:{number}", servers)
        places.append(servers.index(place))
        assert adapter._locate(Key("Book", str(number)))._server.address == place
    assert places[:12] == [0, 2, 2, 2, 0, 2, 1, 1, 2, 0, 2, 0]
