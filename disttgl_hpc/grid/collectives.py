"""Waits that sleep, have a deadline and have a name.

MPI libraries spin in their blocking calls. Here a waiting rank must leave its core to one that works, so
every wait is a non-blocking call that is tested between sleeps, and a wait that lasts too long says for what.

Fail together: an error on one rank becomes an error on all, instead of a hang.

The communicator of whoever asks for none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from mpi4py import MPI

from disttgl_hpc.errors import DeadlineError, DisttglError, PeerError

DEFAULT_TIMEOUT_S = 1800.0


class Pause:
    """Sleeps that lengthen from ``first_s`` to ``longest_s`` while nothing happens, and one deadline over all.

    Short first sleeps keep latency low where an answer is near; long later ones keep a core free for others.
    sleep: time.sleep, or one that can be cut short and then returns True: what is awaited is near again.
    """

    def __init__(
        self,
        timeout_s: float,
        what: Callable[[], str],
        *,
        first_s: float = 20e-6,
        longest_s: float = 1e-3,
        growth: float = 1.3,
        sleep: Callable[[float], bool | None] = time.sleep,
    ) -> None:
        self._timeout_s = timeout_s
        self._what = what
        self._first_s = first_s
        self._longest_s = longest_s
        self._growth = growth
        self._sleep = sleep
        self.restart()

    def restart(self, *, has_deadline: bool = True, sleep_s: float | None = None) -> None:
        """Something happened: a new deadline, if what comes next has one, and sleeps from ``sleep_s`` on.

        Without it they are short again.
        """
        self._sleep_s = self._first_s if sleep_s is None else sleep_s
        self._deadline_s = time.monotonic() + (self._timeout_s if has_deadline else math.inf)

    def sleep(self) -> None:
        """Sleep once. Raises DeadlineError when the deadline has passed."""
        if time.monotonic() > self._deadline_s:
            raise DeadlineError(
                f"waited {self._timeout_s:g} s for {self._what()}: a rank is stuck or much slower than "
                "the others; look for its last message, or allow more time with --timeout-s"
            )
        was_woken = self._sleep(self._sleep_s)
        self._sleep_s = self._first_s if was_woken else min(self._sleep_s * self._growth, self._longest_s)


def wait_until(is_ready: Callable[[], bool], timeout_s: float, what: str, *, longest_s: float = 1e-3) -> None:
    """Sleep until ``is_ready()``; raises DeadlineError naming ``what`` after ``timeout_s`` seconds."""
    if is_ready():
        return
    pause = Pause(timeout_s, lambda: what, longest_s=longest_s)
    while not is_ready():
        pause.sleep()


def wait_request(request: MPI.Request, timeout_s: float, what: str, *, longest_s: float = 1e-3) -> None:
    """Sleep until a non-blocking MPI operation is complete. Raises DeadlineError."""
    wait_until(request.Test, timeout_s, what, longest_s=longest_s)


def sleeping_barrier(comm: MPI.Intracomm, timeout_s: float, what: str, *, longest_s: float = 1e-3) -> None:
    """Barrier over ``comm``. Raises DeadlineError."""
    wait_request(comm.Ibarrier(), timeout_s, what, longest_s=longest_s)


def sleeping_sum(comm: MPI.Intracomm, values: Any, timeout_s: float, what: str) -> None:
    """Sum a buffer over ``comm`` in place; same shape and dtype on all ranks. Raises DeadlineError.

    A sum takes several rounds, each of which moves on only when it is tested: sleeps stay short here.
    """
    wait_request(comm.Iallreduce(MPI.IN_PLACE, values, MPI.SUM), timeout_s, what, longest_s=2e-4)


def raise_together(
    comm: MPI.Intracomm, error: Exception | None, timeout_s: float = DEFAULT_TIMEOUT_S
) -> None:
    """Raise on every rank of ``comm`` if any rank has an error. Collective; returns if no rank has one.

    A failing rank raises its own error, its peers PeerError("rank 1: …") of the lowest failing rank.
    """
    failed = np.array([error is not None], np.int64)
    sleeping_sum(comm, failed, timeout_s, "the other ranks' verdict")
    if not failed[0]:
        return
    messages = comm.allgather(None if error is None else f"{error}")
    if error is not None:
        raise error
    rank, message = next((rank, text) for rank, text in enumerate(messages) if text is not None)
    raise PeerError(f"rank {rank}: {message}")


@contextmanager
def together(comm: MPI.Intracomm, timeout_s: float = DEFAULT_TIMEOUT_S) -> Iterator[None]:
    """Do something on this rank, and fail on all ranks of ``comm`` if it fails on one. Collective."""
    failure = None
    try:
        yield
    except DisttglError as error:
        failure = error
    raise_together(comm, failure, timeout_s)


def decide_together(comm: MPI.Intracomm, decide: Callable[[], Any]) -> Any:
    """What ``decide()`` returns on the first rank, on all ranks of ``comm``. Collective.

    Its error is raised on the first rank, and PeerError on the others.
    """
    decision = None
    with together(comm):
        if comm.rank == 0:
            decision = decide()
    return comm.bcast(decision)


def alone() -> MPI.Intracomm:
    """Communicator of this process by itself, however many were started."""
    return MPI.COMM_SELF
