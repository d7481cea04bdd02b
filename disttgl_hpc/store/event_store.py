"""The event store: an event stream in one memory-mapped HDF5 file (schema: docs/files.md).

Opening a store checks its schema; :meth:`EventStore.check_contents` checks ids, times and the index, and
:meth:`EventStore.verify` compares all arrays with the checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError
from disttgl_hpc.events.stream import EventStream, Split
from disttgl_hpc.events.tcsr import TCsr
from disttgl_hpc.store.event_writer import KIND, SCHEMA_VERSION, Ancestor, combined_checksum
from disttgl_hpc.store.files import map_dataset, open_checked, own_dataset, plain

_PIECE = 1 << 18  # rows per piece, so that temporary arrays fit in cache
_HASH_BYTES = 64 << 20


def check_contents(path: Path, stream: EventStream) -> None:
    """Raise StoreError unless every id, time and index position of a stream is valid."""
    num_nodes, num_src, tcsr = stream.num_nodes, stream.num_src, stream.tcsr
    rules = {
        "events/src: ids of sources": _within(stream.src, 0, num_src or num_nodes),
        "events/dst: ids of destinations": _within(stream.dst, num_src, num_nodes),
        "events/time: finite times in ascending order": _ascending(stream.time),
        "tcsr/indptr: positions in ascending order": _ascending(tcsr.indptr),
        "tcsr/neighbors: ids of nodes": _within(tcsr.neighbors, 0, num_nodes),
        "tcsr/event_ids: ids of events": _within(tcsr.event_ids, 0, stream.num_events),
    }
    if stream.edge_classes is not None:
        rules["labels/edge_multi: 0 and 1"] = _within(stream.edge_classes, 0, 2)
    for name in ("validation", "test"):
        given = getattr(stream, f"{name}_negatives")
        if given is not None:
            # Padding is at the end of a row, so a row has a negative if its first entry is one.
            is_sound = given.shape[1] > 0 and _within(given[:, 0], num_src, num_nodes)
            rules[f"negatives/{name}: ids of destinations, then -1"] = is_sound and _within(
                given, -1, num_nodes
            )
    broken = next((rule for rule, holds in rules.items() if not holds), None)
    if broken is None and not _ascending_by_node(tcsr.event_ids, tcsr.indptr):
        broken = "tcsr/event_ids: each node's events in ascending order"
    if broken is not None:
        raise StoreError(f"{path}: must hold {broken}: prepare the events again or copy the file again")


def _within(values: NDArray[Any], least: int, below: int) -> bool:
    return all(
        piece.min() >= least and piece.max() < below for piece in _pieces(values, overlap=0) if len(piece)
    )


def _ascending(values: NDArray[Any]) -> bool:
    """Whether the values ascend, not necessarily strictly, and are finite."""
    return all((piece[1:] >= piece[:-1]).all() for piece in _pieces(values)) and bool(
        np.isfinite(values[[0, -1]]).all()
    )


def _ascending_by_node(ids: NDArray[Any], indptr: NDArray[np.int64]) -> bool:
    """Whether ids ascend strictly within the entries of each node."""
    for number, piece in enumerate(_pieces(ids)):
        falls = number * _PIECE + 1 + np.flatnonzero(piece[1:] <= piece[:-1])
        if (indptr[np.searchsorted(indptr, falls)] != falls).any():
            return False
    return True


def _pieces(values: NDArray[Any], overlap: int = 1) -> Iterator[NDArray[Any]]:
    """Yield consecutive pieces, each followed by the first ``overlap`` rows of the next."""
    for start in range(0, len(values), _PIECE):
        yield values[start : start + _PIECE + overlap]


_INTS, _TIMES, _FEATURES = ("int32", "int64"), ("int64", "float64"), ("float16", "float32", "float64")

# Schema of each dataset: name of the count that is its length (None: any length), number of dimensions, dtypes.
_SCHEMA: dict[str, tuple[str | None, int, tuple[str, ...]]] = {
    "events/src": ("num_events", 1, _INTS),
    "events/dst": ("num_events", 1, _INTS),
    "events/time": ("num_events", 1, _TIMES),
    "tcsr/indptr": ("num_nodes + 1", 1, ("int64",)),
    "tcsr/neighbors": ("num_entries", 1, _INTS),
    "tcsr/event_ids": ("num_entries", 1, _INTS),
    "tcsr/times": ("num_entries", 1, _TIMES),
    "nodes/id": ("num_nodes", 1, ()),
    "features/edge": ("num_events", 2, (*_FEATURES, "int8")),
    "features/edge_scale": ("dim_edge", 1, ("float32",)),
    "features/node": ("num_nodes", 2, _FEATURES),
    "labels/edge": ("num_events", 1, ("int64",)),
    "labels/node": ("num_events", 1, ("int64",)),
    "labels/edge_multi": ("num_events", 2, ("uint8",)),
    "labels/edge_classes": (None, 1, ()),
    "negatives/validation": ("num_validation", 2, _INTS),
    "negatives/test": ("num_test", 2, _INTS),
    "source/file": (None, 1, ()),
    "source/sha256": (None, 1, ()),
    "source/options": (None, 1, ()),
    "source/grown_from": (None, 1, ()),
}
_OPTIONAL_GROUPS = ("features/", "labels/", "negatives/", "source/")


@dataclass(frozen=True)
class EventStore:
    """An open event store; its arrays are read-only maps.

    stream: the events and their T-CSR. node_labels: (E,) int64 label of the source at that time, or None.
    class_names: names of the edge classes, may be empty. sources: (file name, sha256) of each raw input file.
    options: JSON options of its preparation, or empty. grown_from: shorter stores whose events are its first
    ones, newest last.
    """

    path: Path
    stream: EventStream
    checksum: str
    schema_version: int
    node_labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]
    dropped_rows: int
    options: str = ""
    grown_from: tuple[Ancestor, ...] = ()

    @classmethod
    def open(cls, path: Path | str, *, check: bool = False) -> EventStore:
        """Map a store after checking its schema, which does not read the events. Raises StoreError.

        check: also check the contents, see :meth:`check_contents`.
        """
        path = Path(path)
        with open_checked(path, KIND, SCHEMA_VERSION) as file:
            arrays = _map_arrays(file, path)
            attributes = {name: plain(value) for name, value in file.attrs.items()}
            stream = _stream(attributes, arrays)
            _check_ranges(path, stream)
            files, digests = (_texts(arrays.get(f"source/{name}")) for name in ("file", "sha256"))
            if check:
                check_contents(path, stream)
            return cls(
                path=path,
                stream=stream,
                checksum=str(attributes["checksum"]),
                schema_version=SCHEMA_VERSION,
                node_labels=arrays.get("labels/node"),
                class_names=_texts(arrays.get("labels/edge_classes")),
                sources=tuple(zip(files, digests, strict=False)),
                dropped_rows=int(attributes["dropped_rows"]),
                options="".join(_texts(arrays.get("source/options"))),
                grown_from=tuple(map(Ancestor.parse, _texts(arrays.get("source/grown_from")))),
            )

    def node_ids(self) -> NDArray[np.int64] | NDArray[np.str_]:
        """Return the user's id of every node, (N,) int64 or text; a source and a destination may share an id."""
        with open_checked(self.path, KIND, SCHEMA_VERSION) as file:
            ids = map_dataset(file, "nodes/id", self.path)[:]
        return np.char.decode(ids, "utf-8") if ids.dtype.kind == "S" else ids

    def check_contents(self) -> None:
        """Raise StoreError if an id, time or index position is invalid.

        Takes 0.2 s for 10 million events in the page cache. Only :meth:`verify` finds values that are valid
        but differ from what was written; it also reads the features.
        """
        check_contents(self.path, self.stream)

    def verify(self) -> None:
        """Compare all arrays with the checksum. Raises StoreError if a byte has changed."""
        with open_checked(self.path, KIND, SCHEMA_VERSION) as file:
            digests = {name: _digest(array) for name, array in _map_arrays(file, self.path).items()}
            found = combined_checksum(file, digests)
        if found != self.checksum:
            raise StoreError(
                f"{self.path}: contents must have the checksum {self.checksum[:16]}…, found {found[:16]}…: "
                "prepare the events again or copy the file again"
            )


