"""The memory update: a GRU whose input is the mail (TGN, eq. 3)."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from disttgl_hpc.model.inputs import ModelDims, NodeInputs, feature_arrays, in_turns
from disttgl_hpc.model.loops import read_mail, time_backward, update_backward, update_forward
from disttgl_hpc.model.parameters import WeightDraws
from disttgl_hpc.model.products import Product, in_parts, on_all_threads, times_transposed
from disttgl_hpc.model.time_encoding import TimeEncoding


class MemoryUpdate(nn.Module):
    """GRU([memory ‖ peer ‖ edge ‖ φ], memory); gates ordered as in ``torch.nn.GRUCell``: reset, update, new.

    The mail begins with the memory that is updated. The reset and update gates add the two products, so one
    weight serves both; only the new gate keeps them apart, since it resets the memory's product.
    """

    def __init__(self, dims: ModelDims, draws: WeightDraws, product: Product):
        super().__init__()
        self.dim, self._product = dims.memory, product
        bound = 1 / sqrt(dims.memory)
        self.mail_weight = draws.uniform((3 * dims.memory, 2 * dims.memory + dims.edge + dims.time), bound)
        self.mail_bias = draws.uniform((3 * dims.memory,), bound)
        self.reset_weight = draws.uniform((dims.memory, dims.memory), bound)
        self.reset_bias = draws.uniform((dims.memory,), bound)

    def forward(self, nodes: NodeInputs, time: TimeEncoding) -> Tensor:
        """Updated memory (U, memory); nodes without mail keep theirs bit for bit."""
        if nodes.state.device.type == "cpu" and nodes.state.dtype == torch.float32:
            weights = self.mail_weight, self.mail_bias, self.reset_weight, self.reset_bias
            memory: Tensor = _Compiled.apply(  # type: ignore[no-untyped-call]
                *weights, time.frequency, time.phase, nodes, self._product
            )
            return memory
        return self.updated_by_torch(nodes, time)

    def updated_by_torch(self, nodes: NodeInputs, time: TimeEncoding) -> Tensor:
        """:meth:`forward` in plain torch, on any device and in any precision."""
        state = nodes.state[nodes.mail_rows]
        memory = state[:, : self.dim]
        parts = [] if nodes.mail_edges is None else [nodes.mail_edges.gather(state.dtype)]
        mail = torch.cat([state, *parts, time(nodes.mail_elapsed)], 1)
        gates = times_transposed(mail, self.mail_weight, self._product) + self.mail_bias
        reset, update, new = gates.chunk(3, 1)
        resettable = times_transposed(memory, self.reset_weight, self._product) + self.reset_bias
        candidate = torch.addcmul(new, reset.sigmoid(), resettable).tanh()
        updated = torch.lerp(candidate, memory, update.sigmoid())
        return nodes.state[:, : self.dim].index_copy(0, nodes.mail_rows, updated)


class _Compiled(torch.autograd.Function):
    """The update for float32 on the CPU: compiled loops around the products, gradients by hand."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def] # noqa: PLR0917
        ctx, mail_weight, mail_bias, reset_weight, reset_bias, frequency, phase, nodes, product
    ):
        state, rows = nodes.state.contiguous().numpy(), nodes.mail_rows.contiguous().numpy()
        times = nodes.mail_elapsed.contiguous().numpy(), *in_turns(frequency, phase)
        features = feature_arrays(nodes.mail_edges, nodes.mail_rows)
        mail = torch.empty(len(rows), mail_weight.shape[1])
        reads = state, rows, *times, *features, mail.numpy()
        in_parts(len(rows), lambda first, last: read_mail(first, last, *reads))
        dim = len(reset_weight)
        gates = on_all_threads(product, mail, mail_weight.detach().T)
        resettable = on_all_threads(product, mail[:, :dim], reset_weight.detach().T)
        memory = nodes.state[:, :dim].contiguous()
        biases = mail_bias.detach().numpy(), reset_bias.detach().numpy()
        arrays = gates.numpy(), biases[0], resettable.numpy(), biases[1], mail.numpy(), rows, memory.numpy()
        in_parts(len(rows), lambda first, last: update_forward(first, last, *arrays))
        ctx.save_for_backward(mail_weight)
        ctx.kept = gates, resettable, mail, rows, times, product
        return memory

    @staticmethod
    @once_differentiable
    def backward(ctx, d_memory):  # type: ignore[no-untyped-def]
        (mail_weight,), (gates, resettable, mail, rows, times, product) = ctx.saved_tensors, ctx.kept
        d_gates, d_resettable = torch.empty_like(gates), torch.empty_like(resettable)
        saved = gates.numpy(), resettable.numpy(), mail.numpy(), rows
        arrays = *saved, d_memory.contiguous().numpy(), d_gates.numpy(), d_resettable.numpy()
        in_parts(len(rows), lambda first, last: update_backward(first, last, *arrays))
        dim, dim_time = resettable.shape[1], len(times[1])
        d_encoded = on_all_threads(product, d_gates, mail_weight.detach()[:, -dim_time:]).numpy()

        def part(first: int, last: int) -> np.ndarray:
            d_time = np.zeros((2, dim_time))
            time_backward(first, last, *times, d_encoded, d_time)
            return d_time

        d_frequency, d_phase = torch.from_numpy(
            sum(in_parts(len(rows), part), start=np.zeros((2, dim_time)))
        ).float()
        return (
            on_all_threads(product, d_gates.T, mail), d_gates.sum(0),
            on_all_threads(product, d_resettable.T, mail[:, :dim]), d_resettable.sum(0),
            d_frequency, d_phase, None, None,
        )  # fmt: skip
