"""Requests to a memory daemon: small messages, what each trainer may request next, and a doorbell.

Rows are in shared tables; messages only name them. MPI has no wait that sleeps: polling every millisecond
costs 3 % of a core, as much as all of the daemon's work, and polling less often delays every request. A
trainer therefore rings after it has sent, by one datagram to a local socket, which wakes the daemon. The
doorbell carries no data and no order; where it cannot be used, the daemon polls.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from mpi4py import MPI

from disttgl_hpc.grid.collectives import Communicator, barrier, bcast, wait_request
from disttgl_hpc.grid.schedule import OperationKind
from disttgl_hpc.log import get_logger

log = get_logger(__name__)
REQUEST_TAG = 0  # replies are tagged with the kind of their request: a read may be open during a snapshot
NUM_FIELDS = 3  # kind, counter, number of nodes: int64 each


# Kinds of requests beside those of OperationKind, which have their turn in a replica's order.
CHECKPOINT = 10  # (counter): this trainer's share follows, tagged with the kind
FLUSH = 11  # has a reply once all checkpoints are on disk
CLOSE = -1  # a trainer's last message; its counter is one of the next three
AT_END, EARLY, FAILED = range(3)
PART_WRITTEN = 12  # tag of the notices from daemons to the first daemon, over all ranks


def post(comm: MPI.Intracomm, rank: int, tag: int, fields: tuple[int, int, int], timeout_s: float) -> None:
    """Send (kind, counter, number of nodes) to ``rank``. Raises DeadlineError if it takes no messages."""
    message = np.array(fields, np.int64)
    request = comm.Isend(message, rank, tag)
    wait_request(request, timeout_s, f"a message to rank {rank} of the node to leave")


@dataclass
class Desk:
    """What the daemon knows of one trainer: what it may ask for next, and what it waits for.

    served: batch of the last read served. waiting: requests before their turn, (counter, nodes) by kind.
    """

    num_steps: int
    epoch: int
    next_read: int
    next_write: int
    served: int = -1
    waiting: dict[OperationKind, tuple[int, int]] = field(default_factory=dict)

    def expected(self, kind: OperationKind) -> int | None:
        """The batch for which a request of this kind would be in order now, if there is one."""
        if kind is OperationKind.READ and kind not in self.waiting and self.next_read < self.num_steps:
            return self.next_read
        if kind is OperationKind.WRITE and self.next_write <= self.served:
            return self.next_write
        return None

    def accept(self, kind: OperationKind, counter: int, count: int) -> None:
        """Keep a request that is in order; the lane's next one is j batches on."""
        self.waiting[kind] = (counter, count)
        if kind is OperationKind.READ:
            self.next_read = counter + self.epoch
        elif kind is OperationKind.WRITE:
            self.next_write = counter + self.epoch


class Inbox:
    """Receives of one request per trainer, always posted, so that looking for requests is one call."""

    def __init__(self, comm: MPI.Intracomm, num_trainers: int) -> None:
        self._fields = np.zeros((num_trainers, NUM_FIELDS), np.int64)
        self._receives = [comm.Recv_init(self._fields[t], t, REQUEST_TAG) for t in range(num_trainers)]
        MPI.Prequest.Startall(self._receives)

    def take(self) -> list[tuple[int, tuple[int, int, int]]]:
        """(trainer, (kind, counter, nodes)) of every request that has arrived; nothing follows a CLOSE."""
        # Open MPI fetches messages when a test finds none, and reports them only in the next test.
        arrived = MPI.Request.Testsome(self._receives) or MPI.Request.Testsome(self._receives) or ()
        requests = []
        for trainer in arrived:
            kind, counter, count = self._fields[trainer].tolist()
            requests.append((trainer, (kind, counter, count)))
            if kind != CLOSE:
                self._receives[trainer].Start()
        return requests

    def free(self) -> None:
        """Release the receives."""
        for receive in self._receives:
            receive.Free()


_WHAT = "the node's ranks to try the bell"


class Doorbell:
    """Bell of one node; its last rank listens, the others ring. Collective over ``node_comm``.

    The kernel picks the socket's name, in no file system: jobs on one host cannot collide, nothing is left.
    is_heard: whether every rank's ring reaches the listener (ranks in containers of their own may be out of
    earshot); only the listener knows it.
    """

    def __init__(self, node_comm: Communicator, timeout_s: float) -> None:
        listener = node_comm.size - 1
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if node_comm.rank == listener:
            self._socket.bind("")
        name = self._socket.getsockname()
        self._address: str | bytes = bcast(node_comm, name, timeout_s, _WHAT, root=listener)
        self.is_heard = self._try(node_comm, timeout_s) == listener
        if node_comm.rank == listener and not self.is_heard:
            log.warning("not every rank of this node can ring: its memory daemon polls, at some CPU time")

    def _try(self, node_comm: Communicator, timeout_s: float) -> int:
        """Ring once on every rank but the last, in turns; returns how many rings arrived here.

        A socket keeps about ten rings and drops what comes on top: enough to wake, too few to be counted at
        once.
        """
        heard = 0
        for turn in range(node_comm.size - 1):
            if node_comm.rank == turn:
                self.ring()
            barrier(node_comm, timeout_s, _WHAT)
            heard += self._silence()
        barrier(node_comm, timeout_s, _WHAT)  # no request rings before the trials are counted
        return heard

    def ring(self) -> None:
        """Wake the listener; never waits and never fails (a listener that is not there is the launcher's)."""
        with suppress(OSError):
            self._socket.sendto(b"!", self._address)

    def sleep(self, seconds: float) -> bool:
        """Sleep until rung, for ``seconds`` at most; returns whether it rang. Rings are heard once."""
        select.select([self._socket], [], [], seconds)
        return self._silence() > 0

    def _silence(self) -> int:
        """Forget the rings so far; returns how many there were."""
        rings = 0
        with suppress(BlockingIOError):
            while self._socket.recv(1):
                rings += 1
        return rings

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()
