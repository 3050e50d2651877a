"""Every exception of aiohttp becomes an error of our tree; what an answer means; no secret is shown."""

from __future__ import annotations

import asyncio
import errno
import inspect
import ssl
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions
from aiohttp.client_reqrep import ConnectionKey
from pydantic_core import to_json
from yarl import URL

from octopus_async.adapters import _rest_protocol as protocol
from octopus_async.adapters._rest_addresses import AddressPolicy, AddressRefused
from octopus_async.adapters._rest_client import translate
from octopus_async.adapters._rest_protocol import Answer, Malformed
from octopus_async.adapters.rest import RestAdapter
from octopus_async.config import adapter_for
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    ConfigurationError,
    ConstraintViolated,
    DuplicateRecord,
    RecordNotFound,
    SchemaMismatch,
    StaleRecord,
    Unavailable,
)
from octopus_async.record import NOT_TAKEN, Key, Kind, Mode, Operation, Outcome, Record, Status
from octopus_async.testing.operations import Author, fields_of
from octopus_async.url import BackendURL

SECRET = "s3cret"  # noqa: S105 - it stands for one
KEY = ConnectionKey(
    "api.example", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)
REQUEST: Any = SimpleNamespace(real_url=URL(f"https://app:{SECRET}@api.example/records"))
VERSION = "01M8550EEB00095ACJ4X4BCAPQ"
SPEAKS = {"octopus-protocol": "1"}


def of_parser(kind: type[Exception]) -> Exception:
    parameters = inspect.signature(kind).parameters.values()
    needed = [it for it in parameters if it.default is it.empty and it.kind is it.POSITIONAL_OR_KEYWORD]
    return kind(*[SECRET] * len(needed))


MAKERS: dict[type[Exception], Callable[[Any], Exception]] = {
    client_exceptions.ServerFingerprintMismatch: lambda kind: kind(b"expected", b"got", "api.example", 443),
    aiohttp.ClientConnectorCertificateError: lambda kind: kind(
        KEY, ssl.SSLCertVerificationError("no issuer")
    ),
    client_exceptions.UnixClientConnectorError: lambda kind: kind("/socket", KEY, OSError(2, "No such file")),
    aiohttp.ClientConnectorError: lambda kind: kind(KEY, OSError(errno.EHOSTUNREACH, "No route to host")),
    aiohttp.ClientResponseError: lambda kind: kind(REQUEST, (), message=SECRET),
    http_exceptions.HttpProcessingError: of_parser,
    Exception: lambda kind: kind(SECRET),
}


def made(kind: type[Exception]) -> Exception:
    """One of that class, which says a secret wherever it can."""
    return next(make(kind) for base, make in MAKERS.items() if issubclass(kind, base))


def classes() -> list[type[Exception]]:
    return [
        value
        for module in (client_exceptions, http_exceptions)
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Exception) and value.__module__.startswith("aiohttp")
    ]


def test_every_class_of_the_client_has_its_place() -> None:
    found = classes()
    for kind in found:
        for sent in (True, False):
            error = translate(made(kind), "shop", sent=sent)
            expected = BackendTimeout if issubclass(kind, aiohttp.ConnectionTimeoutError) else BackendFailed
            assert type(error) is expected, kind
            assert error.backend == "shop"
            assert error.sent is sent
            assert "shop" in str(error)
            assert SECRET not in str(error), kind
    assert len(found) >= 35


@pytest.mark.parametrize(
    "cause",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"),
        OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] ..."),
    ],
    ids=["one", "several"],
)
def test_a_refused_connection_means_that_nothing_was_sent_unless_it_was_the_second_try(
    cause: OSError,
) -> None:
    error = aiohttp.ClientConnectorError(KEY, cause)
    assert type(translate(error, "shop", sent=False)) is BackendRefused
    again = translate(error, "shop", sent=True)
    assert type(again) is BackendFailed
    assert again.sent


