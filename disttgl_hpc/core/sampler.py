"""Recent-neighbour sampling: the last events of each root strictly before its time (TGL, alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.core.tcsr import Ints, TCsr, Times


@dataclass(frozen=True)
class Neighborhood:
    """The most recent events of R roots in K slots, most recent first; slots from ``counts`` on are padding.

    roots: (R,) int64 node ids. neighbors: (R, K) int64 node ids. event_ids: (R, K) int64.
    elapsed: (R, K) float32, root time − event time in the stream's unit. counts: (R,) int64 ≤ K.
    Padding repeats valid ids (0) so that it can be gathered; it carries no meaning.
    """

    roots: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    event_ids: NDArray[np.int64]
    elapsed: NDArray[np.float32]
    counts: NDArray[np.int64]


def event_bounds(time: Times, first: int, last: int) -> NDArray[np.int64]:
    """First event that shares the time of each event in [first, last): what precedes it is the past.

    Searching ids instead of times keeps "strictly before" exact for any time dtype.
    """
    return np.searchsorted(time, time[first:last], side="left")


def recent_neighbors(
    tcsr: TCsr, roots: Ints, root_time: NDArray[Any], bounds: Ints, num_neighbors: int
) -> Neighborhood:
    """Sample each root's ``num_neighbors`` most recent events with id below its bound.

    roots, root_time, bounds: (R,); times in the stream's dtype, bounds as of :func:`event_bounds`.
    """
    end = tcsr.positions_before(roots, bounds)
    counts = np.minimum(end - tcsr.indptr[roots], num_neighbors)
    slots = np.arange(num_neighbors)
    valid = slots < counts[:, None]
    positions = np.where(valid, end[:, None] - 1 - slots, 0)
    # Times are subtracted in their own dtype; only the difference is small enough for float32.
    elapsed = np.where(valid, root_time[:, None] - tcsr.times[positions], 0)
    return Neighborhood(
        roots=np.asarray(roots, np.int64),
        neighbors=np.where(valid, tcsr.neighbors[positions], 0).astype(np.int64, copy=False),
        event_ids=np.where(valid, tcsr.event_ids[positions], 0).astype(np.int64, copy=False),
        elapsed=elapsed.astype(np.float32),
        counts=counts,
    )