def _map_arrays(file: h5py.File, path: Path) -> dict[str, NDArray[Any]]:
    """Map every dataset read-only after checking its shape and dtype against the schema and the counts."""
    counts: dict[str | None, int] = {
        "num_events": int(file.attrs["num_events"]),
        "num_nodes": int(file.attrs["num_nodes"]),
        "num_nodes + 1": int(file.attrs["num_nodes"]) + 1,
        "num_validation": int(file.attrs["validation_end"]) - int(file.attrs["train_end"]),
        "num_test": int(file.attrs["num_events"]) - int(file.attrs["validation_end"]),
        "num_entries": len(own_dataset(file, "tcsr/neighbors", path)),
        "dim_edge": own_dataset(file, "features/edge", path).shape[-1] if "features/edge" in file else 0,
    }
    arrays = {}
    for name, (count, dims, dtypes) in _SCHEMA.items():
        if name not in file and name.startswith(_OPTIONAL_GROUPS):
            continue
        dataset = own_dataset(file, name, path)
        length = counts.get(count, len(dataset))
        if dataset.ndim != dims or len(dataset) != length or (dtypes and str(dataset.dtype) not in dtypes):
            raise StoreError(
                f"{path}: dataset {name} must have {dims} dimensions, {length:,} rows ({count}) and a dtype "
                f"of {dtypes}, found {dataset.shape} {dataset.dtype}: prepare the events again or "
                f"copy the file again"
            )
        arrays[name] = map_dataset(file, name, path)
    return arrays


