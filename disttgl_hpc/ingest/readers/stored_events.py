"""The events of a store as input, with the user's ids, so that a longer store can start with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.raw_events import Origin, RawEvents
from disttgl_hpc.ingest.source import RawInput
from disttgl_hpc.log import get_logger
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.event_writer import Ancestor

log = get_logger(__name__)


def following(
    store: EventStore, inputs: Sequence[RawInput], chunk_events: int, *, label_by_file: bool
) -> list[RawInput]:
    """The events of a store as an input, followed by these inputs, whose events must not be earlier.

    Splits and evaluation negatives are dropped, since they belong to a part of the events only. Iterating over the
    events raises InputError for an earlier one.
    """
    names = inputs[0].class_names if inputs[0].class_names == store.class_names else None
    if store.stream.test_negatives is not None:
        log.warning("%s: evaluation negatives are dropped, since new events have none", store.path)
    is_numbered = names is not None or label_by_file
    stored = RawInput((), _stored_events(store, chunk_events, is_numbered=is_numbered), class_names=names)
    return [stored, *(replace(one, events=_later(one, store)) for one in inputs)]


def _later(one: RawInput, store: EventStore) -> Iterator[tuple[RawEvents, Origin]]:
    for raw, origin in one.events:
        _check_later(raw, origin, store)
        yield replace(raw, split=None, negatives=None), origin


def _stored_events(
    store: EventStore, chunk_events: int, *, is_numbered: bool
) -> Iterator[tuple[RawEvents, Origin]]:
    """All events of a store in order, in chunks, with numbers or names of their classes; an unknown one is -1."""
    stream, ids = store.stream, pa.array(store.node_ids())
    names = None if is_numbered or not store.class_names else pa.array([*store.class_names, "-1"])
    for first in range(0, stream.num_events, chunk_events):
        where = slice(first, first + chunk_events)
        labels = None if stream.edge_labels is None else pa.array(stream.edge_labels[where])
        features = None if stream.edge_features is None else stream.edge_features[where].astype(np.float32)
        raw = RawEvents(
            src=ids.take(pa.array(stream.src[where])),
            dst=ids.take(pa.array(stream.dst[where])),
            time=stream.time[where],
            edge_label=labels
            if names is None or labels is None
            else names.take(_positions(labels, len(names))),
            node_label=None if store.node_labels is None else store.node_labels[where],
            features=features,
            edge_classes=None if stream.edge_classes is None else stream.edge_classes[where],
            class_names=store.class_names if stream.edge_classes is not None else (),
            dropped_rows=0 if first else store.dropped_rows,
            time_unit=store.stream.time_unit,
        )
        yield raw, Origin(store.path, first, lambda row: f"event {row}")


def _positions(labels: pa.Array, num_names: int) -> pa.Array:
    """Positions of labels (n,) among names, whose last one is of unknown labels."""
    return pc.if_else(pc.less(labels, 0), num_names - 1, labels)


def _check_later(raw: RawEvents, origin: Origin, store: EventStore) -> None:
    """Raise InputError if an event is earlier than the last one of ``store``."""
    last = store.stream.time[-1]
    early = raw.time < last
    if early.any():
        row = int(np.argmax(early))
        raise origin.error(
            row,
            f"appended events must not be earlier than the last one of {store.path}, at {last}; this one is at "
            f"{raw.time[row]}: remove events that the store already has, or prepare all input again",
        )


def stored_node_features(store: EventStore | None, num_nodes: int) -> NDArray[np.floating] | None:
    """Features of a store's nodes; None without a store. Raises InputError if ``num_nodes`` includes new ones."""
    if store is None:
        return None
    features, num_new = store.stream.node_features, num_nodes - store.stream.num_nodes
    if features is not None and num_new:
        raise InputError(
            f"{store.path}: its nodes have features, and new events have {num_new:,} nodes without any: prepare "
            "all input again with the features of all nodes"
        )
    return features


def lineage(store: EventStore | None) -> tuple[Ancestor, ...]:
    """The shorter stores that a store starting with these events extends, the newest last."""
    if store is None:
        return ()
    own = Ancestor(store.checksum, store.stream.num_events, store.stream.split)
    return (*store.grown_from, own)
