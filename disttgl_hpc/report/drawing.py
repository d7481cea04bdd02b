"""Draws charts: as SVG for the page and as files of their own, or by matplotlib in any file type that it knows.

SVG is small, has no scripts, takes its colours from charts.css, and shows values on hovering. matplotlib is the
extra ``plot``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.report.charts import (
    WORK_NAMES,
    BarChart,
    Chart,
    Line,
    LineChart,
    TimelineChart,
)
from disttgl_hpc.store.files import replacing

NUM_COLORS = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 28, 36  # margins for titles and ticks
_WIDTH, _HEIGHT = 380, 236
_WIDE = 1160
_ROW = 20
_LETTER = 6.2  # mean width of a letter
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@cache
def style() -> str:
    """The text of charts.css."""
    return files("disttgl_hpc.report").joinpath("charts.css").read_text(encoding="utf-8")


def text(x: float, y: float, content: str, classes: str = "") -> str:
    """Text that begins at x; the classes "end" and "mid" make it end there or centre it."""
    return f'<text x="{x:.1f}" y="{y:.1f}"{_class(classes)}>{escape(content)}</text>'


def rectangle(  # noqa: PLR0917
    x: float, y: float, width: float, height: float, classes: str = "", tip: str = ""
) -> str:
    """A rectangle. tip: shown on hovering."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}"'
    if tip:
        return f"<rect {place}{_class(classes)}><title>{escape(tip)}</title></rect>"
    return f"<rect {place}{_class(classes)}/>"


def path(points: Iterable[tuple[float, float]], classes: str, *, closed: bool = False) -> str:
    """A line through points."""
    way = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path d="M{way}{"Z" if closed else ""}"{_class(classes)}/>'


def document(width: float, height: float, label: str, parts: Iterable[str], *, standalone: bool) -> str:
    """An SVG of ``parts``. label: its description for screen readers. standalone: with styles and background."""
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'aria-label="{escape(label)}"'
        + (f' width="{width:.0f}" height="{height:.0f}">' if standalone else ">")
    )
    if standalone:
        opening += f"<style>{style()}</style>" + rectangle(0, 0, width, height, "paper")
    return opening + "".join(parts) + "</svg>\n"


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``, at least one."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)] or [low]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from ``low`` to ``high``, both above 0; with twice and five times them below two decades."""
    factors = (1, 2, 5) if high < 100 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in values if low * 0.999 <= value <= high * 1.001] or [low]


def tick_texts(values: Sequence[float]) -> list[str]:
    """Labels of evenly spaced ticks: as few decimals as distinguish them, thousands and millions shortened."""
    largest = max((abs(value) for value in values), default=0.0)
    unit, sign = next(((unit, sign) for unit, sign in _UNITS if largest >= 10 * unit), (1.0, ""))
    step = min((b - a for a, b in pairwise(values)), default=largest) / unit
    shown = [value / unit for value in values]
    decimals = next((n for n in range(12) if all(abs(v - round(v, n)) <= 0.01 * step for v in shown)), 12)
    return [f"{value:.{decimals}f}{sign if value else ''}" for value in shown]


def draw(chart: Chart, *, standalone: bool = False) -> str:
    """A chart as SVG. standalone: for a file of its own, with legend, styles and background."""
    if isinstance(chart, LineChart):
        return _draw_lines(chart, standalone=standalone)
    if isinstance(chart, BarChart):
        return _draw_bars(chart, standalone=standalone)
    return _draw_timeline(chart, standalone=standalone)


