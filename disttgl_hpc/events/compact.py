"""Features in a byte each: a column's largest value becomes 127, and the store keeps what a unit stands for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LARGEST = 127
_LEAST_SCALE = float(np.finfo(np.float32).tiny)  # below it a division would lose its digits, or be by zero


def int8_scale(largest: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale (dim,) float32 of columns whose largest absolute values are ``largest`` (dim,)."""
    return np.maximum(largest / _LARGEST, _LEAST_SCALE).astype(np.float32)


def to_int8(features: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.int8]:
    """Nearest multiples (n, dim) of the scale: what they stand for, value · scale, is off by half of it at most."""
    stored: NDArray[np.int8] = np.rint(features / scale).astype(np.int8)
    return stored
