"""Tables that the ranks of a node share through one MPI window: node memory, request slots, and the daemon's board.

There are as few slots as the axis j allows. R(c+1, x) is served after W(c, x), which its trainer sends after
copying R(c, x). One reply slot and one write slot per (replica, slice x) are therefore free whenever the
schedule uses them, for any lane. Only the node ids of a read are stored per trainer, because a read may be
posted up to j steps early. A read names b·(2 + j·m)·(1 + K) nodes, at most N, so the ids of j lanes grow as
j², up to j·N; since an id takes 1/d of a row, they are j/d of the reply slots.

The board shows the daemon's work: seconds by kind, its memory and, if some steps are traced, a row per operation.
Numbers only grow and are written whole, so readers see a recent state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import DTypeLike, NDArray

from disttgl_hpc.grid.collectives import Communicator, allocate_shared, free_window
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.grid.spans import DaemonFigures, Span, process_memory_mib
from disttgl_hpc.memory.node_memory import MemoryRun, MemorySizes, Nodes, Rows

DAEMON_WORK = ("read", "write", "snapshot", "checkpoint", "wait")
"""What a daemon does. A sweep's reset belongs to the write before it, with which it is done at once."""


_TRACED_WORK = ("read", "write")
_RESIDENT, _PEAK, _NUM_SPANS = range(len(DAEMON_WORK), len(DAEMON_WORK) + 3)
_NUM_FIGURES = _NUM_SPANS + 1
_SPAN_FIELDS = 6
Board = NDArray[np.float64]


def board_size(shape: GridShape, num_replicas: int, num_traced: int) -> int:
    """Numbers on the board of a node that serves so many replicas, with room for ``num_traced`` steps."""
    return _NUM_FIGURES + _SPAN_FIELDS * num_traced * num_replicas * len(_TRACED_WORK) * shape.minibatch


class BoardWriter:
    """The daemon's end of a board (n,). traced: counters whose reads and writes are kept one by one."""

    def __init__(self, board: Board, traced: range) -> None:
        self._board, self._traced = board, traced
        self._rows = board[_NUM_FIGURES:].reshape(-1, _SPAN_FIELDS)
        board[:] = 0  # before the trainers may look: they wait until the daemon has its doorbell

    @contextmanager
    def __call__(
        self, work: str, counter: int = -1, replica: int = -1, minibatch: int = -1
    ) -> Iterator[None]:
        """Count the enclosed block to ``work``, one of DAEMON_WORK."""
        index = DAEMON_WORK.index(work)
        started_s = time.perf_counter()
        yield
        ended_s = time.perf_counter()
        self._board[index] += ended_s - started_s
        if counter in self._traced and work in _TRACED_WORK:
            position = int(self._board[_NUM_SPANS])
            self._rows[position] = index, started_s, ended_s, counter, replica, minibatch
            self._board[_NUM_SPANS] = position + 1

    def note_memory(self) -> None:
        """Put up how much memory the daemon takes now."""
        self._board[[_RESIDENT, _PEAK]] = process_memory_mib()


def read_board(board: Board) -> DaemonFigures:
    """What stands on a board (n,)."""
    figures = board[:_NUM_FIGURES].tolist()
    rows = board[_NUM_FIGURES:].reshape(-1, _SPAN_FIELDS)[: int(figures[_NUM_SPANS])]
    return DaemonFigures(
        seconds=dict(zip(DAEMON_WORK, figures, strict=False)),
        resident_mib=figures[_RESIDENT],
        peak_mib=figures[_PEAK],
        spans=[
            Span(DAEMON_WORK[int(work)], begin_s, end_s, int(counter), int(replica), int(minibatch))
            for work, begin_s, end_s, counter, replica, minibatch in rows.tolist()
        ],
    )


_ALIGNMENT = 4096  # tables begin on pages of their own, so that no two ranks write to one cache line
TableShapes = dict[str, tuple[tuple[int, ...], DTypeLike]]