@pytest.mark.parametrize(
    "error",
    [
        asyncio.IncompleteReadError(b"s3cret", 9),
        ConnectionResetError(104, "s3cret"),
        EOFError(SECRET),
        RuntimeError(SECRET),
        TimeoutError(SECRET),
        TypeError(SECRET),
        ValueError(SECRET),
        OSError(5, SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_the_clients_own_is_a_failure_and_is_not_quoted(error: Exception) -> None:
    found = translate(error, "shop", sent=True)
    assert type(found) is BackendFailed
    assert SECRET not in str(found)


# --- what an answer says


def answer(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
    return Answer(status, SPEAKS | dict(headers or {}), body)


def operation(kind: Kind = Kind.UPDATE) -> Operation:
    author = Author()
    return author.update(author.key(), fields_of(title="x"))._replace(kind=kind)


def outcome(given: Answer) -> Outcome:
    return protocol.outcome_in(given, operation(), "shop")


@pytest.mark.parametrize(
    ("status", "word", "kind"),
    [
        (404, "not-found", RecordNotFound),
        (410, "not-found", RecordNotFound),
        (409, "duplicate", DuplicateRecord),
        (412, "stale", StaleRecord),
        (409, "refused", ConstraintViolated),
        (413, "refused", ConstraintViolated),
        (422, "refused", ConstraintViolated),
    ],
)
def test_what_rejects_a_record_is_a_status_with_its_outcome(status: int, word: str, kind: type) -> None:
    given = answer(status, {"octopus-outcome": word, "etag": f'"{VERSION}"'})
    found = outcome(given)
    assert found.status is Status.REJECTED
    assert type(found.error) is kind


def test_no_other_answer_rejects_a_record_and_only_the_service_can_say_that_nothing_happened() -> None:
    words = [
        None,
        "",
        "applied",
        "superseded",
        "stale",
        "duplicate",
        "not-found",
        "refused",
        "absent",
        "unavailable",
        "x",
    ]
    rejected = []
    for status in range(100, 600):
        for word in words:
            headers = {"etag": f'"{VERSION}"'} | ({} if word is None else {"octopus-outcome": word})
            silent = protocol.outcome_in(Answer(status, headers, b""), operation(), "proxy")
            assert silent.status is Status.UNKNOWN
            found = outcome(answer(status, headers))
            if found.status is Status.REJECTED:
                rejected.append((status, word))
            elif found.status is Status.UNAVAILABLE:
                assert word == "unavailable"
            elif found.status in NOT_TAKEN:
                assert word != "unavailable"
    assert len(rejected) == 7


def test_why_a_record_was_refused_is_told_in_one_short_line() -> None:
    detail = to_json({"detail": "the title\nis \x1b[31mtoo " + "long " * 200})
    headers = {"octopus-outcome": "refused", "content-type": "application/problem+json; charset=utf-8"}
    text = str(outcome(answer(422, headers, detail)).error)
    assert "the title is  [31mtoo long" in text
    assert len(text) < 400


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"detail": 1}', b"\xff", b"[" * 100_000])
def test_a_refusal_without_a_readable_reason_is_one_all_the_same(body: bytes) -> None:
    given = answer(422, {"octopus-outcome": "refused", "content-type": "application/json"}, body)
    assert isinstance(outcome(given).error, ConstraintViolated)


def test_a_superseded_write_has_to_name_what_is_newer() -> None:
    assert outcome(answer(412, {"octopus-outcome": "superseded"})).status is Status.UNKNOWN
    assert outcome(answer(412, {"octopus-outcome": "superseded", "etag": "weak"})).status is Status.UNKNOWN
    found = outcome(answer(412, {"octopus-outcome": "superseded", "etag": f'"{VERSION}"'}))
    assert found == Outcome(Status.SUPERSEDED, stored=VERSION)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("", None)]
)
def test_a_service_under_load_says_when_to_come_again(status: int, text: str, seconds: float | None) -> None:
    error = outcome(answer(status, {"retry-after": text})).error
    assert isinstance(error, BackendFailed)
    assert error.retry_after == seconds


def test_an_unknown_model_is_a_schema_that_does_not_fit() -> None:
    error = outcome(answer(404, {"octopus-outcome": "unknown-model"})).error
    assert isinstance(error, SchemaMismatch)
    assert "ContractRecord" in str(error)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (Answer(404, {}, b""), "base URL"),
        (Answer(200, {"etag": f'"{VERSION}"', "content-type": "application/json"}, b"{}"), "base URL"),
        (answer(404), "HTTP 404"),
        (answer(200, {"etag": f'"{VERSION}"', "content-type": "text/html"}, b"{}"), "HTTP 200"),
        (answer(200, {"etag": f'"{VERSION}"'}, b"{}"), "HTTP 200"),
        (answer(200, {"etag": f'W/"{VERSION}"', "content-type": "application/json"}, b"{}"), "HTTP 200"),
        (answer(200, {"etag": '"17"', "content-type": "application/json"}, b"{}"), "HTTP 200"),
        (answer(200, {"content-type": "application/json"}, b"{}"), "HTTP 200"),
        (
            answer(
                200, {"etag": f'"{VERSION}"', "content-type": "application/json", "octopus-born": "x"}, b"{}"
            ),
            "HTTP 200",
        ),
        (
            answer(
                200, {"etag": f'"{VERSION}"', "content-type": "application/json", "content-encoding": "gzip"}
            ),
            "HTTP 200",
        ),
        (answer(200, {"etag": f'"{VERSION}"', "content-type": "application/json"}, b"[1]"), "no JSON object"),
        (
            answer(200, {"etag": f'"{VERSION}"', "content-type": "application/json"}, b'{"a": NaN}'),
            "no JSON object",
        ),
        (answer(302, {"location": f"https://{SECRET}/"}), "HTTP 302"),
        (answer(206, {"etag": f'"{VERSION}"', "content-type": "application/json"}, b"{}"), "HTTP 206"),
    ],
)
def test_what_is_no_record_is_neither_one_nor_its_absence(given: Answer, problem: str) -> None:
    with pytest.raises(Malformed, match=problem) as caught:
        protocol.record_in(given, Key("Book", "7"))
    assert SECRET not in str(caught.value)


