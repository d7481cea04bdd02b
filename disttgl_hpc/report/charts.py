"""Charts as plain values: what is drawn, not how. :mod:`~.drawing` turns them into SVG or image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BATCHES, READ, FORWARD, WRITE, BACKWARD, REDUCE, OPTIMISER, CHECKPOINT, EVALUATE, REST = range(10)
"""Kinds of work. Bars and timelines colour by kind; charts.css defines the colours."""
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
"""The kind of work of each phase of a trainer or a daemon."""


@dataclass(frozen=True)
class Line:
    """A series of points (x, y).

    color: number of the series. low, high: the band around a mean, if there is one. is_joined: a line joins the
    points.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = 0
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    is_joined: bool = True


@dataclass(frozen=True)
class LineChart:
    """Lines over one axis. title, x_title: of y and x, with units. Values on logarithmic axes are above 0."""

    title: str
    x_title: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Bar:
    """A stack of parts (kind, amount), side by side."""

    label: str
    parts: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars on one scale. part_names: by kind, the kinds of work unless given."""

    title: str
    x_title: str
    bars: Sequence[Bar]
    part_names: Sequence[str] = WORK_NAMES

    @property
    def kinds(self) -> list[int]:
        """Kinds of parts that occur."""
        return sorted({kind for bar in self.bars for kind, amount in bar.parts if amount > 0})


@dataclass(frozen=True)
class Block:
    """An interval of a track from begin to end, ms. text: its description. mark: a label drawn after it."""

    kind: int
    begin: float
    end: float
    text: str
    mark: str = ""


@dataclass(frozen=True)
class Track:
    """The blocks of one thread. opens_group: it is the first track of a rank."""

    label: str
    blocks: Sequence[Block]
    opens_group: bool = False


@dataclass(frozen=True)
class TimelineChart:
    """Tracks over one axis of milliseconds. steps: (number, begin) of the steps shown."""

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


Chart = LineChart | BarChart | TimelineChart