def table_shapes(sizes: MemorySizes, shape: GridShape, num_replicas: int, num_traced: int = 0) -> TableShapes:
    """Name → (shape, dtype) of the tables of a node that holds ``num_replicas`` replicas.

    num_traced: steps whose operations are put on the board one by one.
    """
    slices, trainers = shape.minibatch, shape.trainers_per_replica
    return {
        "state": ((num_replicas, sizes.num_nodes, sizes.dim_row), np.float32),
        "evaluation": ((sizes.num_nodes, sizes.dim_row), np.float32),
        "reply_rows": ((num_replicas, slices, sizes.read_rows, sizes.dim_row), np.float32),
        "write_rows": ((num_replicas, slices, sizes.write_rows, sizes.dim_row), np.float32),
        "write_nodes": ((num_replicas, slices, sizes.write_rows), np.int64),
        "read_nodes": ((num_replicas * trainers, sizes.read_rows), np.int64),
        "stop": ((1,), np.int64),
        "alive": ((1,), np.int64),
        "board": ((board_size(shape, num_replicas, num_traced),), np.float64),
    }


def num_bytes(shapes: TableShapes) -> int:
    """Size of the window that holds these tables."""
    return sum(_padded_bytes(*entry) for entry in shapes.values())


def shared_arrays(
    node_comm: MPI.Intracomm, shapes: TableShapes, comm: Communicator, timeout_s: float, what: str
) -> tuple[dict[str, Any], MPI.Win]:
    """Arrays of zeros by name over one new window, of which the last rank of ``node_comm`` is the owner.

    Collective over ``comm``; arguments, errors and the locks of the window as in
    :func:`~.collectives.allocate_shared`.
    """
    owner = node_comm.size - 1
    size = num_bytes(shapes) if node_comm.rank == owner else 0
    window = allocate_shared(node_comm, size, comm, timeout_s, what)
    memory = window.Shared_query(owner)[0]
    arrays: dict[str, Any] = {}
    offset = 0
    for name, (shape, dtype) in shapes.items():
        arrays[name] = np.ndarray(shape, dtype, memory, offset)  # type: ignore[arg-type]
        offset += _padded_bytes(shape, dtype)
    return arrays, window


@dataclass(frozen=True)
class SharedTables:
    """The tables of a node as arrays over one window, the same bytes on every rank of the node.

    state: (replicas, N, 2·d). evaluation: (N, 2·d). reply_rows: (replicas, i, read_rows, 2·d).
    write_rows: (replicas, i, write_rows, 2·d). write_nodes: (replicas, i, write_rows).
    read_nodes: (trainers of the node, read_rows). stop: (1,), not 0 once the daemon was asked to stop.
    alive: (1,), counts the fences of the node's trainers, by which the daemon sees that an evaluation goes on.
    board: what the daemon does, see :class:`BoardWriter`.
    Arrays must not be used after :func:`close_tables`.
    """

    state: Rows
    evaluation: Rows
    reply_rows: Rows
    write_rows: Rows
    write_nodes: Nodes
    read_nodes: Nodes
    stop: Nodes
    alive: Nodes
    board: Board
    window: MPI.Win

    def sync(self) -> None:
        """Order this rank's accesses to the tables around a message.

        Called after writing and before sending, and after receiving and before reading: a message alone does
        not order plain loads and stores on processors with a weak memory model (MPI 4.1, §12.7.1).
        """
        self.window.Sync()


_WHAT = "node memory and its slots"


def open_tables(grid: Grid, run: MemoryRun) -> SharedTables:
    """Tables of this node for a run. Collective over all ranks.

    Raises GridError on the ranks of a node whose shared memory is too small, PeerError on all others.
    """
    shapes = table_shapes(run.sizes, grid.shape, len(grid.local_replicas), len(run.traced))
    arrays, window = shared_arrays(grid.node_comm, shapes, grid.world, run.timeout_s, _WHAT)
    return SharedTables(**arrays, window=window)


def close_tables(grid: Grid, tables: SharedTables, timeout_s: float) -> None:
    """Release the node's tables once all its ranks are here; they are then invalid. Collective over the node."""
    free_window(grid.node_comm, tables.window, timeout_s, "the node's ranks to close the node memory")


def _padded_bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // _ALIGNMENT) * _ALIGNMENT
