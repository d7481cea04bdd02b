"""Compact records of message flow graphs: what a batch store has of the positives and of each negative set.

A record is one sequence of bytes: its numbers of nodes and of valid slots (uint32 each), then its arrays,
widest type first, so that each is aligned if the record starts at a multiple of 8. The record of the
positives of a batch has the roots src ‖ dst, their neighbours and the nodes of both; that of a negative set
has the negative roots, their neighbours and the nodes that the positives do not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.events.tcsr import index_dtype
from disttgl_hpc.sampling.mfg import Mfg

ALIGNMENT = 8
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Record:
    """A part of a graph: R roots, their S valid slots root by root, and the U nodes that it adds.

    nodes: (U,) node ids. event_ids: (S,). elapsed: (S,) float32. rows: (R + S,) rows of the graph's nodes,
    roots first. counts: (R,) valid slots. Integer types are those of a :class:`RecordFormat`.
    """

    nodes: NDArray[np.integer]
    event_ids: NDArray[np.integer]
    elapsed: NDArray[np.float32]
    rows: NDArray[np.integer]
    counts: NDArray[np.integer]


@dataclass(frozen=True)
class RecordFormat:
    """The layout of a store's records, with the smallest sufficient integer types."""

    dtypes: tuple[tuple[str, np.dtype[Any]], ...]

    @classmethod
    def of(cls, *, num_nodes: int, num_events: int, num_roots: int, num_neighbors: int) -> RecordFormat:
        """Format for graphs of at most ``num_roots`` roots, by the stream's numbers of nodes and events."""
        num_rows = min(num_nodes, num_roots * (1 + num_neighbors))
        dtypes = {
            "nodes": index_dtype(num_nodes),
            "event_ids": index_dtype(num_events),
            "elapsed": np.float32,
            "rows": np.uint16 if num_rows <= 1 << 16 else np.uint32,
            "counts": np.uint8
            if num_neighbors < 1 << 8
            else np.uint16
            if num_neighbors < 1 << 16
            else np.uint32,
        }
        fields = [(name, np.dtype(dtype)) for name, dtype in dtypes.items()]
        return cls(tuple(sorted(fields, key=lambda field: -field[1].itemsize)))

    def pack(self, record: Record) -> Bytes:
        """The bytes of a record, padded to a multiple of 8."""
        sizes = np.array([len(record.nodes), len(record.event_ids)], np.uint32)
        arrays = [getattr(record, name).astype(dtype, copy=False) for name, dtype in self.dtypes]
        content = b"".join(array.tobytes() for array in (sizes, *arrays))
        return np.frombuffer(content + bytes(-len(content) % ALIGNMENT), np.uint8)

    def unpack(self, content: Bytes, num_roots: int) -> Record:
        """The record of ``num_roots`` roots in these bytes, as views. Raises ValueError on other sizes."""
        num_nodes, num_slots = (int(size) for size in content[:8].view(np.uint32))
        lengths = {"nodes": num_nodes, "rows": num_roots + num_slots, "counts": num_roots}
        arrays, begin = {}, 8
        for name, dtype in self.dtypes:
            end = begin + lengths.get(name, num_slots) * dtype.itemsize
            arrays[name] = content[begin:end].view(dtype)
            begin = end
        if begin + -begin % ALIGNMENT != len(content):
            raise ValueError(f"a record of {num_roots} roots has {begin} bytes, found {len(content)}")
        return Record(**arrays)


def check_records(
    records: tuple[Record, Record], num_nodes: int, num_events: int, num_neighbors: int
) -> None:
    """Raise ValueError unless all indices in the two records of a graph are in range."""
    num_rows = sum(len(record.nodes) for record in records)
    for record in records:
        limits = (
            ("nodes", num_nodes),
            ("event_ids", num_events),
            ("rows", num_rows),
            ("counts", num_neighbors + 1),
        )
        for name, limit in limits:
            values = getattr(record, name)
            if len(values) and not (values.min() >= 0 and values.max() < limit):
                raise ValueError(f"{name} must lie in [0, {limit}), found {values.min()} to {values.max()}")
        if record.counts.sum(dtype=np.int64) != len(record.event_ids):
            raise ValueError(f"its roots have {record.counts.sum()} slots, found {len(record.event_ids)}")


def split_graph(mfg: Mfg, num_leading: int) -> tuple[Record, Record]:
    """Split a graph into the part of its first ``num_leading`` roots, whose nodes come first, and the rest."""
    num_nodes = 0
    if num_leading:
        # Nodes are numbered in order of appearance and padding is row 0, so the highest row is the last node.
        num_nodes = 1 + int(max(mfg.roots[:num_leading].max(), mfg.neighbors[:num_leading].max()))
    leading, others = slice(num_leading), slice(num_leading, None)
    return _record(mfg, leading, slice(num_nodes)), _record(mfg, others, slice(num_nodes, None))


def _record(mfg: Mfg, roots: slice, nodes: slice) -> Record:
    valid = np.arange(mfg.neighbors.shape[1]) < mfg.counts[roots, None]
    return Record(
        nodes=mfg.nodes[nodes],
        event_ids=mfg.event_ids[roots][valid],
        elapsed=mfg.elapsed[roots][valid],
        rows=np.concatenate([mfg.roots[roots], mfg.neighbors[roots][valid]]),
        counts=mfg.counts[roots],
    )


def join_graph(records: tuple[Record, Record], num_neighbors: int) -> Mfg:
    """The graph that :func:`split_graph` split; all arrays are equal."""
    num_roots = sum(len(record.counts) for record in records)
    mfg = Mfg(
        nodes=np.concatenate([record.nodes for record in records], dtype=np.int64),
        roots=np.empty(num_roots, np.int64),
        neighbors=np.empty((num_roots, num_neighbors), np.int64),
        event_ids=np.empty((num_roots, num_neighbors), np.int64),
        elapsed=np.empty((num_roots, num_neighbors), np.float32),
        counts=np.concatenate([record.counts for record in records], dtype=np.int64),
    )
    first = 0
    for record in records:
        own = slice(first, first + len(record.counts))
        packed = record.rows, record.event_ids, record.elapsed
        padded = mfg.roots[own], mfg.neighbors[own], mfg.event_ids[own], mfg.elapsed[own]
        _pad(mfg.counts[own], packed, padded)
        first = own.stop
    return mfg


@compiled
def _pad(
    counts: NDArray[np.int64],
    packed: tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.float32]],
    padded: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]],
) -> None:
    """Spread valid slots over all slots, padded with zeros."""
    rows, packed_events, packed_elapsed = packed
    roots, neighbors, event_ids, elapsed = padded
    num_roots, begin = len(counts), 0
    for root in range(num_roots):
        roots[root] = rows[root]
        for slot in range(neighbors.shape[1]):
            at = begin + slot
            valid = slot < counts[root]
            neighbors[root, slot] = rows[num_roots + at] if valid else 0
            event_ids[root, slot] = packed_events[at] if valid else 0
            elapsed[root, slot] = packed_elapsed[at] if valid else 0
        begin += counts[root]
