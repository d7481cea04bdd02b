"""A co-trained static node memory: one table per node in a shared window, trained with sparse gradients.

A step touches the rows of its batch. Each trainer contributes the gradients of the rows that it used. Each
trainer of a node sums its share of all rows, exchanges these sums with the trainers of the same number on
other nodes, and updates those rows of its node's table. Every node thus computes the same table, bit for bit,
and no row is sent twice.

``RowTable`` updates rows by lazy Adam, whose cost depends on the touched rows and not on the table: an
untouched row keeps its value and moments, and its bias correction counts the steps that touched it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.grid.collectives import barrier, free, free_window, split, wait_request
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.memory.shared_tables import TableShapes, shared_arrays

Rows = NDArray[np.float32]
RowGradients = tuple[NDArray[np.int64], Rows]
"""Nodes (n,) and what is to be added up for each of them (n, d)."""


_FIRST_DECAY, _SECOND_DECAY, _EPSILON = 0.9, 0.999, 1e-8  # as in torch.optim.Adam


@dataclass(frozen=True)
class RowTable:
    """A table of trained rows with Adam's state; all arrays are updated in place.

    rows, first_moment, second_moment: (N, d) float32. touched: (N,) int64, number of steps that changed each
    row.
    """

    rows: Rows
    first_moment: Rows
    second_moment: Rows
    touched: NDArray[np.int64]

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All arrays by name, as stored in checkpoints."""
        return dict(vars(self))

    def update(self, gradients: RowGradients, scale: float, rate: float, decay: float) -> None:
        """One step of Adam on distinct nodes whose gradients are to be multiplied by ``scale``.

        decay: of the weights themselves (Loshchilov and Hutter's AdamW), a share ``rate · decay`` of the row.
        """
        nodes, sums = gradients
        tables = self.rows, self.first_moment, self.second_moment, self.touched
        _update(nodes, sums, np.float32(scale), rate, np.float32(1 - rate * decay), *tables)


class RowSum:
    """Sums row gradients in the given order; must not be used by two threads at a time."""

    def __init__(self, num_nodes: int) -> None:
        self._row_of = np.full(num_nodes, -1, np.int32)  # reset after each use

    def of(self, parts: Sequence[RowGradients], share: int = 0, num_shares: int = 1) -> RowGradients:
        """Sums of all parts by distinct node, for the nodes whose id modulo ``num_shares`` is ``share``."""
        dim = parts[0][1].shape[1]
        room = sum(len(nodes) for nodes, _ in parts)
        nodes, sums, found = np.empty(room, np.int64), np.zeros((room, dim), np.float32), 0
        for own, rows in parts:
            found = _add(self._row_of, nodes, sums, found, own, rows, share, num_shares)
        self._row_of[nodes[:found]] = -1
        return nodes[:found], sums[:found]


@compiled
def _add(  # noqa: PLR0917
    row_of: NDArray[np.int32],
    nodes: NDArray[np.int64],
    sums: Rows,
    found: int,
    own: NDArray[np.int64],
    rows: Rows,
    share: int,
    num_shares: int,
) -> int:
    """Add one part to nodes and sums, of which ``found`` are in use; → how many are now."""
    for at in range(len(own)):
        node = own[at]
        if node % num_shares != share:
            continue
        row = row_of[node]
        if row < 0:
            row, found = found, found + 1
            row_of[node], nodes[row] = row, node
        for i in range(sums.shape[1]):
            sums[row, i] += rows[at, i]
    return found


@compiled
def _update(  # noqa: PLR0917
    nodes: NDArray[np.int64],
    sums: Rows,
    scale: np.float32,
    rate: float,
    kept: np.float32,
    rows: Rows,
    first: Rows,
    second: Rows,
    touched: NDArray[np.int64],
) -> None:
    """:meth:`RowTable.update`; ``kept`` is what weight decay leaves of a row."""
    one, beta, gamma = np.float32(1), np.float32(_FIRST_DECAY), np.float32(_SECOND_DECAY)
    for at in range(len(nodes)):
        node = nodes[at]
        touched[node] += 1
        step = np.float32(rate / (1 - _FIRST_DECAY ** touched[node]))
        spread = np.float32(1 / np.sqrt(1 - _SECOND_DECAY ** touched[node]))
        for i in range(sums.shape[1]):
            gradient = sums[at, i] * scale
            first[node, i] = beta * first[node, i] + (one - beta) * gradient
            second[node, i] = gamma * second[node, i] + (one - gamma) * gradient * gradient
            root = np.sqrt(second[node, i]) * spread + np.float32(_EPSILON)
            rows[node, i] = kept * rows[node, i] - step * first[node, i] / root


_WHAT = "the trainers' rows of the static memory"


