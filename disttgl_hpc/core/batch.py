"""Mini-batch containers: message flow graphs over distinct nodes, and what a batch writes to the memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.core.sampler import Neighborhood
from disttgl_hpc.core.tcsr import Ints


@dataclass(frozen=True)
class Mfg:
    """One-hop message flow graph of R roots with K slots over U distinct nodes.

    nodes: (U,) int64, ascending node ids. roots: (R,) and neighbors: (R, K) int64, rows of ``nodes``.
    event_ids, elapsed, counts: as in :class:`Neighborhood`.
    """

    nodes: NDArray[np.int64]
    roots: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    event_ids: NDArray[np.int64]
    elapsed: NDArray[np.float32]
    counts: NDArray[np.int64]


class NodeIndex:
    """Distinct nodes of a batch and everyone's row among them, in time proportional to the batch.

    Sorting a batch's ids costs more than sampling them; a scratch table costs N·4 bytes, once.
    """

    def __init__(self, num_nodes: int) -> None:
        self._row = np.zeros(num_nodes, np.int32)

    def distinct(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Distinct values of ``ids`` (n,), ascending."""
        here = np.arange(len(ids), dtype=np.int32)
        self._row[ids] = here
        # Whichever duplicate was stored last represents its node; sorting makes the choice invisible.
        return np.sort(ids[self._row[ids] == here])

    def rows(self, nodes: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row in ``nodes`` (distinct) of each id, any shape; every id must be among them."""
        self._row[nodes] = np.arange(len(nodes), dtype=np.int32)
        return self._row[ids].astype(np.int64)

    def mfg(self, hood: Neighborhood) -> Mfg:
        """Message flow graph of a sampled neighbourhood. Padding points to row 0."""
        valid = np.arange(hood.neighbors.shape[1]) < hood.counts[:, None]
        nodes = self.distinct(np.concatenate([hood.roots, hood.neighbors[valid]]))
        roots = self.rows(nodes, hood.roots)
        neighbors = np.where(valid, self._row[hood.neighbors], 0).astype(np.int64)
        return Mfg(nodes, roots, neighbors, hood.event_ids, hood.elapsed, hood.counts)


@dataclass(frozen=True)
class LastEvents:
    """Who writes to the memory after a batch: each node once, with the partner of its last event.

    nodes: (n,) int64 distinct; partners: (n,) int64. A self-loop makes a node its own partner.
    """

    nodes: NDArray[np.int64]
    partners: NDArray[np.int64]


def last_events(src: Ints, dst: Ints) -> LastEvents:
    """Last event of every node among events (b,) in stream order; duplicates never race for a row."""
    both = np.stack([np.asarray(src, np.int64), np.asarray(dst, np.int64)], axis=1)
    newest_first = both[::-1].ravel()
    partners = both[::-1, ::-1].ravel()
    nodes, first_seen = np.unique(newest_first, return_index=True)
    return LastEvents(nodes, partners[first_seen])
