"""Leave nothing in /dev/shm, however the job ends."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from mpi4py import MPI

_MAPS = Path("/proc/self/maps")
_MPICH_SEGMENT = re.compile(r"\S*/dev/shm/mpich_shm_\w+$")


def drop_names_of_segments(node_comm: MPI.Intracomm) -> None:
    """Unlink the segment through which MPICH's ranks of a node talk; it lives on for those who have it mapped.

    MPICH unlinks it when the job ends regularly, so a rank that is killed would leave it behind for good.
    Collective over a node's ranks, all of which have mapped it since MPI's start. Windows need no such care
    (MPICH and UCX unlink theirs at once), and other libraries' files are left alone: they may be opened later.
    """
    node_comm.Barrier()
    if node_comm.rank == 0 and _MAPS.exists():
        for line in _MAPS.read_text().splitlines():
            segment = _MPICH_SEGMENT.search(line)
            if segment:
                with suppress(FileNotFoundError):
                    Path(segment.group()).unlink()
