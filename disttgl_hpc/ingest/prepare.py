"""``disttgl prepare``: from files, or from events in memory, to an event store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.ingest.columns import Columns, joined_names, parse_columns
from disttgl_hpc.ingest.formats import BIPARTITE_FORMATS, open_input
from disttgl_hpc.ingest.node_features import NodeTable
from disttgl_hpc.ingest.prepare_store import make_store
from disttgl_hpc.ingest.readers.frames import given_frame
from disttgl_hpc.ingest.readers.saved_arrays import given_temporal_data, is_temporal_data
from disttgl_hpc.ingest.readers.stored_events import following
from disttgl_hpc.ingest.settings import PrepareSettings, parse_split, parse_split_times
from disttgl_hpc.store.event_store import EventStore

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
