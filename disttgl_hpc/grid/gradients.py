"""Gradients of all trainers, summed and divided by the events of the step.

All gradients of a rank lie in one flat tensor together with its number of events, so that a step is one sum. What
else all ranks must agree on in a step travels along: whether to stop or to keep a checkpoint, and whether a loss or
a gradient is no number any more.
Run on processors only so far: the two device paths (a CUDA-aware library, pinned staging) follow the
documentation of torch and mpi4py, and have not met a GPU.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Iterable

import torch
from mpi4py import MPI

from disttgl_hpc.grid.collectives import DEFAULT_TIMEOUT_S, sleeping_sum
from disttgl_hpc.grid.vector_sum import VectorSum

_WHAT = "the other trainers' gradients"
_TAIL = 4  # behind the gradients: whether to stop, whether to keep a checkpoint, loss, events


class GradientSum:
    """The gradients of ``parameters`` as views of one flat float32 tensor, summed over ``comm``.

    Every rank gives the same parameters in the same order. The parameters' ``grad`` are these views from the
    start: clear them with :meth:`zero` or ``zero_grad(set_to_none=False)``; a gradient that was replaced by
    another tensor is copied back. An idle trainer takes part with zero gradients and zero events.

    wants_stop, wants_checkpoint: set by a rank before a sum; afterwards set on all ranks if they were on one.
    is_own_finite, is_finite: whether this rank's gradients and loss were numbers in the last sum, and all ranks'.
    waited_s: seconds this rank has spent in sums so far, for the others and for the exchange itself.
    mean_loss: of the last step, over all its events.
    Collective over the communicator, as ``sum`` and ``free`` are.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        comm: MPI.Intracomm,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._parameters = list(parameters)
        self._comm = comm
        self._timeout_s = timeout_s
        self.wants_stop = self.wants_checkpoint = False
        self.is_own_finite = self.is_finite = True
        self.mean_loss, self.waited_s, self._bytes = 0.0, 0.0, 0
        sizes = [parameter.numel() for parameter in self._parameters]
        device = self._parameters[0].device
        # The last element counts events: float32 is exact up to 16.7 million of them in a step.
        size = sum(sizes) + _TAIL
        self._sum = (
            VectorSum(size, comm, timeout_s, _WHAT) if comm.size > 1 and device.type == "cpu" else None
        )
        self._flat = (
            torch.zeros(size, dtype=torch.float32, device=device)
            if self._sum is None
            else torch.from_numpy(self._sum.own)
        )
        parts = torch.split(self._flat[:-_TAIL], sizes)
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

        num_events, loss: of this rank, what its gradients are of. Returns the events of the step over all ranks.
        Collective over the communicator. Raises DeadlineError, ValueError for a step without any event.
        """
        for parameter, view in zip(self._parameters, self._views, strict=True):
            if parameter.grad is not view:
                view.zero_() if parameter.grad is None else view.copy_(parameter.grad)
                parameter.grad = view
        tail = [float(self.wants_stop), float(self.wants_checkpoint), loss, float(num_events)]
        self._flat[-_TAIL:] = torch.tensor(tail)
        self.is_own_finite = math.isfinite(self._flat.sum().item())
        summed = self._flat
        if self._comm.size > 1:
            started_s = time.perf_counter()
            summed = self._reduced()
            self.waited_s += time.perf_counter() - started_s
        self.is_finite = math.isfinite(summed.sum().item())
        stop, checkpoint, total_loss, events = summed[-_TAIL:].tolist()
        self.wants_stop, self.wants_checkpoint, total = stop > 0, checkpoint > 0, int(events)
        if total == 0:
            raise ValueError("a step has at least one event, got none on any trainer")
        self.mean_loss = total_loss / total
        torch.div(summed[:-_TAIL], total, out=self._flat[:-_TAIL])
        return total

    @property
    def sent_bytes(self) -> int:
        """How much this rank has handed to sums between nodes so far; devices count what they hand to any."""
        return self._bytes if self._sum is None else self._sum.sent_bytes

    def free(self) -> None:
        """Give the gradients' memory back; they are not to be touched any more."""
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
            torch.cuda.synchronize(self._flat.device)  # MPI does not know torch's stream
            sleeping_sum(self._comm, self._flat, self._timeout_s, _WHAT)
        else:
            self._staging.copy_(self._flat)
            sleeping_sum(self._comm, self._staging.numpy(), self._timeout_s, _WHAT)
            self._flat.copy_(self._staging)
        return self._flat


def _library_takes_device_memory() -> bool:
    """Whether the MPI library says that it accepts CUDA memory (an extension of Open MPI and MPICH)."""
    query = getattr(ctypes.CDLL(MPI.__file__), "MPIX_Query_cuda_support", None)
    return query is not None and bool(query())
