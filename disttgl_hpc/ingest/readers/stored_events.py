"""The events of a store as input, for a longer store to begin with them: ids are the user's again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.raw_events import Origin, RawEvents
from disttgl_hpc.ingest.settings import PrepareSettings
from disttgl_hpc.ingest.source import RawInput
from disttgl_hpc.log import get_logger
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.event_writer import Ancestor

log = get_logger(__name__)


def following(store: EventStore, inputs: Sequence[RawInput], settings: PrepareSettings) -> list[RawInput]:
    """The events of a store as an input, and the given ones behind it, which must not be earlier.

    A split and evaluation negatives that they bring are of other events, and are left out.
    """
    names = inputs[0].class_names if inputs[0].class_names == store.class_names else None
    if store.stream.test_negatives is not None:
        log.warning("%s: its evaluation negatives are left out, new events have none", store.path)
    is_numbered = names is not None or settings.label_by_file
    stored = RawInput(
        (), _stored_events(store, settings.chunk_events, is_numbered=is_numbered), class_names=names
    )
    return [stored, *(replace(one, events=_later(one, store)) for one in inputs)]


def _later(one: RawInput, store: EventStore) -> Iterator[tuple[RawEvents, Origin]]:
    for raw, origin in one.events:
        check_later(raw, origin, store)
        yield replace(raw, split=None, negatives=None), origin


def _stored_events(
    store: EventStore, chunk_events: int, *, is_numbered: bool
) -> Iterator[tuple[RawEvents, Origin]]:
    """All events of a store in order, in chunks; their classes are numbers, as in the store, or go by name."""
    stream, ids = store.stream, pa.array(store.node_ids())
    names = None if is_numbered or not store.class_names else pa.array(store.class_names)
    for first in range(0, stream.num_events, chunk_events):
        where = slice(first, first + chunk_events)
        labels = None if stream.edge_labels is None else pa.array(stream.edge_labels[where])
        features = None if stream.edge_features is None else stream.edge_features[where].astype(np.float32)
        raw = RawEvents(
            src=ids.take(pa.array(stream.src[where])),
            dst=ids.take(pa.array(stream.dst[where])),
            time=stream.time[where],
            edge_label=labels if names is None or labels is None else names.take(labels),
            node_label=None if store.node_labels is None else store.node_labels[where],
            features=features,
            edge_classes=None if stream.edge_classes is None else stream.edge_classes[where],
            class_names=store.class_names if stream.edge_classes is not None else (),
            dropped_rows=0 if first else store.dropped_rows,
            time_unit=store.stream.time_unit,
        )
        yield raw, Origin(store.path, first, lambda row: f"event {row}")


def check_later(raw: RawEvents, origin: Origin, store: EventStore) -> None:
    """Raise InputError unless no event comes before the last one of ``store``."""
    last = store.stream.time[-1]
    early = raw.time < last
    if early.any():
        row = int(np.argmax(early))
        raise origin.error(
            row,
            f"appended events must not come before the last one of {store.path}, at {last}; this one is of "
            f"{raw.time[row]}: leave out what is there already, or prepare everything anew",
        )


def stored_node_features(store: EventStore | None, num_nodes: int) -> NDArray[np.floating] | None:
    """Features of a store's nodes, where ``num_nodes`` are all there are now. Raises InputError for new nodes."""
    if store is None:
        return None
    features, num_new = store.stream.node_features, num_nodes - store.stream.num_nodes
    if features is not None and num_new:
        raise InputError(
            f"{store.path}: its nodes have features, and new events bring {num_new:,} nodes without any: prepare "
            "everything anew with the features of all nodes"
        )
    return features


def lineage(store: EventStore | None) -> tuple[Ancestor, ...]:
    """The shorter stores that a store with these events as its first grows out of, the newest last."""
    if store is None:
        return ()
    own = Ancestor(store.checksum, store.stream.num_events, store.stream.split)
    return (*store.grown_from, own)
