"""Amounts and counts of any size as features: sign(x)·log(1 + |x|), which depends on nothing but the number itself.

So an event has the same features whatever comes later. A mean and a deviation would change with the stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.ingest.raw_events import Origin

ALL = "all"


def known_names(names: Sequence[str], width: int) -> tuple[str, ...]:
    """The names of ``width`` columns, or nothing where ``names`` are not one for each: ranges."""
    return tuple(names) if len(names) == width else ()


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
    width = features.shape[1]
    known = known_names(names, width)
    by_name = {str(number): number for number in range(width)}
    by_name |= {name: number for number, name in enumerate(known)}
    chosen = list(range(width)) if tuple(wanted) == (ALL,) else [by_name.get(name, -1) for name in wanted]
    if -1 in chosen:
        there = ", ".join(known) or f"0 to {width - 1}"
        raise origin.error(
            0,
            f"--log-features: no feature column '{wanted[chosen.index(-1)]}', there are {there}: correct the name",
        )
    scaled = features.copy()
    for column in chosen:  # one by one: a chunk may be most of what memory is meant for
        values = features[:, column]
        scaled[:, column] = np.copysign(np.log1p(np.abs(values)), values)
    return scaled
