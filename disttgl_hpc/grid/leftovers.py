"""Leave nothing in /dev/shm, however the job ends."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from mpi4py import MPI

_MAPS = Path("/proc/self/maps")
_MPICH_SEGMENT = re.compile(r"\S*/dev/shm/mpich_shm_\w+$")


def drop_names_of_segments(world: MPI.Intracomm) -> None:
    """Unlink the segments through which MPICH's ranks of a node talk; they live on for those who have them mapped.

    MPICH unlinks them when the job ends regularly, so a rank that is killed would leave one behind for good.
    Collective over all ranks of the job, which have mapped theirs since MPI's start. Windows need no such care
    (MPICH and UCX unlink theirs at once), and other libraries' files are left alone: they may be opened later.
    """
    node_comm = world.Split_type(MPI.COMM_TYPE_SHARED)
    node_comm.Barrier()
    is_first = node_comm.rank == 0
    node_comm.Free()
    if is_first and _MAPS.exists():
        for line in _MAPS.read_text().splitlines():
            segment = _MPICH_SEGMENT.search(line)
            if segment:
                with suppress(FileNotFoundError):
                    Path(segment.group()).unlink()
