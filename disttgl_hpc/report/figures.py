"""The charts of a report, made of what is known of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from disttgl_hpc.report.charts import (
    REST,
    WORK,
    WORK_NAMES,
    Bar,
    BarChart,
    Block,
    LineChart,
    TimelineChart,
    Track,
)
from disttgl_hpc.report.run_facts import AXES, Group, Metric, RunFacts, metric_title, parts_of, timing

MOST_RANKS = 24
"""Ranks that a chart shows; of more, some that are evenly spread."""
_MOST_BLOCKS = 6000
_BESIDE = {
    "load",
    "train",
    "evaluate",
    "rank",
    "node",
    "resident_mib",
    "peak_mib",
}  # columns that are no phases


def curves(groups: Sequence[Group]) -> dict[str, list[LineChart]]:
    """By axis the curves of loss, of every metric of validation, and of speed, of those that any run has."""
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


_ROLES = ("trainer", "trainers"), ("daemon", "daemons")
"""What a rank is, and where a sweep's record has its columns."""


def _timed_by_rank(run: RunFacts) -> list[dict[str, Any]]:
    """The timing of those sweeps whose record tells of every rank."""
    return [timing(sweep) for sweep in run.sweeps if timing(sweep).get("trainers")]


def work_chart(run: RunFacts) -> BarChart | None:
    """What each rank spent a sweep on, mean over those on record; None where none is."""
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


def _row(table: dict[str, list[Any]], position: int) -> dict[str, Any]:
    return {name: column[position] for name, column in table.items()}


def _parts(row: dict[str, Any]) -> dict[int, float]:
    """Seconds by kind of work of a rank; what its clocks did not see of a sweep is the rest."""
    parts = dict.fromkeys(range(len(WORK_NAMES)), 0.0)
    phases = {name: value for name, value in row.items() if name not in _BESIDE}
    for name, seconds in phases.items():
        parts[WORK.get(name, REST)] += seconds
    if "train" in row:
        parts[WORK["evaluate"]] += row["evaluate"]
        parts[REST] += max(0.0, row["train"] - sum(phases.values()))
    return parts


def memory_chart(run: RunFacts) -> BarChart | None:
    """Resident and peak memory of each rank in its last sweep on record; None where there is none."""
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
    """Positions of the ranks that are shown of ``count``."""
    shown = min(count, MOST_RANKS)
    return [number * (count - 1) // max(1, shown - 1) for number in range(shown)]


def timeline(run: RunFacts) -> TimelineChart | None:
    """The steps that were traced, all ranks or the first of them; None where none were."""
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
    begins = [
        (event["args"]["step"], event["ts"] / 1e3)
        for event in spans.get((min(names, default=0), 0), [])
        if event["name"] == "step"
    ]
    ends = [
        event["ts"] + event["dur"] for found in spans.values() for event in found if event["name"] == "step"
    ]
    if not begins:
        return None
    window = -2.0, max(ends) / 1e3
    tracks: list[Track] = []
    room = _MOST_BLOCKS
    for (pid, tid), found in sorted(spans.items(), key=lambda item: _place(names[item[0][0]], item[0])):
        seen = [e for e in found if e["name"] != "step" and e["ts"] / 1e3 < window[1]]
        seen = [event for event in seen if (event["ts"] + event["dur"]) / 1e3 > window[0]]
        room -= len(seen)
        if seen and (room > 0 or not tracks):
            tracks += _tracks(pid, tid, names[pid], threads[pid, tid], seen)
    return TimelineChart("", tracks, begins)


def _tracks(pid: int, tid: int, role: str, thread: str, events: list[dict[str, Any]]) -> list[Track]:
    """A trainer's thread as it is; of a daemon's replica the writes and the reads, which follow them at once."""
    if "daemon" not in role:
        return [Track(thread if tid else f"rank {pid}", [_block(event) for event in events], not tid)]
    kinds = {"write": "W", "read": "R"}
    return [
        Track(
            f"daemon, {thread}: {name}s" if name == "write" else f"{name}s",
            [
                replace(_block(event), mark=f"{mark}({event['args']['counter']})")
                for event in events
                if event["name"] == name
            ],
            name == "write",
        )
        for name, mark in kinds.items()
    ]


def _place(name: str, key: tuple[int, int]) -> tuple[bool, tuple[int, int]]:
    """Trainers first, then daemons."""
    return "daemon" in name, key


def _block(event: dict[str, Any]) -> Block:
    begin, duration, about = event["ts"] / 1e3, event["dur"] / 1e3, event.get("args", {})
    batch = f" of batch {about['counter']}" if "counter" in about else ""
    return Block(
        WORK.get(event["name"], REST), begin, begin + duration, f"{event['name']}{batch}: {duration:.2f} ms"
    )
