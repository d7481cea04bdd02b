"""Writing an event store: contiguous datasets, filled front to back and hashed on the way.

The T-CSR of events that do not fit in memory is built in pieces, front to back.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.events.stream import Split
from disttgl_hpc.events.tcsr import Ints, Times, index_dtype
from disttgl_hpc.log import Progress
from disttgl_hpc.store.files import of_fixed_length, replacing, telling_why

_CHUNKS_PER_PIECE = 16


@dataclass(frozen=True)
class EventColumns:
    """src, dst, time of length E: anything that reads a slice, on disk or in memory."""

    src: Any
    dst: Any
    time: Any
    num_nodes: int
    chunk_events: int

    def slices(self) -> Iterator[slice]:
        """Consecutive slices of ``chunk_events`` events."""
        for start in range(0, len(self.src), self.chunk_events):
            yield slice(start, min(start + self.chunk_events, len(self.src)))


class TCsrPiece(NamedTuple):
    """Consecutive entries of the T-CSR: (n,) arrays of its dtypes, see :class:`core.tcsr.TCsr`."""

    neighbors: Ints
    event_ids: Ints
    times: Times


def count_entries(events: EventColumns) -> NDArray[np.int64]:
    """The T-CSR's indptr, (N + 1,) int64: one scan of the events."""
    indptr = np.zeros(events.num_nodes + 1, np.int64)
    for where in events.slices():
        _count(events.src[where], events.dst[where], indptr[1:])
    return np.cumsum(indptr, out=indptr)


def tcsr_pieces(events: EventColumns, indptr: NDArray[np.int64]) -> Iterator[TCsrPiece]:
    """All entries in order, about ``16 · chunk_events`` at a time; equals ``core.tcsr.build_tcsr``.

    One scan of the events for each range of nodes that has that many entries: writing stays sequential,
    memory bounded. A node with more entries than that is a range of its own, passed on as they are found.
    """
    max_entries = _CHUNKS_PER_PIECE * events.chunk_events
    for first, last in _node_ranges(indptr, max_entries):
        num_entries = int(indptr[last] - indptr[first])
        if num_entries > max_entries:
            for where in events.slices():
                piece = _room(events, where.stop - where.start)
                found = _scatter(events, where, piece, first, np.zeros(1, np.int64))
                yield TCsrPiece(piece.neighbors[:found], piece.event_ids[:found], piece.times[:found])
        else:
            piece, places = _room(events, num_entries), indptr[first:last] - indptr[first]
            for where in events.slices():
                _scatter(events, where, piece, first, places)
            yield piece


