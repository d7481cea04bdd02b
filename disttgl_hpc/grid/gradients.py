"""Gradients of all trainers, summed and divided by the events of the step.

All gradients of a rank are in one flat tensor together with its number of events, so that a step needs one
sum. It also carries what ranks agree on in a step: whether to stop or to take a checkpoint, and whether a
loss or a gradient is NaN or infinite. The two GPU paths (a CUDA-aware MPI library, pinned staging) have not
been run on a GPU.

``VectorSum`` sums the vectors of all ranks. They are in shared memory within a node: each rank sums its share
of them and exchanges it with the ranks of the same number on other nodes. Within a node nothing is copied or
sent, and between nodes every number is summed once.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Iterable

import numpy as np
import torch
from mpi4py import MPI
from numpy.typing import NDArray

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.collectives import (
    DEFAULT_TIMEOUT_S,
    Communicator,
    allgather,
    allocate_shared,
    barrier,
    free,
    free_window,
    node_comm_of,
    split,
    sum_in_place,
)
from disttgl_hpc.grid.shared_memory import GRADIENT_TAIL

_BYTES = np.dtype(np.float32).itemsize


class VectorSum:
    """Vectors (size,) float32 of the ranks of ``comm``, and their sum. Collective, as all methods are.

    own: this rank's vector, zeros at first; no other rank writes it. total: the sum, one copy per node, valid
    from :meth:`sum` on until any rank calls it again. what: name of the wait in errors. sent_bytes: bytes
    that this rank has passed to sums between nodes. Raises GridError unless all nodes have the same number of
    ranks and room for the vectors and their sum, PeerError if another node has no room.
    """

    def __init__(self, size: int, comm: Communicator, timeout_s: float, what: str) -> None:
        self._node = node_comm_of(comm, timeout_s)
        ranks = allgather(comm, self._node.size, timeout_s, what)
        if len(set(ranks)) > 1:
            raise GridError(f"all nodes need the same number of trainers, they have {sorted(set(ranks))}")
        self._peers = split(comm, self._node.rank, timeout_s, what, key=comm.rank)
        self._timeout_s, self._what = timeout_s, what
        mine = size * _BYTES * (2 if self._node.rank == 0 else 1)  # the first one's has the sum behind it
        self._window = allocate_shared(self._node, mine, comm, timeout_s, what)
        memory = [
            np.frombuffer(self._window.Shared_query(rank)[0], np.float32)  # type: ignore[call-overload]
            for rank in range(self._node.size)
        ]
        self._vectors: list[NDArray[np.float32]] = [each[:size] for each in memory]
        self.own, self.total = self._vectors[self._node.rank], memory[0][size:]
        first, last = (size * (self._node.rank + end) // self._node.size for end in (0, 1))
        self._share = slice(first, last)
        self.sent_bytes = 0

    def sum(self) -> None:
        """Sum ``own`` of all ranks into ``total``, in the order of the ranks. Raises DeadlineError."""
        self._meet()
        share = self.total[self._share]
        share[:] = self._vectors[0][self._share]
        for vector in self._vectors[1:]:
            share += vector[self._share]
        if self._peers.size > 1:
            sum_in_place(self._peers, share, self._timeout_s, self._what)
            self.sent_bytes += share.nbytes
        self._meet()

    def _meet(self) -> None:
        """Barrier of the node, after which all earlier writes of its ranks are visible."""
        # Synchronised around the barrier: a message alone does not order plain loads and stores (MPI 4.1, §12.7.1).
        self._window.Sync()
        barrier(self._node, self._timeout_s, self._what, longest_s=2e-4)
        self._window.Sync()

    def free(self) -> None:
        """Release the memory; the vectors must not be used afterwards."""
        free_window(self._node, self._window, self._timeout_s, self._what)
        free([self._peers], self._timeout_s, self._what)
        free([self._node], self._timeout_s, self._what)


_WHAT = "the trainers' gradients"


class GradientSum:
    """The gradients of ``parameters`` as views of one flat float32 tensor, summed over ``comm``.

    Every rank passes the same parameters in the same order. The parameters' ``grad`` are these views from the
    start: clear them with :meth:`zero` or ``zero_grad(set_to_none=False)``; a gradient that was replaced by
    another tensor is copied back. An idle trainer takes part with zero gradients and zero events.

    asks_stop, asks_checkpoint: set by a rank before a sum. is_stop_agreed, is_checkpoint_agreed: set on all
    ranks by the sum, if at least one rank asked. is_own_finite, is_finite: whether this rank's gradients and
    loss were numbers in the last sum, and all ranks'. waited_s: seconds this rank has spent in sums so far,
    for the others and for the exchange itself. mean_loss: of the last step, over all its events. Collective
    over the communicator, as ``sum`` and ``free`` are.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        comm: Communicator,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._parameters = list(parameters)
        self._comm = comm
        self._timeout_s = timeout_s
        self.asks_stop = self.asks_checkpoint = False
        self.is_stop_agreed = self.is_checkpoint_agreed = False
        self.is_own_finite = self.is_finite = True
        self.mean_loss, self.waited_s, self._bytes = 0.0, 0.0, 0
        sizes = [parameter.numel() for parameter in self._parameters]
        device = self._parameters[0].device
        # The last element counts events: float32 is exact up to 16.7 million of them in a step.
        size = sum(sizes) + GRADIENT_TAIL
        self._sum = (
            VectorSum(size, comm, timeout_s, _WHAT) if comm.size > 1 and device.type == "cpu" else None
        )
        self._flat = (
            torch.zeros(size, dtype=torch.float32, device=device)
            if self._sum is None
            else torch.from_numpy(self._sum.own)
        )
        parts = torch.split(self._flat[:-GRADIENT_TAIL], sizes)
        self._views = [part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)]
        self._staging: torch.Tensor | None = None
        if device.type == "cuda" and not _library_takes_device_memory():
            self._staging = torch.empty_like(self._flat, device="cpu", pin_memory=True)
        self.zero()

    def zero(self) -> None:
        """Clear the gradients before a backward pass."""
        self._flat.zero_()
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view

    def sum(self, num_events: int, loss: float = 0.0) -> int:
        """Replace gradients of the summed loss by their sum over trainers, divided by all their events.

        num_events, loss: of this rank, what its gradients are of. Returns the events of the step over all
        ranks. Collective over the communicator. Raises DeadlineError, ValueError for a step without any
        event.
        """
        for parameter, view in zip(self._parameters, self._views, strict=True):
            if parameter.grad is not view:
                view.zero_() if parameter.grad is None else view.copy_(parameter.grad)
                parameter.grad = view
        tail = [float(self.asks_stop), float(self.asks_checkpoint), loss, float(num_events)]
        self._flat[-GRADIENT_TAIL:] = torch.tensor(tail)
        self.is_own_finite = math.isfinite(self._flat.sum().item())
        summed = self._flat
        if self._comm.size > 1:
            started_s = time.perf_counter()
            summed = self._reduced()
            self.waited_s += time.perf_counter() - started_s
        self.is_finite = math.isfinite(summed.sum().item())
        stop, checkpoint, total_loss, events = summed[-GRADIENT_TAIL:].tolist()
        self.is_stop_agreed, self.is_checkpoint_agreed, total = stop > 0, checkpoint > 0, int(events)
        if total == 0:
            raise ValueError("a step has at least one event, got none on any trainer")
        self.mean_loss = total_loss / total
        torch.div(summed[:-GRADIENT_TAIL], total, out=self._flat[:-GRADIENT_TAIL])
        return total

    @property
    def sent_bytes(self) -> int:
        """Bytes passed to sums between nodes; on a GPU, bytes passed to any sum."""
        return self._bytes if self._sum is None else self._sum.sent_bytes

    def free(self) -> None:
        """Release the gradients' memory; they must not be used afterwards."""
        for parameter in self._parameters:
            parameter.grad = None
        if self._sum is not None:
            self._sum.free()

    def _reduced(self) -> torch.Tensor:
        """The sum of the flat tensors of all ranks."""
        if self._sum is not None:
            self._sum.sum()
            return torch.from_numpy(self._sum.total)
        self._bytes += self._flat.nbytes
        if self._staging is None:
            torch.cuda.synchronize(self._flat.device)  # MPI does not wait for torch's stream
            sum_in_place(self._comm, self._flat, self._timeout_s, _WHAT)
        else:
            self._staging.copy_(self._flat)
            sum_in_place(self._comm, self._staging.numpy(), self._timeout_s, _WHAT)
            self._flat.copy_(self._staging)
        return self._flat


def _library_takes_device_memory() -> bool:
    """Whether the MPI library says that it accepts CUDA memory (an extension of Open MPI and MPICH)."""
    query = getattr(ctypes.CDLL(MPI.__file__), "MPIX_Query_cuda_support", None)
    return query is not None and bool(query())
