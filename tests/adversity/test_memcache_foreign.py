"""What others have put into memcached, or another version of the application."""

from __future__ import annotations

import pickle

import pytest

from octopus_async.adapters.memcache import MemcacheAdapter
from octopus_async.cachevalue import seal
from octopus_async.record import APPLIED, Miss, Mode, Record
from octopus_async.schema import Schema, Type
from octopus_async.testing.operations import Author, fields_of
from octopus_async.testing.servers import MemcachedServer
from tests.adversity.memcache import (
    LOOPBACK,
    find,
    opened,
    raw,
    server_of,
    wire_of,
)


class TestForeignValues:
    """What others have put there, or another version of the application, is a miss and no error."""

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"42",
            b"\xff\xfe\x00",
            pickle.dumps({"os": "system"}),
            b"[" * 100_000,
            b'[2,"r","ContractRecord","%s","","",""]\n{}',
            b'[1,"r","ContractRecord","%s","","no version",""]\n{}',
            b'[1,"r","ContractRecord","%s","",7,""]\n{}',
            b'[1,"x","ContractRecord","%s","","",""]\n{}',
            b'[1,"r","Other","%s","","",""]\n{}',
            b'[1,"r","ContractRecord","other","","",""]\n{}',
            b'[1,"r","ContractRecord","%s","","",""]\n[]',
            b'[1,"r","ContractRecord","%s","","",""]\n{"a":NaN}',
            b'[1,"r","ContractRecord","%s","","",""]\n{"a":' + b"9" * 5000 + b"}",
            b'[1,"r","ContractRecord","%s","","",""]\n{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
            b'[1,"r","ContractRecord","%s","","",""]\n{"a":"\xff"}',
            b'[1,"r","ContractRecord","%s","","",""]\n',
            b'[1,"r","ContractRecord","%s","","",""]',
            b'[1,"r","ContractRecord","%s","another fingerprint","",""]\n{}',
            b'{"1":"r"}',
        ],
    )
    @pytest.mark.parametrize("sealed", [False, True], ids=["as it is", "with a right checksum"])
    async def test_foreign_bytes_are_a_miss_that_can_be_filled(
        self,
        cache: MemcacheAdapter,
        private_memcached: MemcachedServer,
        author: Author,
        value: bytes,
        *,
        sealed: bool,
    ) -> None:
        created = author.create(author.key(), fields_of(title="ours"))
        value = value.replace(b"%s", created.key.id.encode())
        value = seal(value) if sealed else value
        request = b"set %b 0 0 %d\r\n%b\r\n" % (wire_of(created.key), len(value), value)
        assert await raw(private_memcached.port, request) == b"STORED\r\n"
        (miss,) = await cache.read([created.key])
        assert isinstance(miss, Miss)
        record = Record(created.key, created.version, created.born, created.fields)
        await cache.fill([(record, miss)])
        assert await cache.read([created.key]) == [record]

    async def test_a_value_longer_than_any_of_ours_is_skipped(self, author: Author) -> None:
        async with MemcachedServer(options=("--max-item-size=8m",)) as server:
            async for adapter in opened(MemcacheAdapter([(LOOPBACK, server.port)])):
                keys = [author.key() for _ in range(3)]
                for key, size in zip(keys, (10, 5_000_000, 10), strict=True):
                    request = b"set %b 0 0 %d\r\n%b\r\n" % (wire_of(key), size, b"x" * size)
                    assert await raw(server.port, request) == b"STORED\r\n"
                done = await server_of(adapter).exchange([], [wire_of(keys[1])])
                assert done.items[wire_of(keys[1])].data == b""
                answers = await adapter.read(keys)
                assert [type(answer) for answer in answers] == [Miss] * 3
                created = author.create(keys[1], fields_of())
                assert await adapter.apply([created], Mode.MIRROR) == [APPLIED]
                assert await find(adapter, keys[1]) == created.fields

    async def test_a_value_of_another_schema_is_a_miss_that_nothing_older_may_fill(
        self, private_memcached: MemcachedServer, author: Author
    ) -> None:
        key = author.key()
        older, newer = (author.create(key, {"title": title}) for title in ("older", "newer"))
        schemas = [Schema(author.model, "t", "id", id_type, ()) for id_type in (Type.TEXT, Type.UUID)]
        theirs, ours = (MemcacheAdapter([(LOOPBACK, private_memcached.port)]) for _ in schemas)
        for adapter, schema in zip((theirs, ours), schemas, strict=True):
            await adapter.open()
            await adapter.prepare(schema, create=True)
        await theirs.apply([newer], Mode.MIRROR)
        (miss,) = await ours.read([key])
        assert isinstance(miss, Miss)
        await ours.fill([(Record(key, older.version, older.born, older.fields), miss)])
        assert await find(theirs, key) == newer.fields
        await ours.fill([(Record(key, newer.version, newer.born, newer.fields), miss)])
        assert await find(ours, key) == newer.fields
        for adapter in (theirs, ours):
            await adapter.close()
