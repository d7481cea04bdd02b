"""The static store: a node memory learned of an event store's training split, in one HDF5 file (DESIGN §5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import open_checked
from disttgl_hpc.store.rows import check_rows, map_rows, write_rows

KIND = "disttgl-static"
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StaticOrigin:
    """What a static memory was learned of, and how.

    method: embedding or static-gnn. events: checksum of the event store; name: its stream's. train_end: its
    training events, of which [0, learned_end) were learned from and the others chose among epochs.
    settings: of learning, plain values. report: what it came to, plain values.
    """

    method: str
    events: str
    name: str
    train_end: int
    learned_end: int
    settings: Mapping[str, Any]
    report: Mapping[str, Any]


@dataclass(frozen=True)
class StaticStore:
    """An opened static store: rows (N, dim) float32, a read-only map; zeros for nodes it knows nothing of."""

    path: Path
    rows: NDArray[np.float32]
    origin: StaticOrigin
    checksum: str

    @classmethod
    def open(cls, path: Path) -> StaticStore:
        """Map a store after checking that it is whole and of our schema.

        Raises StoreError naming the file, what was expected, what was found and what to do.
        """
        with open_checked(path, KIND, SCHEMA_VERSION) as file:
            rows, origin, checksum = map_rows(file, "rows", path)
            return cls(path, rows, StaticOrigin(**origin), checksum)

    def verify(self) -> None:
        """Read everything and compare with the checksum. Raises StoreError if a byte has changed."""
        check_rows(self.path, self.rows, dataclasses.asdict(self.origin), self.checksum)

    def check_events(self, events: EventStore) -> None:
        """Raise StoreError unless the memory was learned of just these events and their split."""
        if self.origin.events != events.checksum:
            raise StoreError(
                f"{self.path}: must have been learned of the events in {events.path}, whose checksum is "
                f"{events.checksum[:16]}…; it was learned of '{self.origin.name}', {self.origin.events[:16]}…: "
                f"disttgl pretrain {events.path} {self.path}, or give the events it belongs to"
            )
        if len(self.rows) != events.stream.num_nodes:
            raise StoreError(
                f"{self.path}: must have a row for each of {events.stream.num_nodes:,} nodes, found "
                f"{len(self.rows):,}: write it anew"
            )


def write_static_store(path: Path, rows: NDArray[np.float32], origin: StaticOrigin) -> str:
    """Write rows (N, dim) and where they are from; returns the checksum. Raises StoreError."""
    described = {"kind": KIND, "schema_version": SCHEMA_VERSION}
    remedy = "make room there, or choose another place"
    return write_rows(path, described, {"rows": rows}, dataclasses.asdict(origin), remedy)
