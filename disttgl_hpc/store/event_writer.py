"""Writing an event store: contiguous datasets, written from front to back and hashed on the way.

The T-CSR index is built in pieces (:func:`tcsr_pieces`), so the events need not fit in memory.
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
from disttgl_hpc.store.files import of_fixed_length, replacing, write_errors

KIND = "disttgl-events"
SCHEMA_VERSION = 1
_ALIGNMENT = 64
_ROWS_AT_ONCE = 1 << 16
_STRUCTURE_BYTES = 32 << 10  # more than HDF5 needs for our datasets and attributes
_CHUNKS_PER_PIECE = 16


@dataclass(frozen=True)
class EventColumns:
    """src, dst, time of length E: arrays or HDF5 datasets that can be sliced."""

    src: Any
    dst: Any
    time: Any
    num_nodes: int
    chunk_events: int

    def slices(self) -> Iterator[slice]:
        """Yield consecutive slices of ``chunk_events`` events."""
        for start in range(0, len(self.src), self.chunk_events):
            yield slice(start, min(start + self.chunk_events, len(self.src)))


class TCsrPiece(NamedTuple):
    """Consecutive entries of the T-CSR: (n,) arrays with the dtypes of :class:`~.events.tcsr.TCsr`."""

    neighbors: Ints
    event_ids: Ints
    times: Times


def count_entries(events: EventColumns) -> NDArray[np.int64]:
    """Return the T-CSR's indptr, (N + 1,) int64, in one scan of the events."""
    indptr = np.zeros(events.num_nodes + 1, np.int64)
    for where in events.slices():
        _count(events.src[where], events.dst[where], indptr[1:])
    return np.cumsum(indptr, out=indptr)


def tcsr_pieces(events: EventColumns, indptr: NDArray[np.int64]) -> Iterator[TCsrPiece]:
    """Yield all entries in order, about ``16 · chunk_events`` at a time; equals :func:`~.events.tcsr.build_tcsr`.

    The events are scanned once for each range of nodes with that many entries, so writes are sequential and
    memory is bounded. A node with more entries is a range by itself and yields the entries of one slice at a
    time.
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
    """Yield consecutive ranges of nodes with at most ``max_entries`` entries, or of a single node."""
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
    """Write a slice's entries of nodes [first_node, first_node + n) to ``piece``; return the number of entries.

    places: (n,) next free position of each node, advanced in place.
    """
    ends = _Ends(events.src[where], events.dst[where], events.time[where], where.start)
    return _place(ends, piece, first_node, places)


class _Ends(NamedTuple):
    """A slice of events and the id of its first event."""

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


@dataclass(frozen=True)
class Ancestor:
    """A store whose events are the first events of a longer one; nodes may be numbered differently."""

    checksum: str
    num_events: int
    split: Split

    def __str__(self) -> str:
        """Format for the store; :meth:`parse` reads it."""
        return f"{self.checksum} {self.num_events} {self.split.train_end} {self.split.validation_end}"

    @classmethod
    def parse(cls, text: str) -> Ancestor:
        """Parse the format of :meth:`__str__`. Raises ValueError."""
        checksum, *numbers = text.split()
        num_events, train_end, validation_end = map(int, numbers)
        return cls(checksum, num_events, Split(train_end, validation_end))


class Rows(Protocol):
    """Rows that are written in pieces: an array, or an object that computes each slice on demand."""

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> NDArray[Any]: ...


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Everything in an event store except its events.

    node_ids: (N,) the user's ids, int64 or text; in a bipartite stream sources [0, num_src) come first.
    node_features: (N, dim_node) float or None. validation_negatives, test_negatives: (h, n) given negatives
    of the held-out events, padded with −1, or None. All three are read in slices. edge_scale: (dim_edge,)
    float32 factor of edge features stored as int8, None for floats. class_names: names of the edge classes 0,
    1, … source_files, source_sha256: raw input files. time_unit: "s", "ms", … or empty. options: JSON options
    of the preparation. grown_from: shorter stores whose events are the first ones of this store.
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
    """Consecutive events in time order; ids count from 0, and destinations of bipartite streams follow sources.

    src, dst: (n,). time: (n,) int64 or float64. edge_features: (n, dim_edge) float or int8.
    edge_labels, node_labels: (n,). edge_classes: (n, C) uint8, 1 for each class of an event.
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
    """Appends to datasets of known length in an HDF5 file and hashes what is written."""

    file: h5py.File
    filled: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, Any] = field(default_factory=dict)

    def append(self, name: str, rows: NDArray[Any], length: int) -> None:
        """Append rows (n, …) to a dataset of ``length`` rows, which the first call creates."""
        if name not in self.file:
            # Datasets are filled completely, so writing fill values first would be wasted.
            self.file.create_dataset(name, (length, *rows.shape[1:]), rows.dtype, fill_time="never")
            self.filled[name], self.hashes[name] = 0, hashlib.sha256()
        dataset, start = self.file[name], self.filled[name]
        rows = np.ascontiguousarray(rows, dataset.dtype)
        dataset[start : start + len(rows)] = rows
        self.hashes[name].update(rows.data)
        self.filled[name] = start + len(rows)

    def short(self) -> list[str]:
        """Return the datasets that lack rows."""
        return [name for name, count in self.filled.items() if count != len(self.file[name])]


