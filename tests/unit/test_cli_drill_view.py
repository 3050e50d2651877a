"""What is seen of a drill: lines where nobody looks live, a picture on a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from octopus_async.cli.drill.conduct import Snapshot, Watcher
from octopus_async.cli.drill.ledger import Fault
from octopus_async.cli.drill.meter import Sample
from octopus_async.cli.drill.stage import Blow, Phase, Place, Stage
from octopus_async.cli.drill.view import LiveView, PlainView, spark, watching
from octopus_async.cli.output import told
from octopus_async.events import BreakerChanged, DeadLettered, ReplayFinished, ReplayProgressed
from octopus_async.guard import GuardStatistics, State
from octopus_async.guard.breaker import BreakerStatistics
from octopus_async.record import Key


async def nothing() -> None:
    pass


AWAY = Phase("primary locked", (Blow("locked", nothing, nothing),))
COURSE = [Phase("healthy"), AWAY, Phase("recovery"), Phase("drain")]
STAGE = Stage(Place("SQLite", "sqlite:///x"), Place("in-process cache", "memory://"), Path())
OPENED = BreakerChanged("sqlite", "writes", "closed", "open", "database is locked")


def guard(writes: State) -> GuardStatistics:
    return GuardStatistics(
        reads=BreakerStatistics(State.CLOSED, 0, 0, 0, 0.0),
        writes=BreakerStatistics(writes, 0, 0, 0, 1.25 if writes is State.OPEN else 0.0),
        queued_reads=0,
        queued_writes=7,
        reads_under_way=0,
        writes_under_way=0,
    )


def snapshot(at: float = 3.0, **changes: int) -> Snapshot:
    return Snapshot(
        at=at,
        backends={"sqlite": guard(State.OPEN), "memory": guard(State.CLOSED)},
        sample=Sample(at, 0.25, 500, 1000, 90, 2_500, None, None, 0, 1234, 0),
        journalled=changes.get("journalled", 2000),
        replayed=changes.get("replayed", 766),
        owed=1234,
        acknowledged=9876,
        faults={Fault.STALE: changes.get("stale", 0)},
        refused_reads=changes.get("refused", 0),
    )


def play(watcher: Watcher, *snapshots: Snapshot) -> None:
    watcher.begin(STAGE, COURSE)
    watcher.phase(0.0, 0)
    watcher.phase(2.0, 1)
    watcher.event(2.5, OPENED)
    for each in snapshots:
        watcher.tick(each)


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), width=110, force_terminal=False, markup=False, emoji=False)


def text_of(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


class TestThePicture:
    @pytest.fixture
    def pictures(self) -> list[RenderableType]:
        return []

    def shown(self, pictures: list[RenderableType], screen: Console, *snapshots: Snapshot) -> str:
        play(LiveView(pictures.append), *snapshots)
        screen.print(pictures[-1])
        return text_of(screen)

    @pytest.mark.parametrize(
        "part",
        [
            *("SQLite", "in-process cache", "healthy", "primary locked", "recovery"),
            *("2,000", "4,000", "90 µs", "2.5 ms", "1,234"),
            *("open, probe in 1.2 s", "closed", "7"),
            *("2,000 journalled, 766 replayed, 1,234 owed", "9,876 acknowledged", "0 stale"),
            "sqlite writes: closed -> open (database is locked)",
        ],
    )
    def test_shows(self, part: str, pictures: list[RenderableType], screen: Console) -> None:
        assert part in self.shown(pictures, screen, snapshot())

    def test_shows_refused_reads_only_where_there_are_some(
        self, pictures: list[RenderableType], screen: Console
    ) -> None:
        assert "refused" not in self.shown(pictures, screen, snapshot())
        assert "12 reads refused" in self.shown(pictures, screen, snapshot(refused=12))

    def test_is_drawn_anew_with_each_slice_of_time(
        self, pictures: list[RenderableType], screen: Console
    ) -> None:
        self.shown(pictures, screen, snapshot(1), snapshot(1.25), snapshot(1.5))
        assert len(pictures) == 3


class TestPlainLines:
    def test_tell_phases_changes_and_figures(self, screen: Console) -> None:
        play(PlainView(screen), snapshot())
        lines = text_of(screen).splitlines()
        assert lines[0].endswith("SQLite is the primary, in-process cache the cache")
        assert lines[1:4] == [
            "   0.00 s  -- healthy",
            "   2.00 s  -- primary locked",
            "   2.50 s  sqlite writes: closed -> open (database is locked)",
        ]
        assert "2,000 writes/s (p99 2.5 ms)" in lines[4]
        assert "4,000 reads/s (p99 -), 1,234 owed, 766 replayed" in lines[4]

    def test_give_figures_once_a_second(self, screen: Console) -> None:
        play(PlainView(screen), *(snapshot(at / 4) for at in range(4, 13)))
        assert text_of(screen).count("writes/s") == 3

    def test_are_what_comes_where_there_is_no_terminal(self, screen: Console) -> None:
        with watching(screen) as watcher:
            assert isinstance(watcher, PlainView)


class TestOfEvents:
    @pytest.mark.parametrize(
        ("event", "line"),
        [
            (OPENED, "sqlite writes: closed -> open (database is locked)"),
            (BreakerChanged("sqlite", "writes", "open", "half-open", "time for a probe"), None),
            (ReplayProgressed("sqlite", 5, 6), None),
            (ReplayFinished("sqlite", 1234, 0.5), "sqlite: replay of 1,234 done in 0.50 s"),
        ],
    )
    def test_what_comes_with_every_write_or_probe_is_left_out(
        self, event: BreakerChanged | ReplayProgressed | ReplayFinished, line: str | None
    ) -> None:
        assert told(event) == line

    def test_nothing_in_them_steers_the_terminal(self) -> None:
        line = told(DeadLettered("sqlite", Key("Book", "\x1b[2J"), "V", "\x9b31m"))
        assert line is not None
        assert line.isprintable()


def test_sparks_are_as_high_as_their_values() -> None:
    assert spark([0, 50, None, 100]) == "▁▅ █"
    assert spark([]) == ""
    assert spark([0, 0]) == "▁▁"
