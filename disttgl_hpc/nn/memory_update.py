"""The memory update: a GRU whose input is the mail (TGN, eq. 3)."""

from __future__ import annotations

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttgl_hpc.nn.initial import WeightDraws
from disttgl_hpc.nn.inputs import ModelDims


class MemoryUpdate(nn.Module):
    """GRU([memory ‖ peer ‖ edge ‖ φ], memory); gates ordered as in ``torch.nn.GRUCell``: reset, update, new.

    The mail begins with the very memory that is updated, so the reset and update gates, which add up what they
    make of both, need one weight for the two. Only the new gate tells them apart: it resets the memory's part.
    """

    def __init__(self, dims: ModelDims, draws: WeightDraws):
        super().__init__()
        self.dim = dims.memory
        bound = 1 / sqrt(dims.memory)
        self.widths = [2 * dims.memory, dims.edge, dims.time]
        self.mail_weight = draws.uniform((3 * dims.memory, sum(self.widths)), bound)
        self.mail_bias = draws.uniform((3 * dims.memory,), bound)
        self.reset_weight = draws.uniform((dims.memory, dims.memory), bound)
        self.reset_bias = draws.uniform((dims.memory,), bound)

    def forward(self, state: Tensor, edge: Tensor | None, encoded: Tensor) -> Tensor:
        """Updated memory (V, memory) from state (V, 2·memory), edge (V, edge) or None, encoded (V, time)."""
        memory = state[:, : self.dim]
        # One product a part: only the time part has an input that learns, and nothing is copied together.
        from_state, from_edge, from_time = torch.split(self.mail_weight, self.widths, 1)
        gates = torch.addmm(F.linear(state, from_state, self.mail_bias), encoded, from_time.T)
        if edge is not None:
            gates = torch.addmm(gates, edge, from_edge.T)
        reset, update, new = gates.chunk(3, 1)
        resettable = F.linear(memory, self.reset_weight, self.reset_bias)
        candidate = torch.addcmul(new, reset.sigmoid(), resettable).tanh()
        return torch.lerp(candidate, memory, update.sigmoid())
