"""The node memory of a run after new events, in one HDF5 file of its run directory."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.store.files import (
    check_rows,
    map_dataset,
    open_checked,
    plain,
    replacing,
    rows_checksum,
    telling_why,
)
from disttgl_hpc.store.laid_out import write_laid_out

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
            rows = map_dataset(file, "memory", path)
            if rows.ndim != 2 or rows.dtype != np.float32:
                raise ValueError(f"memory must have 2 dimensions of float32, found {rows.shape} {rows.dtype}")
            origin = MemoryOrigin(**json.loads(file.attrs["origin"]))
            for field in dataclasses.fields(origin):
                if not isinstance(getattr(origin, field.name), str if field.type == "str" else int):
                    raise ValueError(f"{field.name} of its origin must be {field.type}")
            if not 0 <= origin.train_end <= origin.validation_end <= origin.run_events or origin.position < 0:
                raise ValueError("numbers of its origin must ascend from 0")
            return cls(path, rows, origin, str(plain(file.attrs["checksum"])))

    def verify(self) -> None:
        """Read everything and compare with the checksum. Raises StoreError if a byte has changed."""
        check_rows(self.path, self.rows, dataclasses.asdict(self.origin), self.checksum)


def write_memory(path: Path, rows: NDArray[np.float32], origin: MemoryOrigin) -> None:
    """Write rows (N, 2·dim_memory) and what they are of. Raises StoreError."""
    described: dict[str, Any] = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "origin": json.dumps(dataclasses.asdict(origin)),
        "checksum": rows_checksum(rows, dataclasses.asdict(origin)),
    }
    with telling_why(path, "make room there"), replacing(path) as partial:
        write_laid_out(partial, described, {"memory": rows})
