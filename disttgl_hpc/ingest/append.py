"""``disttgl append``: a store and later events become the store that ``prepare`` makes of all input at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import Columns
from disttgl_hpc.ingest.formats import BIPARTITE_FORMATS, format_of
from disttgl_hpc.ingest.prepare import PrepareSettings, prepare
from disttgl_hpc.ingest.split import Shares
from disttgl_hpc.store.event_store import EventStore

_NAMED_COLUMNS = {"csv", "parquet"}  # formats whose columns go by name, so that one follows the other


@dataclass(frozen=True, kw_only=True)
class AppendSettings:
    """Options of ``disttgl append``; see its help for each.

    output: None replaces the store. format, columns, label_by_file: None reads as the store's own input was read.
    split, split_times: if both are None, training and validation end where they end in the store.
    """

    store: Path
    inputs: tuple[Path, ...]
    output: Path | None = None
    format: str | None = None
    columns: Columns | None = None
    label_by_file: bool | None = None
    split: Shares | None = None
    split_times: tuple[float, float] | None = None
    force: bool = False
    chunk_events: int = PrepareSettings.chunk_events


def append(settings: AppendSettings) -> EventStore:
    """Make a store of a store's events and later ones, and open it.

    Nodes and classes are renumbered as in a store of all input; time and disk space are those of preparing all of
    it. Raises InputError for input that cannot follow, StoreError for a damaged store.
    """
    store = EventStore.open(settings.store)
    _check_can_grow(store)
    store.verify()
    known = json.loads(store.options) if store.options else {}
    name = _input_format(settings)
    if not store.stream.num_src and name in BIPARTITE_FORMATS:
        raise InputError(f"{store.path}: has one set of nodes, {name} has two: choose another --format")
    features, by_file = store.stream.edge_features, settings.label_by_file
    return prepare(
        PrepareSettings(
            inputs=settings.inputs,
            output=settings.output or settings.store,
            name=store.stream.name,
            format=name,
            columns=settings.columns or _stored_columns(known, name),
            bipartite=store.stream.num_src > 0,
            split=settings.split,
            split_times=settings.split_times,
            keep_split=settings.split is None and settings.split_times is None,
            label_by_file=known.get("label_by_file", False) if by_file is None else by_file,
            feature_dtype="float32" if features is None else f"{features.dtype}",
            log_features=tuple(known.get("log_features", ())),
            force=settings.force or settings.output is None,
            chunk_events=settings.chunk_events,
            before=store,
        )
    )


def _check_can_grow(store: EventStore) -> None:
    """Raise InputError for a store that, with more events, would not equal what ``prepare`` makes of all input."""
    stream = store.stream
    if stream.edge_scale is not None:
        raise InputError(
            f"{store.path}: the scale of int8 features depends on all events: prepare all input again"
        )
    num_idle = int((np.diff(stream.tcsr.indptr) == 0).sum())
    if num_idle:
        raise InputError(
            f"{store.path}: all nodes must have events, {num_idle:,} have none: prepare a store from raw events"
        )


def _input_format(settings: AppendSettings) -> str | None:
    """The format given, or that of all inputs; None if they differ, for ``prepare`` to refuse."""
    formats = {settings.format or format_of(path) for path in settings.inputs}
    return formats.pop() if len(formats) == 1 else settings.format


def _stored_columns(known: dict[str, Any], name: str | None) -> Columns | None:
    """The columns of the store's own input, if they apply to this format."""
    stored = known.get("columns")
    applies = name == known.get("format") or {name, known.get("format")} <= _NAMED_COLUMNS
    if not stored or not applies:
        return None
    return Columns(**{**stored, "features": tuple(stored["features"])})
