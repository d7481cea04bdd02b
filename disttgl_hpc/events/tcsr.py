"""T-CSR: the events of every node in time order (TGL, §3.1), and the search for a node's past in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled

Ints = NDArray[np.integer]
Times = NDArray[np.int64] | NDArray[np.float64]
TCsrArrays = tuple[NDArray[np.int64], Ints, Ints, Times]


@dataclass(frozen=True)
class TCsr:
    """Undirected adjacency in time order: entries ``indptr[u]:indptr[u + 1]`` are the events of node u.

    indptr: (N + 1,) int64. neighbors: (M,) int32 or int64, the other node. event_ids: (M,) ascending within a
    node, int32 if every id fits, else int64. times: (M,) int64 or float64, as in the stream.
    An event has an entry of its source and one of its destination; a self-loop has a single entry.
    """

    indptr: NDArray[np.int64]
    neighbors: Ints
    event_ids: Ints
    times: Times

    @property
    def arrays(self) -> TCsrArrays:
        """All four arrays, for compiled loops."""
        return self.indptr, self.neighbors, self.event_ids, self.times

    def known_before(self, bound: int) -> NDArray[np.bool_]:
        """Which nodes (N,) have an event whose id is below ``bound``."""
        known: NDArray[np.bool_] = np.diff(self.indptr) > 0
        known[known] = self.event_ids[self.indptr[:-1][known]] < bound
        return known

    def positions_before(self, nodes: Ints, bounds: Ints) -> NDArray[np.int64]:
        """Index of each node's first entry whose event id is not below its bound.

        nodes, bounds: (n,) → (n,) int64 within ``[indptr[u], indptr[u + 1]]``. Event ids ascend with time, so
        this search finds any part of a node's past, such as its last event before event e.
        """
        return positions_before(self.indptr, self.event_ids, nodes, bounds)


def positions_before(
    indptr: NDArray[np.int64], event_ids: Ints, nodes: Ints, bounds: Ints
) -> NDArray[np.int64]:
    """:meth:`TCsr.positions_before` for any entries grouped by node that have event ids."""
    return _positions_before(indptr, event_ids, np.asarray(nodes, np.int64), np.asarray(bounds, np.int64))


@compiled
def position_before(event_ids: Ints, low: int, high: int, bound: int) -> int:
    """First entry in [low, high), ids ascending, whose event id is not below ``bound``; ``high`` if none is."""
    while low < high:
        middle = (low + high) >> 1
        if event_ids[middle] < bound:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _positions_before(
    indptr: NDArray[np.int64], event_ids: Ints, nodes: NDArray[np.int64], bounds: NDArray[np.int64]
) -> NDArray[np.int64]:
    positions = np.empty(len(nodes), np.int64)
    for row in range(len(nodes)):
        node = nodes[row]
        positions[row] = position_before(event_ids, indptr[node], indptr[node + 1], bounds[row])
    return positions


def index_dtype(largest: int) -> type[np.int32] | type[np.int64]:
    """int32 if that holds ``largest``, else int64 (ids beyond 2³¹ must not wrap)."""
    return np.int32 if largest <= np.iinfo(np.int32).max else np.int64


def build_tcsr(src: Ints, dst: Ints, time: Times, num_nodes: int) -> TCsr:
    """T-CSR of events in time order. src, dst: (E,) in [0, num_nodes); time: (E,)."""
    num_events = len(src)
    events = np.arange(num_events, dtype=index_dtype(num_events))
    proper = src != dst
    owners = np.concatenate([src, dst[proper]])
    others = np.concatenate([dst, src[proper]])
    event_ids = np.concatenate([events, events[proper]])
    order = np.lexsort((event_ids, owners))
    indptr = np.zeros(num_nodes + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=num_nodes), out=indptr[1:])
    event_ids = event_ids[order]
    return TCsr(indptr, others[order].astype(index_dtype(num_nodes)), event_ids, time[event_ids])
