"""One vector for each rank, summed over all ranks: within a node through shared memory, between nodes by MPI.

A rank's vector lies in memory that its node shares. Each rank of a node adds up its share of all their vectors
and exchanges that share with the ranks of its number on the other nodes. So within a node nothing is sent or
copied, and between nodes every number is summed once.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.collectives import sleeping_barrier, sleeping_sum

_BYTES = np.dtype(np.float32).itemsize


class VectorSum:
    """Vectors (size,) float32 of the ranks of ``comm``, and their sum. Collective, as all methods are.

    own: this rank's vector, zeros at first; no other rank writes it. total: the sum, one copy a node, valid from
    :meth:`sum` on until any rank calls it again. what: names what is waited for in errors.
    sent_bytes: how much this rank has handed to sums between nodes so far.
    Raises GridError unless all nodes have the same number of ranks.
    """

    def __init__(self, size: int, comm: MPI.Intracomm, timeout_s: float, what: str) -> None:
        self._node = cast(MPI.Intracomm, comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank))
        ranks = comm.allgather(self._node.size)
        if len(set(ranks)) > 1:
            raise GridError(f"all nodes need the same number of trainers, they have {sorted(set(ranks))}")
        self._peers = cast(MPI.Intracomm, comm.Split(self._node.rank, comm.rank))
        self._timeout_s, self._what = timeout_s, what
        mine = size * _BYTES * (2 if self._node.rank == 0 else 1)  # the first one's has the sum behind it
        self._window = MPI.Win.Allocate_shared(mine, _BYTES, comm=self._node)
        self._window.Lock_all(MPI.MODE_NOCHECK)
        memory = [
            np.frombuffer(self._window.Shared_query(rank)[0], np.float32)  # type: ignore[call-overload]
            for rank in range(self._node.size)
        ]
        self._vectors: list[NDArray[np.float32]] = [each[:size] for each in memory]
        self.own, self.total = self._vectors[self._node.rank], memory[0][size:]
        self.own[:] = 0
        first, last = (size * (self._node.rank + end) // self._node.size for end in (0, 1))
        self._share = slice(first, last)
        self.sent_bytes = 0

    def sum(self) -> None:
        """Sum ``own`` of all ranks into ``total``, in the order of the ranks. Raises DeadlineError."""
        self._meet()
        share = self.total[self._share]
        share[:] = self._vectors[0][self._share]
        for vector in self._vectors[1:]:
            share += vector[self._share]
        if self._peers.size > 1:
            sleeping_sum(self._peers, share, self._timeout_s, self._what)
            self.sent_bytes += share.nbytes
        self._meet()

    def _meet(self) -> None:
        """What any rank of the node has written before is seen by all of them afterwards."""
        # Synchronised around the barrier: a message alone does not order plain loads and stores (MPI 4.1, §12.7.1).
        self._window.Sync()
        sleeping_barrier(self._node, self._timeout_s, self._what, longest_s=2e-4)
        self._window.Sync()

    def free(self) -> None:
        """Give the memory back; neither vector is to be touched any more."""
        self._window.Unlock_all()
        self._window.Free()
        self._peers.Free()
        self._node.Free()
