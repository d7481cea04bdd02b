"""How far the clocks of nodes are apart: monotonic clocks count from each machine's own start."""

from __future__ import annotations

import time

import numpy as np
from mpi4py import MPI

from disttgl_hpc.grid.collectives import wait_request

_ROUNDS = 20
_TAG = 20
_SHORT_S = 20e-6


def clock_offsets(comm: MPI.Intracomm, timeout_s: float) -> list[tuple[float, float]]:
    """Seconds by which each rank's ``time.perf_counter`` is ahead of rank 0's, and how well that is known.

    Told to rank 0 only, an empty list on the others. Of several exchanges of a message the shortest counts: the
    other's clock was read within it, so half of it, some 0.1 ms between nodes, is the error. Collective. Raises
    DeadlineError.
    """
    offsets = [(0.0, 0.0)]
    for other in range(1, comm.size):
        if comm.rank not in {0, other}:
            continue
        exchanges = [_exchange(comm, other, timeout_s) for _ in range(_ROUNDS)]
        offsets.append(min(exchanges, key=lambda exchange: exchange[1]))
    return offsets if comm.rank == 0 else []


def _exchange(comm: MPI.Intracomm, other: int, timeout_s: float) -> tuple[float, float]:
    """One question for the time by rank 0, and its answer by ``other``."""
    peer, theirs = (other, np.zeros(1)) if comm.rank == 0 else (0, np.zeros(1))
    what = f"the clock of trainer {peer} of the nodes' first ones"

    def wait(request: MPI.Request) -> None:
        wait_request(request, timeout_s, what, longest_s=_SHORT_S)

    begin_s = time.perf_counter()
    if comm.rank == 0:
        answer = comm.Irecv(theirs, peer, _TAG)
        wait(comm.Isend(np.zeros(1), peer, _TAG))
        wait(answer)
    else:
        wait(comm.Irecv(theirs, peer, _TAG))
        wait(comm.Isend(np.array([time.perf_counter()]), peer, _TAG))
    end_s = time.perf_counter()
    return float(theirs[0]) - (begin_s + end_s) / 2, (end_s - begin_s) / 2
