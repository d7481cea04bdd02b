"""T-CSR: the events of every node in time order (TGL, §3.1), and the one search everything else needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer]
Times = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class TCsr:
    """Undirected adjacency in time order; entries ``indptr[u]:indptr[u + 1]`` are the events of node u.

    indptr: (N + 1,) int64. neighbors: (M,) int32 or int64, the other node. event_ids: (M,) ascending within a
    node, int32 where every id fits, else int64. times: (M,) int64 or float64, the events' own times.
    An event is one entry of its source and one of its destination; a self-loop is a single entry.
    """

    indptr: NDArray[np.int64]
    neighbors: Ints
    event_ids: Ints
    times: Times

    def positions_before(self, nodes: Ints, bounds: Ints) -> NDArray[np.int64]:
        """Index of each node's first entry whose event id is not below its bound.

        nodes, bounds: (n,) → (n,) int64 within ``[indptr[u], indptr[u + 1]]``. Every question about the past
        of a node ("its last event before e") is this search: ids ascend with time, so one bound serves both.
        All nodes are bisected together, in as many rounds as the largest degree has bits.
        """
        low, high = self.indptr[nodes], self.indptr[np.asarray(nodes) + 1]
        open_rows = np.flatnonzero(low < high)
        while len(open_rows):
            middle = (low[open_rows] + high[open_rows]) >> 1
            below = self.event_ids[middle] < bounds[open_rows]
            low[open_rows[below]] = middle[below] + 1
            high[open_rows[~below]] = middle[~below]
            open_rows = open_rows[low[open_rows] < high[open_rows]]
        return low


def index_dtype(largest: int) -> type[np.int32] | type[np.int64]:
    """Smallest of int32 and int64 that holds ``largest`` (ids beyond 2³¹ must not wrap)."""
    return np.int32 if largest <= np.iinfo(np.int32).max else np.int64


def build_tcsr(src: Ints, dst: Ints, time: Times, num_nodes: int) -> TCsr:
    """T-CSR of events in time order. src, dst, time: (E,); ids in [0, num_nodes)."""
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
