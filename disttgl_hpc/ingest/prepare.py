"""``disttgl prepare``: from files, or from events in memory, to an event store.

From opened input to an event store: set it down, number the nodes, order by time, split, write, index.

Amounts and counts of any size as features: sign(x)·log(1 + |x|), which depends on nothing but the number itself.

So an event has the same features whatever comes later. A mean and a deviation would change with the stream.

What ``disttgl prepare`` tells of input that can be prepared, but not be learned from as it is meant to.
"""

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
from disttgl_hpc.events.stream import to_int8
from disttgl_hpc.ingest.columns import Columns, joined_names, parse_columns
from disttgl_hpc.ingest.formats import BIPARTITE_FORMATS, open_input
from disttgl_hpc.ingest.ids import NodeNumbers, number_nodes
from disttgl_hpc.ingest.raw_events import Origin
from disttgl_hpc.ingest.readers.frames import given_frame
from disttgl_hpc.ingest.readers.saved_arrays import given_temporal_data, is_temporal_data
from disttgl_hpc.ingest.readers.stored_events import following, lineage, stored_node_features
from disttgl_hpc.ingest.settings import PrepareSettings, parse_split, parse_split_times
from disttgl_hpc.ingest.source import NodeTable, RawInput
from disttgl_hpc.ingest.spill import Spill, stable_time_order
from disttgl_hpc.ingest.split import given_negatives, split_of
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.event_writer import Contents, EventPart, write_event_store
from disttgl_hpc.store.files import sha256_of, telling_why
from disttgl_hpc.store.output import stem

log = get_logger(__name__)


__all__ = ["PrepareSettings", "parse_split", "parse_split_times", "prepare", "prepare_frame"]


def prepare(settings: PrepareSettings) -> EventStore:
    """Make an event store of raw input and open it. Raises InputError for input that cannot become one.

    Temporary files of about the input's uncompressed size lie beside the output until the store is complete.
    """
    name = settings.input_format
    inputs = [open_input(name, path, settings.columns, settings.chunk_events) for path in settings.inputs]
    if settings.before is not None:
        inputs = following(settings.before, inputs, settings)
    return make_store(settings, inputs, bipartite=settings.bipartite or name in BIPARTITE_FORMATS)


def prepare_frame(
    frame: Any,
    output: Path | str,
    *,
    columns: Columns | str | None = None,
    node_features: NDArray[Any] | Path | str | None = None,
    log_features: str = "",
    **settings: Any,
) -> EventStore:
    """Make an event store of events in memory and open it.

    frame: a pandas, Polars or Arrow table, whatever else speaks Arrow's stream protocol, a dict of columns, or a
    ``TemporalData`` of PyTorch Geometric. columns: as of the command line, ``"src=user,dst=item,time=t"``, and so
    is log_features, ``"price+weight"``.
    node_features: (R, dim) numbers, row r those of the node whose id is r, or a ``.npy`` file. settings: others
    of PrepareSettings, such as bipartite, split or force.

    Raises InputError for events that cannot become a store, ConfigError for an output that may not be written.
    """
    columns = parse_columns(columns) if isinstance(columns, str) else columns
    file = Path(node_features) if isinstance(node_features, Path | str) else None
    options = PrepareSettings(
        inputs=(),
        output=Path(output),
        columns=columns,
        node_features=file,
        log_features=joined_names(log_features),
        **settings,
    )
    if is_temporal_data(frame):
        given = given_temporal_data(frame, options.chunk_events)
    else:
        given = given_frame(frame, columns, options.chunk_events)
    if node_features is not None and file is None:
        given = replace(given, node_features=NodeTable("node_features", np.asarray(node_features)))
    return make_store(options, [given], bipartite=options.bipartite)


ALL = "all"


def known_names(names: Sequence[str], width: int) -> tuple[str, ...]:
    """The names of ``width`` columns, or nothing where ``names`` are not one for each: ranges."""
    return tuple(names) if len(names) == width else ()


def log_scaled(
    features: NDArray[np.float32] | None, wanted: Sequence[str], names: Sequence[str], origin: Origin
) -> NDArray[np.float32]:
    """Features (n, dim) whose ``wanted`` columns are scaled: names, numbers from 0, or ``("all",)``.

    names: of all columns in order, or nothing where they have none. Raises InputError for a column that is missing.
    """
    if features is None:
        raise origin.error(
            0, "--log-features needs edge features, found none: name them with --columns …,features="
        )
    width = features.shape[1]
    known = known_names(names, width)
    by_name = {str(number): number for number in range(width)}
    by_name |= {name: number for number, name in enumerate(known)}
    chosen = list(range(width)) if tuple(wanted) == (ALL,) else [by_name.get(name, -1) for name in wanted]
    if -1 in chosen:
        there = ", ".join(known) or f"0 to {width - 1}"
        raise origin.error(
            0,
            f"--log-features: no feature column '{wanted[chosen.index(-1)]}', there are {there}: correct the name",
        )
    scaled = features.copy()
    for column in chosen:  # one by one: a chunk may be most of what memory is meant for
        values = features[:, column]
        scaled[:, column] = np.copysign(np.log1p(np.abs(values)), values)
    return scaled


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


_LARGEST_USEFUL, _SAMPLED_ROWS = 100, 4096


def warn_of_two_kinds(spill: Spill, num_nodes: int, chunk_events: int) -> None:
    """Tell when nodes look like two kinds though one id space was asked for: it decides the negatives."""
    roles = np.zeros((2, num_nodes), np.bool_)
    for start in range(0, len(spill.src), chunk_events):
        for role, column in enumerate((spill.src, spill.dst)):
            roles[role, column[start : start + chunk_events]] = True
    if not roles.all(axis=0).any():
        log.warning(
            "no node is both source and destination: if these are two kinds, such as users and items, prepare "
            "again with --bipartite; it decides which negatives are drawn"
        )


def warn_of_large_features(spill: Spill, settings: PrepareSettings) -> None:
    """Tell of feature columns in which a network would drown: gates are full from some ten on."""
    columns = np.flatnonzero(spill.largest_features > _LARGEST_USEFUL)
    if not len(columns):
        return
    given = settings.columns.features if settings.columns is not None else ()
    names = known_names(given, len(spill.largest_features))
    told = [names[column] if names else str(column) for column in columns]
    log.warning(
        "edge features should be of the order of 1, column %s reaches %.3g%s: prepare again with "
        "--log-features %s, or scale them yourself",
        told[0],
        spill.largest_features[columns[0]],
        f" ({len(told)} such columns)" if len(told) > 1 else "",
        "+".join(told) if len(told) < len(spill.largest_features) else "all",
    )


def warn_of_large_node_features(table: NodeTable) -> None:
    """The same of nodes, by some thousand of their rows."""
    sample = np.abs(table.rows[:: -(-len(table.rows) // _SAMPLED_ROWS)].astype(np.float64)).max(axis=0)
    column = int(np.argmax(sample))
    if sample[column] > _LARGEST_USEFUL:
        log.warning(
            "%s: node features should be of the order of 1, column %d reaches %.3g: scale them (logarithms, or "
            "mean 0 and deviation 1)",
            table.place,
            column,
            sample[column],
        )
