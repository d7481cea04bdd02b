"""Synthetic event streams: any number of events from a seed, in memory that grows with the nodes only.

Every event draws its own words of a counter-based generator, and all it needs of earlier events (the source's last
destinations, for instance) is kept per node. So a stream does not depend on the chunks it is generated in. The
recipe and the generator come first, then the compiled loops, which draw sources, destinations, times and features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.draws import Purpose, event_words
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import int8_scale, to_int8
from disttgl_hpc.events.tcsr import Ints, index_dtype

KINDS = ("recent", "long-range")
Features = NDArray[np.floating] | NDArray[np.int8]

_WORDS_PER_EVENT = 4
_FEATURES_PER_WORD = 2
_BURST_SOURCES = 64
_LARGEST_FEATURE = 1.5
_LARGEST_PRODUCT = 2**62  # of events and nodes: their product is taken in int64

_LOW_HALF = np.uint64(0xFFFFFFFF)
_LOW_QUARTER = np.uint64(0xFFFF)
_MIXERS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Parameters of a synthetic stream; the fields are the options of ``disttgl generate``.

    num_src, num_dst: sources and destinations; if num_dst is 0, the num_src nodes are both. lag: for kind recent, a
    repeat draws one of the source's last ``lag`` destinations; for kind long-range, it takes the destination of the
    source's event ``lag`` events back. repeat: share of repeats among events whose source has this past. bursts:
    share of events of one of the 64 most recently active sources. activity, popularity: exponents of the power laws
    of sources and destinations. mean_gap: mean time between events. Raises ConfigError for impossible values.
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
        rules = (
            (
                self.num_src >= least and self.num_dst >= 0,
                f"nodes of each kind must be {least} at least, found {self.num_src}: add --nodes or --sources",
            ),
            (
                self.num_events >= max(self.num_src, self.num_dst, 1),
                f"every node occurs, so {self.num_nodes:,} nodes need as many events, found {self.num_events:,}: "
                "increase --events, or use fewer nodes",
            ),
            (
                self.num_events * self.num_nodes < _LARGEST_PRODUCT,
                f"events × nodes must be below 2^62, found {self.num_events:,} and {self.num_nodes:,}: reduce one",
            ),
            (self.kind in KINDS, f"--kind must be {' or '.join(KINDS)}, found {self.kind}"),
            (self.lag >= 1, f"--lag must be at least 1, found {self.lag}"),
            (
                0 <= self.repeat <= 1 and 0 <= self.bursts <= 1,
                f"--repeat and --bursts are shares from 0 to 1, found {self.repeat:g} and {self.bursts:g}",
            ),
            (
                self.activity >= 0 and self.popularity >= 0,
                "--activity and --popularity must not be negative, found "
                f"{self.activity:g} and {self.popularity:g}",
            ),
            (self.mean_gap > 0, f"--mean-gap must be above 0, found {self.mean_gap:g}"),
            (
                self.dim_edge >= 0 and self.num_classes >= 0,
                f"--edge-features and --classes must not be negative, found {self.dim_edge} and {self.num_classes}",
            ),
            (0 <= self.seed < 2**63, f"--seed must be in [0, 2^63), found {self.seed}"),
        )
        for holds, rule in rules:
            if not holds:
                raise ConfigError(rule)

    @property
    def num_nodes(self) -> int:
        """All nodes, N."""
        return self.num_src + self.num_dst

    @property
    def edge_scale(self) -> NDArray[np.float32] | None:
        """(dim_edge,) float32 scale of int8 features; None for floats."""
        if not self.dim_edge or self.feature_dtype != "int8":
            return None
        return int8_scale(np.full(self.dim_edge, _LARGEST_FEATURE))


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
"""The size, time span and repeat rate of JODIE's Wikipedia stream: 31 days of edits, 79 % of them to the page that
the user edited last (Kumar et al., KDD 2019)."""


@dataclass(frozen=True)
class SyntheticEvents:
    """Consecutive events. src, dst: (n,) nodes, int32 if all fit. time: (n,) int64, ascending.

    edge_features: (n, dim_edge) of the recipe's dtype or None. edge_labels: (n,) int64 or None.
    """

    src: Ints
    dst: Ints
    time: NDArray[np.int64]
    edge_features: Features | None
    edge_labels: NDArray[np.int64] | None


def synthetic_events(recipe: Recipe, chunk_events: int) -> Iterator[SyntheticEvents]:
    """The stream of a recipe, ``chunk_events`` at a time, independent of ``chunk_events``.

    Nodes appear one by one over the whole stream; the earlier, the more active (a power law). An event's class is
    the time that its source was idle, on a logarithmic scale; the last class is "very long, or first event".
    Features are noise around ±½, with signs given by the destination.
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
            words_per_event=_WORDS_PER_EVENT,
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
        recent_sources=np.zeros(_BURST_SOURCES, np.int64),
        clock=np.zeros(1, np.float64),
    )


