"""A trainer's end of the node memory: requests as small messages, rows through the node's shared tables."""

from __future__ import annotations

import time

import numpy as np
from mpi4py import MPI

from disttgl_hpc.errors import ProtocolError
from disttgl_hpc.grid.collectives import barrier, bcast_buffer, wait_request
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import OperationKind
from disttgl_hpc.grid.spans import DaemonFigures
from disttgl_hpc.memory.node_memory import (
    Arrays,
    MemoryRun,
    MemoryService,
    NodeMemory,
    Nodes,
    Rows,
    SerialMemory,
)
from disttgl_hpc.memory.requests import (
    AT_END,
    CHECKPOINT,
    CLOSE,
    EARLY,
    FAILED,
    FLUSH,
    NUM_FIELDS,
    REQUEST_TAG,
    Doorbell,
    post,
)
from disttgl_hpc.memory.shared_tables import SharedTables, close_tables, open_tables, read_board


def open_memory(grid: Grid, run: MemoryRun) -> MemoryService:
    """Node memory of this trainer's replica for the steps of a run.

    Collective with the daemons' ``serve_memory``. A single process gets the serial service, with the same
    numbers. Raises GridError or PeerError if shared memory is too small.
    """
    if grid.is_serial:
        memory = NodeMemory.zeros(run.sizes.num_nodes, run.sizes.dim_memory)
        run.beginning.load_memory(0, memory.state)
        return SerialMemory(memory, run.operations(0, grid.shape), run.writer, run.timeout_s)
    return MemoryClient(grid, open_tables(grid, run), run.timeout_s)


