"""Adam by torch's functional form, without its optimiser classes.

The first instance of ``torch.optim.Adam`` imports torch's compiler: 0.9 s and 66 MiB in every trainer of a
node.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

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