def test_a_record_a_tombstone_and_nothing_are_told_apart() -> None:
    key = Key("Book", "7")
    headers = {
        "etag": f'"{VERSION}"',
        "octopus-born": VERSION,
        "content-type": "application/json; charset=utf-8",
    }
    assert protocol.record_in(answer(200, headers, b'{"a":1}'), key) == Record(
        key, VERSION, VERSION, {"a": 1}
    )
    assert protocol.record_in(answer(410, headers), key) == Record(key, VERSION, VERSION, None)
    assert protocol.record_in(answer(404, {"octopus-outcome": "absent"}), key) is None


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {},
        [],
        [None],
        [1],
        [{}],
        [{"outcome": "x"}],
        [{"outcome": "superseded"}],
        [{"outcome": "applied"}] * 2,
        [{"outcome": "superseded", "stored": "x"}],
        [{"outcome": "stale", "stored": 7}],
        [{"outcome": ["applied"]}],
    ],
)
def test_outcomes_of_many_are_one_for_each_and_words_of_the_protocol(rows: object) -> None:
    given = answer(200, {"content-type": "application/json"}, to_json({"outcomes": rows}))
    with pytest.raises(Malformed):
        protocol.bulk_outcomes(given, [operation()], "shop")


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [],
        [1],
        [{}],
        [{"version": VERSION}],
        [{"version": "x", "born": ""}],
        [{"version": VERSION, "born": 1}],
        [{"version": VERSION, "born": "", "fields": []}],
        [{"version": VERSION, "born": "", "fields": "{}"}],
        [None, None],
    ],
)
def test_records_of_many_are_one_for_each_and_whole(rows: object) -> None:
    given = answer(200, {"content-type": "application/json"}, to_json({"records": rows}))
    with pytest.raises(Malformed):
        protocol.records_in(given, [Key("Book", "7")])


# --- requests


@pytest.mark.parametrize(
    ("id_", "path"),
    [
        ("7", "/Book/7"),
        ("a/b", "/Book/a%2Fb"),
        ("../x", "/Book/..%2Fx"),
        ("%2F", "/Book/%252F"),
        ("a?b#c", "/Book/a%3Fb%23c"),
        ("a b\r\nX: y", "/Book/a%20b%0D%0AX%3A%20y"),
        ("🔑", "/Book/%F0%9F%94%91"),
        ("a@b:c;d", "/Book/a%40b%3Ac%3Bd"),
        (".", None),
        ("..", None),
        ("", None),
    ],
)
def test_a_key_is_one_segment_of_the_path(id_: str, path: str | None) -> None:
    assert protocol.path_of(Key("Book", id_)) == path


def test_conditions_are_the_usual_headers() -> None:
    author = Author()
    created = author.create(author.key(), fields_of())
    conditional = author.update(created.key, fields_of(), if_version=created.version)
    for given, mode, name, value in (
        (created, Mode.LIVE, "If-None-Match", "*"),
        (author.update(created.key, fields_of()), Mode.LIVE, "If-Match", "*"),
        (conditional, Mode.LIVE, "If-Match", f'"{created.version}"'),
        (conditional, Mode.MEND, "If-Match", f'"{created.version}"'),
    ):
        headers = protocol.headers_of(given, mode)
        assert headers[name] == value
        assert headers["Idempotency-Key"] == f'"{given.version}"'
    for given, mode in ((created, Mode.REPLAY), (conditional, Mode.REPLAY), (conditional, Mode.MIRROR)):
        assert not {"If-Match", "If-None-Match"} & set(protocol.headers_of(given, mode))


