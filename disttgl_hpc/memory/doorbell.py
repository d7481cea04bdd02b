"""A bell that wakes a node's daemon, so that it can sleep long and still answer at once.

MPI has no wait that sleeps. Polling every millisecond costs 3 % of a core, as much as all of the daemon's
work, and polling less often delays every request. So a trainer rings after it has sent: one datagram to a
local socket. The bell carries nothing and orders nothing; where it cannot be heard, the daemon polls.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress

from mpi4py import MPI

from disttgl_hpc.log import get_logger

log = get_logger(__name__)


class Doorbell:
    """Bell of one node; its last rank listens, the others ring. Collective over ``node_comm``.

    The kernel picks the socket's name, in no file system: jobs on one host cannot collide, nothing is left.
    is_heard: whether every rank's ring reaches the listener (ranks in containers of their own may be out of
    earshot); told to the listener only.
    """

    def __init__(self, node_comm: MPI.Intracomm) -> None:
        listener = node_comm.size - 1
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if node_comm.rank == listener:
            self._socket.bind("")
        self._address = node_comm.bcast(self._socket.getsockname(), root=listener)
        self.is_heard = self._try(node_comm) == listener
        if node_comm.rank == listener and not self.is_heard:
            log.warning("not every rank of this node can ring: its memory daemon polls, at some CPU time")

    def _try(self, node_comm: MPI.Intracomm) -> int:
        """Ring once on every rank but the last, in turns; returns how many rings arrived here.

        A socket keeps about ten rings and drops what comes on top: enough to wake, too few to be counted at once.
        """
        heard = 0
        for turn in range(node_comm.size - 1):
            if node_comm.rank == turn:
                self.ring()
            node_comm.Barrier()
            heard += self._silence()
        node_comm.Barrier()  # no request rings before the trials are counted
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
