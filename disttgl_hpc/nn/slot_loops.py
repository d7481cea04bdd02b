"""What the compiled loops are made of: rows gathered, times encoded, sums of rows.

Vectors are handed around as views of rows: only then does the compiler see that they are contiguous.
"""

from __future__ import annotations

from math import factorial, log, pi
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from disttgl_hpc.compiled import vectorized

LANES = 64
"""Buffers are padded to multiples of so many float32: loops over them have no remainder to do one by one."""

_QUARTER = np.float32(0.25)
# sin(2πx) for |x| <= 1/4 by its series: what is left out is below 6e-8.
_S1, _S3, _S5, _S7, _S9, _S11 = (
    np.float32((-1) ** (power // 2) * (2 * pi) ** power / factorial(power)) for power in range(1, 12, 2)
)
_LOG2_E = np.float32(1 / log(2))
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (np.float32(log(2) ** power / factorial(power)) for power in range(7))
_HALF_TO_FLOAT = np.float32(2.0**112)  # between the exponent biases of float16 and float32


@vectorized
def padded(width: int) -> int:
    """The next multiple of LANES."""
    return -(-width // LANES) * LANES


@vectorized
def _sine(turns: np.float32) -> np.float32:
    """sin(2π·turns) for |turns| <= 1/4, within 2e-7."""
    q = turns * turns
    return turns * (_S1 + q * (_S3 + q * (_S5 + q * (_S7 + q * (_S9 + q * _S11)))))


@vectorized
def encode(elapsed: float, frequency: NDArray[np.float64], phase: NDArray[np.float64], out: Any) -> None:
    """φ = cos(2π(Δ·frequency + phase)) of one elapsed time, both in turns (T,) → out (T,) float32.

    The product is taken in float64, where dropping whole turns loses nothing; see ``time_encoding.phase_angle``.
    """
    for i in range(len(frequency)):
        turns = elapsed * frequency[i] + phase[i]
        part = np.float32(turns - np.rint(turns))
        out[i] = _sine(_QUARTER - abs(part))


@vectorized
def encode_with_slope(
    elapsed: float, frequency: NDArray[np.float64], phase: NDArray[np.float64], out: Any, slope: Any
) -> None:
    """As :func:`encode`, and −sin of the same angles → slope (T,) float32."""
    for i in range(len(frequency)):
        turns = elapsed * frequency[i] + phase[i]
        part = np.float32(turns - np.rint(turns))
        out[i] = _sine(_QUARTER - abs(part))
        slope[i] = -_sine(np.copysign(_QUARTER - abs(abs(part) - _QUARTER), part))


def _as_float(value: Any) -> Any:
    """A stored feature as float32; float16, which numba does not know, comes as its bits in uint16."""
    raise NotImplementedError


@overload(_as_float)
def _as_float_of(value: Any) -> Any:
    def widen(value: Any) -> Any:
        return np.float32(value)

    def widen_half(value: Any) -> Any:
        bits = np.int32(value)
        size = np.int32((bits & 0x7FFF) << 13).view(np.float32) * _HALF_TO_FLOAT
        return np.copysign(size, np.float32(0x7FFF - bits))

    return widen_half if value == types.uint16 else widen


@vectorized
def read_features(row: Any, scale: NDArray[np.float32], out: Any) -> None:
    """Stored features (e,) of an event, times scale (e,) unless that is empty → out (e,) float32."""
    if len(scale):
        for i in range(len(row)):
            out[i] = _as_float(row[i]) * scale[i]
    else:
        for i in range(len(row)):
            out[i] = _as_float(row[i])


@vectorized
def sigmoid(x: np.float32) -> np.float32:
    """1/(1 + exp(−x)), within 2e-7; a loop over it needs no library of vector functions."""
    power = min(max(x * _LOG2_E, np.float32(-126)), np.float32(126))
    whole = np.rint(power)
    f = power - whole
    # 2^f for |f| <= 1/2 by its series: what is left out is below 2e-8.
    fraction = _P0 + f * (_P1 + f * (_P2 + f * (_P3 + f * (_P4 + f * (_P5 + f * _P6)))))
    exponential = np.int32((np.int32(whole) + np.int32(127)) << 23).view(np.float32) * fraction
    return exponential / (_P0 + exponential) if x == x else x  # noqa: PLR0124


@vectorized
def copy_row(row: Any, out: Any) -> None:
    """Row (n,) → the first n of out."""
    for i in range(len(row)):
        out[i] = row[i]


@vectorized
def dot(a: Any, b: Any) -> np.float32:
    """Σ a·b of two rows of equal length."""
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@vectorized
def add_scaled(weight: np.float32, row: Any, out: Any) -> None:
    """Add weight·row to out; what row has beyond out's length is left."""
    for i in range(len(out)):
        out[i] += weight * row[i]


@vectorized
def add_two_scaled(weight: np.float32, row: Any, other_weight: np.float32, other: Any, out: Any) -> None:
    """Add weight·row + other_weight·other to out, as :func:`add_scaled` does."""
    for i in range(len(out)):
        out[i] += weight * row[i] + other_weight * other[i]


@vectorized
def add_slope(elapsed: np.float32, d_encoded: Any, slope: Any, d_time: NDArray[np.float64]) -> None:
    """Add the gradients of the angular frequency and the phase to d_time (2, T), from those of φ (T,).

    slope: (T,) of :func:`encode_with_slope`.
    """
    d_frequency, d_phase = d_time[0], d_time[1]
    for i in range(len(slope)):
        d_angle = d_encoded[i] * slope[i]
        d_frequency[i] += elapsed * d_angle
        d_phase[i] += d_angle
