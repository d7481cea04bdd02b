"""Later events to an event store: the longer one is what ``prepare`` would have made of all input at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import Columns
from disttgl_hpc.ingest.formats import BIPARTITE_FORMATS, format_of
from disttgl_hpc.ingest.prepare import PrepareSettings, prepare
from disttgl_hpc.store.event_store import EventStore

_BY_NAME = {"csv", "parquet"}  # formats whose columns are told by their names


@dataclass(frozen=True, kw_only=True)
class AppendSettings:
    """What ``disttgl append`` is asked for; see its help for each.

    output: None replaces the store. format, columns, label_by_file: None reads as the store's own input was read.
    split, split_times: None, both of them, leaves training and validation where they end.
    """

    store: Path
    inputs: tuple[Path, ...]
    output: Path | None = None
    format: str | None = None
    columns: Columns | None = None
    label_by_file: bool | None = None
    split: tuple[Fraction, Fraction, Fraction] | None = None
    split_times: tuple[float, float] | None = None
    force: bool = False
    chunk_events: int = PrepareSettings.chunk_events


def append(settings: AppendSettings) -> EventStore:
    """Make a store of another one's events and of later ones, and open it.

    Nodes and classes are numbered anew, as they are in a store of all input; it takes time and room as preparing
    all of it does. Raises InputError for input that cannot follow, StoreError for a store that is damaged.
    """
    store = EventStore.open(settings.store)
    _check_can_grow(store)
    store.verify()
    read_as = _read_as(settings, store)
    if not store.stream.num_src and read_as["format"] in BIPARTITE_FORMATS:
        raise InputError(
            f"{store.path}: has one set of nodes, {read_as['format']} has two: give another --format"
        )
    if settings.split is not None:
        read_as["split"] = settings.split
    features = store.stream.edge_features
    return prepare(
        PrepareSettings(
            inputs=settings.inputs,
            output=settings.output or settings.store,
            name=store.stream.name,
            bipartite=store.stream.num_src > 0,
            split_times=settings.split_times,
            keep_split=settings.split is None and settings.split_times is None,
            feature_dtype="float32" if features is None else f"{features.dtype}",
            force=settings.force or settings.output is None,
            chunk_events=settings.chunk_events,
            before=store,
            **read_as,
        )
    )


def _check_can_grow(store: EventStore) -> None:
    """Raise InputError for a store that cannot be made longer and stay what ``prepare`` makes of everything."""
    stream = store.stream
    if stream.edge_scale is not None:
        raise InputError(
            f"{store.path}: features are stored as int8, in steps that depend on all of them: prepare everything "
            "anew"
        )
    num_idle = int((np.diff(stream.tcsr.indptr) == 0).sum())
    if num_idle:
        raise InputError(
            f"{store.path}: all nodes must have events, {num_idle:,} have none: prepare it of raw events"
        )


def _read_as(settings: AppendSettings, store: EventStore) -> dict[str, Any]:
    """How to read: format, columns, classes and features' scale as given, else as the store's input was read."""
    known = json.loads(store.options) if store.options else {}
    formats = {settings.format or format_of(path) for path in settings.inputs}
    name = formats.pop() if len(formats) == 1 else settings.format
    columns, stored, by_file = settings.columns, known.get("columns"), settings.label_by_file
    is_alike = name == known.get("format") or {name, known.get("format")} <= _BY_NAME
    if columns is None and stored and is_alike:
        columns = Columns(**{**stored, "features": tuple(stored["features"])})
    return {
        "format": name,
        "columns": columns,
        "label_by_file": known.get("label_by_file", False) if by_file is None else by_file,
        "log_features": tuple(known.get("log_features", ())),
    }