def write_event_store(
    path: Path, contents: Contents, parts: Iterable[EventPart], *, chunk_events: int, progress: Progress
) -> None:
    """Write and index a store under a temporary name, and rename it once it is complete.

    parts: together ``contents.num_events`` events. Needs memory for about one part, ``chunk_events`` events
    and a few numbers per node. progress: advanced by every event and every index entry, three per event.
    Raises ValueError if ``parts`` have another number of events, StoreError if the disk is full.
    """
    with (
        write_errors(path, "free disk space or choose another folder"),
        replacing(path) as partial,
        h5py.File(partial, "w", locking=False, alignment_threshold=1, alignment_interval=_ALIGNMENT) as file,
    ):
        writer = _Writer(file)
        for number, part in enumerate(parts):
            if number == 0:
                _check_room(path, part, contents)
            _append_events(writer, part, contents)
            progress.advance(len(part.src))
        if "events/src" not in file or writer.short():
            raise ValueError(
                f"parts must have {contents.num_events} events, too few rows in {writer.short()}"
            )
        _append_tcsr(writer, contents, chunk_events, progress)
        _append_rows(writer, contents, chunk_events)
        _append_nodes(writer, contents)
        _set_attributes(writer, contents)


def _check_room(path: Path, part: EventPart, contents: Contents) -> None:
    """Raise OSError if the disk lacks space; HDF5 would only notice when it closes the file."""
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
    """Return the rows that are written in pieces after the events, by dataset."""
    return {
        "features/node": contents.node_features,
        "negatives/validation": contents.validation_negatives,
        "negatives/test": contents.test_negatives,
    }


def _append_rows(writer: _Writer, contents: Contents, chunk_events: int) -> None:
    for name, rows in _tables(contents).items():
        if rows is not None:
            # At least one piece, so that a table without rows also has a dataset.
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
    """Return one sha256 over all that a run depends on: datasets outside ``source/``, counts and split.

    The store's name and its sources are excluded, so stores with the same events have the same checksum.
    """
    numbers = ("schema_version", "num_nodes", "num_src", "num_events", "train_end", "validation_end")
    described = {
        name: [str(file[name].dtype), list(file[name].shape), digest]
        for name, digest in digests.items()
        if not name.startswith("source/")
    }
    summary = {"datasets": described, "numbers": {name: int(file.attrs[name]) for name in numbers}}
    return hashlib.sha256(json.dumps(summary, sort_keys=True).encode()).hexdigest()
