"""Where a trainer's time goes."""

from __future__ import annotations

import time
from collections.abc import Callable

from disttgl_hpc.grid.spans import SpanClock

PHASES = (
    "sample",
    "read",
    "inputs",
    "forward",
    "write",
    "backward",
    "reduce",
    "optimiser",
    "checkpoint",
)


class PhaseClock(SpanClock):
    """Seconds per phase of a training step, one of PHASES."""

    def __init__(self, timer: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(PHASES, timer)
