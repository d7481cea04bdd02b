"""The charts of a report, of what batches capture, and of a scaling prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from disttgl_hpc.planning.scaling import LOSSES
from disttgl_hpc.report.charts import (
    REST,
    WORK,
    WORK_NAMES,
    Bar,
    BarChart,
    Block,
    Chart,
    Line,
    LineChart,
    TimelineChart,
    Track,
)
from disttgl_hpc.report.run_facts import AXES, Group, Metric, RunFacts, metric_title, parts_of, timing

MOST_RANKS = 24
"""Most ranks that a chart shows; of more, evenly spread ones."""
_MOST_BLOCKS = 6000
_NOT_PHASES = {"load", "train", "evaluate", "rank", "node", "resident_mib", "peak_mib"}
"""Columns of a sweep's timing that are no phases of a step."""
_ROLES = ("trainer", "trainers"), ("daemon", "daemons")
"""Roles of a rank, and where a sweep's timing has their columns."""


def curves(groups: Sequence[Group]) -> dict[str, list[LineChart]]:
    """Charts of loss, validation metrics and speed by axis, for those that some run has recorded."""
    metrics: dict[Metric, None] = dict.fromkeys(
        (part, name)
        for group in groups
        for run in group.runs
        for sweep in run.sweeps
        for part, values in parts_of(sweep.get("validation") or {}).items()
        for name in values
    )
    titles: dict[Metric, str] = {"loss": "Training loss, mean over events"}
    titles |= {
        metric: f"Validation {metric_title(*metric)}" for metric in metrics if not isinstance(metric, str)
    }
    titles["events_per_s"] = "Events trained per second"
    found: dict[str, list[LineChart]] = {}
    for axis, x_title in AXES.items():
        for metric, title in titles.items():
            lines = [line for group in groups for line in group.lines(metric, axis)]
            if lines:
                found.setdefault(axis, []).append(LineChart(title, x_title, lines))
    return found


def work_chart(run: RunFacts) -> BarChart | None:
    """Seconds of each rank by kind of work, mean over the recorded sweeps; None without any."""
    sweeps = _timed_by_rank(run)
    if not sweeps:
        return None
    bars = []
    for role, columns in _ROLES:
        tables = [sweep.get(columns) or {} for sweep in sweeps]
        for position in shown_ranks(len(tables[-1].get("rank", []))):
            rows = [_row(table, position) for table in tables if len(table.get("rank", [])) > position]
            parts = [_parts(row) for row in rows]
            means = [(kind, fmean(part[kind] for part in parts)) for kind in range(len(WORK_NAMES))]
            bars.append(Bar(f"rank {rows[-1]['rank']} · {role}", means))
    return BarChart("Seconds of a mean sweep, by rank", "seconds", bars)


def memory_chart(run: RunFacts) -> BarChart | None:
    """Resident and peak memory of each rank in the last recorded sweep; None without any."""
    sweeps = _timed_by_rank(run)
    if not sweeps:
        return None
    bars = []
    for role, columns in _ROLES:
        table = sweeps[-1].get(columns) or {}
        for position in shown_ranks(len(table.get("rank", []))):
            row = _row(table, position)
            above = max(0.0, row["peak_mib"] - row["resident_mib"])
            bars.append(Bar(f"rank {row['rank']} · {role}", [(2, row["resident_mib"]), (4, above)]))
    names = ["", "", "resident at the sweep's end,", "", "more at its peak,"]
    return BarChart("Memory by rank, shared pages included", "MiB", bars, names)


