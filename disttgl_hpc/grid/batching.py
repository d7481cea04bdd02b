"""How a sweep cuts the stream into batches."""

from __future__ import annotations

from dataclasses import dataclass

from disttgl_hpc.events.stream import Split


@dataclass(frozen=True)
class Batching:
    """How a sweep cuts the stream: global batches in training, evaluation batches in each held-out part.

    Every part begins a batch of its own, and its last batch may be short; no batch spans two parts.
    """

    split: Split
    global_batch: int
    evaluation_batch: int

    @property
    def cuts(self) -> tuple[int, int, int, int]:
        """End of training, end of validation, events of a global and of an evaluation batch, for compiled loops."""
        return self.split.train_end, self.split.validation_end, self.global_batch, self.evaluation_batch

    @property
    def num_batches(self) -> int:
        """Global batches of a training sweep."""
        return -(-self.split.train_end // self.global_batch)

    def evaluation_bounds(self, first: int, last: int) -> list[tuple[int, int]]:
        """Evaluation batches (first, last) of a held-out part [first, last)."""
        size = self.evaluation_batch
        return [(start, min(start + size, last)) for start in range(first, last, size)]

    def batch_end(self, first: int) -> int:
        """End of the batch that begins with event ``first``, in a stream whose test part goes on for ever."""
        for end, size in (
            (self.split.train_end, self.global_batch),
            (self.split.validation_end, self.evaluation_batch),
        ):
            if first < end:
                return min(first + size, end)
        return first + self.evaluation_batch
