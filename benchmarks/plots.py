"""Pictures of a run: how far each figure is from its goal, and operations a second by load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.rows import Row

_INK, _GRID, _PAPER = "#222222", "#dddddd", "#ffffff"
_MET, _MISSED, _OURS, _PEER = "#0072b2", "#d55e00", "#0072b2", "#777777"  # told apart by everybody


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw what there is to be drawn of some rows; gives the files."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"goals": _goals(rows), "load": _load(rows), "ycsb": _ycsb(rows)}
    paths: list[Path] = []
    for name, figure in pictures.items():
        if figure is not None:
            paths.append(folder / f"{name}.svg")
            # Text as text: a tenth of the bytes, and it can be searched.
            with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
                figure.savefig(paths[-1], facecolor=_PAPER, metadata={"Date": None})
    return paths


def _goals(rows: Sequence[Row]) -> Figure | None:
    """One bar for each figure: how many times better than its goal it is."""
    judged = [row for row in rows if row.goal is not None and row.ratio]
    if not judged:
        return None
    judged.sort(key=lambda row: int(row.name.split()[0].removeprefix("P")))
    figure, axes = _paper(9, 0.8 + 0.24 * len(judged))
    margins = [_margin(row) for row in judged]
    colours = [_MET if row.met else _MISSED for row in judged]
    places = range(len(judged))
    axes.barh(places, [margin - 1 for margin in margins], left=1, color=colours, height=0.65)
    axes.set_xscale("log")
    axes.axvline(1, color=_INK, linewidth=1)
    axes.set_yticks(places, [_label(row) for row in judged], fontsize=7)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    for place, row, margin in zip(places, judged, margins, strict=True):
        said = f" {row.ratio:.3g} (goal {row.goal}) "
        side = "left" if margin >= 1 else "right"
        axes.text(margin, place, said, va="center", ha=side, fontsize=6.5, color=_INK)
    lowest, highest = min([*margins, 1]), max([*margins, 1])
    axes.set_xlim(lowest / 4, highest * 4)
    axes.set_title("How far each figure is from its goal (right of the line: met)", loc="left", fontsize=10)
    axes.grid(axis="x", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure


def _margin(row: Row) -> float:
    assert row.goal is not None
    assert row.ratio is not None
    bound = float(row.goal[2:])
    return bound / row.ratio if row.goal.startswith("<=") else row.ratio / bound


def _label(row: Row) -> str:
    return f"{row.name} | {row.tasks} task{'s' if row.tasks > 1 else ''} | {row.peer}"


def _load(rows: Sequence[Row]) -> Figure | None:
    """Operations a second against callers, a small picture for each comparison."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        name = row.name.split(" ", 1)[1] if row.name[:2] in ("P1", "P2", "P3", "P4", "P5") else row.name
        if row.ops_per_s and row.peer_ops_per_s and not name.startswith(("YCSB", "P")) and "p99" not in name:
            groups.setdefault((name, row.peer), []).append(row)
    shown = {key: group for key, group in groups.items() if len(group) > 1}
    if not shown:
        return None
    columns = 4
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(11, 0.5 + 2.1 * lines), layout="constrained")
    places = figure.subplots(lines, columns, squeeze=False)
    for axes in places.flat:
        axes.set_visible(False)
    for axes, ((name, peer), group) in zip(places.flat, shown.items(), strict=False):
        axes.set_visible(True)
        _curves(axes, name, peer, sorted(group, key=lambda row: row.tasks))
    figure.suptitle("Operations a second, by callers at the same time", x=0.01, ha="left", fontsize=10)
    return figure


def _curves(axes: Any, name: str, peer: str, group: Sequence[Row]) -> None:  # noqa: ANN401 - matplotlib's Axes
    tasks = [row.tasks for row in group]
    axes.plot(tasks, [row.ops_per_s for row in group], "o-", color=_OURS, markersize=4, label="octopus_async")
    axes.plot(tasks, [row.peer_ops_per_s for row in group], "s--", color=_PEER, markersize=4, label=peer)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(tasks, [f"{count:,}" for count in tasks], fontsize=7)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.tick_params(labelsize=7)
    axes.set_title(name, fontsize=7.5, loc="left")
    axes.legend(fontsize=6, frameon=False)
    _plain(axes)


def _ycsb(rows: Sequence[Row]) -> Figure | None:
    """The mixes: bars side by side, for each number of callers."""
    mixes = [row for row in rows if row.name.startswith("YCSB") and "(" not in row.name]
    counts = sorted({row.tasks for row in mixes})
    if not mixes:
        return None
    figure = Figure(figsize=(4 * len(counts), 3.8), layout="constrained")
    places = figure.subplots(1, len(counts), squeeze=False)
    for axes, tasks in zip(places.flat, counts, strict=True):
        group = [row for row in mixes if row.tasks == tasks]
        names = [row.name.removeprefix("YCSB ") for row in group]
        positions = range(len(group))
        axes.barh(
            [at - 0.2 for at in positions], [row.ops_per_s or 0 for row in group], 0.38, color=_OURS,
            label="octopus_async",
        )  # fmt: skip
        axes.barh(
            [at + 0.2 for at in positions], [row.peer_ops_per_s or 0 for row in group], 0.38, color=_PEER,
            label="by hand",
        )  # fmt: skip
        axes.set_yticks(positions, names if axes is places.flat[0] else [""] * len(names), fontsize=7)
        axes.invert_yaxis()
        axes.set_title(f"{tasks:,} task{'s' if tasks > 1 else ''}", fontsize=8, loc="left")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.tick_params(axis="x", labelsize=7)
        _plain(axes)
    places.flat[0].legend(fontsize=7, frameon=False)
    figure.suptitle("YCSB on SQLite and memcached, operations a second", x=0.01, ha="left", fontsize=10)
    return figure


def _paper(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Any) -> None:  # noqa: ANN401 - matplotlib's Axes
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", which="major", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
