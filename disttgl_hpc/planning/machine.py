"""The machine of a process: cores, memory, processor, versions, TCP traffic. Some need Linux."""

from __future__ import annotations

import os
import platform
import socket
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from disttgl_hpc.grid.shared_memory import free_shared_memory

_OPEN_FILES = Path("/proc/self/fd")
_PROCESSORS = Path("/proc/cpuinfo")
_TCP_INFO = getattr(socket, "TCP_INFO", None)
_BYTES_SENT = slice(200, 208)  # tcpi_bytes_sent in struct tcp_info, since Linux 4.19
TRAINER_MIB, DAEMON_MIB = 470, 400
"""Private memory of a process, measured without features; mostly libraries."""


def own_cores() -> frozenset[int]:
    """Numbers of the cores on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def room_for_node_memory(trainers: int) -> int:
    """Bytes that node memory may take on this node, beside the processes of ``trainers`` trainers and a daemon."""
    return free_shared_memory((trainers * TRAINER_MIB + DAEMON_MIB) * 2**20)


def processor() -> str:
    """The model name of the processor."""
    with suppress(OSError):
        for line in _PROCESSORS.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions(*more: str) -> dict[str, str]:
    """Versions of Python, of the packages on which the time of a step depends, and of ``more`` packages."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("torch", "numpy", "mpi4py", *more)
    }


def tcp_bytes_sent() -> int:
    """Bytes sent through the open TCP connections of this process, as the kernel counts them; 0 outside Linux.

    An MPI library that uses TCP between nodes sends from the rank's own process, so this is its traffic, with MPI's
    headers and without those of TCP and IP. Shared memory and InfiniBand are not included.
    """
    if _TCP_INFO is None or not _OPEN_FILES.is_dir():
        return 0
    sent = 0
    for entry in os.listdir(_OPEN_FILES):
        with suppress(OSError):
            if os.readlink(_OPEN_FILES / entry).startswith("socket:"):
                sent += _sent_by(int(entry))
    return sent


def _sent_by(descriptor: int) -> int:
    """Bytes sent by a socket; 0 if it is not TCP. Raises OSError if it has been closed meanwhile."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6) and (
            connection.type == socket.SOCK_STREAM
        )
        if not is_tcp or _TCP_INFO is None:
            return 0
        counted = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _BYTES_SENT.stop)[_BYTES_SENT]
    return int.from_bytes(counted, sys.byteorder)
