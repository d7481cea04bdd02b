"""HDF5 files with one row per node and the origin of these rows (schema: docs/files.md).

Static stores hold pre-trained static memory, kept memories the node memory of a run after new events, and
embedding files what other programs read.
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

from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import (
    check_types,
    map_dataset,
    open_checked,
    plain,
    replacing,
    write_arrays,
    write_errors,
)


def map_rows(file: h5py.File, name: str, path: Path) -> tuple[NDArray[np.float32], dict[str, Any], str]:
    """Map rows ``name`` of the file ``path`` read-only; return them with their origin and checksum.

    Raises StoreError as :func:`~.files.map_dataset` does, and ValueError for another shape or dtype.
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
    """Write rows (N, dim) under their name, with attributes ``described`` and their origin; return the checksum.

    Raises StoreError with ``remedy`` if the file cannot be written.
    """
    (only,) = rows.values()
    checksum = _checksum(only, origin)
    attributes = {**described, "origin": json.dumps(dict(origin)), "checksum": checksum}
    with write_errors(path, remedy), replacing(path) as partial:
        write_arrays(partial, attributes, rows)
    return checksum


def check_rows(path: Path, rows: NDArray[np.float32], origin: Mapping[str, Any], checksum: str) -> None:
    """Compare rows and origin with their checksum. Raises StoreError if a byte has changed."""
    found = _checksum(rows, origin)
    if found != checksum:
        raise StoreError(
            f"{path}: contents must have the checksum {checksum[:16]}…, found {found[:16]}…: create "
            f"or copy it again"
        )


def _checksum(rows: NDArray[np.float32], origin: Mapping[str, Any]) -> str:
    """Return one sha256 over rows, their shape and their origin."""
    described = json.dumps([list(rows.shape), dict(origin)], sort_keys=True)
    digest = hashlib.sha256(described.encode())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()


STATIC_KIND = "disttgl-static"
STATIC_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StaticOrigin:
    """Which events a static memory was trained on, and how.

    method: embedding or static-gnn. events: checksum of the event store; name: name of its stream. train_end:
    number of its training events; [0, learned_end) were trained on, the others selected the epoch. settings:
    of training. report: its results. Both hold JSON values.
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
    """An open static store: rows (N, dim) float32, a read-only map; zeros for nodes without training events."""

    path: Path
    rows: NDArray[np.float32]
    origin: StaticOrigin
    checksum: str

    @classmethod
    def open(cls, path: Path, *, check: bool = False) -> StaticStore:
        """Map a store after checking its kind and schema version; with ``check`` verify it. Raises StoreError."""
        with open_checked(path, STATIC_KIND, STATIC_VERSION) as file:
            rows, origin, checksum = map_rows(file, "rows", path)
            store = cls(path, rows, StaticOrigin(**origin), checksum)
        if check:
            store.verify()
        return store

    def verify(self) -> None:
        """Compare rows and origin with the checksum. Raises StoreError if a byte has changed."""
        check_rows(self.path, self.rows, dataclasses.asdict(self.origin), self.checksum)

    def check_events(self, events: EventStore) -> None:
        """Raise StoreError unless the memory was trained on these events with their split."""
        if self.origin.events != events.checksum:
            raise StoreError(
                f"{self.path}: must have been trained on the events in {events.path} (checksum "
                f"{events.checksum[:16]}…), found '{self.origin.name}' ({self.origin.events[:16]}…): run "
                f"disttgl pretrain {events.path} {self.path} or pass the matching events"
            )
        if len(self.rows) != events.stream.num_nodes:
            raise StoreError(
                f"{self.path}: must have a row for each of {events.stream.num_nodes:,} nodes, found "
                f"{len(self.rows):,}: create it again with disttgl pretrain"
            )


def with_static_memory(events: EventStore, config: TrainConfig) -> EventStore:
    """The events with the static memory that ``config.static`` names, if it is a file.

    It is mapped, so that the processes of a node share its pages. Raises StoreError unless it is undamaged
    and of these events.
    """
    if config.static in {"", CO_TRAINED}:
        return events
    store = StaticStore.open(Path(config.static), check=True)
    store.check_events(events)
    return dataclasses.replace(events, stream=dataclasses.replace(events.stream, static_memory=store.rows))


def write_static_store(path: Path, rows: NDArray[np.float32], origin: StaticOrigin) -> str:
    """Write rows (N, dim) and their origin; return the checksum. Raises StoreError."""
    described = {"kind": STATIC_KIND, "schema_version": STATIC_VERSION}
    remedy = "free disk space or choose another folder"
    return write_rows(path, described, {"rows": rows}, dataclasses.asdict(origin), remedy)


KEPT_KIND = "disttgl-memory"
KEPT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class MemoryOrigin:
    """The weights and events that a kept memory was computed with.

    weights: sha256 of the checkpoint part that holds the weights. events: checksum of the event store;
    events_path: its path. position: the memory includes the events [0, position), which are whole batches.
    run_events: number of first events that the run was trained and evaluated on; train_end, validation_end:
    their split.
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
    """An open kept memory: rows (N, 2·dim_memory) float32, a read-only map, in the node order of its event store."""

    path: Path
    rows: NDArray[np.float32]
    origin: MemoryOrigin
    checksum: str

    @classmethod
    def open(cls, path: Path) -> KeptMemory:
        """Map a memory after checking its kind, schema version and origin. Raises StoreError."""
        with open_checked(path, KEPT_KIND, KEPT_VERSION) as file:
            rows, values, checksum = map_rows(file, "memory", path)
            origin = MemoryOrigin(**values)
            check_types(origin)
            if not 0 <= origin.train_end <= origin.validation_end <= origin.run_events or origin.position < 0:
                raise ValueError(
                    "origin must have 0 <= train_end <= validation_end <= run_events and 0 <= position"
                )
            return cls(path, rows, origin, checksum)

    def verify(self) -> None:
        """Compare rows and origin with the checksum. Raises StoreError if a byte has changed."""
        check_rows(self.path, self.rows, dataclasses.asdict(self.origin), self.checksum)


def write_memory(path: Path, rows: NDArray[np.float32], origin: MemoryOrigin) -> None:
    """Write rows (N, 2·dim_memory) and their origin. Raises StoreError."""
    described = {"kind": KEPT_KIND, "schema_version": KEPT_VERSION}
    write_rows(path, described, {"memory": rows}, dataclasses.asdict(origin), "free disk space")


EMBEDDINGS_KIND = "disttgl-embeddings"
EMBEDDINGS_VERSION = 1


def write_embeddings(path: Path, columns: Mapping[str, NDArray[Any]], origin: Mapping[str, Any]) -> None:
    """Write arrays of n rows by name, texts as fixed-length UTF-8, and ``origin`` as JSON. Raises StoreError."""
    arrays = {
        name: np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
        for name, values in columns.items()
    }
    described = {
        "kind": EMBEDDINGS_KIND,
        "schema_version": EMBEDDINGS_VERSION,
        "origin": json.dumps(dict(origin)),
    }
    with write_errors(path, "free disk space or choose another folder"), replacing(path) as partial:
        write_arrays(partial, described, arrays)
