"""``disttgl generate``: from a recipe to an event store, or to raw events as csv that ``disttgl prepare`` reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import Split
from disttgl_hpc.events.synthetic import Recipe, SyntheticEvents, synthetic_events
from disttgl_hpc.log import Progress, progress
from disttgl_hpc.store.event_writer import KIND, Contents, EventPart, write_event_store
from disttgl_hpc.store.files import check_output, replacing, stem, write_errors

_CHUNK_EVENTS = 1 << 20
_CHUNK_BYTES = 128 << 20
_ENTRIES_PER_EVENT = 3  # an event is written once, and twice in the index


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """Options of ``disttgl generate``. name: of the stream; empty for the output's own."""

    recipe: Recipe
    output: Path
    name: str = ""
    force: bool = False

    def __post_init__(self) -> None:
        check_output(self.output, None if self.makes_csv else KIND, force=self.force)
        if self.makes_csv and self.recipe.feature_dtype == "int8":
            raise ConfigError(
                "csv cannot hold int8 features: omit --feature-dtype int8 here, and pass it to prepare"
            )

    @property
    def makes_csv(self) -> bool:
        """Whether the output is csv, not an event store."""
        return self.output.name.endswith((".csv", ".csv.gz"))


def generate(settings: GenerateSettings) -> None:
    """Generate the stream of a recipe; the output gets its name once it is complete."""
    recipe = settings.recipe
    row_bytes = 64 + 8 * recipe.dim_edge
    chunks = synthetic_events(recipe, min(_CHUNK_EVENTS, max(1, _CHUNK_BYTES // row_bytes)))
    if settings.makes_csv:
        with (
            write_errors(settings.output, "free space there, or choose another place"),
            progress(recipe.num_events, "writing") as bar,
            replacing(settings.output) as partial,
        ):
            columns = _csv_columns(recipe, chunks, bar)
            write_csv(partial, columns, compressed=settings.output.suffix == ".gz")
        return
    with progress(_ENTRIES_PER_EVENT * recipe.num_events, "writing", unit="entries") as bar:
        write_event_store(
            settings.output,
            _contents(settings),
            (
                EventPart(chunk.src, chunk.dst, chunk.time, chunk.edge_features, chunk.edge_labels)
                for chunk in chunks
            ),
            chunk_events=_CHUNK_EVENTS,
            progress=bar,
        )


def _contents(settings: GenerateSettings) -> Contents:
    recipe = settings.recipe
    num_events = recipe.num_events
    ids = [np.arange(count) for count in (recipe.num_src, recipe.num_dst) if count]
    return Contents(
        name=settings.name or stem(settings.output),
        num_events=num_events,
        num_nodes=recipe.num_nodes,
        num_src=recipe.num_src if recipe.num_dst else 0,
        split=Split(num_events * 70 // 100, num_events * 85 // 100),
        node_ids=np.concatenate(ids),
        edge_scale=recipe.edge_scale,
        class_names=tuple(str(number) for number in range(recipe.num_classes)),
        time_unit="s",
    )


def write_csv(path: Path, chunks: Iterable[Mapping[str, NDArray[Any]]], *, compressed: bool) -> None:
    """Write chunks of columns (n,) with equal names, which become the header; gzip if ``compressed``."""
    with pa.OSFile(str(path), "wb") as file:
        stream = pa.CompressedOutputStream(file, "gzip") if compressed else file
        header = True
        for columns in chunks:
            table = pa.table(dict(columns))
            pa_csv.write_csv(table, stream, pa_csv.WriteOptions(include_header=header, quoting_header="none"))
            header = False
        stream.close()


def _csv_columns(
    recipe: Recipe, chunks: Iterator[SyntheticEvents], bar: Progress
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Columns src, dst, time[, label][, f0, f1, …]; bipartite users and items are numbered from 0 each."""
    for chunk in chunks:
        columns = {
            "src": chunk.src,
            "dst": chunk.dst - recipe.num_src if recipe.num_dst else chunk.dst,
            "time": chunk.time,
        }
        if chunk.edge_labels is not None:
            columns["label"] = chunk.edge_labels
        if chunk.edge_features is not None:
            columns |= {f"f{index}": column for index, column in enumerate(chunk.edge_features.T)}
        yield columns
        bar.advance(len(chunk.src))
