"""Adam for tables of which a step touches few rows: sums of row gradients, and the update of just those rows.

The cost of a step follows the rows that it touches and not the table (lazy Adam): a row that is not touched keeps
its value and its moments, and its bias correction counts the steps that have touched it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled

Rows = NDArray[np.float32]
RowGradients = tuple[NDArray[np.int64], Rows]
"""Nodes (n,) and what is to be added up for each of them (n, d)."""

_FIRST_DECAY, _SECOND_DECAY, _EPSILON = 0.9, 0.999, 1e-8  # as in torch.optim.Adam


@dataclass(frozen=True)
class RowTable:
    """A table of rows that are learned, with Adam's state; all arrays are updated in place.

    rows, first_moment, second_moment: (N, d) float32. touched: (N,) int64, how many steps have changed each row.
    """

    rows: Rows
    first_moment: Rows
    second_moment: Rows
    touched: NDArray[np.int64]

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All of it by name, as checkpoints keep it."""
        return dict(vars(self))

    def update(self, gradients: RowGradients, scale: float, rate: float, decay: float) -> None:
        """One step of Adam on distinct nodes whose gradients are to be multiplied by ``scale``.

        decay: of the weights themselves (Loshchilov and Hutter's AdamW), a share ``rate · decay`` of the row.
        """
        nodes, sums = gradients
        tables = self.rows, self.first_moment, self.second_moment, self.touched
        _update(nodes, sums, np.float32(scale), rate, np.float32(1 - rate * decay), *tables)


class RowSum:
    """Adds up row gradients, always in the order in which they are given; serves one thread at a time."""

    def __init__(self, num_nodes: int) -> None:
        self._row_of = np.full(num_nodes, -1, np.int32)  # and so it is again after each use

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
