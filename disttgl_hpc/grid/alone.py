"""The communicator of whoever asks for none."""

from __future__ import annotations

from mpi4py import MPI


def alone() -> MPI.Intracomm:
    """Communicator of this process by itself, however many were started."""
    return MPI.COMM_SELF
