"""Events tell a person what happened, and go on telling when a listener fails."""

from __future__ import annotations

import logging

import pytest

from octopus_async import Key
from octopus_async.events import BreakerChanged, Event, Events, ReplayFinished, ReplayPaused, log_event

OPENED = BreakerChanged("mysql", "writes", "closed", "open", "connection refused")
PAUSED = ReplayPaused("mysql", "10 rejections in a row")
DONE = ReplayFinished("mysql", 1234, 0.5)


def test_every_event_is_a_sentence_and_no_repr() -> None:
    samples = {int: 1000, float: 2.5, str: "mysql", Key: Key("Book", "7"), tuple: ("mysql",)}
    kinds = Event.__subclasses__()
    assert len(kinds) > 10
    for kind in kinds:
        values = [samples[_class_of(annotation)] for annotation in kind.__annotations__.values()]
        text = str(kind(*values))
        assert kind.__name__ not in text
        assert "mysql" in text


def _class_of(annotation: str) -> type:
    return {"int": int, "float": float, "str": str, "Key": Key}.get(annotation, tuple)


def test_events_go_to_the_standard_logger_at_their_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "octopus_async"):
        for event in (OPENED, PAUSED, DONE):
            log_event(event)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "mysql writes: closed -> open (connection refused)"),
        ("ERROR", "mysql: the replay is paused and waits for an operator: 10 rejections in a row"),
        ("INFO", "mysql: replay of 1,234 done in 0.50 s"),
    ]


def test_a_listener_that_fails_is_logged_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def fail(event: Event) -> None:
        raise LookupError(str(event))

    events = Events(fail, heard.append)
    events.emit(OPENED)
    assert heard == [OPENED]
    assert "LookupError" in caplog.text


def test_who_unsubscribes_hears_no_more() -> None:
    heard: list[Event] = []
    events = Events()
    unsubscribe = events.subscribe(heard.append)
    events.emit(OPENED)
    unsubscribe()
    events.emit(DONE)
    assert heard == [OPENED]
