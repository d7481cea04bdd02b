"""Recent-neighbour sampling: the last events of each root strictly before its time (TGL, alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.events.tcsr import Ints, TCsr, TCsrArrays, Times, position_before


@dataclass(frozen=True)
class Neighborhood:
    """The most recent events of R roots in K slots, most recent first; slots from ``counts`` on are padding.

    roots: (R,) int64 node ids. neighbors: (R, K) int64 node ids. event_ids: (R, K) int64.
    elapsed: (R, K) float32, root time − event time in the stream's unit. counts: (R,) int64 ≤ K.
    Padding is 0, a valid id, so that it can be gathered; its values are meaningless.
    """

    roots: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    event_ids: NDArray[np.int64]
    elapsed: NDArray[np.float32]
    counts: NDArray[np.int64]


def same_time(time: Times, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Events [begin, end) that share the time of each event in [first, last): two arrays (n,) int64.

    The events before ``begin`` are an event's past: comparing event ids instead of times keeps "strictly
    before" exact for any time dtype.
    """
    begin, end = np.empty((2, last - first), np.int64)
    if last > first:
        # Only the first and the last time may extend beyond the range.
        begin[0] = np.searchsorted(time[: first + 1], time[first], "left")
        end[-1] = last - 1 + np.searchsorted(time[last - 1 :], time[last - 1], "right")
        _walk(time[first:last], first, begin, end)
    return begin, end


@compiled
def _walk(time: Times, first: int, begin: NDArray[np.int64], end: NDArray[np.int64]) -> None:
    """Fill ``begin`` from its first and ``end`` from its last element."""
    for row in range(1, len(time)):
        begin[row] = begin[row - 1] if time[row] == time[row - 1] else first + row
    for row in range(len(time) - 2, -1, -1):
        end[row] = end[row + 1] if time[row] == time[row + 1] else first + row + 1


def event_bounds(time: Times, first: int, last: int) -> NDArray[np.int64]:
    """First event that shares the time of each event in [first, last); earlier events are its past."""
    return same_time(time, first, last)[0]


def recent_neighbors(
    tcsr: TCsr, roots: Ints, root_time: NDArray[Any], bounds: Ints, num_neighbors: int
) -> Neighborhood:
    """Sample each root's ``num_neighbors`` most recent events with id below its bound.

    roots, root_time, bounds: (R,); times in the stream's dtype, bounds as returned by :func:`event_bounds`.
    """
    ids: NDArray[np.int64] = np.asarray(roots, np.int64)
    return Neighborhood(ids, *_sample(tcsr.arrays, ids, root_time, bounds, num_neighbors))


@compiled
def _sample(
    tcsr: TCsrArrays,
    roots: NDArray[np.int64],
    root_time: NDArray[Any],
    bounds: Ints,
    num_slots: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """The fields of a Neighborhood except its roots."""
    indptr, all_neighbors, all_event_ids, times = tcsr
    neighbors = np.empty((len(roots), num_slots), np.int64)
    event_ids = np.empty((len(roots), num_slots), np.int64)
    elapsed = np.empty((len(roots), num_slots), np.float32)
    counts = np.empty(len(roots), np.int64)
    for root in range(len(roots)):
        begin = indptr[roots[root]]
        end = position_before(all_event_ids, begin, indptr[roots[root] + 1], bounds[root])
        count = min(end - begin, num_slots)
        for slot in range(count):
            entry = end - 1 - slot
            neighbors[root, slot] = all_neighbors[entry]
            event_ids[root, slot] = all_event_ids[entry]
            # Times are subtracted in their own dtype; only the difference is cast to float32.
            elapsed[root, slot] = root_time[root] - times[entry]
        for slot in range(count, num_slots):
            neighbors[root, slot] = event_ids[root, slot] = 0
            elapsed[root, slot] = 0
        counts[root] = count
    return neighbors, event_ids, elapsed, counts
