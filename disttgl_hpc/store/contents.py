"""What the arrays of an event store can hold: ids of nodes and events, times in order, an index that fits them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError
from disttgl_hpc.events.stream import EventStream

_PIECE = 1 << 18  # rows at a time: temporary arrays stay in cache


def check_contents(path: Path, stream: EventStream) -> None:
    """Raise StoreError unless every id, time and position of a stream is one that it can have."""
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
            # Padding stands at the end: so each row has a negative if it begins with one.
            is_sound = given.shape[1] > 0 and _within(given[:, 0], num_src, num_nodes)
            rules[f"negatives/{name}: ids of destinations, then -1"] = is_sound and _within(
                given, -1, num_nodes
            )
    broken = next((rule for rule, holds in rules.items() if not holds), None)
    if broken is None and not _ascending_by_node(tcsr.event_ids, tcsr.indptr):
        broken = "tcsr/event_ids: each node's events in ascending order"
    if broken is not None:
        raise StoreError(f"{path}: must hold {broken}, it holds others: write or copy the file anew")


def _within(values: NDArray[Any], least: int, below: int) -> bool:
    return all(
        piece.min() >= least and piece.max() < below for piece in _pieces(values, overlap=0) if len(piece)
    )


def _ascending(values: NDArray[Any]) -> bool:
    """Whether no value is below the one before it, or is no number."""
    return all((piece[1:] >= piece[:-1]).all() for piece in _pieces(values)) and bool(
        np.isfinite(values[[0, -1]]).all()
    )


def _ascending_by_node(ids: NDArray[Any], indptr: NDArray[np.int64]) -> bool:
    """Whether ids ascend strictly but where a node's entries begin."""
    for number, piece in enumerate(_pieces(ids)):
        falls = number * _PIECE + 1 + np.flatnonzero(piece[1:] <= piece[:-1])
        if (indptr[np.searchsorted(indptr, falls)] != falls).any():
            return False
    return True


def _pieces(values: NDArray[Any], overlap: int = 1) -> Iterator[NDArray[Any]]:
    """Consecutive pieces, each with the first rows of the next."""
    for begin in range(0, len(values), _PIECE):
        yield values[begin : begin + _PIECE + overlap]
