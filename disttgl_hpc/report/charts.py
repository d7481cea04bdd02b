"""Charts as plain values: what is drawn, not how. Drawn by :mod:`~.svg` and, for other files, :mod:`~.drawn`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BATCHES, READ, FORWARD, WRITE, BACKWARD, REDUCE, OPTIMISER, CHECKPOINT, EVALUATE, REST = range(10)
"""Kinds of work, as colours of bars and timelines; see charts.css."""
WORK_NAMES = (
    "load batches",
    "read memory",
    "forward",
    "write memory",
    "backward",
    "sum gradients",
    "optimiser",
    "checkpoint",
    "evaluate",
    "rest",
)
WORK = {
    "load": BATCHES,
    "sample": BATCHES,
    "read": READ,
    "inputs": FORWARD,
    "forward": FORWARD,
    "write": WRITE,
    "backward": BACKWARD,
    "reduce": REDUCE,
    "optimiser": OPTIMISER,
    "checkpoint": CHECKPOINT,
    "snapshot": CHECKPOINT,
    "evaluate": EVALUATE,
    "wait": REST,
}
"""Which kind of work a phase of a trainer or a daemon is."""


@dataclass(frozen=True)
class Line:
    """A line through points (x, y), with a band around it if it is a mean. color: number of its series."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = 0
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class LineChart:
    """Lines over one axis. title: what y is, with its unit. x_title: the same of x."""

    title: str
    x_title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Bar:
    """A stack of parts, (kind of work, amount), lying one after the other."""

    label: str
    parts: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars on one scale; parts are kinds of work, or one thing (``part_names``)."""

    title: str
    x_title: str
    bars: Sequence[Bar]
    part_names: Sequence[str] = WORK_NAMES

    @property
    def kinds(self) -> list[int]:
        """Parts that occur."""
        return sorted({kind for bar in self.bars for kind, amount in bar.parts if amount > 0})


@dataclass(frozen=True)
class Block:
    """A stretch of a track, begin and end in ms, with what to say about it, and a mark to write behind it."""

    kind: int
    begin: float
    end: float
    text: str
    mark: str = ""


@dataclass(frozen=True)
class Track:
    """What one thread of work did; ``opens_group``: a rank begins with it."""

    label: str
    blocks: Sequence[Block]
    opens_group: bool = False


@dataclass(frozen=True)
class TimelineChart:
    """Tracks over one axis of milliseconds. steps: (number, begin) of the steps that are seen."""

    title: str
    tracks: Sequence[Track]
    steps: Sequence[tuple[int, float]]

    @property
    def kinds(self) -> list[int]:
        """Kinds of work that occur."""
        return sorted({block.kind for track in self.tracks for block in track.blocks})

    @property
    def bounds(self) -> tuple[float, float]:
        """First begin and last end, ms."""
        blocks = [block for track in self.tracks for block in track.blocks]
        return min(block.begin for block in blocks), max(block.end for block in blocks)


_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
Chart = LineChart | BarChart | TimelineChart


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``, at least one."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)] or [low]


def tick_texts(values: Sequence[float]) -> list[str]:
    """Ticks with as few decimals as tell them apart, the same number for all; thousands and millions shortened."""
    largest = max((abs(value) for value in values), default=0.0)
    unit, sign = next(((unit, sign) for unit, sign in _UNITS if largest >= 10 * unit), (1.0, ""))
    step = min((b - a for a, b in pairwise(values)), default=largest) / unit
    shown = [value / unit for value in values]
    decimals = next((n for n in range(12) if all(abs(v - round(v, n)) <= 0.01 * step for v in shown)), 12)
    return [f"{value:.{decimals}f}{sign if value else ''}" for value in shown]