# --- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "0.0.0.0",  # noqa: S104 - nobody binds to it
        "::",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "169.254.170.2",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "224.0.0.1",
        "239.1.1.1",
        "ff02::1",
        "255.255.255.255",
        "240.0.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:1:2:3:4:5:6",
        "fec0::1",
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="allow"):
        AddressPolicy().check(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8"])
def test_public_addresses_are_not(address: str) -> None:
    AddressPolicy().check(address)


def test_configuration_allows_networks_and_a_metadata_service_by_its_own_name_alone() -> None:
    policy = AddressPolicy(["10.0.0.0/8", "::1", "0.0.0.0/0", "169.254.0.0/16"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "::1", "192.168.0.1", "169.254.1.1"):
        policy.check(address)
    for address in ("169.254.169.254", "100.100.100.200", "::ffff:169.254.169.254", "fd00:ec2::254"):
        with pytest.raises(AddressRefused, match="metadata"):
            policy.check(address)
    AddressPolicy(["169.254.169.254/32"]).check("169.254.169.254")
    AddressPolicy(["fd00:ec2::254"]).check("fd00:ec2::254")


# --- URLs


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rest+https://app:s3cret@one,two/records", "one host"),
        ("rest+https:///records", "one host"),
        ("rest+http://app:s3cret@api.example/records", "https"),
        ("rest+http://api.example/records?token=s3cret", "https"),
        ("rest+https://app:s3cret@api.example/records?token=s3cret", "either"),
        ("rest+https://api.example/records?token=s3cret%0D%0AX", "printable"),
        ("rest+https://app:s3cret@api.example/a/../b", "path"),
        ("rest+https://app:s3cret@api.example/a/%2e%2e/b", "path"),
        ("rest+https://app:s3cret@api.example/a?allow=everything", "allow"),
        ("rest+https://app:s3cret@api.example/a?bulk=perhaps", "bulk"),
        ("rest+https://app:s3cret@api.example/a?tls_ca=/no/such/file", "TLS"),
        ("rest+http://127.0.0.1/a?tls_ca=/no/such/file", "tls_ca"),
        ("rest+https://app:s3cret@api.example/a?verify=false", "unknown option 'verify'"),
        ("rest+https://app:s3cret@" + "x" * 70 + ".example/a", "DNS"),
        ("rest+https://app:s3cret@api%2Fexample/a", "DNS"),
        ("rest+https://app:s3cret@api;example/a", "DNS"),
    ],
)
def test_a_url_that_makes_no_sense_says_why_and_keeps_its_secrets(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        adapter_for(text)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "base", "authorization"),
    [
        (
            "rest+https://app:s3cret@api.example:8443/a/b/",
            "https://api.example:8443/a/b",
            "Basic YXBwOnMzY3JldA==",
        ),
        (
            "rest+https://bücher.example/a%20b?token=s3cret",
            "https://xn--bcher-kva.example/a%20b",
            "Bearer s3cret",
        ),
        ("rest+http://app:s3cret@127.0.0.1:80/", "http://127.0.0.1:80", "Basic YXBwOnMzY3JldA=="),
        ("rest+http://[2001:db8::7]:8000/a", "http://[2001:db8::7]:8000/a", None),
    ],
)
def test_options_reach_the_adapter_and_no_repr_shows_a_secret(
    text: str, base: str, authorization: str | None
) -> None:
    shop = adapter_for(
        f"{text}{'&' if '?' in text else '?'}connections=4&bulk=on&scan=on&max_answer=1MB&name=shop"
    )
    assert isinstance(shop, RestAdapter)
    assert (shop.name, shop._endpoint.base) == ("shop", base)
    assert shop._endpoint.headers.get("Authorization") == authorization
    assert (shop._endpoint.max_answer, shop.capabilities.write_concurrency, shop.capabilities.scan) == (
        2**20,
        2,
        True,
    )
    shown = repr(shop) + repr(shop._endpoint) + str(vars(shop)) + str(BackendURL.parse(text))
    assert SECRET not in shown
    assert "YXBwOnMzY3JldA" not in shown


def test_a_failure_keeps_whatever_the_service_says_to_itself() -> None:
    given = answer(
        500, {"content-type": "application/json", "location": SECRET}, f'{{"detail":"{SECRET}"}}'.encode()
    )
    error: Any = outcome(given).error
    assert isinstance(error, Unavailable)
    assert SECRET not in str(error)
