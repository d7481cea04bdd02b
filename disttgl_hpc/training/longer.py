"""Longer event stores: that one begins with a run's events, and who is who among their nodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError
from disttgl_hpc.events.stream import Split
from disttgl_hpc.ingest.ids import IdTable
from disttgl_hpc.ingest.raw_events import Origin
from disttgl_hpc.store.event_store import EventStore

_PIECE = 1 << 20


@dataclass(frozen=True)
class Prefix:
    """The events of a run at the beginning of a store: the first ``num_events``, and how they were split.

    nodes: (N,) int64, the store's number of each of the run's N nodes.
    """

    num_events: int
    split: Split
    nodes: NDArray[np.int64]


def find_prefix(store: EventStore, checksum: str, original: Path) -> Prefix:
    """Where in ``store`` the events lie whose store had this ``checksum``, and lies or lay at ``original``.

    The store may be that very one; have grown out of it, of which ``disttgl append`` leaves a note; or begin with
    the same events, which is compared if the original is still there. Raises StoreError otherwise.
    """
    stream = store.stream
    if store.checksum == checksum:
        return Prefix(stream.num_events, stream.split, np.arange(stream.num_nodes))
    for ancestor in store.grown_from:
        if ancestor.checksum == checksum:
            return prefix_of(store, ancestor.num_events, ancestor.split)
    if not original.is_file() or (other := EventStore.open(original)).checksum != checksum:
        raise StoreError(
            f"{store.path}: must begin with the events that the run was trained on (checksum {checksum[:16]}…), "
            f"which cannot be seen: it was not made of them by disttgl append, and they are not at {original} any "
            "more: put them back there, or give the store that was made of them"
        )
    found = prefix_of(store, other.stream.num_events, other.stream.split)
    difference = _difference(other, store, found.nodes)
    if difference:
        raise StoreError(
            f"{store.path}: must begin with the events of {original}, on which the run was trained; {difference}: "
            "give a store that was prepared of them and of later events, or train on these"
        )
    return found


def prefix_of(store: EventStore, num_events: int, split: Split) -> Prefix:
    """The first ``num_events`` of a store as one of their own; its nodes are numbered as ``prepare`` does."""
    nodes, ids = np.flatnonzero(store.stream.tcsr.known_before(num_events)), store.node_ids()
    if ids.dtype.kind == "U":  # texts: without the later ones, they may all be numbers, which sort otherwise
        spaces = np.split(nodes, [np.searchsorted(nodes, store.stream.num_src)])
        nodes = np.concatenate([space[_order(ids[space].astype(np.str_))] for space in spaces])
    return Prefix(num_events, split, nodes)


def _order(ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Order in which ``prepare`` numbers distinct ids."""
    if not len(ids):
        return np.empty(0, np.int64)
    table = IdTable()
    table.encode(pa.array(ids), Origin(Path(), 0, str))
    return np.argsort(table.ranks_and_ids()[0])


def _difference(one: EventStore, longer: EventStore, nodes: NDArray[np.int64]) -> str:
    """What is not the same in the events of ``one`` and the first of ``longer``; empty if all is."""
    mine, theirs, count = one.stream, longer.stream, one.stream.num_events
    if count > theirs.num_events:
        return f"it has fewer, {theirs.num_events:,} of {count:,}"
    ids, other_ids = one.node_ids().astype(np.str_), longer.node_ids().astype(np.str_)
    same_kind = bool(mine.num_src) == bool(theirs.num_src)
    if len(nodes) != mine.num_nodes or not same_kind or (other_ids[nodes] != ids).any():
        return "their nodes are others"
    if _differ(mine.node_features, theirs.node_features, slice(None), nodes):
        return "features of their nodes are others"
    columns = {
        "sources": (nodes[mine.src], theirs.src),
        "destinations": (nodes[mine.dst], theirs.dst),
        "times": (mine.time, theirs.time),
        "features": (mine.edge_features, theirs.edge_features),
        "classes": (_named(one), _named(longer)),
        "several classes an event": (mine.edge_classes, theirs.edge_classes),
        "labels of nodes": (one.node_labels, longer.node_labels),
    }
    for name, (ours, others) in columns.items():
        for start in range(0, count, _PIECE):
            where = slice(start, min(start + _PIECE, count))
            if _differ(ours, others, where, where):
                return f"{name} are others"
    if _differ(mine.edge_scale, theirs.edge_scale, slice(None), slice(None)):
        return "features are stored in other steps"
    return ""


def _named(store: EventStore) -> NDArray[Any] | None:
    """Classes of events by their names, where they have some."""
    labels = store.stream.edge_labels
    return labels if labels is None or not store.class_names else np.array(store.class_names)[labels]


def _differ(one: NDArray[Any] | None, other: NDArray[Any] | None, where: Any, where_other: Any) -> bool:
    """Whether rows of two arrays are not the same, or only one of these is there."""
    if one is None or other is None:
        return one is not other
    return not np.array_equal(one[where], other[where_other])