def _stride(count: int) -> int:
    """A number coprime to ``count``: rank · stride mod count spreads active nodes over all ids."""
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


class Process(NamedTuple):
    """Parameters of the loop; strides spread ranks over ids, see :func:`_node`."""

    num_events: int
    num_src: int
    num_dst: int
    src_stride: int
    dst_stride: int
    exactly_lag: bool
    repeat: float
    bursts: float
    activity: float
    popularity: float
    mean_gap: float
    num_classes: int


class State(NamedTuple):
    """What the loop keeps of past events, by rank of the source.

    met: (num_src, lag) destinations of its last events, a ring buffer. counts: (num_src,) its events so far.
    last_time: (num_src,) time of its last event. recent_sources: (64,) sources of the stream's last events, a ring
    buffer. clock: (1,) float64, the last event's time before rounding down.
    """

    met: Ints
    counts: NDArray[np.int64]
    last_time: NDArray[np.int64]
    recent_sources: NDArray[np.int64]
    clock: NDArray[np.float64]


class Columns(NamedTuple):
    """Output arrays of the loop, (n,) each."""

    src: Ints
    dst: Ints
    time: NDArray[np.int64]
    labels: NDArray[np.int64]


class _Side(NamedTuple):
    """Sources, or destinations, at an event: their number, the total of their power law, whether one is new."""

    present: int
    total: float
    is_new: bool


@compiled
def _present(event: int, num_events: int, least: int, total: int) -> int:
    """Number of nodes present at an event: from ``least`` to ``total``, growing by at most one per event."""
    return least + event * (total - least + 1) // num_events


@compiled
def _present_sources(process: Process, event: int) -> int:
    least = 1 if process.num_dst else 2
    return _present(event, process.num_events, least, process.num_src)


@compiled
def _present_destinations(process: Process, event: int) -> int:
    if process.num_dst:
        return _present(event, process.num_events, 1, process.num_dst)
    return _present_sources(process, event)


@compiled
def _unit(half_word: np.uint64) -> float:
    """32 bits as a number in [0, 1)."""
    return float(half_word) * 2.0**-32


@compiled
def _power_total(count: int, exponent: float) -> float:
    """The integral of x^−exponent from 1 to count + 1, which :func:`_power_rank` inverts."""
    if exponent == 1:
        return math.log(count + 1.0)
    return (math.pow(count + 1.0, 1 - exponent) - 1) / (1 - exponent)


@compiled
def _power_rank(word: np.uint64, total: float, count: int, exponent: float) -> int:
    """A rank in [0, count) with probability about (rank + 1)^−exponent, drawn without a table."""
    area = float(word >> np.uint64(11)) * 2.0**-53 * total
    if exponent == 1:
        return min(int(math.exp(area)), count) - 1
    return min(int(math.pow(area * (1 - exponent) + 1, 1 / (1 - exponent))), count) - 1


@compiled
def _node(rank: int, stride: int, count: int) -> int:
    """Id of a rank: neighbouring ranks get distant ids, so ids do not reveal activity nor favour caches."""
    return rank * stride % count


@compiled
def _source(process: Process, state: State, words: NDArray[np.uint64], event: int, side: _Side) -> int:
    """Rank of the event's source: the new node, a recently active one, or any one by activity."""
    if side.is_new:
        return 0 if event == 0 else side.present - 1
    if _unit(words[3] & _LOW_HALF) < process.bursts:
        return int(state.recent_sources[int(words[0] >> np.uint64(32)) % min(event, _BURST_SOURCES)])
    return _power_rank(words[0], side.total, side.present, process.activity)


@compiled
def _destination(process: Process, state: State, words: NDArray[np.uint64], rank: int, side: _Side) -> int:
    """The event's destination: the new node, one of the source's past, or any one by popularity."""
    lag, count = state.met.shape[1], state.counts[rank]
    wants_past = _unit(words[2] >> np.uint64(32)) < process.repeat
    if wants_past and not side.is_new and count >= (lag if process.exactly_lag else 1):
        back = lag
        if not process.exactly_lag:
            back = 1 + int(_unit(words[2] & _LOW_HALF) * min(count, lag))
        return int(state.met[rank, (count - back) % lag])
    other = side.present - 1
    if not side.is_new:
        other = _power_rank(words[1], side.total, side.present, process.popularity)
    if process.num_dst:
        return process.num_src + _node(other, process.dst_stride, process.num_dst)
    if other == rank:
        other = (rank + 1) % side.present
    return _node(other, process.src_stride, process.num_src)


