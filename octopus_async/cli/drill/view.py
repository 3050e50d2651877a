"""What is seen of a drill while it runs: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from octopus_async.cli.drill.conduct import Snapshot, Watcher
from octopus_async.cli.drill.ledger import Fault
from octopus_async.cli.drill.stage import Phase, Stage
from octopus_async.cli.output import told
from octopus_async.events import Event

_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 60
_LINES = 6
_STATE_STYLES = {"closed": "green", "half-open": "yellow"}


@contextmanager
def watching(console: Console) -> Generator[Watcher]:
    """The watcher that suits a console."""
    if not console.is_terminal:
        yield PlainView(console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield LiveView(lambda picture: live.update(picture, refresh=True))


class PlainView:
    """One line for whatever changes: for pipes, logs and CI."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._course: Sequence[Phase] = ()
        self._last: Snapshot | None = None

    def begin(self, stage: Stage, course: list[Phase]) -> None:
        """The stage is set."""
        self._course = course
        self._print(0, f"{stage.primary.label} is the primary, {stage.cache.label} the cache")

    def phase(self, at: float, index: int) -> None:
        """A phase begins."""
        self._print(at, f"-- {self._course[index].name}")

    def tick(self, snapshot: Snapshot) -> None:
        """Every second or so, the figures."""
        if self._last is None or int(snapshot.at) > int(self._last.at):
            self._print(snapshot.at, _figures(snapshot))
        self._last = snapshot

    def event(self, at: float, event: Event) -> None:
        """What the library tells."""
        text = told(event)
        if text is not None:
            self._print(at, text)

    def note(self, at: float, text: str) -> None:
        """What the drill tells."""
        self._print(at, text)

    def _print(self, at: float, text: str) -> None:
        self._console.print(f"{at:7.2f} s  {text}", soft_wrap=True)


class LiveView:
    """A picture that is drawn anew with each slice of time.

    Args:
        show: puts a picture on the screen.
    """

    def __init__(self, show: Callable[[RenderableType], None]) -> None:
        self._show = show
        self._title = ""
        self._course: Sequence[Phase] = ()
        self._index = 0
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._snapshots: deque[Snapshot] = deque(maxlen=_SPARKS)

    def begin(self, stage: Stage, course: list[Phase]) -> None:
        """The stage is set."""
        self._title = f"octopus drill: {stage.primary.label} and {stage.cache.label}"
        self._course = course

    def phase(self, at: float, index: int) -> None:  # noqa: ARG002 - the next picture has the time
        """A phase begins."""
        self._index = index
        self._draw()

    def tick(self, snapshot: Snapshot) -> None:
        """The figures of a slice."""
        self._snapshots.append(snapshot)
        self._draw()

    def event(self, at: float, event: Event) -> None:
        """What the library tells."""
        text = told(event)
        if text is not None:
            self._lines.append(f"{at:6.1f} s  {text}")

    def note(self, at: float, text: str) -> None:
        """What the drill tells."""
        self._lines.append(f"{at:6.1f} s  {text}")
        self._draw()

    def _draw(self) -> None:
        if self._snapshots:
            self._show(self._picture(self._snapshots[-1]))

    def _picture(self, now: Snapshot) -> Panel:
        lines = Text("\n".join(self._lines), style="dim", overflow="ellipsis", no_wrap=True)
        parts: list[RenderableType] = [
            self._phases(),
            self._rates(),
            _backends(now),
            _journal(now),
            _findings(now),
        ]
        spaced = [piece for part in parts for piece in (part, Text())]
        return Panel(Group(*spaced, lines), title=Text(self._title), title_align="left")

    def _phases(self) -> Text:
        text = Text()
        for index, phase in enumerate(self._course):
            if index < self._index:
                style = "dim"
            elif index == self._index:
                style = "bold white on red" if phase.blows else "bold black on green"
            else:
                style = ""
            text.append(f" {phase.name} ", style)
            text.append(" ")
        return text

    def _rates(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="dim")
        table.add_column("")
        for heading in ("per s", "p50", "p99"):
            table.add_column(heading, justify="right", min_width=9)
        table.add_column("p99 over time")
        samples = [snapshot.sample for snapshot in self._snapshots]
        last = samples[-1]
        table.add_row(
            *("writes", f"{last.writes / last.seconds:,.0f}", _time(last.write_p50), _time(last.write_p99)),
            spark([sample.write_p99 for sample in samples]),
        )
        table.add_row(
            *("reads", f"{last.reads / last.seconds:,.0f}", _time(last.read_p50), _time(last.read_p99)),
            spark([sample.read_p99 for sample in samples]),
        )
        table.add_row("backlog", f"{last.backlog:,}", "", "", spark([sample.backlog for sample in samples]))
        return table


def spark(values: Sequence[float | None]) -> str:
    """A line of little bars, the highest value the full height."""
    top = max((value for value in values if value is not None), default=0) or 1
    return "".join(" " if value is None else _BARS[round(value / top * (len(_BARS) - 1))] for value in values)


def _figures(snapshot: Snapshot) -> str:
    sample = snapshot.sample
    return (
        f"{sample.writes / sample.seconds:6,.0f} writes/s (p99 {_time(sample.write_p99)}), "
        f"{sample.reads / sample.seconds:6,.0f} reads/s (p99 {_time(sample.read_p99)}), "
        f"{snapshot.owed:,} owed, {snapshot.replayed:,} replayed"
    )


def _backends(now: Snapshot) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("backend", "reads", "writes", "queued"):
        table.add_column(heading, min_width=11)
    for name, guard in now.backends.items():
        table.add_row(
            name,
            *(_state(breaker.state.value, breaker.retry_in) for breaker in (guard.reads, guard.writes)),
            f"{guard.queued_reads + guard.queued_writes:,}",
        )
    return table


def _state(state: str, retry_in: float) -> Text:
    wait = f", probe in {retry_in:.1f} s" if retry_in else ""
    return Text(f"{state}{wait}", _STATE_STYLES.get(state, "bold red"))


def _journal(now: Snapshot) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(
        Text("journal", "dim"),
        Text(f"{now.journalled:,} journalled, {now.replayed:,} replayed, {now.owed:,} owed"),
        ProgressBar(total=max(1, now.replayed + now.owed), completed=now.replayed, width=30),
    )
    return grid


def _findings(now: Snapshot) -> Text:
    text = Text(f"{now.acknowledged:,} acknowledged   ")
    for fault in (Fault.STALE, Fault.FAILED):
        count = now.faults.get(fault, 0)
        text.append(f"{count:,} {fault.name.lower()}   ", "bold red" if count else "green")
    if now.refused_reads:
        text.append(f"{now.refused_reads:,} reads refused, both down", "yellow")
    return text


def _time(microseconds: float | None) -> str:
    if microseconds is None:
        return "-"
    if microseconds < 1000:  # noqa: PLR2004 - a millisecond
        return f"{microseconds:.0f} µs"
    return f"{microseconds / 1000:.1f} ms" if microseconds < 1_000_000 else f"{microseconds / 1e6:.2f} s"  # noqa: PLR2004 - a second
