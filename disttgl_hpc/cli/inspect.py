"""``disttgl inspect``: describes an event store, batch store, static store or kept memory."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np

from disttgl_hpc.cli import one_process, print_answer
from disttgl_hpc.events.statistics import count_values, describe
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.log import printable
from disttgl_hpc.store.batch_store import KIND, SCHEMA_VERSION, BatchStore
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import is_kind
from disttgl_hpc.store.node_rows import KEPT_KIND, STATIC_KIND, KeptMemory, StaticStore

_EXAMPLES = """\b
Examples:
  disttgl inspect flights.events.h5
  disttgl inspect flights.b600.n10.s4.batches.h5 --verify
  disttgl inspect flights.static.h5 --json
"""
_YEAR_1980_S, _YEAR_2100_S = 315_532_800, 4_102_444_800


@click.command(epilog=_EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--verify", is_flag=True, help="First read everything and compare it with the checksum.")
@one_process
def inspect(file: Path, as_json: bool, verify: bool) -> None:
    """Describe the contents of FILE.

    For an event store: counts, times, split, degrees, repeats, features, labels. For a batch store: its
    events, settings and size. For static memory: its events, method, settings and validation result. For a
    kept memory: its run and events.
    """
    others = {KIND: _batch_facts, STATIC_KIND: _static_facts, KEPT_KIND: _memory_facts}
    facts_of = next((others[kind] for kind in others if is_kind(file, kind)), _event_facts)
    facts = facts_of(file, verify=verify)
    print_answer(json.dumps(facts, indent=2) if as_json else "\n".join(_lines(facts)))


def _batch_facts(file: Path, *, verify: bool) -> dict[str, Any]:
    """Description of a batch store, as plain values."""
    store = BatchStore.open(file)
    if verify:
        store.verify()
    names = {"events": "event store's checksum"}
    key = dataclasses.asdict(store.key)
    facts: dict[str, Any] = {names.get(name, name.replace("_", " ")): value for name, value in key.items()}
    return facts | {
        "global batches": store.key.num_batches,
        "records": len(store.checksums),
        "bytes": len(store.records),
        "bytes an event": round(len(store.records) / store.key.train_end, 1),
        "schema version": SCHEMA_VERSION,
        "checksums": "verified" if verify else "not verified",
    }


def _static_facts(file: Path, *, verify: bool) -> dict[str, Any]:
    """Description of a static store, as plain values."""
    store = StaticStore.open(file, check=True)  # its rows are read anyway, to count the known nodes
    origin, report = store.origin, store.origin.report
    return {
        "name": origin.name,
        "kind": origin.method,
        "nodes": len(store.rows),
        "known nodes": int(store.rows.any(axis=1).sum()),
        "width": store.rows.shape[1],
        "training events": origin.train_end,
        "learned from the first": origin.learned_end,
        "validation MRR, on the others": round(report["best_mrr"], 4) if "best_mrr" in report else "unknown",
        "epochs": len(report.get("epochs", ())),
        "settings": dict(origin.settings),
        "event store's checksum": origin.events,
        "checksum": f"{store.checksum} (verified)",
    }


def _memory_facts(file: Path, *, verify: bool) -> dict[str, Any]:
    """Description of the memory kept by ``disttgl update``, as plain values."""
    store = KeptMemory.open(file)
    if verify:
        store.verify()
    origin = store.origin
    return {
        "nodes": len(store.rows),
        "width": store.rows.shape[1] // 2,
        "events seen": origin.position,
        "events of the run": origin.run_events,
        "event store": origin.events_path,
        "event store's checksum": origin.events,
        "weights' checksum": origin.weights,
        "checksum": store.checksum + (" (verified)" if verify else ""),
    }


def _event_facts(file: Path, *, verify: bool) -> dict[str, Any]:
    """Description of an event store, as plain values."""
    store = EventStore.open(file, check=True)
    if verify:
        store.verify()
    stream, statistics = store.stream, describe(store.stream)
    facts: dict[str, Any] = {
        "name": stream.name,
        "events": stream.num_events,
        "nodes": stream.num_nodes,
        "sources": stream.num_src,
        "destinations": stream.num_nodes - stream.num_src if stream.num_src else 0,
        "dropped rows": store.dropped_rows,
        "time": _time_span(stream, 0, stream.num_events) | {"dtype": str(stream.time.dtype)},
        "training": _time_span(stream, 0, stream.split.train_end),
        "validation": _time_span(stream, stream.split.train_end, stream.split.validation_end),
        "test": _time_span(stream, stream.split.validation_end, stream.num_events),
        "events per node": statistics.degrees,
        "time between events of a node": statistics.gaps,
        "repeat-edge share": round(statistics.repeated_events / stream.num_events, 6),
        "self-loops": statistics.self_loops,
        "events sharing their time": statistics.tied_events,
        "different times": statistics.distinct_times,
        "edge features": _features(stream.edge_features)
        + (" · scale" if stream.edge_scale is not None else ""),
        "node features": _features(stream.node_features),
        "given negatives": _given_negatives(stream),
        "edge classes": _class_counts(store.class_names, statistics.edge_class_counts),
        "node labels": {} if store.node_labels is None else count_values(store.node_labels),
        "schema version": store.schema_version,
        "source": dict(store.sources),
        "checksum": store.checksum + (" (verified)" if verify else ""),
    }
    return facts


def _time_span(stream: EventStream, first: int, last: int) -> dict[str, Any]:
    """Events [first, last) and their times, with dates if the times are or look like Unix times."""
    span: dict[str, Any] = {"events": last - first}
    if last > first:
        begin, end = stream.time[first].item(), stream.time[last - 1].item()
        span |= {"first": begin, "last": end}
        per_s = stream.units_per_second
        if begin >= _YEAR_1980_S * per_s and end <= _YEAR_2100_S * per_s:
            dates = (datetime.fromtimestamp(time / per_s, UTC) for time in (begin, end))
            span["UTC"] = " to ".join(date.strftime("%Y-%m-%d %H:%M:%S") for date in dates)
    return span


def _features(features: np.ndarray[Any, Any] | None) -> str:
    return "none" if features is None else f"{features.shape[1]} × {features.dtype}"


def _given_negatives(stream: EventStream) -> str:
    """Largest number of given negatives per event of validation and of test."""
    given = stream.validation_negatives, stream.test_negatives
    counts = [rows.shape[1] for rows in given if rows is not None]
    return " and ".join(f"{count} an event" for count in counts) or "none"


def _class_counts(names: tuple[str, ...], counts: dict[int, int]) -> dict[str, int]:
    """Number of events of each class by name, or by number if it has no name."""
    named = {name: counts.get(index, 0) for index, name in enumerate(names)}
    return named | {str(value): count for value, count in counts.items() if not 0 <= value < len(names)}


def _lines(facts: dict[str, Any]) -> list[str]:
    width = max(len(name) for name in facts)
    return [printable(f"{name:<{width}}  {_text(value)}") for name, value in facts.items()]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items()) or "none"
    if isinstance(value, int | float):
        return f"{value:,}"
    return str(value)