@compiled
def _idle_class(process: Process, state: State, rank: int, time: int) -> int:
    """Class of the time since the source's last event, from 0 to num_src mean gaps on a logarithmic scale."""
    if state.counts[rank] == 0 or process.num_classes < 2:
        return max(process.num_classes - 1, 0)
    idle_gaps = (time - state.last_time[rank]) / process.mean_gap
    share = math.log(1 + idle_gaps) / math.log(1 + process.num_src)
    return min(int(share * process.num_classes), process.num_classes - 1)


@compiled
def _sides(process: Process, event: int, sources: _Side, destinations: _Side) -> tuple[_Side, _Side]:
    """Both sides at an event, given those at the event before it."""
    num_sources, num_destinations = _present_sources(process, event), _present_destinations(process, event)
    src_total, dst_total = sources.total, destinations.total
    if num_sources > sources.present:
        src_total = _power_total(num_sources, process.activity)
    if num_destinations > destinations.present:
        dst_total = _power_total(num_destinations, process.popularity)
    # In a stream with one set of nodes, a new node is a source; only the first event has two new nodes.
    brings_destination = num_destinations > destinations.present and (process.num_dst > 0 or event == 0)
    return (
        _Side(num_sources, src_total, num_sources > sources.present),
        _Side(num_destinations, dst_total, brings_destination),
    )


@compiled
def _before(process: Process, event: int) -> tuple[_Side, _Side]:
    """Both sides after the event before this one."""
    if event == 0:
        return _Side(0, 0.0, False), _Side(0, 0.0, False)
    sources, destinations = _present_sources(process, event - 1), _present_destinations(process, event - 1)
    return (
        _Side(sources, _power_total(sources, process.activity), False),
        _Side(destinations, _power_total(destinations, process.popularity), False),
    )


@compiled
def fill_events(
    process: Process, state: State, words: NDArray[np.uint64], first_event: int, columns: Columns
) -> None:
    """Fill the columns with events from ``first_event`` on, drawn from their words (n, 4), and update the state.

    Words: the source; the destination; whether and what to repeat; the gap, and whether the event is in a burst.
    """
    sources, destinations = _before(process, first_event)
    for row in range(len(words)):
        event = first_event + row
        sources, destinations = _sides(process, event, sources, destinations)
        rank = _source(process, state, words[row], event, sources)
        other = _destination(process, state, words[row], rank, destinations)
        state.clock[0] -= process.mean_gap * math.log(1 - _unit(words[row, 3] >> np.uint64(32)))
        time = int(state.clock[0])
        columns.src[row], columns.dst[row] = _node(rank, process.src_stride, process.num_src), other
        columns.time[row], columns.labels[row] = time, _idle_class(process, state, rank, time)
        state.met[rank, state.counts[rank] % state.met.shape[1]] = other
        state.counts[rank] += 1
        state.last_time[rank] = time
        state.recent_sources[event % _BURST_SOURCES] = rank


@compiled
def _mixed(word: np.uint64) -> np.uint64:
    """A mixing bijection of 64-bit words (the finaliser of SplitMix64, Steele et al. 2014)."""
    word = (word + _MIXERS[0]) * _MIXERS[1]
    word = (word ^ (word >> np.uint64(27))) * _MIXERS[2]
    return word ^ (word >> np.uint64(31))


@compiled
def fill_features(words: NDArray[np.uint64], dst: Ints, features: NDArray[np.float32]) -> None:
    """Features (n, dim) within ±_LARGEST_FEATURE: triangular noise in ±1 around ±½ with the destination's signs.

    words: (n, ⌈dim / 2⌉); the two quarters of each half make the noise of one feature.
    """
    for row in range(len(dst)):
        signs = np.uint64(0)
        for column in range(features.shape[1]):
            if column % 64 == 0:
                signs = _mixed(np.uint64(dst[row]) + (np.uint64(column) << np.uint64(32)))
            half = words[row, column >> 1] >> np.uint64(32 * (column & 1))
            noise = float((half & _LOW_QUARTER) + (half >> np.uint64(16) & _LOW_QUARTER)) * 2.0**-16 - 1
            sign = 0.5 if signs >> np.uint64(column % 64) & np.uint64(1) else -0.5
            features[row, column] = sign + noise
