"""Charts as SVG: small, without scripts, coloured by charts.css, with the values to be seen on hovering."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files

from disttgl_hpc.report.charts import (
    WORK_NAMES,
    BarChart,
    Chart,
    Line,
    LineChart,
    TimelineChart,
    tick_texts,
    ticks,
)

NUM_COLORS = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 28, 36  # room for titles and ticks
_WIDTH, _HEIGHT = 380, 236
_WIDE = 1160
_ROW = 20
_LETTER = 6.2  # width of one, about


@cache
def style() -> str:
    """charts.css."""
    return files("disttgl_hpc.report").joinpath("charts.css").read_text(encoding="utf-8")


def text(x: float, y: float, content: str, classes: str = "") -> str:
    """Text that begins, or by its class ends or is centred, at x."""
    return f'<text x="{x:.1f}" y="{y:.1f}"{_class(classes)}>{escape(content)}</text>'


def rectangle(  # noqa: PLR0917
    x: float, y: float, width: float, height: float, classes: str = "", tip: str = ""
) -> str:
    """A rectangle; ``tip`` is shown when it is pointed at."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}"'
    if tip:
        return f"<rect {place}{_class(classes)}><title>{escape(tip)}</title></rect>"
    return f"<rect {place}{_class(classes)}/>"


def path(points: Iterable[tuple[float, float]], classes: str, *, closed: bool = False) -> str:
    """A line through points."""
    way = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path d="M{way}{"Z" if closed else ""}"{_class(classes)}/>'


def document(width: float, height: float, label: str, parts: Iterable[str], *, alone: bool) -> str:
    """An SVG of these parts. label: what it shows, for those who do not see it. alone: a file of its own."""
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'aria-label="{escape(label)}"' + (f' width="{width:.0f}" height="{height:.0f}">' if alone else ">")
    )
    if alone:
        opening += f"<style>{style()}</style>" + rectangle(0, 0, width, height, "paper")
    return opening + "".join(parts) + "</svg>\n"


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def draw(chart: Chart, *, alone: bool = False) -> str:
    """Any chart as SVG; ``alone``: a file of its own, with legend, colours and background."""
    if isinstance(chart, LineChart):
        return _draw_lines(chart, alone=alone)
    if isinstance(chart, BarChart):
        return _draw_bars(chart, alone=alone)
    return _draw_timeline(chart, alone=alone)


class _Axes:
    """Maps values to places in a plot, and draws its grid, ticks and titles."""

    def __init__(self, chart: LineChart) -> None:
        xs = [x for line in chart.lines for x in line.x]
        ys = [y for line in chart.lines for part in (line.y, line.low, line.high) for y in part]
        self._x_low, self._x_high = min(0.0, *xs) if xs else 0.0, max(xs, default=1.0)
        low, high = min(ys, default=0.0), max(ys, default=1.0)
        margin = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
        self._y_low, self._y_high = low - margin, high + margin

    def x(self, value: float) -> float:
        """Place of an x value."""
        share = (value - self._x_low) / (self._x_high - self._x_low or 1)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Place of a y value."""
        share = (value - self._y_low) / (self._y_high - self._y_low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)

    def draw(self, chart: LineChart) -> list[str]:
        """Title, grid, ticks, title of x."""
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts = [text(2, 14, chart.title, "title")]
        across = ticks(self._y_low, self._y_high, 4)
        for value, shown in zip(across, tick_texts(across), strict=True):
            parts.append(path([(_LEFT, self.y(value)), (right, self.y(value))], "grid"))
            parts.append(text(_LEFT - 6, self.y(value) + 4, shown, "end"))
        along = ticks(self._x_low, self._x_high, 5)
        for value, shown in zip(along, tick_texts(along), strict=True):
            parts.append(path([(self.x(value), bottom), (self.x(value), bottom + 4)], "base"))
            parts.append(text(min(self.x(value), right - 4), bottom + 16, shown, "mid"))
        parts.append(path([(_LEFT, bottom), (right, bottom)], "base"))
        return [*parts, text((_LEFT + right) / 2, _HEIGHT - 5, chart.x_title, "mid")]


def _draw_lines(chart: LineChart, *, alone: bool) -> str:
    axes = _Axes(chart)
    parts = axes.draw(chart)
    for line in chart.lines:
        parts += _draw_line(line, axes, chart)
    height: float = _HEIGHT
    if alone:
        names = [(line.name, f"f{line.color % NUM_COLORS}") for line in chart.lines]
        legend, height = _legend(names, _WIDTH, _HEIGHT + 6)
        parts += legend
    return document(_WIDTH, height, f"{chart.title} against {chart.x_title}", parts, alone=alone)


def _draw_line(line: Line, axes: _Axes, chart: LineChart) -> list[str]:
    """Band, line and, where there are few, points, each of which says its values."""
    color = line.color % NUM_COLORS
    points = [(axes.x(x), axes.y(y)) for x, y in zip(line.x, line.y, strict=True)]
    parts = []
    if line.low:
        upper = [(axes.x(x), axes.y(y)) for x, y in zip(line.x, line.high, strict=True)]
        lower = [(axes.x(x), axes.y(y)) for x, y in zip(line.x, line.low, strict=True)]
        parts.append(path([*upper, *reversed(lower)], f"band f{color}", closed=True))
    if len(points) > 1:
        parts.append(path(points, f"curve s{color}"))
    radius = 3.0 if len(points) <= 30 else 1.4
    for (x, y), value, at in zip(points, line.y, line.x, strict=True):
        tip = escape(f"{line.name}: {value:.4g} at {at:,.6g} {chart.x_title}")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="f{color}"><title>{tip}</title></circle>'
        )
    return parts


def _draw_bars(chart: BarChart, *, alone: bool) -> str:
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
    if alone:
        legend, height = _legend(
            [(chart.part_names[kind], f"w{kind}") for kind in chart.kinds], width, height + 4
        )
        parts += legend
    return document(width, height, chart.title, parts, alone=alone)


def _draw_timeline(chart: TimelineChart, *, alone: bool) -> str:
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
    if alone:
        legend, height = _legend([(WORK_NAMES[kind], f"w{kind}") for kind in chart.kinds], _WIDE, height + 4)
        parts += legend
    return document(_WIDE, height, chart.title, [*parts, *body], alone=alone)


def _legend(names: Sequence[tuple[str, str]], width: float, top: float) -> tuple[list[str], float]:
    """Squares with names in as many rows as they need, and where they end."""
    parts, x, y = [], 8.0, top + 10
    for name, color in names:
        needed = 26 + _LETTER * len(name)
        if x > 8 and x + needed > width:
            x, y = 8.0, y + 18
        parts += [rectangle(x, y - 9, 10, 10, color), text(x + 15, y, name)]
        x += needed
    return parts, y + 12
