"""Charts as image files of any kind that matplotlib knows. Needs the extra ``plot``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from disttgl_hpc.report.charts import WORK_NAMES, BarChart, Chart, LineChart, TimelineChart
from disttgl_hpc.report.svg import NUM_COLORS, style


def save_chart(chart: Chart, path: Path) -> None:
    """Draw any chart into a file; colours are those of the page."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, wanted for such files only

    rows = {LineChart: 12, BarChart: 0, TimelineChart: 0}[type(chart)]
    rows = rows or len(getattr(chart, "bars", ())) + len(getattr(chart, "tracks", ()))
    size = (5.2, 3.8) if isinstance(chart, LineChart) else (12.0, 1.8 + 0.24 * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_title(chart.title, loc="left", fontsize=11)
    if isinstance(chart, LineChart):
        _lines(chart, axes)
    elif isinstance(chart, BarChart):
        _bars(chart, axes)
    else:
        _timeline(chart, axes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), fontsize=8)
    figure.savefig(path, dpi=150)


def _colors(prefix: str) -> dict[int, str]:
    """The light colours of charts.css: of series (c) or of kinds of work (w)."""
    light = style().partition("@media")[0]
    return {int(number): color for number, color in re.findall(rf"--{prefix}(\d): (#\w+);", light)}


def _lines(chart: LineChart, axes: Any) -> None:
    colors = _colors("c")
    for line in chart.lines:
        color = colors[line.color % NUM_COLORS]
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.18, linewidth=0)
        axes.plot(line.x, line.y, color=color, label=line.name, marker="o", markersize=2.5)
    axes.set(xlabel=chart.x_title)
    axes.grid(alpha=0.4, linewidth=0.5)


def _bars(chart: BarChart, axes: Any) -> None:
    colors = _colors("w")
    lefts = [0.0] * len(chart.bars)
    for kind in chart.kinds:
        widths = [sum(amount for own, amount in bar.parts if own == kind) for bar in chart.bars]
        axes.barh(range(len(widths)), widths, left=lefts, color=colors[kind], label=chart.part_names[kind])
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    axes.set_yticks(range(len(chart.bars)), [bar.label for bar in chart.bars])
    axes.set(xlabel=chart.x_title)
    axes.invert_yaxis()


def _timeline(chart: TimelineChart, axes: Any) -> None:
    colors = _colors("w")
    for kind in chart.kinds:
        for row, track in enumerate(chart.tracks):
            spans = [(block.begin, block.end - block.begin) for block in track.blocks if block.kind == kind]
            axes.broken_barh(spans, (row - 0.38, 0.76), color=colors[kind])
        axes.barh([0], [0], color=colors[kind], label=WORK_NAMES[kind])
    for number, begin in chart.steps:
        axes.axvline(begin, color="0.4", linewidth=0.6)
        axes.text(begin, -0.7, f"step {number}", fontsize=7)
    axes.set_yticks(range(len(chart.tracks)), [track.label for track in chart.tracks], fontsize=8)
    axes.set(xlabel="milliseconds", xlim=chart.bounds)
    axes.invert_yaxis()
