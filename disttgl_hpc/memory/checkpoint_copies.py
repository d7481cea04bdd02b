"""The daemon's part in checkpoints: a copy of the memory between two steps, written by a side thread.

Every trainer requests the checkpoint after batch c before it writes batch c+1, on the same channel. When a
write of batch c+1 arrives, the daemon therefore knows whether it must copy first. Trainers wait for the disk
only if a checkpoint is due while the previous one is still being written.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from disttgl_hpc.grid.collectives import receive, wait_request, wait_until
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import OperationKind
from disttgl_hpc.memory.node_memory import CheckpointWriter, OrderedMemory, Rows
from disttgl_hpc.memory.requests import CHECKPOINT, PART_WRITTEN


class CheckpointKeeper:
    """Takes the checkpoints of one node; the first node's keeper makes them valid when all nodes have theirs.

    state: (replicas, N, 2·d), the node's memory. wake: called from the side thread when it has written
    something.
    """

    def __init__(
        self,
        grid: Grid,
        state: Rows,
        writer: CheckpointWriter,
        timeout_s: float,
        wake: Callable[[], None],
    ) -> None:
        self._grid, self._state, self._writer, self._timeout_s = grid, state, writer, timeout_s
        self._wake = wake
        self._side_thread = ThreadPoolExecutor(1, "checkpoint")  # never two writes at once
        self._last = -1  # the newest batch after which a checkpoint was asked for
        self._arrays: dict[str, NDArray[Any]] = {}
        self._uncopied: set[int] = set()  # replicas whose memory is still to be copied
        self._copies: Rows | None = None
        self._part: Future[str] | None = None
        self._checksums: dict[int, dict[int, str]] = {}  # first node only: counter → node → its part's
        self._completing: list[Future[None]] = []
        self._telling: list[MPI.Request] = []

    def ask(self, counter: int) -> None:
        """A trainer asks for the checkpoint after batch ``counter``: at the first, take the shares of all."""
        if counter <= self._last:
            return
        self._finish_part()
        self._last = counter
        comm = self._grid.node_comm
        for trainer in range(comm.size - 1):
            what = f"trainer {trainer} of the node to bring its share of the checkpoint after batch {counter}"
            self._arrays |= receive(comm, trainer, CHECKPOINT, self._timeout_s, what)
        self._uncopied = set(range(len(self._state)))

    def wants_copy(self, local: int, replica: OrderedMemory) -> bool:
        """Whether a checkpoint wants a replica's memory, and all writes before it are done."""
        due = replica.next
        return local in self._uncopied and (
            due is None or due.counter > self._last or due.kind is OperationKind.SNAPSHOT
        )

    def copy(self, local: int, replica: OrderedMemory) -> None:
        """Copy a replica's memory; the last copy of a checkpoint sets the side thread to work."""
        if self._copies is None:
            self._copies = np.empty_like(self._state)
        np.copyto(self._copies[local], replica.memory.state)
        self._arrays[f"memory/{replica.replica}"] = self._copies[local]
        self._uncopied.remove(local)
        if not self._uncopied:
            self._part = self._side_thread.submit(self._writer.write_part, self._last, self._arrays)
            self._part.add_done_callback(lambda _: self._wake())

    def advance(self) -> bool:
        """Take note of what has been written; returns whether there is nothing left to write. Raises StoreError."""
        if self._part is not None and self._part.done():
            self._finish_part()
        world = self._grid.world
        while self._checksums and world.iprobe(tag=PART_WRITTEN):
            what = "the name of a checkpoint's part from another node"
            self._note(*receive(world, MPI.ANY_SOURCE, PART_WRITTEN, self._timeout_s, what))
        for completing in self._completing:
            if completing.done():
                completing.result()
        self._completing = [completing for completing in self._completing if not completing.done()]
        self._telling = [telling for telling in self._telling if not telling.Test()]
        return not (self._part or self._uncopied or self._checksums or self._completing)

    def close(self) -> None:
        """End the side thread, when all is written."""
        wait_until(self.advance, self._timeout_s, "the last checkpoint to be written")
        for telling in self._telling:
            wait_request(telling, self._timeout_s, "the first node to hear of the last checkpoint")
        self._side_thread.shutdown()

    def _finish_part(self) -> None:
        """Wait for this node's part and notify the first node."""
        part, self._part = self._part, None
        if part is None:
            return
        wait_until(part.done, self._timeout_s, f"the checkpoint after batch {self._last} to be written")
        note = self._last, self._grid.node, part.result()
        self._arrays = {}
        if self._grid.node == 0:
            self._note(*note)
        else:
            first = self._grid.placement.daemons[0]
            self._telling.append(self._grid.world.isend(note, first, PART_WRITTEN))

    def _note(self, counter: int, node: int, checksum: str) -> None:
        """A node has written its part; the last one makes the checkpoint valid."""
        num_nodes = len(self._grid.placement.daemons)
        checksums = self._checksums.setdefault(counter, {})
        checksums[node] = checksum
        if len(checksums) == num_nodes:
            del self._checksums[counter]
            ordered = [checksums[node] for node in range(num_nodes)]
            completing = self._side_thread.submit(self._writer.complete, counter, ordered)
            completing.add_done_callback(lambda _: self._wake())
            self._completing.append(completing)