def static_shapes(num_nodes: int, dim: int, max_rows: int, num_trainers: int) -> TableShapes:
    """Table with moments, and a slot for the row gradients of each trainer of a node: name → (shape, dtype)."""
    max_rows = min(max_rows, num_nodes)
    return {
        "rows": ((num_nodes, dim), np.float32),
        "first_moment": ((num_nodes, dim), np.float32),
        "second_moment": ((num_nodes, dim), np.float32),
        "touched": ((num_nodes,), np.int64),
        "counts": ((num_trainers,), np.int64),
        "nodes": ((num_trainers, max_rows), np.int64),
        "gradients": ((num_trainers, max_rows, dim), np.float32),
    }


class StaticTable:
    """The table (N, d) that a grid's trainers train. Collective over all trainers, as most methods are.

    max_rows: how many rows one trainer touches in a step, at most. rate, decay: of the rows' Adam.
    sent_bytes: bytes that this rank has sent to other nodes.
    Raises GridError on the trainers of a node whose shared memory is too small, PeerError on all others.
    """

    def __init__(  # noqa: PLR0917
        self, grid: Grid, num_nodes: int, dim: int, max_rows: int, rate: float, decay: float, timeout_s: float
    ) -> None:
        self._node = grid.node_trainer_comm
        trainers = grid.trainer_comm
        peers = split(trainers, self._node.rank, timeout_s, _WHAT, key=trainers.rank)
        self._peers = cast(MPI.Intracomm, peers)
        self._rate, self._decay, self._timeout_s = rate, decay, timeout_s
        shapes = static_shapes(num_nodes, dim, max_rows, self._node.size)
        arrays, self._window = shared_arrays(self._node, shapes, trainers, timeout_s, _WHAT)
        self._counts, self._nodes, self._gradients = (
            arrays.pop(name) for name in ("counts", "nodes", "gradients")
        )
        self.table = RowTable(**arrays)
        self._sum = RowSum(num_nodes)
        self.sent_bytes = 0

    def update(self, gradients: RowGradients, num_events: int) -> None:
        """Sum the row gradients of all trainers, divide by the step's events, and update the rows.

        gradients: this trainer's, possibly none. Raises DeadlineError.
        """
        own, (nodes, rows) = self._node.rank, gradients
        self._counts[own] = len(nodes)
        self._nodes[own, : len(nodes)], self._gradients[own, : len(nodes)] = nodes, rows
        self.meet()
        parts = [
            (self._nodes[trainer, :count], self._gradients[trainer, :count])
            for trainer, count in enumerate(self._counts)
        ]
        share = self._sum.of(parts, own, self._node.size)
        if self._peers.size > 1:
            share = self._sum.of(self._exchanged(share))
        self.table.update(share, 1 / num_events, self._rate, self._decay)
        self.meet()

    def load(self, fill: Callable[[dict[str, NDArray[np.generic]]], None]) -> None:
        """Have ``fill`` write all arrays of the table, on the first trainer of each node."""
        if self._node.rank == 0:
            fill(self.table.arrays)
        self.meet()

    def compile(self) -> None:
        """Compile the loops by running them on no rows; not collective."""
        nothing = np.empty(0, np.int64), np.empty((0, self.table.rows.shape[1]), np.float32)
        self.table.update(self._sum.of([nothing]), 1.0, self._rate, self._decay)

    def meet(self) -> None:
        """Barrier of the node's trainers, after which all their earlier writes are visible."""
        self._window.Sync()
        barrier(self._node, self._timeout_s, _WHAT, longest_s=2e-4)
        self._window.Sync()

    def free(self) -> None:
        """Release the window; the table must not be used afterwards."""
        free_window(self._node, self._window, self._timeout_s, _WHAT)
        free([self._peers], self._timeout_s, _WHAT)

    def _exchanged(self, share: RowGradients) -> list[RowGradients]:
        """The shares of the trainers of this number on all nodes, in the nodes' order."""
        nodes, rows = share
        dim = rows.shape[1]
        counts = np.empty(self._peers.size, np.int64)
        self._wait(self._peers.Iallgather(np.array([len(nodes)]), counts))
        all_nodes, all_rows = np.empty(counts.sum(), np.int64), np.empty((counts.sum(), dim), np.float32)
        self._wait(self._peers.Iallgatherv(nodes, [all_nodes, counts]))
        self._wait(self._peers.Iallgatherv(rows, [all_rows, counts * dim]))
        self.sent_bytes += nodes.nbytes + rows.nbytes
        edges = np.cumsum(counts)[:-1]
        return list(zip(np.split(all_nodes, edges), np.split(all_rows, edges), strict=True))

    def _wait(self, request: MPI.Request) -> None:
        wait_request(request, self._timeout_s, _WHAT, longest_s=2e-4)
