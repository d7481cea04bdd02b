"""From raw input to an event store: read, number the nodes, order by time, split, write, index."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from disttgl_hpc.core.compact import to_int8
from disttgl_hpc.core.stream import Split
from disttgl_hpc.errors import ConfigError, InputError
from disttgl_hpc.ingest.columns import Columns
from disttgl_hpc.ingest.flights import CLASSES, flights_file
from disttgl_hpc.ingest.formats import BIPARTITE_FORMATS, READERS, format_of
from disttgl_hpc.ingest.ids import NodeNumbers, number_nodes
from disttgl_hpc.ingest.order import stable_time_order
from disttgl_hpc.ingest.spill import FlatColumn, Spill
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.runs.output import check_output, stem
from disttgl_hpc.store.events import EventStore
from disttgl_hpc.store.events_writer import KIND, Contents, EventPart, write_event_store
from disttgl_hpc.store.files import sha256_of, telling_why

log = get_logger(__name__)
_PART_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """What ``disttgl prepare`` is asked for; see its help for each.

    name: of the stream; empty for the output's own. split: shares of training, validation and test.
    split_times: begin of validation and of test; if given it wins over ``split``. chunk_events: events held in
    memory at a time.
    """

    inputs: tuple[Path, ...]
    output: Path
    name: str = ""
    format: str | None = None
    columns: Columns | None = None
    bipartite: bool = False
    split: tuple[Fraction, Fraction, Fraction] = (Fraction("0.70"), Fraction("0.15"), Fraction("0.15"))
    split_times: tuple[float, float] | None = None
    label_by_file: bool = False
    feature_dtype: str = "float32"
    force: bool = False
    chunk_events: int = 1_000_000

    def __post_init__(self) -> None:
        check_output(self.output, KIND, force=self.force, inputs=self.inputs)
        if sum(self.split) != 1 or min(self.split) < 0:
            shares = "/".join(str(float(share)) for share in self.split)
            raise ConfigError(
                f"--split must be three shares that add up to 1, found {shares}: try 0.70/0.15/0.15"
            )
        if self.split_times is not None and not self.split_times[0] <= self.split_times[1]:
            raise ConfigError(f"--split-times must ascend, found {self.split_times}: swap them")
        if self.chunk_events < 1:
            raise ConfigError(f"--chunk-events must be at least 1, found {self.chunk_events}: leave it out")
        if self.label_by_file and self.columns is not None and self.columns.label is not None:
            raise ConfigError("the class is either a column or the file: leave out label= or --label-by-file")
        stems = [stem(path) for path in self.inputs]
        if self.label_by_file and len(set(stems)) != len(stems):
            raise ConfigError(
                f"--label-by-file needs files of different names, found {', '.join(stems)}: rename"
            )

    @property
    def input_format(self) -> str:
        """The one format of all inputs."""
        formats = {self.format or format_of(path) for path in self.inputs}
        if len(formats) > 1:
            raise InputError(
                f"all inputs must have one format, found {', '.join(sorted(formats))}: add --format"
            )
        return formats.pop()


def parse_split(text: str) -> tuple[Fraction, Fraction, Fraction]:
    """Three exact shares from ``0.70/0.15/0.15``. Raises ConfigError for anything else."""
    try:
        training, validation, test = (Fraction(share) for share in text.split("/"))
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"--split must be three shares, found '{text}': try 0.70/0.15/0.15") from None
    return training, validation, test


def parse_split_times(text: str) -> tuple[float, float]:
    """Two times from ``T1,T2``, integers kept exact. Raises ConfigError for anything else."""
    try:
        first, second = (int(time) if time.strip().isdecimal() else float(time) for time in text.split(","))
    except ValueError:
        raise ConfigError(f"--split-times must be two numbers T1,T2, found '{text}': leave it out") from None
    return first, second


def prepare(settings: PrepareSettings) -> EventStore:
    """Make an event store of raw input and open it. Raises InputError for input that cannot become one.

    Temporary files of about the input's uncompressed size lie beside the output until the store is complete.
    """
    files = _files(settings)
    with (
        telling_why(
            settings.output, "make room there for it and as much again meanwhile, or choose another place"
        ),
        tempfile.TemporaryDirectory(dir=settings.output.parent, prefix=f".{settings.output.name}.") as folder,
    ):
        spill = _read(settings, files, Path(folder))
        nodes = number_nodes(spill.src_ids, spill.dst_ids)
        if not nodes.num_src:
            _warn_of_two_kinds(spill, len(nodes.ids), settings.chunk_events)
        class_of_code, class_names = spill.edge_class_numbers()
        contents = Contents(
            name=settings.name or stem(settings.output),
            num_events=len(spill.src),
            num_nodes=len(nodes.ids),
            num_src=nodes.num_src,
            split=_split(settings, spill.time),
            node_ids=nodes.ids,
            edge_scale=spill.edge_scale,
            class_names=class_names,
            source_files=tuple(file.name for file in files),
            source_sha256=tuple(sha256_of(file) for file in files),
            dropped_rows=spill.dropped_rows,
            time_unit=spill.time_unit or "",
        )
        parts = _in_order(spill, nodes, class_of_code, settings.chunk_events)
        with progress(3 * contents.num_events, "writing", unit="entries") as bar:
            write_event_store(
                settings.output, contents, parts, chunk_events=settings.chunk_events, progress=bar
            )
    if contents.dropped_rows:
        log.info("%s rows without a node id were left out", f"{contents.dropped_rows:,}")
    return EventStore.open(settings.output)


def _files(settings: PrepareSettings) -> list[Path]:
    """The files to read; the word ``flights`` stands for one."""
    if settings.input_format == "flights":
        return [flights_file(path) for path in settings.inputs]
    for path in settings.inputs:
        if not path.is_file():
            raise InputError(f"{path}: no such file: check the path")
    return list(settings.inputs)


def _read(settings: PrepareSettings, files: list[Path], folder: Path) -> Spill:
    """All inputs, checked, in flat temporary files."""
    name = settings.input_format
    spill = Spill(
        folder,
        bipartite=settings.bipartite or name in BIPARTITE_FORMATS,
        feature_dtype=np.dtype(settings.feature_dtype),
        class_names=_class_names(settings, files),
    )
    with progress(None, "reading") as bar:
        for index, file in enumerate(files):
            rows_before = len(spill.src)
            for raw, origin in READERS[name](file, settings.columns, settings.chunk_events):
                if settings.label_by_file:
                    raw = replace(raw, edge_label=pa.array(np.full(len(raw.time), index)))  # noqa: PLW2901
                spill.append(raw, origin)
                bar.advance(len(raw.time))
            if len(spill.src) == rows_before:
                raise InputError(
                    f"{file}: no events found, at least one is needed: check the file and --format"
                )
    return spill


def _class_names(settings: PrepareSettings, files: list[Path]) -> tuple[str, ...] | None:
    """Names of edge classes that are known before reading: the files' stems, or those of the flights."""
    if settings.label_by_file:
        return tuple(stem(file) for file in files)
    return CLASSES if settings.input_format == "flights" else None


def _split(settings: PrepareSettings, time: FlatColumn) -> Split:
    """Bounds of training and validation, by share or by time."""
    num_events = len(time)
    if settings.split_times is None:
        training, validation, _ = settings.split
        split = Split(int(num_events * training), int(num_events * (training + validation)))
    else:
        begins = np.array(settings.split_times)
        before = np.zeros(2, np.int64)
        for start in range(0, num_events, settings.chunk_events):
            before += (time[start : start + settings.chunk_events] < begins[:, None]).sum(axis=1)
        split = Split(int(before[0]), int(before[1]))
    ends = (0, split.train_end, split.validation_end, num_events)
    for name, first, end in zip(("training", "validation", "test"), ends[:-1], ends[1:], strict=True):
        if first == end:
            log.warning("none of %d events falls into %s: training needs some in each part", num_events, name)
    return split


def _warn_of_two_kinds(spill: Spill, num_nodes: int, chunk_events: int) -> None:
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
        )


def _features(rows: NDArray[Any], scale: NDArray[np.float32] | None) -> NDArray[Any]:
    return rows if scale is None else to_int8(rows, scale)
