"""The REST service killed, stopped, restarted, behind bad networks and under TLS; what clients may ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from octopus_async import DaoManager, Model
from octopus_async.adapters.rest import RestAdapter
from octopus_async.errors import BackendFailed, BackendRefused, BackendTimeout, SchemaMismatch, Unavailable
from octopus_async.guard import Guard, GuardPolicy
from octopus_async.record import APPLIED, Mode, Record, Status
from octopus_async.testing.contract import Subject
from octopus_async.testing.contract.subject import descriptors, eventually
from octopus_async.testing.operations import ALL_TYPES, fields_of
from octopus_async.testing.proxy import FaultyProxy
from octopus_async.testing.servers import REST, RestServer, Server
from octopus_async.url import BackendURL
from tests.adversity.certificate import write_certificate
from tests.adversity.rest import adapter_at, opened


class Book(Model):
    title: str


async def _listens(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> bool:
    return True


class SecureServer(RestServer):
    """One whom the usual greeting, which is not encrypted, tells nothing."""

    kind = replace(REST, greet=_listens)


async def get_their_own_answers(subject: Subject, *, count: int = 50) -> None:
    """Records are created and read at the same time, and each call has its own answer."""
    created = [subject.create(subject.key(), fields_of(count=number)) for number in range(count)]
    async with asyncio.timeout(20):
        assert await asyncio.gather(*[subject.apply(it) for it in created]) == [[APPLIED]] * count
        answers = await asyncio.gather(*[subject.read(it.key) for it in created])
    found = [(answer.key, answer.fields) for (answer,) in answers if isinstance(answer, Record)]
    assert found == [(it.key, it.fields) for it in created]


@pytest.fixture
async def private(private_rest: RestServer) -> AsyncGenerator[Subject]:
    async with opened(adapter_at(private_rest.url)) as subject:
        yield subject


class TestAServiceThatDies:
    async def test_killed_under_calls_it_fails_them_and_is_back_after_its_start(
        self, private: Subject, private_rest: RestServer
    ) -> None:
        kept = await private.have(private.key(), fields_of(title="kept"))
        before = descriptors()
        await private_rest.pause()
        calls = [
            asyncio.ensure_future(private.apply(private.create(private.key(), fields_of()))) for _ in range(3)
        ]
        await asyncio.sleep(0.05)  # until they are sent
        await private_rest.kill()
        for (outcome,) in await asyncio.gather(*calls):
            assert outcome.status is Status.UNKNOWN
        for call in (private.adapter.ping, private.adapter.probe, lambda: private.read(kept.key)):
            with pytest.raises(BackendRefused) as caught:
                await call()
            assert not caught.value.sent
        await eventually(lambda: descriptors() <= before)
        await private_rest.start()
        assert await private.find(kept.key) is not None
        await get_their_own_answers(private)

    async def test_a_batch_finds_nobody_once(self, private_rest: RestServer) -> None:
        singly = adapter_at(private_rest.url, bulk="false", connections="2")
        async with opened(singly) as subject:
            await private_rest.kill()
            operations = [subject.create(subject.key(), fields_of(count=number)) for number in range(100)]
            with pytest.raises(Unavailable) as caught:
                await singly.apply(operations, Mode.REPLAY)
            assert not caught.value.sent

    async def test_connections_that_a_restart_has_closed_are_not_used_again(
        self, private: Subject, private_rest: RestServer
    ) -> None:
        await get_their_own_answers(private)
        await private_rest.restart()
        assert await private.apply(private.create(private.key(), fields_of())) == [APPLIED]

    async def test_writes_of_an_outage_are_replayed(self, private_rest: RestServer, tmp_path: Path) -> None:
        async with DaoManager(
            [private_rest.url, "memory://"], journal=tmp_path / "journal", create_tables=True
        ) as octopus:
            books = octopus.dao(Book)
            kept = Book(title="kept")
            await books.create(kept)
            await private_rest.kill()
            new, gone = Book(title="new"), kept
            receipts = [await books.create(new), await books.delete(gone.id)]
            assert all(receipt.journalled for receipt in receipts)
            await private_rest.start()
            async with asyncio.timeout(30):
                for receipt in receipts:
                    await receipt.settled()
        async with DaoManager([private_rest.url]) as octopus:
            books = octopus.dao(Book)
            assert (await books.get_one(new.id)).title == "new"
            assert await books.read(gone.id) is None


class TestAStoppedServiceHoldsUpNobodyForLong:
    async def test_50_calls_after_one_cancelled_before_its_answer_get_their_own(
        self, private: Subject, private_rest: RestServer
    ) -> None:
        await get_their_own_answers(private)
        before = descriptors()
        for bulk in (False, True):
            await private_rest.pause()
            created = [
                private.create(private.key(), fields_of(title="late")) for _ in range(2 if bulk else 1)
            ]
            calls = [
                asyncio.ensure_future(private.apply(*created)),
                asyncio.ensure_future(private.read(*[it.key for it in created])),
            ]
            await asyncio.sleep(0.05)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            await private_rest.resume()
            await get_their_own_answers(private)
        await eventually(lambda: descriptors() <= before + 8)

    async def test_a_guards_call_ends_at_its_deadline(self, private_rest: RestServer) -> None:
        guard = Guard(adapter_at(private_rest.url), policy=GuardPolicy(timeout=0.3))
        await guard.open()
        await private_rest.pause()
        with pytest.raises(BackendTimeout) as caught:
            await guard.ping()
        assert caught.value.sent
        await private_rest.resume()
        await guard.close()

    async def test_close_does_not_wait_for_it(self, private_rest: RestServer) -> None:
        before = descriptors()
        async with opened(adapter_at(private_rest.url)) as subject:
            await get_their_own_answers(subject)
            await private_rest.pause()
            created = subject.create(subject.key(), fields_of(title="more than the sockets hold" * 400_000))
            call = asyncio.ensure_future(subject.apply(created))
            await asyncio.sleep(0.1)
            start = time.monotonic()
            await subject.adapter.close()
            assert time.monotonic() - start < 5
            (outcome,) = await call
            assert outcome.status is Status.UNKNOWN
        await eventually(lambda: descriptors() <= before)

    @pytest.mark.parametrize("moment", [0, 0.001, 0.003, 0.01])
    async def test_a_cancelled_opening_leaves_no_descriptor(self, rest_server: Server, moment: float) -> None:
        before = descriptors()
        for _ in range(5):
            adapter = adapter_at(rest_server.url)
            opening = asyncio.ensure_future(adapter.open())
            await asyncio.sleep(moment)
            opening.cancel()
            await asyncio.wait([opening])
            await adapter.close()
        await eventually(lambda: descriptors() <= before)


class TestNetworks:
    async def test_an_answer_cut_in_the_middle_is_nobodys(self, rest_server: Server) -> None:
        async with FaultyProxy(rest_server.url) as proxy, opened(adapter_at(proxy.url)) as subject:
            created = [subject.create(subject.key(), fields_of(title="x" * 400)) for _ in range(3)]
            await subject.apply(*created)
            await proxy.slow(400)
            call = asyncio.ensure_future(subject.read(*[it.key for it in created]))
            await asyncio.sleep(0.3)
            assert not call.done()
            call.cancel()
            await asyncio.wait([call])
            await proxy.heal()
            await get_their_own_answers(subject)

    async def test_a_network_that_cuts_leaves_a_write_in_doubt(self, rest_server: Server) -> None:
        async with FaultyProxy(rest_server.url) as proxy, opened(adapter_at(proxy.url)) as subject:
            await proxy.swallow()
            created = subject.create(subject.key(), fields_of(title="x"))
            call = asyncio.ensure_future(subject.apply(created))
            await asyncio.sleep(0.1)
            await proxy.cut()
            (outcome,) = await call
            assert outcome.status is Status.UNKNOWN
            await proxy.heal()
            await get_their_own_answers(subject)


class TestLimits:
    async def test_many_records_that_are_too_long_together_are_read_one_by_one(
        self, rest_server: Server
    ) -> None:
        async with opened(adapter_at(rest_server.url, max_answer="64KB")) as subject:
            created = [subject.create(subject.key(), fields_of(title="x" * 20_000)) for _ in range(8)]
            assert await subject.apply(*created) == [APPLIED] * 8
            answers = await subject.read(*[it.key for it in created])
            assert [answer.key for answer in answers if isinstance(answer, Record)] == [
                it.key for it in created
            ]

    async def test_a_request_that_is_too_long_is_unavailability(self, rest_server: Server) -> None:
        async with opened(adapter_at(rest_server.url)) as subject:
            (outcome,) = await subject.apply(subject.create(subject.key(), fields_of(title="x" * 17_000_000)))
            assert outcome.status is Status.UNKNOWN
            await get_their_own_answers(subject, count=10)

    async def test_a_model_that_the_service_does_not_know_says_so(self, rest_server: Server) -> None:
        schema = replace(ALL_TYPES, model=f"Unknown{uuid4().hex}")
        async with opened(adapter_at(rest_server.url), prepared=False) as subject:
            subject.model = schema.model
            with pytest.raises(SchemaMismatch, match=schema.model):
                await subject.adapter.prepare(schema, create=False)
            for count in (1, 2):
                keys = [subject.key() for _ in range(count)]
                with pytest.raises(SchemaMismatch, match=schema.model):
                    await subject.read(*keys)
                with pytest.raises(SchemaMismatch, match=schema.model):
                    await subject.adapter.apply([subject.create(key, fields_of()) for key in keys], Mode.LIVE)
            await subject.adapter.prepare(schema, create=True)
            await get_their_own_answers(subject, count=5)


class TestTLS:
    @pytest.fixture
    async def server(self, tmp_path: Path) -> AsyncGenerator[RestServer]:
        write_certificate(tmp_path)
        async with SecureServer(tls=tmp_path) as server:
            yield server

    async def test_a_certificate_is_always_checked(self, server: RestServer, tmp_path: Path) -> None:
        async with opened(adapter_at(server.url, tls_ca=str(tmp_path / "certificate.pem"))) as subject:
            await get_their_own_answers(subject)
        (other := tmp_path / "other").mkdir()
        write_certificate(other)
        for options in ({}, {"tls_ca": str(other / "certificate.pem")}):
            with pytest.raises(BackendFailed, match="certificate verify failed") as caught:
                await adapter_at(server.url, **options).open()
            assert not caught.value.sent

    async def test_a_certificate_for_another_name_is_refused(
        self, server: RestServer, tmp_path: Path
    ) -> None:
        url = server.url.replace("127.0.0.1", "localhost", 1)
        with pytest.raises(BackendFailed, match=r"not valid for 'localhost'|Hostname mismatch") as caught:
            await adapter_at(url, allow="127.0.0.1,::1", tls_ca=str(tmp_path / "certificate.pem")).open()
        assert not caught.value.sent

    async def test_a_cancelled_handshake_leaves_no_descriptor(
        self, server: RestServer, tmp_path: Path
    ) -> None:
        before = descriptors()
        for step in range(10):
            adapter = adapter_at(server.url, tls_ca=str(tmp_path / "certificate.pem"))
            opening = asyncio.ensure_future(adapter.open())
            await asyncio.sleep(step * 0.001)
            opening.cancel()
            await asyncio.wait([opening])
            await adapter.close()
        await eventually(lambda: descriptors() <= before)


class TestWhatClientsMayAsk:
    """The reference service refuses what is none of the protocol's, and never with an error of its own."""

    @pytest.mark.parametrize(
        ("request_line", "headers", "body", "status"),
        [
            ("GET ", {"Octopus-Protocol": "0"}, b"", 400),
            ("GET /../etc/passwd", {}, b"", 404),
            ("GET /a/b/c", {}, b"", 405),
            ("POST /Book", {}, b"{}", 405),
            ("GET /Unknown/7", {}, b"", 404),
            ("GET /%FF/7", {}, b"", 400),
            ("PUT /-apply", {}, b"[]", 400),
            ("PUT /-apply", {}, b'{"mode":"live","operations":[1]}', 400),
            ("PUT /-apply", {}, b'{"mode":"x","operations":[]}', 400),
            ("PUT /-apply", {}, b'{"mode":"live","operations":[{"kind":"create"}]}', 400),
            ("POST /-read", {}, b'{"keys":[1]}', 400),
            ("GET /-scan?model=ContractRecord&limit=x", {}, b"", 400),
            ("PUT /ContractRecord/7", {}, b"{}", 400),
            ("PUT /ContractRecord/7", {"Octopus-Kind": "create"}, b"{}", 400),
            ("PUT /ContractRecord/7", {"Octopus-Kind": "create", "Octopus-Mode": "live"}, b"{}", 400),
            ("DELETE /ContractRecord/7", {"Octopus-Kind": "create", "Octopus-Mode": "live"}, b"", 400),
        ],
    )
    async def test_it_is_refused(
        self, rest_server: Server, request_line: str, headers: dict[str, str], body: bytes, status: int
    ) -> None:
        method, path = request_line.split(" ")
        async with opened(adapter_at(rest_server.url)) as subject:
            base = adapter_at(rest_server.url)._endpoint.base
            async with (
                aiohttp.ClientSession(headers={"Octopus-Protocol": "1"}) as session,
                session.request(method, base + path, headers=headers, data=body or None) as answer,
            ):
                assert answer.status == status
                assert answer.headers["Octopus-Protocol"] == "1"
            await subject.adapter.ping()


async def test_no_message_of_a_failure_shows_a_secret(
    unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    url = BackendURL.parse(f"rest+http://app:s3cret@127.0.0.1:{unused_tcp_port}/records?allow=127.0.0.1")
    for given in (url, replace(url, user="", password="", options={**url.options, "token": "s3cret"})):
        adapter = RestAdapter.from_url(given)
        with pytest.raises(BackendRefused) as caught:
            await adapter.open()
        chain = [caught.value, caught.value.__cause__, caught.value.__context__]
        assert not any("s3cret" in f"{error!r} {error}" for error in chain)
    assert "s3cret" not in caplog.text
