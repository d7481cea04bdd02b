"""The event stream: everything a training run needs to know of its input, in memory or mapped from a store.

Beside it: the checks of a stream's split, the time unit that a model uses, and edge features stored as int8.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.tcsr import Ints, TCsr, Times

_LEAST_SPAN, _LARGEST_SPAN = 1e4, 1e9  # in model time units: the range that the time encoding resolves well
_RESCALED_DECADES = 7  # a span outside this range is rescaled to 10^7 up to 10^8
_LEAST_ELAPSED, _LARGEST_ELAPSED = 1e-30, {"f": 1e38, "i": 2.0**63}  # int64 is subtracted before the cast
_LARGEST_INT8 = 127
_LEAST_SCALE = float(np.finfo(np.float32).tiny)  # division by a subnormal number loses digits


@dataclass(frozen=True)
class Split:
    """Chronological split: training is [0, train_end), validation [train_end, validation_end), then test."""

    train_end: int
    validation_end: int


@dataclass(frozen=True)
class Targets:
    """Event classes that a model predicts before the events happen.

    values: (E,) int64 in [0, num_classes), −1 where the class is unknown and not predicted; or
    (E, num_classes) uint8, 1 for each class of the event.
    of_pair: classes are predicted from both ends of an event, otherwise from its source alone.
    known: (E, dim_known) features that are known before the event happens, or None; known_scale: (dim_known,)
    float32 if these are int8. codes: (num_classes, w) encoding of past events' classes as input features, or None.
    weights: (num_classes,) class weights in the loss, or None.
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
        """Which events (E,) have a known class; all of them if an event can have several."""
        return np.ones(len(self.values), np.bool_) if self.is_multi_label else self.values >= 0

    @property
    def is_multi_label(self) -> bool:
        """Whether an event can have any number of classes."""
        return self.values.ndim > 1


@dataclass(frozen=True)
class EventStream:
    """A continuous-time dynamic graph. Arrays may be read-only memory maps.

    src, dst: (E,) node ids. time: (E,) ascending int64 or float64, as in the input. Bipartite streams have sources
    in [0, num_src) and destinations in [num_src, num_nodes); otherwise num_src is 0.
    edge_features: (E, dim_edge) or None; node_features: (N, dim_node) or None. edge_scale: (dim_edge,) if edge
    features are int8: the feature is value · scale; None for floats.
    edge_labels: (E,) int64 classes or None; edge_classes: (E, C) uint8, 1 for each class of an event that may have
    several, or None. validation_negatives, test_negatives: nodes (V, n) and (T, m) that the events of these parts
    are ranked against, rows padded with −1 at the end; None unless the input provides them.
    static_memory: (N, dim_static) float32, pre-trained on the training split (paper §3.1), or None; targets: the
    classes of a classification task, or None. Event stores hold neither.
    time_unit: "s", "ms", "us" or "ns", "" if unknown.
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
    def units_per_second(self) -> float:
        """Stream time units per second; 1 if the unit is unknown."""
        return {"ms": 1e3, "us": 1e6, "ns": 1e9}.get(self.time_unit, 1.0)

    @property
    def dim_edge(self) -> int:
        """Width of the edge features and of the encoded classes behind them; 0 without both."""
        own = 0 if self.edge_features is None else self.edge_features.shape[1]
        codes = None if self.targets is None else self.targets.codes
        return own + (0 if codes is None else codes.shape[1])

    @property
    def dim_node(self) -> int:
        """Width of the node features; 0 without them."""
        return 0 if self.node_features is None else self.node_features.shape[1]

    @property
    def dim_static(self) -> int:
        """Width of the static memory; 0 without it."""
        return 0 if self.static_memory is None else self.static_memory.shape[1]


def check_training(stream: EventStream) -> None:
    """Raise ConfigError unless there is an event to train on."""
    if stream.split.train_end == 0:
        raise ConfigError(
            f"training needs an event, the split puts all {stream.num_events:,} into validation and test: prepare "
            "the events again with another --split"
        )


def check_split(stream: EventStream) -> None:
    """Raise ConfigError unless training, validation and test each have an event."""
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


def model_unit(stream: EventStream, wanted: float = 0.0) -> float:
    """Stream time units per model time unit: ``wanted``, unless that is 0.

    Otherwise the model's unit is a second (the stream's own unit if that is unknown), provided that the training
    events span 10^4 to 10^9 of these, three hours to thirty years in seconds. A span outside this range is measured
    in the power of ten that brings it to 10^7 up to 10^8: the time encoding resolves elapsed times from 1 to 10^9.
    Raises ConfigError if the span is so long or short that differences of times, int64 or float32, over- or underflow.
    """
    times = stream.time[: stream.split.train_end]
    for part in (stream.time, times):
        _check_span(part)
    if wanted:
        return wanted
    second = stream.units_per_second
    span = (float(times[-1]) - float(times[0])) / second if len(times) else 0.0
    if span == 0 or _LEAST_SPAN <= span <= _LARGEST_SPAN:
        return second
    power: float = 10.0 ** (floor(log10(span)) - _RESCALED_DECADES)
    return second * power


def _check_span(times: Times) -> None:
    """Raise ConfigError unless ascending times are equal, or the span is in the range of their differences."""
    largest = _LARGEST_ELAPSED[times.dtype.kind]
    first, last = times[[0, -1]].tolist() if len(times) else (0, 0)  # Python's integers do not overflow
    if first != last and not _LEAST_ELAPSED <= last - first < largest:
        raise ConfigError(
            f"times must span {_LEAST_ELAPSED:g} to {largest:.3g}, so that a model can compute with their differences; "
            f"they go from {first!r} to {last!r}: multiply or divide the time column by a power of ten, or correct odd "
            "times in it, and prepare again"
        )


def int8_scale(largest: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale (dim,) float32 of int8 columns: their largest absolute values, ``largest`` (dim,), become 127."""
    return np.maximum(largest / _LARGEST_INT8, _LEAST_SCALE).astype(np.float32)


def to_int8(features: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.int8]:
    """Nearest multiples (n, dim) of the scale: value · scale is off by at most half a scale."""
    stored: NDArray[np.int8] = np.rint(features / scale).astype(np.int8)
    return stored
