"""Message flow graphs over the distinct nodes of a batch, and the nodes that a batch writes to the memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.events.tcsr import Ints
from disttgl_hpc.sampling.neighbors import Neighborhood


@dataclass(frozen=True)
class Mfg:
    """One-hop message flow graph of R roots with K slots over U distinct nodes.

    nodes: (U,) int64, distinct node ids in order of first appearance. roots: (R,) and neighbors: (R, K)
    int64, rows of ``nodes``. event_ids, elapsed, counts: as in :class:`Neighborhood`.
    """

    nodes: NDArray[np.int64]
    roots: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    event_ids: NDArray[np.int64]
    elapsed: NDArray[np.float32]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class LastEvents:
    """The nodes that a batch writes to the memory, each once, with the partner in its last event.

    nodes: (n,) int64, ascending; partners: (n,) int64. own, peer: (n,) int64, positions of the node and of
    its partner in the roots src ‖ dst of the node's last event. In a self-loop a node is its own partner.
    """

    nodes: NDArray[np.int64]
    partners: NDArray[np.int64]
    own: NDArray[np.int64]
    peer: NDArray[np.int64]


class NodeIndex:
    """Numbers the distinct nodes of a batch in one pass.

    Sorting the ids of a batch would cost more than sampling them; the scratch table takes 4·N bytes once. An
    index must not be used by two threads at a time.
    """

    def __init__(self, num_nodes: int) -> None:
        self._row_of = np.full(num_nodes, -1, np.int32)  # reset after each use

    def number(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Distinct values (U,) of ``ids`` (n,) in order of first appearance, and the row of each id (n,)."""
        return _number_all(self._row_of, ids)

    def mfg(self, hood: Neighborhood, num_leading: int = 0) -> Mfg:
        """Message flow graph of a sampled neighbourhood; padding points to row 0.

        Nodes are ordered as: the first ``num_leading`` roots, their neighbours, the other roots, their
        neighbours. Negatives among the other roots therefore do not change the leading roots' part of the
        graph.
        """
        rows = _number_graph(self._row_of, hood.roots, hood.neighbors, hood.counts, num_leading)
        return Mfg(*rows, hood.event_ids, hood.elapsed, hood.counts)

    def last_events(self, src: Ints, dst: Ints) -> LastEvents:
        """Last event of every node among events (b,) in stream order."""
        roots = np.concatenate([src, dst], dtype=np.int64)
        nodes, own = _last_appearances(self._row_of, roots)
        own = own[np.argsort(nodes)]
        peer = (own + len(src)) % max(1, len(roots))
        return LastEvents(roots[own], roots[peer], own, peer)


@compiled
def _row(row_of: NDArray[np.int32], nodes: NDArray[np.int64], found: int, node: int) -> tuple[int, int]:
    """Row of a node, which is added to the ``found`` nodes if new; and the new number of nodes."""
    row = row_of[node]
    if row >= 0:
        return row, found
    row_of[node], nodes[found] = found, node
    return found, found + 1


@compiled
def _forget(row_of: NDArray[np.int32], nodes: NDArray[np.int64]) -> None:
    for node in nodes:
        row_of[node] = -1


@compiled
def _number_all(
    row_of: NDArray[np.int32], ids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct ids, and the row of each id."""
    nodes, rows, found = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64), 0
    for at in range(len(ids)):
        rows[at], found = _row(row_of, nodes, found, ids[at])
    _forget(row_of, nodes[:found])
    return nodes[:found].copy(), rows


@compiled
def _number_graph(
    row_of: NDArray[np.int32],
    roots: NDArray[np.int64],
    neighbors: NDArray[np.int64],
    counts: NDArray[np.int64],
    num_leading: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct nodes, the rows of roots and those of slots, 0 in the padding."""
    nodes, found = np.empty(roots.size + neighbors.size, np.int64), 0
    root_rows, neighbor_rows = np.empty_like(roots), np.empty_like(neighbors)
    for begin, end in ((0, num_leading), (num_leading, len(roots))):
        for root in range(begin, end):
            root_rows[root], found = _row(row_of, nodes, found, roots[root])
        for root in range(begin, end):
            for slot in range(counts[root]):
                neighbor_rows[root, slot], found = _row(row_of, nodes, found, neighbors[root, slot])
            neighbor_rows[root, counts[root] :] = 0
    _forget(row_of, nodes[:found])
    return nodes[:found].copy(), root_rows, neighbor_rows


@compiled
def _last_appearances(
    row_of: NDArray[np.int32], roots: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct nodes of the roots src ‖ dst, newest event first, and the position of each in its last event."""
    nodes, places = np.empty(len(roots), np.int64), np.empty(len(roots), np.int64)
    num_events, found = len(roots) // 2, 0
    for event in range(num_events - 1, -1, -1):
        for place in (event, event + num_events):
            known = found
            row, found = _row(row_of, nodes, found, roots[place])
            if found > known:
                places[row] = place
    _forget(row_of, nodes[:found])
    return nodes[:found].copy(), places[:found].copy()
