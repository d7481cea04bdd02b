"""Statistics of an event stream: degrees, gaps, repeats, ties. Memory is bounded for streams of any length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.events.tcsr import Ints, TCsr, Times

_CHUNK = 1 << 22
_LEVELS = {"min": 0.0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "99 %": 0.99, "max": 1.0}
Quantiles = dict[str, float]


@dataclass(frozen=True)
class StreamStatistics:
    """Counts and quantiles of a stream; times and gaps in the stream's own unit.

    degrees: number of events per node. gaps: time between consecutive events of a node; empty if no node has two.
    repeated_events: events whose (src, dst) pair occurred before. tied_events: events that share their time with
    another. edge_class_counts: events per edge class; empty without labels.
    """

    first_time: float
    last_time: float
    degrees: Quantiles
    gaps: Quantiles
    repeated_events: int
    self_loops: int
    tied_events: int
    distinct_times: int
    edge_class_counts: dict[int, int]


def describe(stream: EventStream) -> StreamStatistics:
    """All statistics of a stream with at least one event; exact, except that gaps of long streams are sampled."""
    tied_events, distinct_times = count_ties(stream.time)
    return StreamStatistics(
        first_time=stream.time[0].item(),
        last_time=stream.time[-1].item(),
        degrees=quantiles(np.diff(stream.tcsr.indptr)),
        gaps=quantiles(sampled_gaps(stream.tcsr)),
        repeated_events=stream.num_events - count_distinct_pairs(stream.src, stream.dst, stream.num_nodes),
        self_loops=sum(
            int((stream.src[part] == stream.dst[part]).sum()) for part in _parts(stream.num_events)
        ),
        tied_events=tied_events,
        distinct_times=distinct_times,
        edge_class_counts=_class_counts(stream),
    )


def quantiles(values: NDArray[np.number]) -> Quantiles:
    """Quantiles of values (n,) at fixed levels from min to max, each a value that occurs; empty if n is 0."""
    if not len(values):
        return {}
    found = np.quantile(values, list(_LEVELS.values()), method="inverted_cdf")
    return {level: value.item() for level, value in zip(_LEVELS, found, strict=True)}


def sampled_gaps(tcsr: TCsr, limit: int = _CHUNK) -> Times:
    """Times between consecutive events of a node: all of up to ``limit`` entries, beyond that every n-th."""
    stride = -(-len(tcsr.times) // limit)
    later = np.arange(1, len(tcsr.times), max(1, stride))
    same_node = np.searchsorted(tcsr.indptr, later, side="left")
    later = later[tcsr.indptr[same_node] != later]
    gaps: Times = tcsr.times[later] - tcsr.times[later - 1]
    return gaps


def count_distinct_pairs(src: Ints, dst: Ints, num_nodes: int, limit: int = _CHUNK) -> int:
    """Number of distinct (src, dst) pairs, counted by remainder of the source to bound memory. src, dst: (E,)."""
    rounds = -(-len(src) // limit)
    count = 0
    for remainder in range(rounds):
        keys = [_keys(src[part], dst[part], num_nodes, rounds, remainder) for part in _parts(len(src))]
        count += len(np.unique(np.concatenate(keys)))
    return count


def _keys(src: Ints, dst: Ints, num_nodes: int, rounds: int, remainder: int) -> NDArray[np.uint64]:
    """A key per pair whose source has this remainder; ids below 2³² cannot overflow it."""
    chosen = src % rounds == remainder
    keys: NDArray[np.uint64] = src[chosen].astype(np.uint64) * np.uint64(num_nodes) + dst[chosen].astype(
        np.uint64
    )
    return keys


def count_ties(time: Times) -> tuple[int, int]:
    """Number of events that share their time with another, and of distinct times. time: (E,) ascending."""
    tied, distinct = 0, 0
    for part in _parts(len(time)):
        start, stop = max(part.start - 1, 0), min(part.stop + 1, len(time))
        same = np.concatenate([[False], time[start + 1 : stop] == time[start : stop - 1], [False]])
        as_previous, as_next = same[:-1], same[1:]
        inner = slice(part.start - start, part.start - start + min(part.stop, len(time)) - part.start)
        tied += int((as_previous | as_next)[inner].sum())
        distinct += int((~as_previous[inner]).sum())
    return tied, distinct


def _class_counts(stream: EventStream) -> dict[int, int]:
    """Events per edge class; an event may have several classes."""
    if stream.edge_classes is not None:
        sums = [stream.edge_classes[part].sum(axis=0, dtype=np.int64) for part in _parts(stream.num_events)]
        return dict(enumerate(np.sum(sums, axis=0).tolist()))
    return {} if stream.edge_labels is None else count_values(stream.edge_labels)


def count_values(labels: NDArray[np.int64]) -> dict[int, int]:
    """Number of occurrences of each value, ascending by value; labels: (n,)."""
    counts: Counter[int] = Counter()
    for part in _parts(len(labels)):
        values, found = np.unique(labels[part], return_counts=True)
        counts.update(dict(zip(values.tolist(), found.tolist(), strict=True)))
    return dict(sorted(counts.items()))


def _parts(length: int) -> Iterator[slice]:
    for start in range(0, length, _CHUNK):
        yield slice(start, min(start + _CHUNK, length))
