"""T-CSR of events that do not fit in memory, made front to back in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.events.tcsr import Ints, Times, index_dtype

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
