"""What a hostile or broken service may try on the REST adapter, each by name, and the rule that helps."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from octopus_async.errors import BackendFailed, BackendRefused, BackendTimeout, InvalidRecord, Unavailable
from octopus_async.guard import Guard, GuardPolicy
from octopus_async.record import APPLIED, Key, Mode, Status
from octopus_async.testing.contract import Subject
from octopus_async.testing.contract.subject import descriptors, eventually
from octopus_async.testing.operations import fields_of
from tests.adversity.memcache import ScriptedServer
from tests.adversity.rest import DOCUMENT, HEAD, RECORD, VERSION, answering, opened, request_of, to_port


class TestRequestForgery:
    """Rules: a fixed base URL, a key is one segment, no redirects; the address connected to is checked."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, scripted: ScriptedServer, status: int) -> None:
        visits: list[str] = []
        target = await scripted(answering(DOCUMENT, visits))
        to = f"http://127.0.0.1:{target}/records/Book/7".encode()
        reply = b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, to)
        async with opened(to_port(await scripted(answering(reply))), prepared=False) as subject:
            with pytest.raises(BackendFailed, match=f"HTTP {status}"):
                await subject.read(subject.key())
            (outcome,) = await subject.apply(subject.create(subject.key(), fields_of()))
            assert outcome.status is Status.UNKNOWN
            with pytest.raises(BackendFailed, match=f"HTTP {status}"):
                await subject.adapter.probe()
        assert not visits

    async def test_a_redirect_to_a_metadata_service_is_not_followed_either(
        self, scripted: ScriptedServer
    ) -> None:
        to = b"http://169.254.169.254/latest/meta-data/iam/security-credentials/"
        reply = b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % to
        async with opened(to_port(await scripted(answering(reply))), prepared=False) as subject:
            with pytest.raises(BackendFailed, match="HTTP 302") as caught:
                await subject.read(subject.key())
            assert "169.254" not in str(caught.value)

    @pytest.mark.parametrize(
        "id_",
        ["../../admin", "a/b", "a?x=1#y", "a%2Fb", "a b\r\nHost: evil", "@evil.example", "//evil"],
    )
    async def test_a_key_stays_one_segment_below_the_base(self, scripted: ScriptedServer, id_: str) -> None:
        seen: list[str] = []
        port = await scripted(answering(HEAD + b"Content-Length: 0\r\n\r\n", seen))
        async with opened(to_port(port), prepared=False) as subject:
            with pytest.raises(BackendFailed):
                await subject.read(Key("Book", id_))
        _, target, _ = seen[-1].split(" ")
        assert target.startswith("/records/Book/")
        assert target.count("/") == 3
        assert not set(target) & set("?# ")

    @pytest.mark.parametrize("id_", [".", "..", ""])
    async def test_an_id_that_no_url_can_name_is_refused_unsent(
        self, scripted: ScriptedServer, id_: str
    ) -> None:
        seen: list[str] = []
        async with opened(to_port(await scripted(answering(DOCUMENT, seen))), prepared=False) as subject:
            key = Key("Book", id_)
            assert await subject.read(key) == [None]
            for operation in (subject.create(key, fields_of()), subject.delete(key)):
                (outcome,) = await subject.apply(operation)
                assert outcome.status is Status.REJECTED
                assert isinstance(outcome.error, InvalidRecord)
        assert len(seen) == 1

    async def test_loopback_is_refused_unless_it_is_allowed(self, scripted: ScriptedServer) -> None:
        visits: list[str] = []
        port = await scripted(answering(DOCUMENT, visits))
        for allow in ("", "10.0.0.0/8"):
            with pytest.raises(
                BackendFailed, match=r"127\.0\.0\.1 is not public, and the option 'allow'"
            ) as caught:
                await to_port(port, allow=allow).open()
            assert not caught.value.sent
        assert not visits
        async with opened(to_port(port, allow="127.0.0.0/8"), prepared=False):
            assert len(visits) == 1

    async def test_a_name_that_means_another_address_at_the_second_look_gets_nowhere(
        self, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        visits: list[str] = []
        port = await scripted(answering(DOCUMENT, visits))
        answers = iter([["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1", "::1"], ["169.254.169.254"]])

        async def rebinding(*_: object, **__: object) -> list[tuple[Any, ...]]:
            return [
                (
                    socket.AF_INET6 if ":" in address else socket.AF_INET,
                    socket.SOCK_STREAM,
                    6,
                    "",
                    (address, port),
                )
                for address in next(answers)
            ]

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", rebinding)
        first = await loop.getaddrinfo("api.example", port)
        assert first[0][4][0] == "93.184.216.34"  # what a check beforehand would have seen
        for _ in range(3):
            adapter = to_port(port, allow="")
            adapter._endpoint = type(adapter._endpoint)(
                f"http://api.example:{port}/records", adapter._endpoint.addresses
            )
            with pytest.raises(BackendFailed, match="'allow'") as caught:
                await adapter.open()
            assert not caught.value.sent
        assert not visits

    async def test_neither_proxies_nor_passwords_come_from_the_environment(
        self, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        visits: list[str] = []
        proxy = await scripted(answering(DOCUMENT, visits))
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        async with opened(to_port(await scripted(answering(DOCUMENT))), prepared=False):
            assert not visits

    async def test_cookies_are_neither_kept_nor_sent(self, scripted: ScriptedServer) -> None:
        requests: list[bytes] = []

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                requests.append((await request_of(reader))[1])
                writer.write(DOCUMENT.replace(b"Content-Type", b"Set-Cookie: a=b\r\nContent-Type"))

        async with opened(to_port(await scripted(converse)), prepared=False) as subject:
            await subject.adapter.ping()
        assert len(requests) == 2
        assert not any(b"cookie" in request.lower() for request in requests)


class TestAnswersThatDoHarm:
    """Rule: bounded, whole, of the right kind, or no answer at all; the connection is not used again."""

    @pytest.mark.parametrize(
        "reply",
        [
            RECORD + b"Content-Length: 99999999999\r\n\r\n{",
            RECORD + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b" " * 65536 + b"\r\n",
            RECORD + b"Connection: close\r\n\r\n" + b" " * 65536,
        ],
        ids=["a length", "chunks", "until it closes"],
    )
    async def test_an_answer_that_is_too_long_is_cut_off(
        self, scripted: ScriptedServer, reply: bytes
    ) -> None:
        port = await scripted(answering(reply))
        async with opened(to_port(port, max_answer="60KB"), prepared=False) as subject:
            before = descriptors()
            for _ in range(12):
                with pytest.raises(BackendFailed, match="max_answer"):
                    await subject.read(subject.key())
            await subject.adapter.ping()
            await eventually(lambda: descriptors() <= before + 1)

    @pytest.mark.parametrize(
        "reply",
        [
            RECORD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
            RECORD.replace(b"application/json", b"text/html") + b"Content-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            RECORD + b"Content-Length: 7\r\n\r\n" + b"[" * 7,
            RECORD + b"Content-Length: 9\r\n\r\n{}",
            RECORD + b"X: " + b"y" * 70_000 + b"\r\n\r\n{}",
            RECORD + b"".join(b"X-%d: y\r\n" % number for number in range(500)) + b"\r\n{}",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"",
        ],
        ids=[
            "compressed",
            "html",
            "not of the protocol",
            "a proxy's 404",
            "no JSON",
            "cut short",
            "a long header",
            "many headers",
            "no HTTP",
            "a negative length",
            "silence and then the end",
        ],
    )
    async def test_what_is_no_answer_is_neither_a_record_nor_its_absence(
        self, scripted: ScriptedServer, reply: bytes
    ) -> None:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line, _ = await request_of(reader)
            while line.startswith("GET /records HTTP"):
                writer.write(DOCUMENT)
                line, _ = await request_of(reader)
            writer.write(reply)

        async with opened(to_port(await scripted(converse)), prepared=False) as subject:
            with pytest.raises(BackendFailed):
                await subject.read(subject.key())
            (outcome,) = await subject.apply(subject.create(subject.key(), fields_of()))
            assert outcome.status is Status.UNKNOWN
            await subject.adapter.ping()

    async def test_a_slow_answer_ends_at_the_deadline_and_its_connection_with_it(
        self, scripted: ScriptedServer
    ) -> None:
        ended = asyncio.Event()

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while (await request_of(reader))[0].startswith("GET /records HTTP"):
                writer.write(DOCUMENT)
            writer.write(RECORD + b"Content-Length: 100000\r\n\r\n{")
            try:
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            finally:
                ended.set()

        guard = Guard(to_port(await scripted(drip)), policy=GuardPolicy(timeout=0.3))
        await guard.open()
        start = time.monotonic()
        with pytest.raises(BackendTimeout):
            await guard.read([Key("Book", "7")])
        assert time.monotonic() - start < 5
        async with asyncio.timeout(5):
            await ended.wait()
        await guard.ping()
        await guard.close()

    async def test_a_service_that_does_not_offer_what_is_configured_says_so_at_once(
        self, scripted: ScriptedServer
    ) -> None:
        document = HEAD + b'Content-Length: 27\r\n\r\n{"octopus":1,"features":[]}'

        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await request_of(reader)
                writer.write(document)

        with pytest.raises(BackendFailed, match="does not offer bulk, scan"):
            await to_port(await scripted(plain), bulk="true", scan="true").open()


class TestConnectionsThatEnd:
    @pytest.fixture
    async def subject(self, scripted: ScriptedServer) -> AsyncGenerator[Subject]:
        self.answered = 0

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)
            self.answered += 1
            writer.write(DOCUMENT)
            await writer.drain()
            await request_of(reader)  # and then it closes without an answer

        self.port = await scripted(once)
        async with opened(to_port(self.port, connections="1"), prepared=False) as subject:
            yield subject

    async def test_a_kept_connection_that_died_is_tried_once_more_on_another(self, subject: Subject) -> None:
        for _ in range(3):
            await subject.adapter.ping()
        assert self.answered == 4

    async def test_a_second_try_that_cannot_connect_leaves_the_first_in_doubt(self) -> None:
        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)
            writer.write(DOCUMENT)
            await request_of(reader)
            server.close()
            writer.transport.abort()

        server = await asyncio.start_server(once, "127.0.0.1", 0)
        async with opened(to_port(server.sockets[0].getsockname()[1]), prepared=False) as subject:
            (outcome,) = await subject.apply(subject.create(subject.key(), fields_of()))
            assert not server.is_serving()
            assert outcome.status is Status.UNKNOWN
            assert not isinstance(outcome.error, BackendRefused)


class TestAServiceThatIsUnwell:
    async def test_what_stands_behind_a_busy_answer_is_not_tried(self, scripted: ScriptedServer) -> None:
        seen: list[str] = []
        busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
        port = await scripted(answering(busy, seen))
        async with opened(to_port(port, connections="2"), prepared=False) as subject:
            operations = [subject.create(subject.key(), fields_of(count=number)) for number in range(20)]
            outcomes = await subject.adapter.apply(operations, Mode.REPLAY)
            assert {outcome.status for outcome in outcomes} == {Status.UNKNOWN, Status.UNAVAILABLE}
            assert len(seen) <= 3
            error = outcomes[0].error
            assert isinstance(error, Unavailable)
            assert error.retry_after == 7

    async def test_a_record_that_the_service_chokes_on_does_not_keep_back_the_others(
        self, scripted: ScriptedServer
    ) -> None:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                line, request = await request_of(reader)
                if line.startswith("GET"):
                    writer.write(DOCUMENT)
                elif b"poison" in request:
                    writer.write(b"HTTP/1.1 500 Oops\r\nOctopus-Protocol: 1\r\nContent-Length: 0\r\n\r\n")
                else:
                    writer.write(HEAD + b"Octopus-Outcome: applied\r\nContent-Length: 0\r\n\r\n")

        async with opened(to_port(await scripted(converse)), prepared=False) as subject:
            titles = ["good", "poison", *["good"] * 20]
            operations = [subject.create(subject.key(), fields_of(title=title)) for title in titles]
            outcomes = await subject.apply(*operations, mode=Mode.REPLAY)
            assert outcomes.pop(1).status is Status.UNKNOWN
            assert outcomes == [APPLIED] * 21

    async def test_a_tag_that_is_no_version_makes_no_record(self, scripted: ScriptedServer) -> None:
        reply = RECORD.replace(VERSION.encode(), b"17") + b"Content-Length: 2\r\n\r\n{}"
        async with opened(to_port(await scripted(answering(reply))), prepared=False) as subject:
            with pytest.raises(BackendFailed):
                await subject.read(subject.key())
