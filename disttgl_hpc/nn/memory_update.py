"""The memory update: a GRU whose input is the mail (TGN, eq. 3)."""

from __future__ import annotations

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttgl_hpc.nn.initial import uniform
from disttgl_hpc.nn.inputs import ModelDims


class MemoryUpdate(nn.Module):
    """GRU([memory ‖ peer ‖ edge ‖ φ], memory); gates ordered as in ``torch.nn.GRUCell``: r, z, n."""

    def __init__(self, dims: ModelDims, generator: torch.Generator):
        super().__init__()
        self.dim = dims.memory
        bound = 1 / sqrt(dims.memory)
        dim_mail = 2 * dims.memory + dims.edge + dims.time
        self.input_weight = uniform((3 * dims.memory, dim_mail), bound, generator)
        self.hidden_weight = uniform((3 * dims.memory, dims.memory), bound, generator)
        self.input_bias = uniform((3 * dims.memory,), bound, generator)
        self.hidden_bias = uniform((3 * dims.memory,), bound, generator)

    def forward(self, state: Tensor, edge: Tensor | None, encoded: Tensor) -> Tensor:
        """Updated memory (V, memory) from state (V, 2·memory), edge (V, edge) or None, encoded (V, time)."""
        parts = [state, encoded] if edge is None else [state, edge, encoded]
        memory = state[:, : self.dim]
        gates = F.linear(torch.cat(parts, 1), self.input_weight, self.input_bias)
        hidden = F.linear(memory, self.hidden_weight, self.hidden_bias)
        reset, update = (gates[:, : 2 * self.dim] + hidden[:, : 2 * self.dim]).sigmoid().chunk(2, 1)
        new = (gates[:, 2 * self.dim :] + reset * hidden[:, 2 * self.dim :]).tanh()
        return torch.lerp(new, memory, update)
