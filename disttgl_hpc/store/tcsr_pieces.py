"""T-CSR of events that do not fit in memory, made front to back in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.core.tcsr import Ints, Times, index_dtype


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


@dataclass(frozen=True)
class TCsrPiece:
    """Consecutive entries of the T-CSR: (n,) arrays of its dtypes, see :class:`core.tcsr.TCsr`."""

    neighbors: Ints
    event_ids: Ints
    times: Times


def count_entries(events: EventColumns) -> NDArray[np.int64]:
    """The T-CSR's indptr, (N + 1,) int64: one scan of the events."""
    degree = np.zeros(events.num_nodes, np.int64)
    for where in events.slices():
        src, dst = events.src[where], events.dst[where]
        degree += np.bincount(src, minlength=events.num_nodes)
        degree += np.bincount(dst[src != dst], minlength=events.num_nodes)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(degree)])


def tcsr_pieces(events: EventColumns, indptr: NDArray[np.int64]) -> Iterator[TCsrPiece]:
    """All entries in order, about ``2 · chunk_events`` at a time; equals ``core.tcsr.build_tcsr``.

    One scan of the events for each range of nodes that has that many entries: writing stays sequential,
    memory bounded. A node with more entries than that is a range of its own, passed on as they are found.
    """
    for first, last in _node_ranges(indptr, 2 * events.chunk_events):
        found = (_entries(events, where, first, last) for where in events.slices())
        if last - first == 1:
            yield from (piece for _, piece in found)
        else:
            owners, pieces = zip(*found, strict=True)
            order = _stable_order(np.concatenate(owners) - first)
            yield TCsrPiece(
                np.concatenate([piece.neighbors for piece in pieces])[order],
                np.concatenate([piece.event_ids for piece in pieces])[order],
                np.concatenate([piece.times for piece in pieces])[order],
            )


def _node_ranges(indptr: NDArray[np.int64], max_entries: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of nodes with at most ``max_entries`` entries, at least one node each."""
    first, num_nodes = 0, len(indptr) - 1
    while first < num_nodes:
        last = int(np.searchsorted(indptr, indptr[first] + max_entries, side="right")) - 1
        last = min(max(last, first + 1), num_nodes)
        yield first, last
        first = last


def _entries(events: EventColumns, where: slice, first: int, last: int) -> tuple[Ints, TCsrPiece]:
    """Owners and entries of a slice of events that belong to nodes [first, last), by event, source first."""
    src, dst = events.src[where], events.dst[where]
    from_src = np.flatnonzero(_between(src, first, last))
    from_dst = np.flatnonzero(_between(dst, first, last) & (src != dst))
    ends = np.concatenate([2 * from_src, 2 * from_dst + 1])
    ends.sort(kind="stable")
    rows, at_dst = ends >> 1, (ends & 1).astype(bool)
    owners, others = np.where(at_dst, dst[rows], src[rows]), np.where(at_dst, src[rows], dst[rows])
    piece = TCsrPiece(
        neighbors=others.astype(index_dtype(events.num_nodes), copy=False),
        event_ids=(rows + where.start).astype(index_dtype(len(events.src))),
        times=events.time[where][rows],
    )
    return owners, piece


def _between(nodes: Ints, first: int, last: int) -> NDArray[np.bool_]:
    return (nodes >= first) & (nodes < last)


def _stable_order(keys: Ints) -> NDArray[np.int64]:
    """Stable argsort of small non-negative integers, 16 bits at a time: numpy sorts those by radix."""
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    for shift in range(16, int(keys.max(initial=0)).bit_length(), 16):
        digits = ((keys >> shift) & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digits[order], kind="stable")]
    return order
