"""Tensors as the compiled loops take them."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from disttgl_hpc.model.inputs import EventFeatures


def in_turns(frequency: Tensor, phase: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """ω and b (T,) in turns instead of radians, in float64."""
    turns, offset = ((each.detach().double() / (2 * pi)).numpy() for each in (frequency, phase))
    return turns, offset


def feature_arrays(features: EventFeatures | None, rows: Tensor) -> tuple[NDArray[Any], ...]:
    """Table (E, e), its rows in the shape of ``rows`` and the scale (e,) or (0,); e is 0 without features.

    float16, which numba does not know, comes as its bits in uint16.
    """
    no_scale = np.empty(0, np.float32)
    if features is None:
        return np.empty((1, 0), np.float32), np.zeros(rows.shape, np.int64), no_scale
    table = features.table.numpy()
    bits = table.view(np.uint16) if table.dtype == np.float16 else table
    scale = no_scale if features.scale is None else features.scale.numpy()
    return bits, features.rows.contiguous().numpy(), scale
