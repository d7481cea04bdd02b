"""Folders of TGL and DistTGL: edges.csv, edge_features.pt, node_features.pt, labels.csv."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.events.tcsr import Times
from disttgl_hpc.ingest.columns import Columns
from disttgl_hpc.ingest.raw_events import (
    RawEvents,
    exact_numbers,
    feature_rows,
    is_text,
    raw_events,
    without_point,
)
from disttgl_hpc.ingest.readers.array_files import load_array
from disttgl_hpc.ingest.readers.text_files import TextLayout, header_names, read_text, require_columns
from disttgl_hpc.ingest.source import Chunks, NodeTable, RawInput, split_rows
from disttgl_hpc.log import get_logger

log = get_logger(__name__)
_EVENTS, _EDGES, _NODES, _LABELS = "edges.csv", "edge_features.pt", "node_features.pt", "labels.csv"
NO_LABEL = -1
"""Node label of an event whose source has no label at that time."""


def is_tgl(folder: Path) -> bool:
    """Whether a folder looks like TGL's."""
    return (folder / _EVENTS).is_file()


def read_tgl(folder: Path, chunk_events: int) -> RawInput:
    """``edges.csv`` with src, dst, time and, for the split, ext_roll; the other files are optional.

    Row r of edge features belongs to the r-th event, row v of node features to node v. Raises InputError.
    """
    files = [folder / name for name in (_EVENTS, _EDGES, _NODES, _LABELS)]
    if not files[0].is_file():
        raise InputError(f"{folder}: a TGL folder must have a file {_EVENTS}: check the path")
    there = tuple(file for file in files if file.is_file())
    features = load_array(files[1]) if files[1] in there else None
    nodes = NodeTable(files[2], load_array(files[2])) if files[2] in there else None
    labels = _Labels.read(files[3], chunk_events) if files[3] in there else None
    return RawInput(there, _events(files[0], features, labels, chunk_events), nodes)


def _events(
    path: Path, features: NDArray[np.generic] | None, labels: _Labels | None, chunk_events: int
) -> Chunks:
    first = 0
    for raw, origin in _rows(path, Columns(), chunk_events, split="ext_roll"):
        rows = slice(first, first + len(raw.time))
        if features is not None and (features.ndim == 0 or len(features) < rows.stop):
            raise InputError(
                f"{path.with_name(_EDGES)}: every event needs a row of edge features, {features.shape} found and "
                f"at least {rows.stop:,} events: save features of all events"
            )
        yield (
            replace(
                raw,
                features=None if features is None else feature_rows(features[rows], origin),
                node_label=None if labels is None else labels.of(raw),
            ),
            origin,
        )
        first = rows.stop
    if features is not None and len(features) != first:
        raise InputError(
            f"{path.with_name(_EDGES)}: every row of edge features needs an event, {len(features):,} rows and "
            f"{first:,} events found: get the two files of one dataset"
        )
    if labels is not None:
        labels.warn_of_unused()


def _rows(path: Path, columns: Columns, chunk_events: int, *, split: str | None = None) -> Chunks:
    """Rows as events, with their part from the column ``split`` if the file has it."""
    names = header_names(path)
    split = split if split in names else None
    wanted = [*columns.wanted, *([split] if split else [])]
    require_columns(path, names, columns.wanted)
    for table, origin in read_text(
        path, TextLayout(",", names, header=True), wanted, dict.fromkeys(wanted, pa.string()), chunk_events
    ):
        raw = raw_events(table, columns, origin)
        if split:
            parts = exact_numbers(table[split].combine_chunks(), split, origin)
            raw = replace(raw, split=split_rows(parts, origin))
        yield raw, origin


@dataclass
class _Labels:
    """Labels of nodes at times, looked up by the events.

    ids, times: known nodes and times, ascending. keys (L,): (node, time) as one number, ascending; labels (L,), in
    the file's order within a key. taken (L,): at the first row of a key, the number of events it has labelled.
    """

    path: Path
    ids: NDArray[np.int64]
    times: Times
    keys: NDArray[np.int64]
    labels: NDArray[np.int64]
    taken: NDArray[np.int64]

    @classmethod
    def read(cls, path: Path, chunk_events: int) -> _Labels:
        """All labels of a file, in memory. Raises InputError."""
        columns = Columns(src="node", dst="node", time="time", node_label="label")
        chunks = [raw for raw, _ in _rows(path, columns, chunk_events)]
        if not chunks:
            raise InputError(f"{path}: no labels found: remove the file, or get a complete copy")
        nodes = np.concatenate([_numbers(raw.src, path) for raw in chunks])
        ids, node_code = np.unique(nodes, return_inverse=True)
        times, time_code = np.unique(np.concatenate([raw.time for raw in chunks]), return_inverse=True)
        keys = node_code * len(times) + time_code
        order = np.argsort(keys, kind="stable")
        labels = np.concatenate([raw.node_label for raw in chunks if raw.node_label is not None])
        return cls(path, ids, times, keys[order], labels[order], np.zeros(len(keys), np.int64))

    def of(self, raw: RawEvents) -> NDArray[np.int64]:
        """Labels (n,) of the sources of the next events at their times; −1 without a label.

        The k-th event of a node at a time gets its k-th label of that time, or the last one if there are fewer.
        """
        nodes = _numbers(raw.src, self.path)
        node_code = np.minimum(np.searchsorted(self.ids, nodes), len(self.ids) - 1)
        time_code = np.minimum(np.searchsorted(self.times, raw.time), len(self.times) - 1)
        keys = node_code * len(self.times) + time_code
        first, end = (np.searchsorted(self.keys, keys, side) for side in ("left", "right"))
        known = (self.ids[node_code] == nodes) & (self.times[time_code] == raw.time) & (first < end)
        rows = np.flatnonzero(known)
        rows = rows[np.argsort(keys[rows], kind="stable")]
        group = first[rows]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(group)) + 1]) if len(rows) else np.empty(0, int)
        counts = np.diff(np.append(starts, len(rows)))
        turn = np.arange(len(rows)) - np.repeat(starts, counts) + self.taken[group]
        labels = np.full(len(nodes), NO_LABEL, np.int64)
        labels[rows] = self.labels[np.minimum(group + turn, end[rows] - 1)]
        self.taken[group[starts]] += counts
        return labels

    def warn_of_unused(self) -> None:
        """Warn of labels whose node is the source of no event at that time: a store cannot hold them."""
        starts = np.flatnonzero(np.diff(self.keys, prepend=-1))
        sizes = np.diff(np.append(starts, len(self.keys)))
        unused = len(self.keys) - int(np.minimum(self.taken[starts], sizes).sum())
        if unused:
            log.warning(
                "%s: dropped %s of %s labels, whose nodes are the source of no event at that time",
                self.path,
                f"{unused:,}",
                f"{len(self.keys):,}",
            )


def _numbers(ids: pa.Array, path: Path) -> NDArray[np.int64]:
    try:
        return np.asarray((without_point(ids) if is_text(ids.type) else ids).cast(pa.int64()))
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: labels need integer node ids ({error}): number the nodes") from None
