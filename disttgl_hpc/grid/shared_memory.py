"""Room in shared memory: how much is free on this node, and refusals before it is exceeded.

A page beyond the end of ``/dev/shm`` is a bus error at its first touch, inside MPI's own initialisation too.
Therefore this module does not import mpi4py.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from disttgl_hpc.errors import GridError

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only its free space is read
_MEMORY = Path("/proc/meminfo")
_RANKS_OF_NODE = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE")
_ALONE_BYTES, _RANK_BYTES = 1_100_000, 6 * 2**20
"""What MPICH may take for a process alone, and for each of several ranks of a node; measured: 1.0 and 5.2 MiB."""
GRADIENT_TAIL = 4
"""Numbers behind the gradients of a trainer: whether to stop, whether to take a checkpoint, loss, events."""
_FLOAT32_BYTES = 4
_REMEDY = "enlarge it (in a container, --shm-size), start fewer ranks on a node"


def free_shared_memory(reserved: int = 0) -> int:
    """Bytes that windows can still take on this node if ``reserved`` bytes of its memory stay free.

    MPI fills its own buffers as messages pass, so all that they may take is left to them.
    """
    limits = [sys.maxsize]
    with suppress(OSError):
        limits.append(shutil.disk_usage(_SHARED_MEMORY).free - _bytes_of_mpi())
    with suppress(OSError):
        fields = dict(line.split(":") for line in _MEMORY.read_text().splitlines())
        limits.append(int(fields["MemAvailable"].removesuffix("kB")) * 1024 - reserved)
    return max(0, min(limits))


def gradient_bytes(num_parameters: int, trainers_of_node: int) -> int:
    """Shared memory of a node for the gradients of its trainers and their sum."""
    return (num_parameters + GRADIENT_TAIL) * _FLOAT32_BYTES * (trainers_of_node + 1)


def check_room(num_bytes: int, what: str) -> None:
    """Refuse an allocation that shared memory cannot hold. Raises GridError with both sizes.

    what: needs the room, in the plural.
    """
    free = free_shared_memory()
    if num_bytes > free:
        raise GridError(
            f"{what} need {_mib(num_bytes)} of shared memory on this node, {_SHARED_MEMORY} has {_mib(free)} free "
            f"beside MPI's buffers: {_REMEDY}, or take a smaller --dim-memory"
        )


def check_room_for_mpi() -> None:
    """Refuse to start where MPI itself has no room, before mpi4py is imported. Raises GridError."""
    with suppress(OSError):
        free = shutil.disk_usage(_SHARED_MEMORY).free
        if free < _bytes_of_mpi():
            raise GridError(
                f"MPI's buffers need {_mib(_bytes_of_mpi())} of shared memory on this node, {_SHARED_MEMORY} has "
                f"{_mib(free)} free: {_REMEDY}"
            )


def _bytes_of_mpi() -> int:
    """Shared memory that the buffers of this node's ranks may take."""
    ranks = max([1, *(int(os.environ.get(name, "1")) for name in _RANKS_OF_NODE)])
    return _ALONE_BYTES if ranks == 1 else _RANK_BYTES * ranks


def _mib(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"
