"""``disttgl prepare``: from files, or events in memory, to an event store.

The inputs are read into temporary files (:mod:`.spill`), nodes are numbered, events ordered by time and split, and
the store is written and indexed. Warnings point out input that is valid but likely to train badly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from disttgl_hpc.errors import ConfigError, InputError
from disttgl_hpc.events.stream import Split, to_int8
from disttgl_hpc.ingest.columns import Columns, joined_names, parse_columns
from disttgl_hpc.ingest.formats import BIPARTITE_FORMATS, format_of, open_input
from disttgl_hpc.ingest.ids import NodeNumbers, number_nodes
from disttgl_hpc.ingest.raw_events import log_scaled, names_if_complete
from disttgl_hpc.ingest.readers.arrays_and_frames import given_frame, given_temporal_data, is_temporal_data
from disttgl_hpc.ingest.readers.stored_events import following, lineage, stored_node_features
from disttgl_hpc.ingest.source import NodeTable, RawInput
from disttgl_hpc.ingest.spill import Spill, stable_time_order
from disttgl_hpc.ingest.split import (
    DEFAULT_SHARES,
    Shares,
    negatives_of_input,
    split_by_shares,
    split_by_times,
    split_of_input,
    warn_of_empty_parts,
)
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.event_writer import KIND, Contents, EventPart, write_event_store
from disttgl_hpc.store.files import check_output, sha256_of, stem, working_folder, write_errors

log = get_logger(__name__)

_PART_BYTES = 256 << 20
_LARGEST_USEFUL = 100  # absolute value of a feature; from about ten on, the gates of a GRU saturate
_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """Options of ``disttgl prepare``; see its help for each.

    name: of the stream; empty for the output's own. split: shares of training, validation and test; None for the
    input's own split, or DEFAULT_SHARES if it has none. split_times: first times of validation and of test, which
    override ``split``. node_features: a ``.npy`` file whose row r belongs to the node with id r. log_features:
    names or numbers of edge features, or ``("all",)``, to store on a logarithmic scale. chunk_events: events held
    in memory at a time. before: a store whose events come first, see :mod:`.append`; with ``keep_split`` training
    and validation end where they end in that store. Raises ConfigError for values that contradict each other.
    """

    inputs: tuple[Path, ...]
    output: Path
    name: str = ""
    format: str | None = None
    columns: Columns | None = None
    bipartite: bool = False
    split: Shares | None = None
    split_times: tuple[float, float] | None = None
    node_features: Path | None = None
    label_by_file: bool = False
    feature_dtype: str = "float32"
    log_features: tuple[str, ...] = ()
    force: bool = False
    chunk_events: int = 1_000_000
    before: EventStore | None = None
    keep_split: bool = False

    def __post_init__(self) -> None:
        check_output(self.output, KIND, force=self.force, inputs=self.inputs)
        if self.split is not None and (sum(self.split) != 1 or min(self.split) < 0):
            shares = "/".join(str(float(share)) for share in self.split)
            raise ConfigError(
                f"--split must be three shares that add up to 1, found {shares}: try 0.70/0.15/0.15"
            )
        if self.split_times is not None and not self.split_times[0] <= self.split_times[1]:
            raise ConfigError(f"--split-times must ascend, found {self.split_times}: swap them")
        if self.chunk_events < 1:
            raise ConfigError(f"--chunk-events must be at least 1, found {self.chunk_events}: omit it")
        if self.label_by_file and self.columns is not None and (self.columns.label or self.columns.labels):
            raise ConfigError(
                "classes come from a column or from the files, not both: omit label= and labels=, or "
                "--label-by-file"
            )
        stems = [stem(path) for path in self.inputs]
        if self.label_by_file and len(set(stems)) != len(stems):
            raise ConfigError(
                f"--label-by-file needs files with different names, found {', '.join(stems)}: rename them"
            )

    @property
    def input_format(self) -> str:
        """The one format of all inputs. Raises InputError if they have several."""
        formats = {self.format or format_of(path) for path in self.inputs}
        if len(formats) > 1:
            raise InputError(
                f"all inputs must have one format, found {', '.join(sorted(formats))}: add --format"
            )
        return formats.pop()

    @property
    def read_as(self) -> str:
        """How the input is read, as JSON; the store keeps it for :mod:`.append`."""
        return json.dumps(
            {
                "format": self.input_format if self.inputs else None,
                "columns": None if self.columns is None else asdict(self.columns),
                "label_by_file": self.label_by_file,
                "log_features": self.log_features,
            }
        )


def prepare(settings: PrepareSettings) -> EventStore:
    """Make an event store of raw input and open it. Raises InputError for input that cannot become a store.

    Temporary files of about the input's uncompressed size are kept beside the output until the store is complete.
    """
    name = settings.input_format
    inputs = [open_input(name, path, settings.columns, settings.chunk_events) for path in settings.inputs]
    if settings.before is not None:
        inputs = following(
            settings.before, inputs, settings.chunk_events, label_by_file=settings.label_by_file
        )
    return _make_store(settings, inputs, bipartite=settings.bipartite or name in BIPARTITE_FORMATS)


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

    frame: a pandas, Polars or Arrow table, any object with Arrow's stream protocol, a dict of columns, or a
    ``TemporalData`` of PyTorch Geometric. columns and log_features: as on the command line,
    ``"src=user,dst=item,time=t"`` and ``"price+weight"``. node_features: (R, dim) numbers, row r for the node with
    id r, or a ``.npy`` file of them. settings: other fields of PrepareSettings, such as bipartite, split or force.

    Raises InputError for events that cannot become a store, ConfigError for an output that must not be written.
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
    return _make_store(options, [given], bipartite=options.bipartite)


def _make_store(settings: PrepareSettings, inputs: Sequence[RawInput], *, bipartite: bool) -> EventStore:
    """Make an event store of opened inputs and open it. Raises InputError for input that cannot become a store."""
    with (
        write_errors(
            settings.output,
            "free space for the store and as much again for temporary files, or choose another place",
        ),
        working_folder(settings.output) as folder,
    ):
        spill = _read(settings, inputs, folder, bipartite=bipartite)
        nodes = number_nodes(spill.src_ids, spill.dst_ids)
        if not nodes.num_src:
            _warn_of_two_kinds(spill, nodes, settings.chunk_events)
        _warn_of_large_features(spill, settings)
        class_of_code, class_names = spill.edge_class_numbers()
        if spill.class_names is None and (class_of_code < 0).any():
            log.warning(
                "event classes below 0 mean unknown and are not predicted: if they are classes, write them as words"
            )
        split = _split(settings, spill)
        if settings.split is None and settings.split_times is None:
            negatives = negatives_of_input(spill, nodes, split, settings.chunk_events)
        else:
            negatives = None, None
            if spill.negatives is not None:
                log.warning(
                    "the input's evaluation negatives belong to its own split: omitted with another split"
                )
        table, before = _node_table(settings, inputs), settings.before
        if table is not None:
            _warn_of_large_node_features(table)
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
            validation_negatives=negatives[0],
            test_negatives=negatives[1],
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
        log.info("dropped %s rows without a node id", f"{contents.dropped_rows:,}")
    return EventStore.open(settings.output)


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
    spill.check_span(origin.path)
    if spill.time_step:
        log.warning(
            "times are rounded to steps of %.3g near the largest one: if events may be closer, give times as integers, "
            "or as float64 with fewer digits",
            spill.time_step,
        )
    return spill


def _class_names(settings: PrepareSettings, inputs: Sequence[RawInput]) -> tuple[str, ...] | None:
    """Names of edge classes that are known before reading: the files' stems, or the inputs' own."""
    if settings.label_by_file:
        known = settings.before.class_names if settings.before else ()
        return tuple(dict.fromkeys((*known, *map(stem, settings.inputs))))
    names = {one.class_names for one in inputs}
    if len(names) > 1:
        raise InputError(
            f"all inputs must name the same edge classes, found {len(names)} lists of names: prepare one at a time"
        )
    return names.pop()


def _split(settings: PrepareSettings, spill: Spill) -> Split:
    """The split by time or by shares if one is given, else the input's own, else the default shares."""
    if settings.before is not None and settings.keep_split:
        split = settings.before.stream.split
    elif settings.split_times is not None:
        split = split_by_times(settings.split_times, spill, settings.chunk_events)
    elif settings.split is None and "split" in spill.optional:
        split = split_of_input(spill, settings.chunk_events)
    else:
        split = split_by_shares(settings.split or DEFAULT_SHARES, len(spill.time))
    warn_of_empty_parts(split, len(spill.time))
    return split