def _stream(attributes: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> EventStream:
    return EventStream(
        name=str(attributes["name"]),
        num_nodes=int(attributes["num_nodes"]),
        num_src=int(attributes["num_src"]),
        src=arrays["events/src"],
        dst=arrays["events/dst"],
        time=arrays["events/time"],
        split=Split(int(attributes["train_end"]), int(attributes["validation_end"])),
        tcsr=TCsr(
            arrays["tcsr/indptr"], arrays["tcsr/neighbors"], arrays["tcsr/event_ids"], arrays["tcsr/times"]
        ),
        edge_features=arrays.get("features/edge"),
        edge_scale=arrays.get("features/edge_scale"),
        node_features=arrays.get("features/node"),
        edge_labels=arrays.get("labels/edge"),
        edge_classes=arrays.get("labels/edge_multi"),
        validation_negatives=arrays.get("negatives/validation"),
        test_negatives=arrays.get("negatives/test"),
        time_unit=str(attributes["time_unit"]),
    )


def _check_ranges(path: Path, stream: EventStream) -> None:
    """Raise StoreError if counts, split or index bounds are invalid; the events are not read."""
    split, indptr = stream.split, stream.tcsr.indptr[[0, -1]]
    rules = {
        f"at least 1 event and 1 node, found {stream.num_events} and {stream.num_nodes}": stream.num_events
        > 0
        and stream.num_nodes > 0,
        f"0 <= train_end <= validation_end <= num_events, found {split} and {stream.num_events} events": 0
        <= split.train_end
        <= split.validation_end
        <= stream.num_events,
        f"0 <= num_src <= num_nodes, found {stream.num_src} of {stream.num_nodes}": 0
        <= stream.num_src
        <= stream.num_nodes,
        f"indptr from 0 to {len(stream.tcsr.neighbors)} entries, found {indptr[0]} to {indptr[1]}": indptr[0]
        == 0
        and indptr[1] == len(stream.tcsr.neighbors),
        "features/edge_scale if and only if features/edge is int8": (stream.edge_scale is not None)
        == (stream.edge_features is not None and stream.edge_features.dtype == np.int8),
    }
    for rule, holds in rules.items():
        if not holds:
            raise StoreError(
                f"{path}: an event store must have {rule}: prepare the events again or copy the file again"
            )


def _texts(values: NDArray[np.bytes_] | None) -> tuple[str, ...]:
    return () if values is None else tuple(value.decode("utf-8") for value in values)


def _digest(array: NDArray[Any]) -> str:
    """Return the sha256 of an array's bytes, read in pieces."""
    digest = hashlib.sha256()
    rows = max(1, _HASH_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        digest.update(np.ascontiguousarray(array[start : start + rows]).data)
    return digest.hexdigest()
