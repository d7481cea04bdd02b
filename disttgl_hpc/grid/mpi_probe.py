"""Probes of MPI: its library, whether shared windows work, and the offsets between the nodes' clocks.

Monotonic clocks count from each machine's own start.
"""

from __future__ import annotations

import time

import mpi4py
import numpy as np
from mpi4py import MPI

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.collectives import (
    Communicator,
    allocate_shared,
    barrier,
    free,
    free_window,
    node_comm_of,
    wait_request,
)


def mpi_library() -> str:
    """Name and version of the MPI library."""
    library = MPI.Get_library_version().splitlines()[0].partition(",")[0].replace("Version:", "")
    return " ".join(library.split())


def mpi_stack() -> str:
    """The MPI library, the standard that it follows, and mpi4py's version."""
    standard = ".".join(map(str, MPI.Get_version()))
    return f"{mpi_library()} (MPI {standard}), mpi4py {mpi4py.__version__}"


def try_shared_memory(world: Communicator, timeout_s: float) -> str:
    """Try a window on each node's last rank: every rank writes to its place, and all ranks read all of it.

    Returns this rank's error, or "" if there was none. Collective.
    """
    node_comm, what = node_comm_of(world, timeout_s), "the node's ranks to try shared memory"
    owner = node_comm.size - 1
    try:
        size = 8 * node_comm.size * (node_comm.rank == owner)
        window = allocate_shared(node_comm, size, node_comm, timeout_s, what)
    except MPI.Exception as error:
        return f"cannot be allocated ({error.Get_error_string()})"
    except GridError as error:
        return f"{error}"
    found = np.ndarray(node_comm.size, np.int64, window.Shared_query(owner)[0])  # type: ignore[arg-type]
    expected = np.arange(node_comm.size) + 1
    found[node_comm.rank] = expected[node_comm.rank]
    window.Sync()
    barrier(node_comm, timeout_s, what)
    window.Sync()
    problem = "" if np.array_equal(found, expected) else f"{expected} was written, {found} was read"
    free_window(node_comm, window, timeout_s, what)
    free([node_comm], timeout_s, what)
    return problem


_ROUNDS = 20
_TAG = 20
_SHORT_S = 20e-6


def clock_offsets(comm: MPI.Intracomm, timeout_s: float) -> list[tuple[float, float]]:
    """Seconds by which each rank's ``time.perf_counter`` is ahead of rank 0's, and how well that is known.

    On rank 0; an empty list on the others. The shortest of several exchanges of a message counts: the other
    clock was read within it, so the error is half of its duration, some 0.1 ms between nodes. Collective.
    Raises DeadlineError.
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
