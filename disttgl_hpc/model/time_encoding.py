"""Time encoding φ(Δ) = cos(Δ·ω + b) (TGN, after Time2Vec), exact to 1e-5 while Δ·ω is below 10^10 radians."""

from __future__ import annotations

from enum import StrEnum
from math import log, pi

import torch
from torch import Tensor, nn


class TimeMode(StrEnum):
    """Parametrisation of the frequencies ω.

    LEARNED: ω and b are parameters (TGN). FIXED: both are constant (GraphMixer). LOG_LEARNED: ln ω and b are
    parameters, so that an optimiser step changes a frequency by a factor; a step of 1e-3 on ω itself would be
    a million times the lowest frequency.
    """

    LEARNED = "learned"
    FIXED = "fixed"
    LOG_LEARNED = "log-learned"


def phase_angle(elapsed: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """Δ·ω + b without whole turns: (…,) elapsed, (T,) frequency and phase → (…, T), dtype of ``elapsed``.

    The product is computed in float64 and in turns, so that whole turns can be dropped exactly; at Δ = 1e9 a
    float32 product is off by up to 32 radians.
    """
    turns = elapsed.double().unsqueeze(-1) * (frequency.double() / (2 * pi))
    return torch.add(phase, turns.frac_().to(elapsed.dtype), alpha=2 * pi)


class _Encode(torch.autograd.Function):
    """φ with gradients of ω and b; elapsed times have no gradient."""

    @staticmethod
    def forward(ctx, elapsed, frequency, phase):  # type: ignore[no-untyped-def]
        angle = phase_angle(elapsed, frequency, phase)
        ctx.save_for_backward(elapsed, angle)
        return angle.cos()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        elapsed, angle = ctx.saved_tensors
        slope = (angle.sin().neg_() * gradient).flatten(0, -2)
        return None, elapsed.flatten() @ slope, slope.sum(0)


class TimeEncoding(nn.Module):
    """φ(Δ) = cos(Δ·ω + b) of width ``dim``; initially ω = 10^(−9·x) / unit, x evenly spaced in [0, 1], b = 0.

    unit: stream time units per model time unit, for example 1e9 if times are nanoseconds and the model uses
    seconds.
    """

    def __init__(self, dim: int, mode: TimeMode = TimeMode.LEARNED, unit: float = 1.0):
        super().__init__()
        self.mode, self.unit = TimeMode(mode), unit
        exponent = -9 * log(10) * torch.linspace(0, 1, dim, dtype=torch.float64)
        start = exponent if self.mode is TimeMode.LOG_LEARNED else exponent.exp()
        learned = self.mode is not TimeMode.FIXED
        self.held_frequency = nn.Parameter(start.float(), requires_grad=learned)
        self.phase = nn.Parameter(torch.zeros(dim), requires_grad=learned)

    @property
    def frequency(self) -> Tensor:
        """(dim,) ω in radians per unit of elapsed time."""
        held = self.held_frequency.exp() if self.mode is TimeMode.LOG_LEARNED else self.held_frequency
        return held if self.unit == 1 else held / self.unit

    def forward(self, elapsed: Tensor) -> Tensor:
        """(…,) elapsed time → (…, dim) in [−1, 1]."""
        encoded: Tensor = _Encode.apply(elapsed, self.frequency, self.phase)  # type: ignore[no-untyped-call]
        return encoded
