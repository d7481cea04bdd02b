"""Synthetic event streams: any number of events from a seed, in memory that grows with the nodes only.

Every event draws its own words of a counter-based generator, and what events owe to earlier ones (who has met whom
last) is kept per node. So a stream is the same whatever chunks it is made in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.draws import Purpose, event_words
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.compact import int8_scale, to_int8
from disttgl_hpc.events.synthetic_loops import (
    BURST_MEMORY,
    LARGEST_FEATURE,
    WORDS_PER_EVENT,
    Columns,
    Process,
    State,
    fill_events,
    fill_features,
)
from disttgl_hpc.events.tcsr import Ints, index_dtype

Features = NDArray[np.floating] | NDArray[np.int8]
KINDS = ("recent", "long-range")
_FEATURES_PER_WORD = 2
_LARGEST_PRODUCT = 2**62


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a synthetic stream is made of; the fields are the options of ``disttgl generate``.

    num_src, num_dst: sources and destinations; with num_dst 0 all num_src nodes are of one set. lag: of kind
    recent, how many of the source's last destinations a repeat chooses from; of kind long-range, how many of the
    source's own events back the one lies whose destination comes again. repeat: share of such events among those
    whose source has that past. bursts: share of events by one of the 64 sources that acted last. activity and
    popularity: exponents of the power laws of sources and destinations. mean_gap: mean time between events.
    Raises ConfigError for values that make no stream.
    """

    num_events: int
    num_src: int
    num_dst: int = 0
    kind: str = "recent"
    lag: int = 5
    repeat: float = 0.7
    bursts: float = 0.3
    activity: float = 1.0
    popularity: float = 0.7
    mean_gap: float = 10.0
    dim_edge: int = 0
    feature_dtype: str = "float32"
    num_classes: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        least = 1 if self.num_dst else 2
        rules = {
            f"nodes of each kind must be {least} at least, found {self.num_src}: add --nodes or --sources": (
                self.num_src >= least and self.num_dst >= 0
            ),
            f"every node occurs, so {self.num_nodes:,} nodes need as many events, found {self.num_events:,}: "
            "add --events, or take fewer nodes": self.num_events >= max(self.num_src, self.num_dst, 1),
            f"events × nodes must be below 2^62, found {self.num_events:,} and {self.num_nodes:,}: take fewer": (
                self.num_events * self.num_nodes < _LARGEST_PRODUCT
            ),
            f"--kind must be {' or '.join(KINDS)}, found {self.kind}": self.kind in KINDS,
            f"--lag must be at least 1, found {self.lag}": self.lag >= 1,
            f"--repeat and --bursts are shares from 0 to 1, found {self.repeat:g} and {self.bursts:g}": (
                0 <= self.repeat <= 1 and 0 <= self.bursts <= 1
            ),
            f"--activity and --popularity must not be negative, found {self.activity:g} and {self.popularity:g}": (
                self.activity >= 0 and self.popularity >= 0
            ),
            f"--mean-gap must be above 0, found {self.mean_gap:g}": self.mean_gap > 0,
            f"--edge-features and --classes must not be negative, found {self.dim_edge} and {self.num_classes}": (
                self.dim_edge >= 0 and self.num_classes >= 0
            ),
            f"--seed must lie in [0, 2^63), found {self.seed}": 0 <= self.seed < 2**63,
        }
        for rule, holds in rules.items():
            if not holds:
                raise ConfigError(rule)

    @property
    def num_nodes(self) -> int:
        """All nodes, N."""
        return self.num_src + self.num_dst

    @property
    def edge_scale(self) -> NDArray[np.float32] | None:
        """(dim_edge,) float32: what stored int8 features are multiplied with; None for floats."""
        if not self.dim_edge or self.feature_dtype != "int8":
            return None
        return int8_scale(np.full(self.dim_edge, LARGEST_FEATURE))


