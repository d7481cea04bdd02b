"""The node memory of a run after new events, in one HDF5 file of its run directory."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.store.files import open_checked
from disttgl_hpc.store.rows import check_rows, map_rows, write_rows

KIND = "disttgl-memory"
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class MemoryOrigin:
    """What a memory is of.

    weights: sha256 of the checkpoint's part with the weights that carried it along. events: checksum of the event
    store, events_path: where that lies. position: the memory has seen the events [0, position), whole batches.
    run_events, train_end, validation_end: how many of the events, its first, the run was trained and evaluated on,
    and how they were split.
    """

    weights: str
    events: str
    events_path: str
    position: int
    run_events: int
    train_end: int
    validation_end: int


@dataclass(frozen=True)
class KeptMemory:
    """An opened memory: rows (N, 2·dim_memory) float32, a read-only map, of the nodes of its events' store."""

    path: Path
    rows: NDArray[np.float32]
    origin: MemoryOrigin
    checksum: str

    @classmethod
    def open(cls, path: Path) -> KeptMemory:
        """Map a memory after checking that it is whole and of our schema. Raises StoreError."""
        with open_checked(path, KIND, SCHEMA_VERSION) as file:
            rows, values, checksum = map_rows(file, "memory", path)
            origin = MemoryOrigin(**values)
            for field in dataclasses.fields(origin):
                if not isinstance(getattr(origin, field.name), str if field.type == "str" else int):
                    raise ValueError(f"{field.name} of its origin must be {field.type}")
            if not 0 <= origin.train_end <= origin.validation_end <= origin.run_events or origin.position < 0:
                raise ValueError("numbers of its origin must ascend from 0")
            return cls(path, rows, origin, checksum)

    def verify(self) -> None:
        """Read everything and compare with the checksum. Raises StoreError if a byte has changed."""
        check_rows(self.path, self.rows, dataclasses.asdict(self.origin), self.checksum)


def write_memory(path: Path, rows: NDArray[np.float32], origin: MemoryOrigin) -> None:
    """Write rows (N, 2·dim_memory) and what they are of. Raises StoreError."""
    described = {"kind": KIND, "schema_version": SCHEMA_VERSION}
    write_rows(path, described, {"memory": rows}, dataclasses.asdict(origin), "make room there")