def _node_ranges(indptr: NDArray[np.int64], max_entries: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of nodes with at most ``max_entries`` entries, at least one node each."""
    first, num_nodes = 0, len(indptr) - 1
    while first < num_nodes:
        last = int(np.searchsorted(indptr, indptr[first] + max_entries, side="right")) - 1
        last = min(max(last, first + 1), num_nodes)
        yield first, last
        first = last


def _room(events: EventColumns, num_entries: int) -> TCsrPiece:
    return TCsrPiece(
        neighbors=np.empty(num_entries, index_dtype(events.num_nodes)),
        event_ids=np.empty(num_entries, index_dtype(len(events.src))),
        times=np.empty(num_entries, events.time.dtype),
    )


def _scatter(
    events: EventColumns, where: slice, piece: TCsrPiece, first_node: int, places: NDArray[np.int64]
) -> int:
    """Put the entries of a slice that belong to nodes from ``first_node`` on at their places in the piece.

    places: (n,) next free place of each of n nodes, moved on. Returns the number of entries.
    """
    ends = _Ends(events.src[where], events.dst[where], events.time[where], where.start)
    return _place(ends, piece, first_node, places)


class _Ends(NamedTuple):
    """A slice of events and the id of its first."""

    src: Ints
    dst: Ints
    time: Times
    first_event: int


@compiled
def _count(src: Ints, dst: Ints, degrees: NDArray[np.int64]) -> None:
    for row in range(len(src)):
        degrees[src[row]] += 1
        if src[row] != dst[row]:
            degrees[dst[row]] += 1


@compiled
def _place(ends: _Ends, piece: TCsrPiece, first_node: int, places: NDArray[np.int64]) -> int:
    found = 0
    for row in range(len(ends.src)):
        src, dst = ends.src[row] - first_node, ends.dst[row] - first_node
        for owner, other in ((src, dst), (dst, src)):
            if 0 <= owner < len(places):
                place = places[owner]
                places[owner] = place + 1
                piece.neighbors[place] = other + first_node
                piece.event_ids[place] = ends.first_event + row
                piece.times[place] = ends.time[row]
                found += 1
            if src == dst:
                break
    return found


KIND = "disttgl-events"
SCHEMA_VERSION = 1
_ALIGNMENT = 64
_ROWS_AT_ONCE = 1 << 16
_STRUCTURE_BYTES = 32 << 10  # more than HDF5 needs for our datasets and attributes


@dataclass(frozen=True)
class Ancestor:
    """A store whose events are the first of a longer one, their nodes possibly numbered otherwise."""

    checksum: str
    num_events: int
    split: Split

    def __str__(self) -> str:
        """As a store keeps it."""
        return f"{self.checksum} {self.num_events} {self.split.train_end} {self.split.validation_end}"

    @classmethod
    def parse(cls, text: str) -> Ancestor:
        """The ancestor that was written so. Raises ValueError."""
        checksum, *numbers = text.split()
        num_events, train_end, validation_end = map(int, numbers)
        return cls(checksum, num_events, Split(train_end, validation_end))


class Rows(Protocol):
    """Rows that are written piece by piece: an array, or what makes them when they are asked for."""

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> NDArray[Any]: ...


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What an event store says about itself, beside its events.

    node_ids: (N,) the user's ids, int64 or text; in a bipartite stream sources [0, num_src) come first.
    node_features: (N, dim_node) float or None; negatives: nodes (h, n) that the events of validation and of test
    are to be ranked against, −1 as padding, or None; both are read a slice at a time. edge_scale: (dim_edge,)
    float32, what edge features stored as int8 are multiplied with; None for floats. class_names: names of the edge
    classes 0, 1, …
    source_files and source_sha256: what it was prepared from. time_unit: "s", "ms", … where it is known.
    options: how it was prepared, JSON. grown_from: shorter stores that it begins with.
    """

    name: str
    num_events: int
    num_nodes: int
    num_src: int
    split: Split
    node_ids: NDArray[np.int64] | NDArray[np.str_]
    node_features: Rows | None = None
    validation_negatives: Rows | None = None
    test_negatives: Rows | None = None
    edge_scale: NDArray[np.float32] | None = None
    class_names: tuple[str, ...] = ()
    source_files: tuple[str, ...] = ()
    source_sha256: tuple[str, ...] = ()
    dropped_rows: int = 0
    time_unit: str = ""
    options: str = ""
    grown_from: tuple[Ancestor, ...] = ()


@dataclass(frozen=True)
class EventPart:
    """Consecutive events in time order; ids consecutive from 0, destinations of bipartite streams shifted.

    src, dst: (n,). time: (n,) int64 or float64. edge_features: (n, dim_edge) float or int8.
    edge_labels, node_labels: (n,). edge_classes: (n, C) uint8, 1 for each class that an event has.
    """

    src: Ints
    dst: Ints
    time: Times
    edge_features: NDArray[np.floating] | NDArray[np.int8] | None = None
    edge_labels: NDArray[np.int64] | None = None
    node_labels: NDArray[np.int64] | None = None
    edge_classes: NDArray[np.uint8] | None = None


@dataclass
class _Writer:
    """An HDF5 file whose datasets have a known length and are appended to."""

    file: h5py.File
    filled: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, Any] = field(default_factory=dict)

    def append(self, name: str, rows: NDArray[Any], length: int) -> None:
        """Add rows (n, …) to a dataset of ``length`` rows, created with the first ones."""
        if name not in self.file:
            # Datasets are written once and in full: without fill values each byte goes to disk once.
            self.file.create_dataset(name, (length, *rows.shape[1:]), rows.dtype, fill_time="never")
            self.filled[name], self.hashes[name] = 0, hashlib.sha256()
        dataset, start = self.file[name], self.filled[name]
        rows = np.ascontiguousarray(rows, dataset.dtype)
        dataset[start : start + len(rows)] = rows
        self.hashes[name].update(rows.data)
        self.filled[name] = start + len(rows)

    def short(self) -> list[str]:
        """Datasets that did not get all their rows."""
        return [name for name, count in self.filled.items() if count != len(self.file[name])]


def write_event_store(
    path: Path, contents: Contents, parts: Iterable[EventPart], *, chunk_events: int, progress: Progress
) -> None:
    """Write a store under a temporary name, index its events, and give it its name once it is complete.

    ``parts`` hold ``contents.num_events`` events together. Memory: about a part, ``chunk_events`` events and
    a few numbers a node. ``progress`` counts every event and every entry of the index, three an event.
    Raises ValueError if the parts do not add up to what ``contents`` says, StoreError where there is no room.
    """
    with (
        telling_why(path, "make room there, or choose another place"),
        replacing(path) as partial,
        h5py.File(partial, "w", alignment_threshold=1, alignment_interval=_ALIGNMENT) as file,
    ):
        writer = _Writer(file)
        for number, part in enumerate(parts):
            if number == 0:
                _check_room(path, part, contents)
            _append_events(writer, part, contents)
            progress.advance(len(part.src))
        if "events/src" not in file or writer.short():
            raise ValueError(f"events are missing in {writer.short()}: {contents.num_events} were announced")
        _append_tcsr(writer, contents, chunk_events, progress)
        _append_rows(writer, contents, chunk_events)
        _append_nodes(writer, contents)
        _set_attributes(writer, contents)


