"""Where a run's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PHASES = ("sample", "read", "inputs", "forward", "write", "backward", "optimiser", "checkpoint")


class PhaseClock:
    """Wall-clock seconds per phase since the last :meth:`take`."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the enclosed block to ``phase``, one of PHASES."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - started_s

    def take(self) -> dict[str, float]:
        """Seconds per phase, and start again from zero."""
        taken = {phase: round(seconds, 6) for phase, seconds in self._seconds.items()}
        self._seconds = dict.fromkeys(PHASES, 0.0)
        return taken
