"""The processes of a job: naming a rank that dies, requests to stop, and leftovers in /dev/shm.

Launchers end a job when one of its processes dies, but not all can name it: MPICH's kills the others first,
and may name one of those. Therefore every rank holds a robust mutex in memory shared by its node, for which
another rank waits. When the owner dies, the kernel passes its mutex on before anything else, while the
launcher notices only once the dead process's memory has been released. This leaves some milliseconds for a
line, so the wait is in compiled code with the line prepared: it needs neither the interpreter lock nor the
log.
"""

from __future__ import annotations

import ctypes
import errno
import math
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import getpid
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
from mpi4py import MPI
from numba import types

from disttgl_hpc.compiled import compiled
from disttgl_hpc.grid.collectives import (
    DEFAULT_TIMEOUT_S,
    Communicator,
    allgather,
    barrier,
    free,
    node_comm_of,
)

_MUTEX_BYTES = 64  # room for a pthread_mutex_t or its attributes, of whatever C library
_SHARED, _ROBUST = 1, 1


@contextmanager
def watching(world: Communicator, role: str, timeout_s: float) -> Iterator[list[str]]:
    """Watch the ranks of each node in a context, which yields one line about each rank of ``world``, in order.

    role: what this rank does. A node's last rank watches the others, and its first rank the last. A rank that
    fails with an error is not reported, since it reports the error itself. Collective, at the end too unless
    it ends with an error.
    """
    own = f"rank {world.rank}: {role}, process {getpid()} on {MPI.Get_processor_name()}"
    what, node_comm = "the other ranks' roles", node_comm_of(world)
    watch = _Watch(node_comm, allgather(node_comm, own, timeout_s, what), timeout_s)
    try:
        yield allgather(world, own, timeout_s, what)
    finally:
        watch.release()
    # Without a deadline: the others are at work for as long as that takes, or their death ends the job.
    barrier(world, math.inf, "the other ranks to be done")
    watch.free()
    free([node_comm], timeout_s, "the node's ranks to be done")


_lock: Any = types.ExternalFunction("pthread_mutex_lock", types.intc(types.uintp))
_write: Any = types.ExternalFunction("write", types.intp(types.intc, types.uintp, types.uintp))


@compiled
def _tell_when_dead(mutex: int, line: int, length: int) -> None:
    """Take the mutex at an address; if its owner died, write the line at another address to the error output."""
    if _lock(mutex) == errno.EOWNERDEAD:
        _write(2, line, length)


class _Watch:
    """One mutex per rank of a node, held by that rank, and threads that wait for some of the others.

    names: of the node's ranks. Collective over ``node_comm``.
    """

    def __init__(self, node_comm: MPI.Intracomm, names: list[str], timeout_s: float) -> None:
        self._pthread = ctypes.CDLL(None)
        self._window = MPI.Win.Allocate_shared(_MUTEX_BYTES, 1, comm=node_comm)
        self._mutexes = [self._mutex(rank) for rank in range(node_comm.size)]
        self._own = self._mutexes[node_comm.rank]
        attributes = ctypes.create_string_buffer(_MUTEX_BYTES)
        self._pthread.pthread_mutexattr_init(attributes)
        self._pthread.pthread_mutexattr_setpshared(attributes, _SHARED)
        self._pthread.pthread_mutexattr_setrobust(attributes, _ROBUST)
        self._pthread.pthread_mutex_init(self._own, attributes)
        self._pthread.pthread_mutex_lock(self._own)
        first, last = 0, node_comm.size - 1
        watched = {first: [last], last: range(last)}.get(node_comm.rank, []) if last else []
        if watched:  # compile now, before the threads need it
            cast(Any, _tell_when_dead).compile((types.intp,) * 3)
        barrier(node_comm, timeout_s, "the node's ranks to hold their mutexes")
        # Daemon threads, so that a failing rank can exit while they wait.
        self._threads = [
            threading.Thread(target=self._watch, args=(rank, names[rank]), daemon=True) for rank in watched
        ]
        for thread in self._threads:
            thread.start()

    def _mutex(self, rank: int) -> ctypes.Array[ctypes.c_char]:
        memory, _ = self._window.Shared_query(rank)
        return (ctypes.c_char * _MUTEX_BYTES).from_buffer(memory)  # type: ignore[arg-type]

    def _watch(self, rank: int, name: str) -> None:
        """Sleep until a rank releases its mutex or dies; in that case print its line."""
        line = np.frombuffer(f"{name}, died\n".encode(), np.uint8)
        _tell_when_dead(ctypes.addressof(self._mutexes[rank]), line.ctypes.data, len(line))
        self._pthread.pthread_mutex_unlock(self._mutexes[rank])

    def release(self) -> None:
        """Leave the watch: from here on this rank may end."""
        self._pthread.pthread_mutex_unlock(self._own)

    def free(self) -> None:
        """Release the memory once all ranks have left the watch. Collective."""
        for thread in self._threads:
            thread.join()
        self._window.Free()


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
    node_comm = node_comm_of(world)
    is_first = node_comm.rank == 0
    free([node_comm], DEFAULT_TIMEOUT_S, "the node's ranks to start")
    if is_first and _MAPS.exists():
        for line in _MAPS.read_text().splitlines():
            segment = _MPICH_SEGMENT.search(line)
            if segment:
                with suppress(FileNotFoundError):
                    Path(segment.group()).unlink()
