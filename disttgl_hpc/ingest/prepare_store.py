"""From opened input to an event store: set it down, number the nodes, order by time, split, write, index."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.events.compact import to_int8
from disttgl_hpc.ingest.ids import NodeNumbers, number_nodes
from disttgl_hpc.ingest.log_features import log_scaled
from disttgl_hpc.ingest.node_features import NodeTable
from disttgl_hpc.ingest.order import stable_time_order
from disttgl_hpc.ingest.prepare_advice import (
    warn_of_large_features,
    warn_of_large_node_features,
    warn_of_two_kinds,
)
from disttgl_hpc.ingest.readers.stored_events import lineage, stored_node_features
from disttgl_hpc.ingest.settings import PrepareSettings
from disttgl_hpc.ingest.source import RawInput
from disttgl_hpc.ingest.spill import Spill
from disttgl_hpc.ingest.split import given_negatives, split_of
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.event_writer import Contents, EventPart, write_event_store
from disttgl_hpc.store.files import sha256_of, telling_why
from disttgl_hpc.store.output import stem

log = get_logger(__name__)
_PART_BYTES = 256 << 20


def make_store(settings: PrepareSettings, inputs: Sequence[RawInput], *, bipartite: bool) -> EventStore:
    """Make an event store of opened input and open it. Raises InputError for input that cannot become one."""
    with (
        telling_why(
            settings.output, "make room there for it and as much again meanwhile, or choose another place"
        ),
        tempfile.TemporaryDirectory(dir=settings.output.parent, prefix=f".{settings.output.name}.") as folder,
    ):
        spill = _read(settings, inputs, Path(folder), bipartite=bipartite)
        nodes = number_nodes(spill.src_ids, spill.dst_ids)
        if not nodes.num_src:
            warn_of_two_kinds(spill, len(nodes.ids), settings.chunk_events)
        warn_of_large_features(spill, settings)
        class_of_code, class_names = spill.edge_class_numbers()
        split = split_of(settings, spill)
        validation_negatives, test_negatives = given_negatives(settings, spill, nodes, split)
        table, before = _node_table(settings, inputs), settings.before
        if table is not None:
            warn_of_large_node_features(table)
        sources = [] if before is None else list(before.sources)
        sources += [(file.name, sha256_of(file)) for one in inputs for file in one.files]
        contents = Contents(
            name=settings.name or stem(settings.output),
            num_events=len(spill.src),
            num_nodes=len(nodes.ids),
            num_src=nodes.num_src,
            split=split,
            node_ids=nodes.ids,
            node_features=stored_node_features(before, len(nodes.ids)) if table is None else table.of(nodes),
            validation_negatives=validation_negatives,
            test_negatives=test_negatives,
            edge_scale=spill.edge_scale,
            class_names=class_names,
            source_files=tuple(name for name, _ in sources),
            source_sha256=tuple(sha256 for _, sha256 in sources),
            dropped_rows=spill.dropped_rows,
            time_unit=spill.time_unit or "",
            options=settings.read_as,
            grown_from=lineage(before),
        )
        parts = _in_order(spill, nodes, class_of_code, settings.chunk_events)
        with progress(3 * contents.num_events, "writing", unit="entries") as bar:
            write_event_store(
                settings.output, contents, parts, chunk_events=settings.chunk_events, progress=bar
            )
    if contents.dropped_rows:
        log.info("%s rows without a node id were left out", f"{contents.dropped_rows:,}")
    return EventStore.open(settings.output)


def _node_table(settings: PrepareSettings, inputs: Sequence[RawInput]) -> NodeTable | None:
    """The one table of node features: the file that was named, or the input's own."""
    if settings.node_features is not None:
        return NodeTable.open(settings.node_features)
    tables = [one.node_features for one in inputs if one.node_features is not None]
    if tables and len(inputs) > 1:
        raise InputError(
            f"{tables[0].place}: node features of one of {len(inputs)} inputs are not those of all: give one "
            "input, or all node features with --node-features"
        )
    return tables[0] if tables else None


def _read(settings: PrepareSettings, inputs: Sequence[RawInput], folder: Path, *, bipartite: bool) -> Spill:
    """All inputs, checked, in flat temporary files."""
    spill = Spill(
        folder,
        bipartite=bipartite,
        feature_dtype=np.dtype(settings.feature_dtype),
        class_names=_class_names(settings, inputs),
    )
    names = () if settings.columns is None else settings.columns.features
    with progress(None, "reading") as bar:
        num_stored = len(inputs) - len(settings.inputs)
        for index, one in enumerate(inputs):
            rows_before = len(spill.src)
            for raw, origin in one.events:
                if settings.label_by_file and spill.class_names is not None and index >= num_stored:
                    label = spill.class_names.index(stem(settings.inputs[index - num_stored]))
                    raw = replace(raw, edge_label=pa.array(np.full(len(raw.time), label)))  # noqa: PLW2901
                if settings.log_features and index >= num_stored:
                    features = log_scaled(raw.features, settings.log_features, names, origin)
                    raw = replace(raw, features=features)  # noqa: PLW2901
                spill.append(raw, origin)
                bar.advance(len(raw.time))
            if len(spill.src) == rows_before:
                place = one.files[0] if one.files else "frame"
                raise InputError(
                    f"{place}: no events found, at least one is needed: check the file and --format"
                )
    return spill


def _class_names(settings: PrepareSettings, inputs: Sequence[RawInput]) -> tuple[str, ...] | None:
    """Names of edge classes that are known before reading: the files' stems, or those of the inputs."""
    if settings.label_by_file:
        known = settings.before.class_names if settings.before else ()
        return tuple(dict.fromkeys((*known, *map(stem, settings.inputs))))
    names = {one.class_names for one in inputs}
    if len(names) > 1:
        raise InputError(
            f"all inputs must name the same edge classes, found {len(names)} lists of names: prepare one at a time"
        )
    return names.pop()


def _in_order(
    spill: Spill, nodes: NodeNumbers, class_of_code: NDArray[np.int64], chunk_events: int
) -> Iterator[EventPart]:
    """What was read, ordered by time, with nodes and classes numbered."""
    chunk_events = max(1, min(chunk_events, _PART_BYTES // spill.event_bytes()))
    optional, scale = spill.optional, spill.edge_scale
    for where in stable_time_order(spill.time, chunk_events):
        yield EventPart(
            src=nodes.src[spill.src[where]],
            dst=nodes.dst[spill.dst[where]],
            time=spill.time[where],
            edge_features=_features(optional["features"][where], scale) if "features" in optional else None,
            edge_labels=class_of_code[optional["edge_label"][where]] if "edge_label" in optional else None,
            node_labels=optional["node_label"][where] if "node_label" in optional else None,
            edge_classes=optional["edge_classes"][where] if "edge_classes" in optional else None,
        )


def _features(rows: NDArray[Any], scale: NDArray[np.float32] | None) -> NDArray[Any]:
    return rows if scale is None else to_int8(rows, scale)
