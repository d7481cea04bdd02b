"""Whether MPI does what training needs of it, tried out on a few bytes."""

from __future__ import annotations

from typing import cast

import mpi4py
import numpy as np
from mpi4py import MPI


def mpi_library() -> str:
    """Name and version of the MPI library, of the much that it tells about itself."""
    library = MPI.Get_library_version().splitlines()[0].partition(",")[0].replace("Version:", "")
    return " ".join(library.split())


def mpi_stack() -> str:
    """The MPI library, the standard that it follows, and mpi4py's version."""
    standard = ".".join(map(str, MPI.Get_version()))
    return f"{mpi_library()} (MPI {standard}), mpi4py {mpi4py.__version__}"


def try_shared_memory(world: MPI.Intracomm) -> str:
    """Have each node's last rank own a window, each rank write to its place in it, and all read all of it.

    Returns what went wrong on this rank, "" if nothing did. Collective.
    """
    node_comm = cast(MPI.Intracomm, world.Split_type(MPI.COMM_TYPE_SHARED, world.rank))
    owner = node_comm.size - 1
    try:
        window = MPI.Win.Allocate_shared(8 * node_comm.size * (node_comm.rank == owner), 8, comm=node_comm)
    except MPI.Exception as error:
        return f"cannot be allocated ({error.Get_error_string()})"
    found = np.ndarray(node_comm.size, np.int64, window.Shared_query(owner)[0])  # type: ignore[arg-type]
    expected = np.arange(node_comm.size) + 1
    window.Lock_all(MPI.MODE_NOCHECK)
    found[node_comm.rank] = expected[node_comm.rank]
    window.Sync()
    node_comm.Barrier()
    window.Sync()
    problem = "" if np.array_equal(found, expected) else f"{expected} was written, {found} was read"
    node_comm.Barrier()
    window.Unlock_all()
    window.Free()
    node_comm.Free()
    return problem
