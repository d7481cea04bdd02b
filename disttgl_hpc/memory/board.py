"""What a memory daemon does, where the trainers of its node can look it up without asking.

A table in the node's shared window: seconds by kind of work, the daemon's memory and, if some steps are traced, a
row for each operation of theirs. Numbers only ever grow, and each is written whole: whoever looks while the daemon
works sees a state of a moment ago.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.grid.spans import DaemonFigures, Span, process_memory_mib

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