def _node_table(settings: PrepareSettings, inputs: Sequence[RawInput]) -> NodeTable | None:
    """The table of node features: the given file, or else the input's own."""
    if settings.node_features is not None:
        return NodeTable.open(settings.node_features)
    tables = [one.node_features for one in inputs if one.node_features is not None]
    if tables and len(inputs) > 1:
        raise InputError(
            f"{tables[0].place}: node features must cover the nodes of all {len(inputs)} inputs: prepare one "
            "input, or pass the features of all nodes by --node-features"
        )
    return tables[0] if tables else None


def _in_order(
    spill: Spill, nodes: NodeNumbers, class_of_code: NDArray[np.int64], chunk_events: int
) -> Iterator[EventPart]:
    """The events in time order, with nodes and classes numbered."""
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


def _warn_of_two_kinds(spill: Spill, nodes: NodeNumbers, chunk_events: int) -> None:
    """Warn if no node of a stream that is not bipartite is both source and destination."""
    is_used = np.zeros((2, len(nodes.src)), np.bool_)  # by code
    for start in range(0, len(spill.src), chunk_events):
        for role, column in enumerate((spill.src, spill.dst)):
            is_used[role, column[start : start + chunk_events]] = True
    roles = np.zeros((2, len(nodes.ids)), np.bool_)
    for role, codes in enumerate(is_used):
        roles[role, nodes.src[codes]] = True
    if not roles.all(axis=0).any():
        log.warning(
            "no node is both source and destination: if they are of two kinds, such as users and items, prepare "
            "again with --bipartite, so that negatives are drawn among destinations only"
        )