WIKIPEDIA = Recipe(
    num_events=157_474,
    num_src=8_227,
    num_dst=1_000,
    lag=1,
    repeat=0.84,
    bursts=0.55,
    activity=0.75,
    popularity=0.1,
    mean_gap=2_678_373 / 157_474,
    dim_edge=172,
)
"""The counts, the span and the habits of JODIE's Wikipedia stream: 31 days of edits, 79 % of which are of the page
that the user edited last (Kumar et al., KDD 2019)."""


@dataclass(frozen=True)
class SyntheticEvents:
    """Consecutive events. src, dst: (n,) nodes, int32 where all fit. time: (n,) int64, ascending.

    edge_features: (n, dim_edge) of the recipe's dtype or None. edge_labels: (n,) int64 or None.
    """

    src: Ints
    dst: Ints
    time: NDArray[np.int64]
    edge_features: Features | None
    edge_labels: NDArray[np.int64] | None


def synthetic_events(recipe: Recipe, chunk_events: int) -> Iterator[SyntheticEvents]:
    """The stream of a recipe, ``chunk_events`` at a time; the same events whatever that is.

    Nodes turn up one by one over the whole stream, and the earlier the more active (a power law). An event's
    class tells how long its source had been idle, on a logarithmic scale; the last class is "very long, or
    never seen". Features are noise around ±½ with the signs of the destination.
    """
    state = _initial_state(recipe)
    process = _process(recipe)
    for first in range(0, recipe.num_events, chunk_events):
        num_events = min(chunk_events, recipe.num_events - first)
        words = event_words(
            recipe.seed,
            Purpose.SYNTHETIC_EVENTS,
            (0, 0, 0),
            first,
            num_events,
            words_per_event=WORDS_PER_EVENT,
        )
        src, dst = (np.empty(num_events, index_dtype(recipe.num_nodes)) for _ in range(2))
        columns = Columns(src, dst, np.empty(num_events, np.int64), np.empty(num_events, np.int64))
        fill_events(process, state, words, first, columns)
        yield SyntheticEvents(
            src,
            dst,
            columns.time,
            _features(recipe, first, dst) if recipe.dim_edge else None,
            columns.labels if recipe.num_classes else None,
        )


def _process(recipe: Recipe) -> Process:
    return Process(
        num_events=recipe.num_events,
        num_src=recipe.num_src,
        num_dst=recipe.num_dst,
        src_stride=_stride(recipe.num_src),
        dst_stride=_stride(recipe.num_dst),
        exactly_lag=recipe.kind == "long-range",
        repeat=float(recipe.repeat),
        bursts=float(recipe.bursts),
        activity=float(recipe.activity),
        popularity=float(recipe.popularity),
        mean_gap=float(recipe.mean_gap),
        num_classes=recipe.num_classes,
    )


def _initial_state(recipe: Recipe) -> State:
    return State(
        met=np.zeros((recipe.num_src, recipe.lag), index_dtype(recipe.num_nodes)),
        counts=np.zeros(recipe.num_src, np.int64),
        last_time=np.zeros(recipe.num_src, np.int64),
        recent_sources=np.zeros(BURST_MEMORY, np.int64),
        clock=np.zeros(1, np.float64),
    )


def _stride(count: int) -> int:
    """A number coprime to ``count``: rank · stride mod count spreads the active nodes over all ids."""
    stride = max(1, round(count * 0.618))
    while np.gcd(stride, max(count, 1)) != 1:
        stride += 1
    return stride


def _features(recipe: Recipe, first: int, dst: Ints) -> Features:
    words = event_words(
        recipe.seed,
        Purpose.SYNTHETIC_FEATURES,
        (0, 0, 0),
        first,
        len(dst),
        words_per_event=-(-recipe.dim_edge // _FEATURES_PER_WORD),
    )
    features = np.empty((len(dst), recipe.dim_edge), np.float32)
    fill_features(words, dst, features)
    if recipe.edge_scale is not None:
        return to_int8(features, recipe.edge_scale)
    return features if recipe.feature_dtype == "float32" else features.astype(np.float16)
