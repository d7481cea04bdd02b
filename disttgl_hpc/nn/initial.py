"""Initial weights from a generator of their own: the same on every rank, whatever ran before."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    """Parameter drawn uniformly from [−bound, bound)."""
    return nn.Parameter(torch.rand(shape, generator=generator).mul_(2 * bound).sub_(bound))


class Linear(nn.Module):
    """x Wᵀ + b, with both drawn from ±1/√dim_in as in ``torch.nn.Linear``, but from the given generator."""

    def __init__(self, dim_in: int, dim_out: int, generator: torch.Generator):
        super().__init__()
        bound = 1 / sqrt(dim_in)
        self.weight = uniform((dim_out, dim_in), bound, generator)
        self.bias = uniform((dim_out,), bound, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim_in) → (…, dim_out)."""
        return nn.functional.linear(x, self.weight, self.bias)
