"""Building blocks of the compiled loops: gathering rows, encoding times, sums of rows.

A row is passed as an array and a row number: a view would be reference-counted with an atomic instruction.
Offsets within a row are unsigned: a signed index might be negative and mean a place counted from the end,
which prevents vectorisation.
"""

# Loops take many arrays, whose types numba infers.
# ruff: noqa: PLR0917

from __future__ import annotations

from math import factorial, log, pi
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from disttgl_hpc.compiled import inlined

LANES = 64
"""Buffers are padded to multiples of this many float32, so that loops over them have no scalar remainder."""

_QUARTER = np.float32(0.25)
# sin(2πx) for |x| <= 1/4 by its series; the remainder is below 6e-8.
_S1, _S3, _S5, _S7, _S9, _S11 = (
    np.float32((-1) ** (power // 2) * (2 * pi) ** power / factorial(power)) for power in range(1, 12, 2)
)
_LOG2_E = np.float32(1 / log(2))
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (np.float32(log(2) ** power / factorial(power)) for power in range(7))
_HALF_TO_FLOAT = np.float32(2.0**112)  # between the exponent biases of float16 and float32


@inlined
def padded(width: int) -> int:
    """The next multiple of LANES."""
    return -(-width // LANES) * LANES


@inlined
def _sine(turns: np.float32) -> np.float32:
    """sin(2π·turns) for |turns| <= 1/4, within 2e-7."""
    q = turns * turns
    return turns * (_S1 + q * (_S3 + q * (_S5 + q * (_S7 + q * (_S9 + q * _S11)))))


@inlined
def encode(elapsed: float, frequency: Any, phase: Any, out: Any, row: int, begin: int) -> None:
    """φ = cos(2π(Δ·frequency + phase)) of one elapsed time, both in turns (T,) → out[row, begin:] float32.

    The product is computed in float64, where whole turns can be dropped exactly; see
    ``time_encoding.phase_angle``.
    """
    for i in range(np.uintp(len(frequency))):
        turns = elapsed * frequency[i] + phase[i]
        part = np.float32(turns - np.rint(turns))
        out[row, np.uintp(begin) + i] = _sine(_QUARTER - abs(part))


@inlined
def encode_with_slope(
    elapsed: float, frequency: Any, phase: Any, out: Any, row: int, begin: int, slope: Any
) -> None:
    """As :func:`encode`, and −sin of the same angles → slope[row] (T,) float32."""
    for i in range(np.uintp(len(frequency))):
        turns = elapsed * frequency[i] + phase[i]
        part = np.float32(turns - np.rint(turns))
        out[row, np.uintp(begin) + i] = _sine(_QUARTER - abs(part))
        slope[row, i] = -_sine(np.copysign(_QUARTER - abs(abs(part) - _QUARTER), part))


def _as_float(value: Any) -> Any:
    """A stored feature as float32; float16, which numba does not support, is passed as bits in uint16."""
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


@inlined
def read_features(table: Any, event: int, scale: Any, out: Any, row: int, begin: int) -> None:
    """Stored features (e,) of an event, times scale (e,) unless that is empty → out[row, begin:] float32."""
    if len(scale):
        for i in range(np.uintp(table.shape[1])):
            out[row, np.uintp(begin) + i] = _as_float(table[event, i]) * scale[i]
    else:
        for i in range(np.uintp(table.shape[1])):
            out[row, np.uintp(begin) + i] = _as_float(table[event, i])


@inlined
def exponential(x: np.float32) -> np.float32:
    """exp(x) for |x| <= 87, relative error below 1e-5, never 0; vectorises without a math library.

    Its error is that of the product x·log2(e) in float32.
    """
    power = min(max(x * _LOG2_E, np.float32(-126)), np.float32(126))
    whole = np.rint(power)
    f = power - whole
    # 2^f for |f| <= 1/2 by its series; the remainder is below 2e-8.
    fraction = _P0 + f * (_P1 + f * (_P2 + f * (_P3 + f * (_P4 + f * (_P5 + f * _P6)))))
    result = np.int32((np.int32(whole) + np.int32(127)) << 23).view(np.float32) * fraction
    return result if x == x else x  # noqa: PLR0124


@inlined
def sigmoid(x: np.float32) -> np.float32:
    """1/(1 + exp(−x)), within 2e-7."""
    power: np.float32 = exponential(x)
    return power / (_P0 + power)


@inlined
def copy_row(table: Any, source: int, out: Any, row: int) -> None:
    """table[source] (n,) → out[row, :n]."""
    for i in range(table.shape[1]):
        out[row, i] = table[source, i]


@inlined
def dots(vector: Any, rows: Any, first: int) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Products of a vector (n,) with four rows of an array (…, n)."""
    a = b = c = d = np.float32(0)
    for i in range(len(vector)):
        a += vector[i] * rows[first, i]
        b += vector[i] * rows[first + 1, i]
        c += vector[i] * rows[first + 2, i]
        d += vector[i] * rows[first + 3, i]
    return a, b, c, d


@inlined
def add_rows(weights: Any, rows: Any, first: int, out: Any) -> None:
    """Add four rows of an array (…, n), each times its weight, to out (n,)."""
    a, b, c, d = weights[first], weights[first + 1], weights[first + 2], weights[first + 3]
    for i in range(len(out)):
        out[i] += (
            a * rows[first, i] + b * rows[first + 1, i] + c * rows[first + 2, i] + d * rows[first + 3, i]
        )


@inlined
def add_slope(
    elapsed: np.float32, d_encoded: Any, row: int, begin: int, slope: Any, slope_row: int, d_time: Any
) -> None:
    """Add the gradients of the angular frequency and the phase to d_time (2, T).

    From those of φ, d_encoded[row, begin:], and slope[slope_row] (T,) of :func:`encode_with_slope`.
    """
    for i in range(np.uintp(slope.shape[1])):
        d_angle = d_encoded[row, np.uintp(begin) + i] * slope[slope_row, i]
        d_time[0, i] += elapsed * d_angle
        d_time[1, i] += d_angle
