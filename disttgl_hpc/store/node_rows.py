"""The static store: a node memory learned of an event store's training split, in one HDF5 file (DESIGN §5).

Rows of float32, one a node, and where they are from: files of static memory, and the memory a run keeps.

The node memory of a run after new events, in one HDF5 file of its run directory.

Embeddings in an HDF5 file: what other programs read, with where they are from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import map_dataset, open_checked, plain, replacing, telling_why, write_laid_out


def map_rows(file: h5py.File, name: str, path: Path) -> tuple[NDArray[np.float32], dict[str, Any], str]:
    """Rows ``name`` of the file ``path`` as a read-only map, the values of their origin, and their checksum.

    Raises StoreError as :func:`~.files.map_dataset` does; other damage is reported by :func:`~.files.open_checked`.
    """
    rows = map_dataset(file, name, path)
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise ValueError(f"{name} must have 2 dimensions of float32, found {rows.shape} {rows.dtype}")
    return rows, json.loads(file.attrs["origin"]), str(plain(file.attrs["checksum"]))


def write_rows(
    path: Path,
    described: Mapping[str, Any],
    rows: Mapping[str, NDArray[np.float32]],
    origin: Mapping[str, Any],
    remedy: str,
) -> str:
    """Write rows (N, dim), by their name, with plain values and their origin; returns the checksum of both.

    Raises StoreError, with ``remedy``, where they cannot be written.
    """
    (only,) = rows.values()
    checksum = _checksum(only, origin)
    attributes = {**described, "origin": json.dumps(dict(origin)), "checksum": checksum}
    with telling_why(path, remedy), replacing(path) as partial:
        write_laid_out(partial, attributes, rows)
    return checksum


def check_rows(path: Path, rows: NDArray[np.float32], origin: Mapping[str, Any], checksum: str) -> None:
    """Read rows and compare them with their checksum. Raises StoreError if a byte has changed."""
    found = _checksum(rows, origin)
    if found != checksum:
        raise StoreError(
            f"{path}: contents must have the checksum {checksum[:16]}…, found {found[:16]}…: make or copy it again"
        )


def _checksum(rows: NDArray[np.float32], origin: Mapping[str, Any]) -> str:
    """One sha256 over rows, their shape, and their origin."""
    described = json.dumps([list(rows.shape), dict(origin)], sort_keys=True)
    digest = hashlib.sha256(described.encode())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()


STATIC_KIND = "disttgl-static"
STATIC_VERSION = 1


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
        with open_checked(path, STATIC_KIND, STATIC_VERSION) as file:
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
                f"{len(self.rows):,}: make it again"
            )


def write_static_store(path: Path, rows: NDArray[np.float32], origin: StaticOrigin) -> str:
    """Write rows (N, dim) and where they are from; returns the checksum. Raises StoreError."""
    described = {"kind": STATIC_KIND, "schema_version": STATIC_VERSION}
    remedy = "make room there, or choose another place"
    return write_rows(path, described, {"rows": rows}, dataclasses.asdict(origin), remedy)


KEPT_KIND = "disttgl-memory"
KEPT_VERSION = 1


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
        with open_checked(path, KEPT_KIND, KEPT_VERSION) as file:
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
    described = {"kind": KEPT_KIND, "schema_version": KEPT_VERSION}
    write_rows(path, described, {"memory": rows}, dataclasses.asdict(origin), "make room there")


EMBEDDINGS_KIND = "disttgl-embeddings"
EMBEDDINGS_VERSION = 1


def write_embeddings(path: Path, columns: Mapping[str, NDArray[Any]], origin: Mapping[str, Any]) -> None:
    """Write arrays of n rows by name, texts as UTF-8 of fixed length, and plain values. Raises StoreError."""
    arrays = {
        name: np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
        for name, values in columns.items()
    }
    described = {
        "kind": EMBEDDINGS_KIND,
        "schema_version": EMBEDDINGS_VERSION,
        "origin": json.dumps(dict(origin)),
    }
    with telling_why(path, "make room there, or choose another place"), replacing(path) as partial:
        write_laid_out(partial, described, arrays)