@dataclass(frozen=True)
class _Scale:
    """One axis of a line chart: values from ``low`` to ``high``, drawn from ``start`` to ``stop``."""

    low: float
    high: float
    start: float
    stop: float
    is_log: bool

    @classmethod
    def of(
        cls, values: Sequence[float], start: float, stop: float, *, is_log: bool, from_zero: bool = False
    ) -> _Scale:
        """The scale that holds ``values``, with a margin unless it begins at 0."""
        if is_log:
            low, high = min(values, default=1.0), max(values, default=1.0)
            return cls(low / 1.1, high * 1.1, start, stop, is_log)
        low, high = min(values, default=0.0), max(values, default=1.0)
        if from_zero:
            return cls(min(0.0, low), high, start, stop, is_log)
        margin = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
        return cls(low - margin, high + margin, start, stop, is_log)

    def place(self, value: float) -> float:
        """Where a value is drawn."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (value - low) / (high - low or 1) * (self.stop - self.start)

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """Places and labels of about ``count`` ticks; on a logarithmic axis of as many as it has decades."""
        if self.is_log:
            values = log_ticks(self.low, self.high)
            return [(self.place(value), tick_texts([value])[0]) for value in values]
        values = ticks(self.low, self.high, count)
        return list(zip(map(self.place, values), tick_texts(values), strict=True))


def _draw_lines(chart: LineChart, *, standalone: bool) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    xs = [x for line in chart.lines for x in line.x]
    ys = [y for line in chart.lines for part in (line.y, line.low, line.high) for y in part]
    x_scale = _Scale.of(xs, _LEFT, right, is_log=chart.log_x, from_zero=True)
    y_scale = _Scale.of(ys, bottom, _TOP, is_log=chart.log_y)
    parts = [text(2, 14, chart.title, "title")]
    for y, shown in y_scale.ticks(4):
        parts += [path([(_LEFT, y), (right, y)], "grid"), text(_LEFT - 6, y + 4, shown, "end")]
    for x, shown in x_scale.ticks(5):
        parts += [
            path([(x, bottom), (x, bottom + 4)], "base"),
            text(min(x, right - 4), bottom + 16, shown, "mid"),
        ]
    parts.append(path([(_LEFT, bottom), (right, bottom)], "base"))
    parts.append(text((_LEFT + right) / 2, _HEIGHT - 5, chart.x_title, "mid"))
    for line in chart.lines:
        parts += _draw_line(line, x_scale, y_scale, chart.x_title)
    height: float = _HEIGHT
    if standalone:
        names = [(line.name, f"f{line.color % NUM_COLORS}") for line in chart.lines]
        legend, height = _legend(names, _WIDTH, _HEIGHT + 6)
        parts += legend
    return document(_WIDTH, height, f"{chart.title} against {chart.x_title}", parts, standalone=standalone)


def _draw_line(line: Line, x_scale: _Scale, y_scale: _Scale, x_title: str) -> list[str]:
    """Band, line and points; each point shows its values on hovering."""
    color = line.color % NUM_COLORS

    def places(ys: Sequence[float]) -> list[tuple[float, float]]:
        return [(x_scale.place(x), y_scale.place(y)) for x, y in zip(line.x, ys, strict=True)]

    points, parts = places(line.y), []
    if line.low:
        band = [*places(line.high), *reversed(places(line.low))]
        parts.append(path(band, f"band f{color}", closed=True))
    if len(points) > 1 and line.is_joined:
        parts.append(path(points, f"curve s{color}"))
    radius = 3.0 if len(points) <= 30 else 1.4
    for (x, y), value, at in zip(points, line.y, line.x, strict=True):
        tip = escape(f"{line.name}: {value:.4g} at {at:,.6g} {x_title}")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="f{color}"><title>{tip}</title></circle>'
        )
    return parts


def _draw_bars(chart: BarChart, *, standalone: bool) -> str:
    left = 14 + _LETTER * max((len(bar.label) for bar in chart.bars), default=0)
    width, right = 440, 16
    bottom: float = _TOP + _ROW * len(chart.bars) + 4
    longest = max((sum(amount for _, amount in bar.parts) for bar in chart.bars), default=1.0) or 1.0
    scale = (width - left - right) / longest
    parts = [text(2, 14, chart.title, "title")]
    along = ticks(0, longest, 4)
    for value, shown in zip(along, tick_texts(along), strict=True):
        x = left + value * scale
        parts.append(path([(x, _TOP), (x, bottom)], "grid"))
        parts.append(text(min(x, width - 12), bottom + 14, shown, "mid"))
    for row, bar in enumerate(chart.bars):
        y, x = _TOP + row * _ROW + 3, left
        parts.append(text(left - 8, y + 11, bar.label, "end strong"))
        for kind, amount in bar.parts:
            if amount > 0:
                tip = f"{bar.label}: {chart.part_names[kind]} {amount:,.4g} {chart.x_title}"
                parts.append(rectangle(x, y, amount * scale, _ROW - 6, f"w{kind}", tip))
                x += amount * scale
    parts.append(text((left + width - right) / 2, bottom + 30, chart.x_title, "mid"))
    height = bottom + 36
    if standalone:
        legend, height = _legend(
            [(chart.part_names[kind], f"w{kind}") for kind in chart.kinds], width, height + 4
        )
        parts += legend
    return document(width, height, chart.title, parts, standalone=standalone)


def _draw_timeline(chart: TimelineChart, *, standalone: bool) -> str:
    begin, end = chart.bounds
    left = 14 + _LETTER * max(len(track.label) for track in chart.tracks)
    scale = (_WIDE - left - _RIGHT) / max(end - begin, 1e-9)
    top = 44.0
    parts, y = [text(2, 14, chart.title, "title")], top
    body = []
    for track in chart.tracks:
        y += 6 if track.opens_group else 0
        body.append(rectangle(left, y, _WIDE - left - _RIGHT, _ROW - 5, "faint"))
        body.append(text(left - 8, y + 11, track.label, "end strong" if track.opens_group else "end"))
        for number, block in enumerate(track.blocks):
            x = left + (block.begin - begin) * scale
            width = max(2.5 if block.mark else 0.8, (block.end - block.begin) * scale)
            body.append(rectangle(x, y, width, _ROW - 5, f"w{block.kind}", block.text))
            following = track.blocks[number + 1].begin if number + 1 < len(track.blocks) else end
            if block.mark and (following - block.begin) * scale > width + 8 + _LETTER * len(block.mark):
                body.append(text(x + width + 3, y + 11, block.mark))
        y += _ROW - 2
    for number, moment in chart.steps:
        x = left + (moment - begin) * scale
        body.append(path([(x, top - 4), (x, y)], "base"))
        parts.append(text(x + 2, top - 8, f"step {number}"))
    along = ticks(0, end - begin, 8)
    for value, shown in zip(along, tick_texts(along), strict=True):
        x = left + value * scale
        parts.append(path([(x, y + 2), (x, y + 6)], "base"))
        parts.append(text(min(x, _WIDE - 16), y + 18, shown, "mid"))
    parts.append(text((left + _WIDE) / 2, y + 34, "milliseconds", "mid"))
    height = y + 40
    if standalone:
        legend, height = _legend([(WORK_NAMES[kind], f"w{kind}") for kind in chart.kinds], _WIDE, height + 4)
        parts += legend
    return document(_WIDE, height, chart.title, [*parts, *body], standalone=standalone)


def _legend(names: Sequence[tuple[str, str]], width: float, top: float) -> tuple[list[str], float]:
    """Coloured squares with names, in rows of at most ``width``; and the height at which they end."""
    parts, x, y = [], 8.0, top + 10
    for name, color in names:
        needed = 26 + _LETTER * len(name)
        if x > 8 and x + needed > width:
            x, y = 8.0, y + 18
        parts += [rectangle(x, y - 9, 10, 10, color), text(x + 15, y, name)]
        x += needed
    return parts, y + 12


def check_plot(path: Path) -> None:
    """Raise ConfigError, before anything is computed, if matplotlib is missing or cannot write ``path``."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ConfigError(
            "plots need matplotlib, which is not installed: pip install 'disttgl_hpc[plot]', or leave out --plot"
        ) from error
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: the folder does not exist: create it first")
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in known:
        raise ConfigError(f"{path}: unknown file type of a plot: end its name in .svg, .png or .pdf")