def shown_ranks(count: int) -> list[int]:
    """Positions of the ranks that a chart shows, of ``count``."""
    shown = min(count, MOST_RANKS)
    return [number * (count - 1) // max(1, shown - 1) for number in range(shown)]


def _timed_by_rank(run: RunFacts) -> list[dict[str, Any]]:
    """Timing of the sweeps that have recorded every rank."""
    return [timing(sweep) for sweep in run.sweeps if timing(sweep).get("trainers")]


def _row(table: dict[str, list[Any]], position: int) -> dict[str, Any]:
    return {name: column[position] for name, column in table.items()}


def _parts(row: dict[str, Any]) -> dict[int, float]:
    """Seconds of a rank by kind of work; the rest is the part of a sweep outside all phases."""
    parts = dict.fromkeys(range(len(WORK_NAMES)), 0.0)
    phases = {name: value for name, value in row.items() if name not in _NOT_PHASES}
    for name, seconds in phases.items():
        parts[WORK.get(name, REST)] += seconds
    if "train" in row:
        parts[WORK["evaluate"]] += row["evaluate"]
        parts[REST] += max(0.0, row["train"] - sum(phases.values()))
    return parts


def timeline(run: RunFacts) -> TimelineChart | None:
    """The traced steps of all ranks, or of the first ones if they are many; None without a trace or spans."""
    if run.trace is None:
        return None
    names: dict[int, str] = {}
    threads: dict[tuple[int, int], str] = {}
    spans: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for event in run.trace["traceEvents"]:
        key = event["pid"], event["tid"]
        if event["name"] == "process_name":
            names[event["pid"]] = event["args"]["name"]
        elif event["name"] == "thread_name":
            threads[key] = event["args"]["name"]
        elif event["ph"] == "X":
            spans.setdefault(key, []).append(event)
    steps = [
        (event["args"]["step"], event["ts"] / 1e3)
        for event in spans.get((min(names, default=0), 0), [])
        if event["name"] == "step"
    ]
    if not steps:
        return None
    ends = [
        event["ts"] + event["dur"] for found in spans.values() for event in found if event["name"] == "step"
    ]
    first_ms, last_ms = -2.0, max(ends) / 1e3
    tracks: list[Track] = []
    blocks_left = _MOST_BLOCKS
    # Trainers first, then daemons.
    for (pid, tid), found in sorted(spans.items(), key=lambda item: ("daemon" in names[item[0][0]], item[0])):
        shown = [
            event
            for event in found
            if event["name"] != "step"
            and event["ts"] / 1e3 < last_ms
            and (event["ts"] + event["dur"]) / 1e3 > first_ms
        ]
        blocks_left -= len(shown)
        if shown and (blocks_left > 0 or not tracks):
            tracks += _tracks(pid, tid, names[pid], threads[pid, tid], shown)
    return TimelineChart("", tracks, steps) if tracks else None


def _tracks(pid: int, tid: int, role: str, thread: str, events: list[dict[str, Any]]) -> list[Track]:
    """A trainer's thread as one track; a replica of a daemon as one of writes and one of reads."""
    if "daemon" not in role:
        return [Track(thread if tid else f"rank {pid}", [_block(event) for event in events], not tid)]
    return [
        Track(
            f"daemon, {thread}: {name}s" if name == "write" else f"{name}s",
            [
                replace(_block(event), mark=f"{mark}({event['args']['counter']})" if "args" in event else "")
                for event in events
                if event["name"] == name
            ],
            name == "write",
        )
        for name, mark in (("write", "W"), ("read", "R"))
    ]


def _block(event: dict[str, Any]) -> Block:
    begin_ms, length_ms, about = event["ts"] / 1e3, event["dur"] / 1e3, event.get("args", {})
    batch = f" of batch {about['counter']}" if "counter" in about else ""
    text = f"{event['name']}{batch}: {length_ms:.2f} ms"
    return Block(WORK.get(event["name"], REST), begin_ms, begin_ms + length_ms, text)


def captured_charts(record: dict[str, Any]) -> list[Chart]:
    """Captured share and age of the memory against the batch size, from the record of ``plan --captured``."""
    captured, x_title = record["captured"], "events of a global batch"
    batches = [one["batch"] for one in captured]
    shares = [
        Line("captured mails", batches, [one["share"] for one in captured], 0),
        Line("nodes without memory", batches, [one["cold"] for one in captured], 1),
    ]
    charts: list[Chart] = [LineChart(f"{record['stream']}: share", x_title, shares, log_x=True)]
    warm = [one for one in captured if one["age_events"]]
    if warm:
        low, median, high = (
            [one["age_events"][level] for one in warm] for level in ("25 %", "median", "75 %")
        )
        ages = Line("median and middle half", [one["batch"] for one in warm], median, 0, low, high)
        charts.append(LineChart("Age of the memory, events", x_title, [ages], log_x=True, log_y=True))
    return charts


def prediction_charts(record: dict[str, Any]) -> list[Chart]:
    """Speed, parts of a step with the bottleneck, and length of a run, from the record of ``simulate``."""
    predicted, measured = record["predicted"], record["measured"]
    trainers = [one["trainers"] for one in predicted]
    alone_per_s = predicted[0]["events_per_s"] / predicted[0]["trainers"]
    speeds = [
        Line("ideal", trainers, [alone_per_s * number for number in trainers], 7),
        Line("predicted", trainers, [one["events_per_s"] for one in predicted], 0),
        Line(
            "measured",
            [one["trainers"] for one in measured],
            [one["events_per_s"] for one in measured],
            1,
            is_joined=False,
        ),
    ]
    fields = ("compute_s", *LOSSES)
    bars = [
        Bar(
            f"{one['trainers']:,} · {one['bottleneck']}",
            [(kind, one[field] / one["step_s"]) for kind, field in enumerate(fields)],
        )
        for one in predicted
    ]
    runs = Line("predicted", trainers, [one["run_s"] for one in predicted], 0)
    return [
        LineChart(f"{record['stream']}: events/s", "trainers", speeds, log_x=True, log_y=True),
        BarChart("Trainers and bottleneck", "share of a step", bars, ("computing", *LOSSES.values())),
        LineChart(
            f"Seconds of training {record['epochs']} epochs", "trainers", [runs], log_x=True, log_y=True
        ),
    ]