def _check_room(path: Path, part: EventPart, contents: Contents) -> None:
    """Raise OSError unless the disk has room: HDF5 notices late, while it closes a file, and with many words."""
    nodes, events = (
        np.dtype(index_dtype(count)).itemsize for count in (contents.num_nodes, contents.num_events)
    )
    columns = part.edge_features, part.edge_labels, part.node_labels, part.edge_classes
    row_bytes = sum(column[:1].nbytes for column in columns if column is not None)
    entry_bytes = nodes + events + part.time.dtype.itemsize
    given = contents.node_ids, *_tables(contents).values()
    node_bytes = [rows.nbytes for rows in given if rows is not None]
    needed = contents.num_events * (2 * nodes + part.time.dtype.itemsize + row_bytes + 2 * entry_bytes)
    needed += 8 * contents.num_nodes + sum(node_bytes) + _STRUCTURE_BYTES
    if needed > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _append_events(writer: _Writer, part: EventPart, contents: Contents) -> None:
    nodes = index_dtype(contents.num_nodes)
    rows: dict[str, NDArray[Any] | None] = {
        "events/src": part.src.astype(nodes, copy=False),
        "events/dst": part.dst.astype(nodes, copy=False),
        "events/time": part.time,
        "features/edge": part.edge_features,
        "labels/edge": part.edge_labels,
        "labels/node": part.node_labels,
        "labels/edge_multi": part.edge_classes,
    }
    for name, values in rows.items():
        if values is not None:
            writer.append(name, values, contents.num_events)


def _append_tcsr(writer: _Writer, contents: Contents, chunk_events: int, progress: Progress) -> None:
    group = writer.file["events"]
    events = EventColumns(group["src"], group["dst"], group["time"], contents.num_nodes, chunk_events)
    indptr = count_entries(events)
    writer.append("tcsr/indptr", indptr, len(indptr))
    for piece in tcsr_pieces(events, indptr):
        writer.append("tcsr/neighbors", piece.neighbors, int(indptr[-1]))
        writer.append("tcsr/event_ids", piece.event_ids, int(indptr[-1]))
        writer.append("tcsr/times", piece.times, int(indptr[-1]))
        progress.advance(len(piece.times))


def _tables(contents: Contents) -> dict[str, Rows | None]:
    """What is written piece by piece after the events, by dataset."""
    return {
        "features/node": contents.node_features,
        "negatives/validation": contents.validation_negatives,
        "negatives/test": contents.test_negatives,
    }


def _append_rows(writer: _Writer, contents: Contents, chunk_events: int) -> None:
    for name, rows in _tables(contents).items():
        if rows is not None:
            # One piece at least: a table without rows is a dataset, too.
            for start in range(0, max(1, len(rows)), min(chunk_events, _ROWS_AT_ONCE)):
                writer.append(name, rows[start : start + min(chunk_events, _ROWS_AT_ONCE)], len(rows))


def _append_nodes(writer: _Writer, contents: Contents) -> None:
    columns: dict[str, NDArray[Any] | None] = {
        "nodes/id": contents.node_ids,
        "features/edge_scale": contents.edge_scale,
        "labels/edge_classes": np.array(contents.class_names) if contents.class_names else None,
        "source/file": np.array(contents.source_files) if contents.source_files else None,
        "source/sha256": np.array(contents.source_sha256) if contents.source_sha256 else None,
        "source/options": np.array([contents.options]) if contents.options else None,
        "source/grown_from": np.array([f"{one}" for one in contents.grown_from])
        if contents.grown_from
        else None,
    }
    for name, values in columns.items():
        if values is not None:
            rows = np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
            writer.append(name, rows, len(rows))


def _set_attributes(writer: _Writer, contents: Contents) -> None:
    attributes = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "name": contents.name,
        "num_nodes": contents.num_nodes,
        "num_src": contents.num_src,
        "num_events": contents.num_events,
        "train_end": contents.split.train_end,
        "validation_end": contents.split.validation_end,
        "dropped_rows": contents.dropped_rows,
        "time_unit": contents.time_unit,
    }
    digests = {name: digest.hexdigest() for name, digest in writer.hashes.items()}
    writer.file.attrs.update(of_fixed_length(attributes))
    checksum = combined_checksum(writer.file, digests)
    writer.file.attrs.update(of_fixed_length({"checksum": checksum}))


def combined_checksum(file: h5py.File, digests: dict[str, str]) -> str:
    """One sha256 over everything a run depends on: every dataset but ``source``, counts and split.

    Neither the store's name nor where it came from is part of it: the same events are the same store.
    """
    numbers = ("schema_version", "num_nodes", "num_src", "num_events", "train_end", "validation_end")
    described = {
        name: [str(file[name].dtype), list(file[name].shape), digest]
        for name, digest in digests.items()
        if not name.startswith("source/")
    }
    summary = {"datasets": described, "numbers": {name: int(file.attrs[name]) for name in numbers}}
    return hashlib.sha256(json.dumps(summary, sort_keys=True).encode()).hexdigest()
