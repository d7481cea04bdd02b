"""Fail together: an error on one rank becomes an error on all, instead of a hang."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from mpi4py import MPI

from disttgl_hpc.errors import DisttglError, PeerError
from disttgl_hpc.grid.collectives import DEFAULT_TIMEOUT_S, sleeping_sum


def raise_together(
    comm: MPI.Intracomm, error: Exception | None, timeout_s: float = DEFAULT_TIMEOUT_S
) -> None:
    """Raise on every rank of ``comm`` if any rank has an error. Collective; returns where nobody has one.

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
