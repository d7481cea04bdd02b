"""The compiled loops of synthetic streams: who meets whom, when, and with which features."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.events.tcsr import Ints

WORDS_PER_EVENT = 4
BURST_MEMORY = 64
LARGEST_FEATURE = 1.5
_LOW_HALF = np.uint64(0xFFFFFFFF)
_LOW_QUARTER = np.uint64(0xFFFF)
_MIXERS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Process(NamedTuple):
    """The numbers of a recipe that the loop needs; strides spread ranks over ids, see :func:`_node`."""

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
    """What an event owes to those before it, by the source's rank.

    met: (num_src, lag) destinations of its last events, in a ring. counts: (num_src,) its events so far.
    last_time: (num_src,) of its last event. recent_sources: (64,) of the stream's last events, in a ring.
    clock: (1,) float64, the last event's time before it was rounded down.
    """

    met: Ints
    counts: NDArray[np.int64]
    last_time: NDArray[np.int64]
    recent_sources: NDArray[np.int64]
    clock: NDArray[np.float64]


class Columns(NamedTuple):
    """Room for events. src, dst: (n,) nodes. time, labels: (n,)."""

    src: Ints
    dst: Ints
    time: NDArray[np.int64]
    labels: NDArray[np.int64]


class _Side(NamedTuple):
    """Sources, or destinations, at an event: how many there are, their power law's total, whether one is new."""

    present: int
    total: float
    is_new: bool


@compiled
def _present(event: int, num_events: int, least: int, total: int) -> int:
    """Nodes that take part by an event: ``least`` at the first, ``total`` at the last, one more at a time."""
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
    """A number in [0, 1) of 32 bits."""
    return float(half_word) * 2.0**-32


@compiled
def _power_total(count: int, exponent: float) -> float:
    """The integral of x to the −exponent from 1 to count + 1, which :func:`_power_rank` inverts."""
    if exponent == 1:
        return math.log(count + 1.0)
    return (math.pow(count + 1.0, 1 - exponent) - 1) / (1 - exponent)


@compiled
def _power_rank(word: np.uint64, total: float, count: int, exponent: float) -> int:
    """A rank in [0, count) with a weight of about (rank + 1) to the −exponent, without a table."""
    area = float(word >> np.uint64(11)) * 2.0**-53 * total
    if exponent == 1:
        return min(int(math.exp(area)), count) - 1
    return min(int(math.pow(area * (1 - exponent) + 1, 1 / (1 - exponent))), count) - 1


@compiled
def _node(rank: int, stride: int, count: int) -> int:
    """Id of a rank: neighbouring ranks lie far apart, so that ids tell nothing and caches get no help."""
    return rank * stride % count


@compiled
def _source(process: Process, state: State, words: NDArray[np.uint64], event: int, side: _Side) -> int:
    """Rank of the event's source: a newcomer, one that acted just now, or anyone by activity."""
    if side.is_new:
        return 0 if event == 0 else side.present - 1
    if _unit(words[3] & _LOW_HALF) < process.bursts:
        return int(state.recent_sources[int(words[0] >> np.uint64(32)) % min(event, BURST_MEMORY)])
    return _power_rank(words[0], side.total, side.present, process.activity)


@compiled
def _destination(process: Process, state: State, words: NDArray[np.uint64], rank: int, side: _Side) -> int:
    """The event's destination: a newcomer, one out of the source's past, or anyone by popularity."""
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
    """Class by the source's time since its last event, between 0 and num_src mean gaps in equal ratios."""
    if state.counts[rank] == 0 or process.num_classes < 2:
        return max(process.num_classes - 1, 0)
    idle_gaps = (time - state.last_time[rank]) / process.mean_gap
    share = math.log(1 + idle_gaps) / math.log(1 + process.num_src)
    return min(int(share * process.num_classes), process.num_classes - 1)


@compiled
def _sides(process: Process, event: int, sources: _Side, destinations: _Side) -> tuple[_Side, _Side]:
    """Both sides at an event; totals are kept from the event before where nobody is new."""
    num_sources, num_destinations = _present_sources(process, event), _present_destinations(process, event)
    src_total, dst_total = sources.total, destinations.total
    if num_sources > sources.present:
        src_total = _power_total(num_sources, process.activity)
    if num_destinations > destinations.present:
        dst_total = _power_total(num_destinations, process.popularity)
    # In one set of nodes a newcomer appears as a source; only the very first event brings two.
    brings_destination = num_destinations > destinations.present and (process.num_dst > 0 or event == 0)
    return (
        _Side(num_sources, src_total, num_sources > sources.present),
        _Side(num_destinations, dst_total, brings_destination),
    )


@compiled
def _before(process: Process, event: int) -> tuple[_Side, _Side]:
    """Both sides as they were after the event before this one."""
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
    """Make the events from ``first_event`` on of their words (n, 4), and bring the state forward.

    Words: whom of the sources; whom of the destinations; whether and what to repeat; the gap, and whether in a
    burst.
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
        state.recent_sources[event % BURST_MEMORY] = rank


@compiled
def _mixed(word: np.uint64) -> np.uint64:
    """A bijection of 64-bit words that leaves no pattern (the finaliser of SplitMix64, Steele et al. 2014)."""
    word = (word + _MIXERS[0]) * _MIXERS[1]
    word = (word ^ (word >> np.uint64(27))) * _MIXERS[2]
    return word ^ (word >> np.uint64(31))


@compiled
def fill_features(words: NDArray[np.uint64], dst: Ints, features: NDArray[np.float32]) -> None:
    """Features (n, dim) within ±LARGEST_FEATURE: triangular noise in ±1 around ±½ with the destination's signs.

    words: (n, ⌈dim / 2⌉); each half gives the noise of one feature by its two quarters.
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
