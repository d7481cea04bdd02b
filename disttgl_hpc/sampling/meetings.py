"""Who met whom first when: what negatives that look at the past are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.events.tcsr import Ints, TCsr, positions_before


@dataclass(frozen=True)
class FirstMeetings:
    """The partners of every node, each once, in the order in which they first met.

    indptr: (N + 1,) int64; partners ``indptr[u]:indptr[u + 1]`` are those of node u. partners: (P,) node ids,
    event_ids: (P,) ascending within a node, the event of the first meeting; dtypes as in the T-CSR.
    A pair is unordered: a reply counts as a meeting too.
    """

    indptr: NDArray[np.int64]
    partners: Ints
    event_ids: Ints

    @classmethod
    def of(cls, tcsr: TCsr) -> FirstMeetings:
        """Read them off a T-CSR, in one pass over its entries."""
        is_first = np.empty(len(tcsr.neighbors), np.bool_)
        indptr = _mark_first(tcsr.indptr, tcsr.neighbors, is_first)
        return cls(indptr, tcsr.neighbors[is_first], tcsr.event_ids[is_first])

    def between(
        self, nodes: Ints, first_event: int, bounds: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ranges of ``partners`` that each node first met in events [first_event, bound): (n,) int64, twice."""
        low = positions_before(self.indptr, self.event_ids, nodes, np.full(len(nodes), first_event))
        return low, positions_before(self.indptr, self.event_ids, nodes, bounds)


@compiled
def _mark_first(indptr: NDArray[np.int64], neighbors: Ints, is_first: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Mark the first entry of each pair; → indptr of the marked entries."""
    met_by = np.full(len(indptr) - 1, -1)  # the last node that was seen to meet each node
    marked = np.zeros_like(indptr)
    for node in range(len(indptr) - 1):
        num_partners = 0
        for entry in range(indptr[node], indptr[node + 1]):
            is_first[entry] = met_by[neighbors[entry]] != node
            num_partners += is_first[entry]
            met_by[neighbors[entry]] = node
        marked[node + 1] = marked[node] + num_partners
    return marked