def _warn_of_large_features(spill: Spill, settings: PrepareSettings) -> None:
    """Warn of edge features with values too large for a network to train well."""
    columns = np.flatnonzero(spill.largest_features > _LARGEST_USEFUL)
    if not len(columns):
        return
    given = settings.columns.features if settings.columns is not None else ()
    names = names_if_complete(given, len(spill.largest_features))
    large = [names[column] if names else str(column) for column in columns]
    log.warning(
        "edge features should be about −1…1, column %s reaches %.3g%s: prepare again with --log-features %s, or "
        "scale them yourself",
        large[0],
        spill.largest_features[columns[0]],
        f" ({len(large)} such columns)" if len(large) > 1 else "",
        "+".join(large) if len(large) < len(spill.largest_features) else "all",
    )


def _warn_of_large_node_features(table: NodeTable) -> None:
    """Warn of node features with values too large for a network to train well."""
    largest = np.zeros(table.rows.shape[1])
    for start in range(0, len(table.rows), _ROWS_AT_ONCE):
        rows = table.rows[start : start + _ROWS_AT_ONCE]
        for extreme in (rows.max(axis=0), rows.min(axis=0)):
            largest = np.fmax(
                largest, np.abs(extreme.astype(np.float64))
            )  # NaN is refused where rows are gathered
    column = int(np.argmax(largest))
    if largest[column] > _LARGEST_USEFUL:
        log.warning(
            "%s: node features should be about −1…1, column %d reaches %.3g: scale them (logarithms, or mean 0 and "
            "standard deviation 1)",
            table.place,
            column,
            largest[column],
        )