class MemoryClient:
    """Memory service of a trainer beside a daemon; contracts as in ``node_memory.MemoryService``.

    waited_s: seconds spent waiting for the daemon's replies so far.
    """

    def __init__(self, grid: Grid, tables: SharedTables, timeout_s: float) -> None:
        at = grid.coordinates
        self._grid = grid
        self._tables = tables
        self._timeout_s = timeout_s
        self.waited_s = 0.0
        self._daemon = grid.node_comm.size - 1
        self._slot = at.memory - grid.local_replicas.start, at.minibatch
        self._posted: int | None = None
        self._replies = {
            kind: np.zeros(NUM_FIELDS, np.int64)
            for kind in (OperationKind.READ, OperationKind.SNAPSHOT, FLUSH)
        }
        self._receives: dict[int, MPI.Request] = {}
        self._doorbell = Doorbell(grid.node_comm, timeout_s)

    def post_read(self, counter: int, nodes: Nodes) -> None:
        """Put the nodes into this trainer's slot and notify the daemon; ``nodes`` may be reused at once.

        Raises ProtocolError while another read is open, or for more nodes than the slot has room for.
        """
        if self._posted is not None:
            raise ProtocolError(f"read of batch {counter} posted before that of {self._posted} was taken")
        slot = self._tables.read_nodes[self._grid.local_trainer]
        _check_room(len(nodes), len(slot), f"read of batch {counter}")
        slot[: len(nodes)] = nodes
        self._posted = counter
        self._ask(OperationKind.READ, counter, len(nodes))

    def wait_read(self, counter: int) -> Rows:
        """The requested rows, copied from the reply slot. Raises DeadlineError, ProtocolError."""
        posted, self._posted = self._posted, None
        if posted != counter:
            raise ProtocolError(f"read of batch {counter} awaited, posted was {posted}")
        count = self._await_reply(OperationKind.READ, f"the memory daemon's reply to READ of batch {counter}")
        rows: Rows = self._tables.reply_rows[*self._slot, :count].copy()
        return rows

    def write(self, counter: int, nodes: Nodes, rows: Rows) -> None:
        """Put nodes and rows into the write slot and notify the daemon; both may be reused at once."""
        slot = self._tables.write_nodes[self._slot]
        _check_room(len(nodes), len(slot), f"write of batch {counter}")
        slot[: len(nodes)] = nodes
        self._tables.write_rows[*self._slot, : len(nodes)] = rows
        self._tell(OperationKind.WRITE, counter, len(nodes))

    def snapshot(self, counter: int) -> Rows:
        """The node's copy of replica 0's memory; nodes without replica 0 get it from the one that has it."""
        grid, tables = self._grid, self._tables
        barrier(grid.node_trainer_comm, self._timeout_s, "the node's trainers to reach a snapshot")
        if grid.local_trainer == 0:
            self._fetch_snapshot(counter)
        barrier(grid.node_trainer_comm, self._timeout_s, f"the snapshot after batch {counter}")
        tables.sync()
        return tables.evaluation

    def fence(self) -> None:
        """Barrier of the node's trainers, after which all writes to the snapshot are visible."""
        if self._grid.local_trainer == 0:
            self._tables.alive[0] += 1
        self._tables.sync()
        barrier(self._grid.node_trainer_comm, self._timeout_s, "the node's trainers at a fence")
        self._tables.sync()

    def checkpoint(self, counter: int, own: Arrays) -> None:
        """Send this trainer's share to the daemon, which copies the memory before the next write."""
        self._tell(CHECKPOINT, counter, 0)
        sending = self._grid.node_comm.isend(own, self._daemon, CHECKPOINT)
        wait_request(sending, self._timeout_s, f"the daemon to take the checkpoint after batch {counter}")

    def flush(self) -> None:
        """Wait until the first node's daemon has made all checkpoints valid."""
        if self._grid.trainer == 0:
            self._ask(FLUSH, 0, 0)
            self._await_reply(FLUSH, "the checkpoints to be on disk")
        barrier(self._grid.trainer_comm, self._timeout_s, "the checkpoints to be on disk")

    @property
    def is_stop_asked(self) -> bool:
        """Whether the node's daemon was asked to stop."""
        return bool(self._tables.stop[0])

    @property
    def daemon_figures(self) -> DaemonFigures:
        """What the node's daemon has done so far."""
        self._tables.sync()
        return read_board(self._tables.board)

    def close(self, *, early: bool = False) -> None:
        """Tell the daemon that this trainer is done, and release the tables with the others of the node."""
        self._tell(CLOSE, EARLY if early else AT_END, 0)
        for unanswered in self._receives.values():  # a read whose turn will not come
            unanswered.Cancel()
            wait_request(unanswered, self._timeout_s, "a read to be cancelled")
        self._doorbell.close()
        close_tables(self._grid, self._tables, self._timeout_s)

    def abandon(self) -> None:
        """Tell the daemon that this trainer has failed."""
        self._tell(CLOSE, FAILED, 0)
        self._doorbell.close()

    def _fetch_snapshot(self, counter: int) -> None:
        """On a node's first trainer: request replica 0's snapshot from its daemon, and distribute it to the nodes."""
        if 0 in self._grid.local_replicas:
            self._ask(OperationKind.SNAPSHOT, counter, 0)
            self._await_reply(OperationKind.SNAPSHOT, f"the memory daemon's snapshot after batch {counter}")
        self._tables.sync()
        what = f"the snapshot after batch {counter} from replica 0's node"
        bcast_buffer(self._grid.leader_comm, self._tables.evaluation, self._timeout_s, what)
        self._tables.sync()

    def _ask(self, kind: int, counter: int, count: int) -> None:
        """Send a request that has a reply, whose receive is posted before the daemon can know of it."""
        self._receives[kind] = self._grid.node_comm.Irecv(self._replies[kind], self._daemon, kind)
        self._tell(kind, counter, count)

    def _tell(self, kind: int, counter: int, count: int) -> None:
        self._tables.sync()
        post(self._grid.node_comm, self._daemon, REQUEST_TAG, (kind, counter, count), self._timeout_s)
        self._doorbell.ring()

    def _await_reply(self, kind: int, what: str) -> int:
        """Wait for the reply to a request; returns how many rows it has."""
        started_s = time.perf_counter()
        wait_request(self._receives.pop(kind), self._timeout_s, what)
        self.waited_s += time.perf_counter() - started_s
        self._tables.sync()
        return int(self._replies[kind][2])


def _check_room(count: int, room: int, what: str) -> None:
    if count > room:
        raise ProtocolError(
            f"{what}: {count} nodes, its slot holds {room}; open the memory with larger sizes"
        )
