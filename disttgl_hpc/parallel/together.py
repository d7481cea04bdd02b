"""Fail together: an error on one rank becomes an error on all, instead of a hang."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

from disttgl_hpc.errors import DisttglError, PeerError
from disttgl_hpc.parallel.waiting import DEFAULT_TIMEOUT_S, sleeping_sum


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


def decide_together(comm: MPI.Intracomm, decide: Callable[[], Any]) -> Any:
    """What ``decide()`` returns on the first rank, on all ranks of ``comm``. Collective.

    Its error is raised on the first rank, and PeerError on the others.
    """
    decision, error = None, None
    if comm.rank == 0:
        try:
            decision = decide()
        except DisttglError as failure:
            error = failure
    raise_together(comm, error)
    return comm.bcast(decision)
