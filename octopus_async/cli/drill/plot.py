"""The picture of a drill: latency and backlog over time, with the phases marked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from octopus_async.cli.drill.report import Report
from octopus_async.errors import ConfigurationError

_WRITES, _READS, _AWAY = "#d55e00", "#0072b2", "#cc3311"  # told apart by everybody
_BACKLOG, _BEHIND = "#777777", "#009e73"


def check(path: Path) -> None:
    """Find out before the drill whether its picture can be drawn.

    Raises:
        ConfigurationError: matplotlib is missing, it knows no such format, or the folder is not there.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"--plot needs the package {error.name}, which is not installed: pip install 'octopus-async[cli]'"
        ) from None
    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in known:
        raise ConfigurationError(f"--plot {path}: its ending says the format, one of {', '.join(known)}")
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--plot {path}: there is no folder {path.absolute().parent}")


def draw(report: Report, path: Path) -> None:
    """Draw a drill into a file; its ending says the format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), dpi=120, layout="constrained")
    latency, backlog = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    _draw_latency(latency, report)
    _draw_backlog(backlog, report)
    _mark_phases(latency, report, labelled=True)
    _mark_phases(backlog, report, labelled=False)
    headline = f"{report.primary} and {report.cache}: {report.verdict()[0]}"
    figure.suptitle(headline, x=0.01, ha="left", fontsize=11)
    figure.savefig(path)


def _draw_latency(axes: Any, report: Report) -> None:  # noqa: ANN401 - matplotlib's Axes
    times = [sample.at for sample in report.samples]
    for name, colour in (("write", _WRITES), ("read", _READS)):
        for share, style in (("p99", "-"), ("p50", ":")):
            values = [getattr(sample, f"{name}_{share}") for sample in report.samples]
            axes.plot(
                times,
                [math.nan if value is None else value / 1000 for value in values],
                style,
                marker=".",
                markersize=3,
                color=colour,
                linewidth=1.6,
                label=f"{name}s {share}",
            )
    axes.set_yscale("log")
    axes.set_ylabel("latency, ms")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y", which="major", color="#dddddd", linewidth=0.8)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def _draw_backlog(axes: Any, report: Report) -> None:  # noqa: ANN401 - as above
    times = [sample.at for sample in report.samples]
    behind = [sample.behind for sample in report.samples]
    owed = [sample.backlog - sample.behind for sample in report.samples]
    parts = [("journal, to the primary", owed, _BACKLOG), ("caches, to be told", behind, _BEHIND)]
    shown = [part for part in parts if part[0].startswith("journal") or any(part[1])]
    names, values, colours = zip(*shown, strict=True)
    axes.stackplot(times, *values, labels=names, colors=colours)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("owed, operations")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.set_xlabel("seconds")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)


def _mark_phases(axes: Any, report: Report, *, labelled: bool) -> None:  # noqa: ANN401 - as above
    for phase in report.phases:
        if phase.away:
            axes.axvspan(phase.began, phase.ended, color=_AWAY, alpha=0.12, linewidth=0, zorder=0)
        axes.axvline(phase.began, color="#999999", linewidth=0.6)
        if labelled:
            axes.annotate(
                phase.name,
                ((phase.began + phase.ended) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(
                    0,
                    15 if phase.name.startswith("recovery ") else 4,
                ),  # a row of their own, as they are short
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=_AWAY if phase.away else "#444444",
            )
    axes.set_xlim(0, report.phases[-1].ended)
