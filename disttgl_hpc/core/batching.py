"""How a sweep cuts the stream into batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.core.stream import Split
from disttgl_hpc.core.tcsr import Ints


@dataclass(frozen=True)
class Batching:
    """How a sweep cuts the stream: global batches in training, evaluation batches in each held-out part.

    Every part begins a batch of its own, and its last batch may be short; no batch spans two parts.
    """

    split: Split
    global_batch: int
    evaluation_batch: int

    @property
    def num_batches(self) -> int:
        """Global batches of a training sweep."""
        return -(-self.split.train_end // self.global_batch)

    def first_of(self, event_ids: Ints) -> NDArray[np.int64]:
        """First event of the batch that each event belongs to: (n,) → (n,) int64."""
        starts = np.array([0, self.split.train_end, self.split.validation_end])
        sizes = np.array([self.global_batch, self.evaluation_batch, self.evaluation_batch])
        events = np.asarray(event_ids, np.int64)
        part = np.searchsorted(starts, events, side="right") - 1
        first: NDArray[np.int64] = starts[part] + (events - starts[part]) // sizes[part] * sizes[part]
        return first

    def evaluation_bounds(self, first: int, last: int) -> list[tuple[int, int]]:
        """Evaluation batches (first, last) of a held-out part [first, last)."""
        size = self.evaluation_batch
        return [(start, min(start + size, last)) for start in range(first, last, size)]
