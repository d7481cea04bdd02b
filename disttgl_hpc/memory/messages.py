"""The small messages between trainers and their node's daemon; the rows themselves lie in shared tables."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

from disttgl_hpc.grid.collectives import wait_request

REQUEST_TAG = 0  # replies are tagged with the kind of their request: a read may be open during a snapshot
NUM_FIELDS = 3  # kind, counter, number of nodes: int64 each

# Kinds of requests beside those of OperationKind, which have their turn in a replica's order.
CHECKPOINT = 10  # (counter): this trainer's share follows, tagged with the kind
FLUSH = 11  # has a reply once all checkpoints are on disk
CLOSE = -1  # a trainer's last message; counter 1: before the schedule's end
PART_WRITTEN = 12  # tag of what daemons tell the first of them, over all ranks


def post(comm: MPI.Intracomm, rank: int, tag: int, fields: tuple[int, int, int], timeout_s: float) -> None:
    """Send (kind, counter, number of nodes) to ``rank``. Raises DeadlineError if it takes no messages."""
    message = np.array(fields, np.int64)
    request = comm.Isend(message, rank, tag)
    wait_request(request, timeout_s, f"a message to rank {rank} of the node to leave")