def save_charts(charts: Sequence[Chart], path: Path) -> None:
    """Draw charts side by side into one file by matplotlib, in the light colours of the page."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an optional extra; without pyplot and its global state

    widths, heights = zip(*map(_inches, charts), strict=True)
    figure = Figure(figsize=(sum(widths), max(heights)), layout="constrained")
    panels = figure.subfigures(1, len(charts), squeeze=False, width_ratios=widths)[0]
    for chart, panel in zip(charts, panels, strict=True):
        axes = panel.subplots()
        axes.set_title(chart.title, loc="left", fontsize=11)
        if isinstance(chart, LineChart):
            _plot_lines(chart, axes)
        elif isinstance(chart, BarChart):
            _plot_bars(chart, axes)
        else:
            _plot_timeline(chart, axes)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        if labels:
            panel.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150, format=path.suffix.removeprefix("."))


def _inches(chart: Chart) -> tuple[float, float]:
    """Width and height of a chart."""
    if isinstance(chart, LineChart):
        return 5.2, 3.8
    if isinstance(chart, BarChart):
        return 8.0, 1.8 + 0.24 * len(chart.bars)
    return 12.0, 1.8 + 0.24 * len(chart.tracks)


def _colors(prefix: str) -> dict[int, str]:
    """The light colours of charts.css, of series ("c") or of kinds ("w")."""
    light = style().partition("@media")[0]
    return {int(number): color for number, color in re.findall(rf"--{prefix}(\d): (#\w+);", light)}


def _plot_lines(chart: LineChart, axes: Any) -> None:
    colors = _colors("c")
    for line in chart.lines:
        color = colors[line.color % NUM_COLORS]
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.18, linewidth=0)
        joined = "-" if line.is_joined else "none"
        axes.plot(line.x, line.y, linestyle=joined, color=color, label=line.name, marker="o", markersize=2.5)
    axes.set(
        xlabel=chart.x_title,
        xscale="log" if chart.log_x else "linear",
        yscale="log" if chart.log_y else "linear",
    )
    axes.grid(alpha=0.4, linewidth=0.5)


def _plot_bars(chart: BarChart, axes: Any) -> None:
    colors = _colors("w")
    lefts = [0.0] * len(chart.bars)
    for kind in chart.kinds:
        widths = [sum(amount for own, amount in bar.parts if own == kind) for bar in chart.bars]
        axes.barh(range(len(widths)), widths, left=lefts, color=colors[kind], label=chart.part_names[kind])
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    axes.set_yticks(range(len(chart.bars)), [bar.label for bar in chart.bars])
    axes.set(xlabel=chart.x_title)
    axes.invert_yaxis()


def _plot_timeline(chart: TimelineChart, axes: Any) -> None:
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
