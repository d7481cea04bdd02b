"""Parameters of the model: initial weights from counter-based draws, and Adam, which updates them.

Initial weights are the same on every rank and machine. Adam uses torch's functional form: the first instance
of ``torch.optim.Adam`` imports torch's compiler, which takes 0.9 s and 66 MiB in every trainer of a node.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod, sqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adam import adam

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


_BETAS, _EPSILON = (0.9, 0.999), 1e-8


class Adam:
    """Adam (Kingma and Ba, 2015) with torch's usual constants, on any device.

    weight_decay: L2 penalty, added to the gradient. state: for each parameter, in order, ``step`` () and
    ``exp_avg`` and ``exp_avg_sq`` of its shape, float32; updated in place, as the parameters are.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, weight_decay: float = 0.0) -> None:
        self._parameters, self._rate, self._weight_decay = list(parameters), rate, weight_decay
        self.state: list[dict[str, Tensor]] = [
            {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }
            for parameter in self._parameters
        ]

    @torch.no_grad()
    def step(self) -> None:
        """Update each parameter that has a gradient."""
        moved = [
            (parameter, parameter.grad, state)
            for parameter, state in zip(self._parameters, self.state, strict=True)
            if parameter.grad is not None
        ]
        adam(
            [parameter for parameter, _, _ in moved],
            [gradient for _, gradient, _ in moved],
            [state["exp_avg"] for _, _, state in moved],
            [state["exp_avg_sq"] for _, _, state in moved],
            [],
            [state["step"] for _, _, state in moved],
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=self._rate,
            weight_decay=self._weight_decay,
            eps=_EPSILON,
            maximize=False,
            fused=True,
        )
