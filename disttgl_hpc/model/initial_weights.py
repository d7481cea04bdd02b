"""Initial weights from counter-based draws: the same on every rank and machine."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np
import torch
from torch import Tensor, nn

from disttgl_hpc.draws import WORDS_PER_BLOCK, Purpose, philox_words
from disttgl_hpc.model.products import Product, times_transposed, torch_product

_DRAWS_PER_BLOCK = 2 * WORDS_PER_BLOCK  # of 32 bits each
_FLOAT_BITS = 24  # resolution of float32 in [0, 1)


class WeightDraws:
    """Uniform draws for the parameters of a model; each parameter has its own random stream."""

    def __init__(self, seed: int) -> None:
        self._seed, self._parameter = seed, 0

    def uniform(self, shape: tuple[int, ...], bound: float) -> nn.Parameter:
        """The next parameter, drawn uniformly from [−bound, bound)."""
        count = prod(shape)
        blocks = -(-count // _DRAWS_PER_BLOCK)
        words = philox_words(self._seed, Purpose.WEIGHTS, (self._parameter, 0, 0), 0, blocks)
        self._parameter += 1
        bits = np.ascontiguousarray(words, "<u8").view("<u4").reshape(-1)[:count] >> (32 - _FLOAT_BITS)
        unit = torch.from_numpy(bits.astype(np.float32) / (1 << _FLOAT_BITS))
        return nn.Parameter(unit.mul_(2 * bound).sub_(bound).view(shape))


class Linear(nn.Module):
    """x Wᵀ + b, both drawn uniformly from ±1/√dim_in as in ``torch.nn.Linear``."""

    def __init__(self, dim_in: int, dim_out: int, draws: WeightDraws, product: Product = torch_product):
        super().__init__()
        self._product = product
        bound = 1 / sqrt(dim_in)
        self.weight = draws.uniform((dim_out, dim_in), bound)
        self.bias = draws.uniform((dim_out,), bound)

    def forward(self, x: Tensor) -> Tensor:
        """(…, dim_in) → (…, dim_out)."""
        out = times_transposed(x.flatten(0, -2), self.weight, self._product) + self.bias
        return out.view(*x.shape[:-1], -1)
