"""Where a run's time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PHASES = ("sample", "read", "inputs", "forward", "write", "backward", "optimiser", "checkpoint")


class PhaseClock:
    """Seconds per phase since the last :meth:`take`: of the wall clock, or of another ``timer``."""

    def __init__(self, timer: Callable[[], float] = time.perf_counter) -> None:
        self._timer = timer
        self._seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the enclosed block to ``phase``, one of PHASES."""
        started_s = self._timer()
        try:
            yield
        finally:
            self._seconds[phase] += self._timer() - started_s

    def take(self) -> dict[str, float]:
        """Seconds per phase, and start again from zero."""
        taken = {phase: round(seconds, 6) for phase, seconds in self._seconds.items()}
        self._seconds = dict.fromkeys(PHASES, 0.0)
        return taken
