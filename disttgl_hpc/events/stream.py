"""The event stream: what a training run knows of its input, wherever the arrays lie.

Features in a byte each: a column's largest value becomes 127, and the store keeps what a unit stands for.

In which unit the model sees times: its encoding tells elapsed times from 1 to 10^9 apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.tcsr import Ints, TCsr, Times


@dataclass(frozen=True)
class Split:
    """Chronological split: training is [0, train_end), validation [train_end, validation_end), then test."""

    train_end: int
    validation_end: int


@dataclass(frozen=True)
class Targets:
    """Classes that a model is to tell of events, before they happen.

    values: (E,) int64, one of ``num_classes`` each, −1 where nobody knows it and nothing is asked; or
    (E, num_classes) uint8, 1 for every class that holds.
    of_pair: they are told from both ends of an event; otherwise they are its source's. known: (E, dim_known)
    features that are known of an event before it happens, or None; known_scale: (dim_known,) of int8 ones.
    codes: (num_classes, w), how the classes of past events are told, or None if they are not.
    weights: (num_classes,) of the classes in the loss, or None.
    """

    values: NDArray[np.int64] | NDArray[np.uint8]
    num_classes: int
    of_pair: bool = True
    known: NDArray[np.floating] | NDArray[np.int8] | None = None
    known_scale: NDArray[np.float32] | None = None
    codes: NDArray[np.int8] | None = None
    weights: NDArray[np.float32] | None = None

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """Which events (E,) have a class that is known; with several classes, all."""
        return np.ones(len(self.values), np.bool_) if self.is_multi_label else self.values >= 0

    @property
    def is_multi_label(self) -> bool:
        """Whether an event can have several classes, or none."""
        return self.values.ndim > 1


@dataclass(frozen=True)
class EventStream:
    """A continuous-time dynamic graph. Arrays may be read-only memory maps.

    src, dst: (E,) node ids. time: (E,) ascending int64 or float64, as it came. Bipartite streams have sources
    in [0, num_src) and destinations in [num_src, num_nodes); otherwise num_src is 0.
    edge_features: (E, dim_edge) or None; node_features: (N, dim_node) or None. edge_scale: (dim_edge,) where edge
    features are int8, which stand for value · scale; None where they are floats.
    edge_labels: (E,) int64 classes or None; edge_classes: (E, C) uint8, 1 for each class of an event that may have
    several, or None. validation_negatives, test_negatives: nodes (V, n) and (T, m) that the events of these parts
    are to be ranked against, −1 as padding at a row's end; None where none were given.
    static_memory: (N, dim_static) float32, learned of the training split beforehand (paper §3.1), or None; targets:
    what a task asks of events, or None. Neither is part of an event store. time_unit: "s", "ms", "us" or "ns", ""
    where it is not known.
    """

    name: str
    num_nodes: int
    num_src: int
    src: Ints
    dst: Ints
    time: Times
    split: Split
    tcsr: TCsr
    edge_features: NDArray[np.floating] | NDArray[np.int8] | None = None
    node_features: NDArray[np.floating] | None = None
    edge_labels: NDArray[np.int64] | None = None
    edge_scale: NDArray[np.float32] | None = None
    validation_negatives: Ints | None = None
    test_negatives: Ints | None = None
    edge_classes: NDArray[np.uint8] | None = None
    static_memory: NDArray[np.float32] | None = None
    targets: Targets | None = None
    time_unit: str = ""

    @property
    def num_events(self) -> int:
        """Number of events, E."""
        return len(self.src)

    @property
    def units_of_a_second(self) -> float:
        """How many units of time make a second; 1 where the unit is not known."""
        return {"ms": 1e3, "us": 1e6, "ns": 1e9}.get(self.time_unit, 1.0)

    @property
    def dim_edge(self) -> int:
        """Width of the edge features; 0 without them."""
        return 0 if self.edge_features is None else self.edge_features.shape[1]

    @property
    def dim_node(self) -> int:
        """Width of the node features; 0 without them."""
        return 0 if self.node_features is None else self.node_features.shape[1]

    @property
    def dim_static(self) -> int:
        """Width of the static memory; 0 without it."""
        return 0 if self.static_memory is None else self.static_memory.shape[1]


_LARGEST = 127


_LEAST_SCALE = float(np.finfo(np.float32).tiny)  # below it a division would lose its digits, or be by zero


def int8_scale(largest: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale (dim,) float32 of columns whose largest absolute values are ``largest`` (dim,)."""
    return np.maximum(largest / _LARGEST, _LEAST_SCALE).astype(np.float32)


def to_int8(features: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.int8]:
    """Nearest multiples (n, dim) of the scale: what they stand for, value · scale, is off by half of it at most."""
    stored: NDArray[np.int8] = np.rint(features / scale).astype(np.int8)
    return stored


_LEAST, _MOST = 1e4, 1e9  # spans that the encoding sees well as they are


_AIM = 7  # decades of a span that had to be changed


def model_unit(stream: EventStream, wanted: float = 0.0) -> float:
    """How many units of a stream's times make one of the model's: as many as are wanted, if that is not 0.

    Else a second, where the store knows its unit, else the unit itself, as long as the training events span 10^4 to
    10^9 of these: three hours to thirty years in seconds. Else a power of ten of them, so that they span 10^7 to
    10^8.
    """
    if wanted:
        return wanted
    second = stream.units_of_a_second
    times = stream.time[: stream.split.train_end]
    span = (float(times[-1]) - float(times[0])) / second if len(times) else 0.0
    if span == 0 or _LEAST <= span <= _MOST:
        return second
    power: float = 10.0 ** (floor(log10(span)) - _AIM)
    return second * power


def check_training(stream: EventStream) -> None:
    """Raise ConfigError unless there is an event to train on."""
    if stream.split.train_end == 0:
        raise ConfigError(
            f"training needs an event, it has none of {stream.num_events:,}: prepare the events again with another "
            "--split"
        )


def check_split(stream: EventStream) -> None:
    """Raise ConfigError unless training, validation and test each hold an event."""
    split = stream.split
    sizes = (
        split.train_end,
        split.validation_end - split.train_end,
        stream.num_events - split.validation_end,
    )
    if min(sizes) == 0:
        raise ConfigError(
            f"training, validation and test each need an event, they have {sizes[0]:,}, {sizes[1]:,} and "
            f"{sizes[2]:,} of {stream.num_events:,}: prepare the events again with another --split"
        )
