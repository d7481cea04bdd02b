"""What lets a run outlive its processes: where it begins, and where the parts of its checkpoints go.

A checkpoint is taken between two steps: after all writes of batch c and before any of batch c+1. There the state of
a run is its weights and optimiser, the memory of every replica, and what each trainer has in hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class CheckpointWriter(Protocol):
    """Makes checkpoints durable; called from a side thread, one call at a time."""

    def write_part(self, counter: int, arrays: Arrays) -> str:
        """Write this node's part of the checkpoint after batch ``counter``; returns the file's checksum."""

    def complete(self, counter: int, checksums: Sequence[str]) -> None:
        """All nodes' parts are written: make the checkpoint valid, by their checksums in the nodes' order."""


class NoCheckpoints:
    """For runs that need not last, such as measurements."""

    def write_part(self, counter: int, arrays: Arrays) -> str:
        """Forget it."""
        return ""

    def complete(self, counter: int, checksums: Sequence[str]) -> None:
        """Nothing was written."""


@dataclass(frozen=True)
class Beginning:
    """Where a run begins: here from nothing, in subclasses from a checkpoint.

    step: the first one to take.
    """

    step: int = 0

    def load_memory(self, replica: int, out: NDArray[np.float32]) -> None:
        """Fill ``out`` (N, 2·dim_memory) with a replica's memory as of the step before, if there was one."""
