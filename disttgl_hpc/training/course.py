"""How the loss went within a sweep, of which its mean tells nothing: points that cost nothing, for curves."""

from __future__ import annotations

import time

_POINTS = 40


class Course:
    """Mean loss over all trainers of consecutive steps, at most 40 points of a sweep of ``num_batches`` steps.

    Of the steps that this job took: a sweep that was resumed has those of its rest.
    """

    def __init__(self, num_batches: int) -> None:
        self._every = -(-num_batches // _POINTS)
        self._begin()

    def _begin(self) -> None:
        self._points: dict[str, list[float]] = {"step": [], "loss": [], "elapsed_s": []}
        self._sum, self._count, self._started_s = 0.0, 0, time.perf_counter()

    def add(self, step: int, mean_loss: float, *, ends_sweep: bool) -> None:
        """Count ``step`` of the whole run, which may be the last of a sweep."""
        self._sum += mean_loss
        self._count += 1
        if self._count == self._every or ends_sweep:
            self._points["step"].append(step + 1)
            self._points["loss"].append(round(self._sum / self._count, 6))
            self._points["elapsed_s"].append(round(time.perf_counter() - self._started_s, 4))
            self._sum, self._count = 0.0, 0

    def take(self) -> dict[str, list[float]]:
        """Of each point the run's steps until then, the loss, and seconds since the sweep began; and start anew."""
        points = self._points
        self._begin()
        return points
