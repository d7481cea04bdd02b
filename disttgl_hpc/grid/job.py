"""The processes of a job: who they are, requests to stop, and leftovers in /dev/shm."""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import getpid
from pathlib import Path
from types import FrameType

from mpi4py import MPI

from disttgl_hpc.grid.collectives import (
    DEFAULT_TIMEOUT_S,
    Communicator,
    allgather,
    free,
    node_comm_of,
)


def roster(world: Communicator, role: str, timeout_s: float) -> list[str]:
    """One line about each rank of ``world``, in order. role: what this rank does. Collective.

    A rank that dies is named by its number and process (see :mod:`~.grid.rank_parent`). Raises DeadlineError.
    """
    own = f"rank {world.rank}: {role}, process {getpid()} on {MPI.Get_processor_name()}"
    return allgather(world, own, timeout_s, "the other ranks' roles")


STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
EXIT_STATUS = 75  # EX_TEMPFAIL: try again later
_ONE_KEYPRESS_S = 0.5  # in which it may arrive twice, from the terminal and from the launcher


class StopRequest:
    """Whether this process was asked to stop at the next step."""

    def __init__(self) -> None:
        self._is_made = False
        self._interrupted_s = math.inf  # when Ctrl-C was first pressed

    def is_made(self) -> bool:
        """Whether a signal has come."""
        return self._is_made

    def make(self, number: int, _: FrameType | None = None) -> None:
        """Note a signal. Raises KeyboardInterrupt at a second Ctrl-C."""
        self._is_made = True
        if number == signal.SIGINT:
            now_s = time.monotonic()
            if now_s - self._interrupted_s > _ONE_KEYPRESS_S:
                raise KeyboardInterrupt
            self._interrupted_s = min(self._interrupted_s, now_s)


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """While the context lasts SIGTERM, SIGUSR1 and SIGINT ask to stop and do nothing else."""
    request = StopRequest()
    before = {number: signal.signal(number, request.make) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_signals() -> None:
    """Ignore stop signals before exiting with a status, since launchers signal all ranks once one has ended."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


_MAPS = Path("/proc/self/maps")
_MPICH_SEGMENT = re.compile(r"\S*/dev/shm/mpich_shm_\w+$")


def drop_names_of_segments(world: Communicator) -> None:
    """Unlink the segments through which MPICH's ranks of a node communicate; existing mappings stay valid.

    MPICH unlinks them only when the job ends regularly, so a killed rank would leave one behind. Collective
    over all ranks of the job, which have mapped them since MPI's start. Windows need no such care, as MPICH
    and UCX unlink theirs at once. Files of other libraries may be opened later and are kept.
    """
    node_comm = node_comm_of(world, DEFAULT_TIMEOUT_S)
    is_first = node_comm.rank == 0
    free([node_comm], DEFAULT_TIMEOUT_S, "the node's ranks to start")
    if is_first and _MAPS.exists():
        for line in _MAPS.read_text().splitlines():
            segment = _MPICH_SEGMENT.search(line)
            if segment:
                with suppress(FileNotFoundError):
                    Path(segment.group()).unlink()
