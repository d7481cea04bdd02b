"""Amounts and counts of any size as features: sign(x)·log(1 + |x|), which depends on nothing but the number itself.

So an event has the same features whatever comes later. A mean and a deviation would change with the stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.ingest.raw import Origin

ALL = "all"


def parse_names(text: str) -> tuple[str, ...]:
    """Column names, or numbers from 0, joined by '+'."""
    return tuple(name.strip() for name in text.split("+") if name.strip())


def log_scaled(
    features: NDArray[np.float32] | None, wanted: Sequence[str], names: Sequence[str], origin: Origin
) -> NDArray[np.float32]:
    """Features (n, dim) whose ``wanted`` columns are scaled: names, numbers from 0, or ``("all",)``.

    names: of all columns in order, or nothing where they have none. Raises InputError for a column that is missing.
    """
    if features is None:
        raise origin.error(
            0, "--log-features needs edge features, found none: name them with --columns …,features="
        )
    by_name = {str(number): number for number in range(features.shape[1])}
    if len(names) == features.shape[1]:
        by_name |= {name: number for number, name in enumerate(names)}
    chosen = list(by_name.values()) if tuple(wanted) == (ALL,) else [by_name.get(name, -1) for name in wanted]
    if -1 in chosen:
        there = ", ".join(names) if len(names) == features.shape[1] else f"0 to {features.shape[1] - 1}"
        raise origin.error(
            0,
            f"--log-features: no feature column '{wanted[chosen.index(-1)]}', there are {there}: correct the name",
        )
    scaled = features.copy()
    scaled[:, chosen] = np.copysign(np.log1p(np.abs(features[:, chosen])), features[:, chosen])
    return scaled
