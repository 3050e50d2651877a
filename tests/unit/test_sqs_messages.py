"""The messages of the SQS sink, the errors of its driver, and its URLs."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from botocore import exceptions

from octopus_async.adapters import _sqs_message as message
from octopus_async.adapters._sqs_client import translate
from octopus_async.adapters.sqs import SqsAdapter
from octopus_async.config import Settings, adapter_for
from octopus_async.errors import BackendFailed, BackendRefused, BackendTimeout, ConfigurationError
from octopus_async.manager import DaoManager
from octopus_async.record import Fields, Key
from octopus_async.testing.contract.values import LOOKALIKES, VALUES
from octopus_async.testing.operations import Author, fields_of

SECRET = "s3cret"  # noqa: S105 - it stands for one


@pytest.mark.parametrize("fields", VALUES.values(), ids=VALUES)
def test_an_operation_comes_back_as_it_was(fields: Fields) -> None:
    author = Author()
    for operation in (
        author.create(author.key("é🔑"), fields),
        author.update(author.key(), fields),
        author.delete(author.key(), born=author.clock.next()),
    ):
        found = message.decode(message.encode(operation))
        assert found._replace(payload=None) == operation._replace(payload=None)


def test_what_sqs_refuses_is_written_as_an_escape() -> None:
    author = Author()
    operation = author.create(author.key("\uffff"), fields_of(title="\ufffe and \uffff"))
    text = message.encode(operation)
    assert not {"\ufffe", "\uffff"} & set(text)
    assert message.decode(text).fields == operation.fields
    assert message.decode(text).key == operation.key


def test_any_changed_character_is_noticed() -> None:
    author = Author()
    text = message.encode(author.create(author.key(), fields_of(title="x", count=1)))
    for place in range(len(text)):
        other = "x" if text[place] != "x" else "y"
        with pytest.raises(ValueError):  # noqa: PT011 - whichever of them
            message.decode(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize("text", ["", "{}", "hello", "[" * 200_000, "\ud800", '{"octopus":1}', "x" * 300_000])
def test_what_is_no_message_of_ours_says_so(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever of them
        message.decode(text)


def test_lookalikes_have_groups_of_their_own() -> None:
    groups = {message.group_of(Key("Book", id_)) for id_ in LOOKALIKES}
    assert len(groups) == len(LOOKALIKES)
    assert all(group.isalnum() and len(group) <= 128 for group in groups)
    assert message.group_of(Key("Bo", "ok")) != message.group_of(Key("Boo", "k"))


def test_batches_are_within_both_limits_and_in_order() -> None:
    assert message.parts([1] * 23, count=10, most=100) == [[*range(10)], [*range(10, 20)], [20, 21, 22]]
    assert message.parts([60, 50, 50, 1], count=10, most=100) == [[0], [1, 2], [3]]
    assert message.parts([], count=10, most=100) == []


def made(kind: Any) -> Exception:  # noqa: ANN401 - their constructors differ
    """One of that class, which says a secret wherever it can."""
    if issubclass(kind, exceptions.ClientError):
        return kind({"Error": {"Code": "AccessDenied", "Message": SECRET}}, "SendMessage")  # type: ignore[no-any-return]
    if hasattr(kind, "fmt"):
        words = dict.fromkeys(_words(kind.fmt), SECRET)
        if issubclass(kind, exceptions.WaiterError):
            words["last_response"] = SECRET
        return kind(**{**words, "error": ValueError(SECRET)} if "error" in words else words)  # type: ignore[no-any-return]
    return kind(SECRET)  # type: ignore[no-any-return]


def _words(text: str) -> list[str]:
    return [part.split("}")[0].split(":")[0].split("!")[0] for part in text.split("{")[1:]]


def test_every_class_of_the_driver_has_its_place() -> None:
    found = [
        kind
        for _, kind in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == exceptions.__name__
    ]
    for kind in found:
        error = translate(made(kind), "sink")
        timed = (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError)
        assert type(error) is (BackendTimeout if issubclass(kind, timed) else BackendFailed), kind
        assert error.backend == "sink"
        assert SECRET not in str(error)
    assert len(found) > 80


def test_a_connection_is_refused_only_where_the_system_said_so() -> None:
    error = exceptions.EndpointConnectionError(endpoint_url=SECRET)
    assert type(translate(error, "sink")) is BackendFailed
    error.__context__ = ConnectionRefusedError(111, "Connect call failed")
    assert type(translate(error, "sink")) is BackendRefused


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sqs://key:s3cret@eu-central-1/orders", "FIFO"),
        ("sqs://key:s3cret@eu-central-1", "queue.fifo"),
        ("sqs://key:s3cret@eu-central-1:99/orders.fifo", "queue.fifo"),
        ("sqs://key:s3cret@eu-central-1/a/b/orders.fifo", "queue.fifo"),
        ("sqs://key:s3cret@eu-central-1/orders.fifo?visibility=0", "visibility"),
        ("sqs://key:s3cret@eu-central-1/orders.fifo?delay=3", "unknown option 'delay'"),
    ],
)
def test_a_url_that_makes_no_sense_says_why_and_keeps_its_secret(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        adapter_for(text)
    assert SECRET not in str(caught.value)


def test_options_reach_the_adapter_and_no_repr_shows_a_secret() -> None:
    adapter = adapter_for("sqs://key:s3cret@eu-central-1/123456789012/orders.fifo?visibility=30&name=orders")
    assert isinstance(adapter, SqsAdapter)
    address = adapter._address
    assert (address.region, address.account, address.queue) == ("eu-central-1", "123456789012", "orders.fifo")
    assert (adapter.name, adapter._visibility, adapter.capabilities.readable) == ("orders", 30, False)
    assert SECRET not in repr(adapter) + repr(address) + str(vars(adapter))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"write": ["sqs://eu-central-1/a.fifo"]}, "sink="),
        ({"write": ["sqlite:///a.db", "sqs://eu-central-1/a.fifo"]}, "sink="),
        ({"write": ["sqlite:///a.db"], "journal": "j", "sink": "memory://"}, "no queue"),
        ({"write": ["sqlite:///a.db"], "sink": "sqs://eu-central-1/a.fifo"}, "needs a journal"),
        (
            {"write": ["sqlite:///a.db"], "journal": "j", "sink": "sqs://eu-central-1/a.fifo?name=sqlite"},
            "two",
        ),
    ],
)
def test_a_queue_is_a_sink_beside_a_journal_and_nothing_else(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        DaoManager(**options)


def test_the_repr_of_settings_hides_the_sinks_url() -> None:
    settings = Settings(write=["sqlite:///a.db"], journal="j", sink="sqs://key:s3cret@eu-central-1/a.fifo")
    assert SECRET not in repr(settings)
