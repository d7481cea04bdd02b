"""Facts of a run, whichever version wrote its files and however it ended, and groups of runs by settings.

Records are plain values. What an older version did not record is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from statistics import fmean
from typing import Any

from disttgl_hpc.report.charts import Line

METRICS = {
    "mrr": "MRR",
    "hits_at_10": "Hits@10",
    "f1_micro": "F1-micro",
    "f1_macro": "F1-macro",
    "accuracy": "accuracy",
    "average_precision": "AP",
    "roc_auc": "ROC-AUC",
}
"""Names of metrics for people."""
MODELS = {
    "edgebank_unlimited": "EdgeBank, unlimited",
    "edgebank_windowed": "EdgeBank, windowed",
    "poptrack": "PopTrack",
    "pair_recency": "pair recency",
    "last_label": "last label",
    "share_so_far": "share so far",
}
"""Names of heuristics and baselines for people."""
PARTS = {"": "links", "inductive": "links with nodes that training has not seen", "classes": "classes"}
"""Subjects of metrics, by their key in a record; those of links are at its top level."""
AXES = {"steps": "steps", "events": "events trained", "time": "seconds of training"}
"""x axes of curves, and their titles."""
_WITHOUT_EFFECT = {
    "prefetch",
    "timeout_s",
    "checkpoint_steps",
    "checkpoint_minutes",
    "keep_checkpoints",
    "trace_steps",
    "trace_after",
}
"""Settings that have no effect on results."""
_NOT_SETTINGS = {"events", "checksum", "batches", "static_memory", "train_end", "sampling_version"}

Record = dict[str, Any]
Metric = str | tuple[str, str]


def parts_of(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Numeric metrics of a record of validation, test or a heuristic, by part (see PARTS)."""
    below = {name: values for name, values in record.items() if isinstance(values, dict)}
    found = {"": record} | below
    parts = {
        part: {name: float(values[name]) for name in METRICS if _is_number(values.get(name))}
        for part, values in found.items()
    }
    return {part: metrics for part, metrics in parts.items() if metrics}


def metric_title(part: str, metric: str) -> str:
    """The name of a metric of a part for the title of a chart."""
    of = {"": "", "inductive": ", new nodes"}.get(part, f", {part}")
    return f"{METRICS[metric]}{of}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e18  # no NaN


@dataclass(frozen=True)
class RunFacts:
    """A run, read from its files; records as in data/README.md, of which older runs lack some fields.

    captured: :class:`~.captured.Captured` of its batches as plain values, if its events exist. trace: the contents
    of trace.json, if there is one. last_step: step of the newest checkpoint.
    """

    name: str
    config: Record
    sweeps: Sequence[Record]
    test: Record | None
    stream: str
    captured: Sequence[Record] = ()
    trace: Record | None = None
    last_step: int | None = None

    @property
    def settings(self) -> Record:
        """Settings without the inputs."""
        return {name: value for name, value in self.config.items() if name not in _NOT_SETTINGS}

    @property
    def status(self) -> str:
        """Whether it has finished, its sweeps, and its last checkpoint if it has not."""
        sweeps = self.sweeps[-1].get("sweep", len(self.sweeps)) if self.sweeps else 0
        done = f"{sweeps} sweep{'' if sweeps == 1 else 's'}"
        if self.test is not None:
            return f"finished, {done}"
        where = "" if self.last_step is None else f", last checkpoint after step {self.last_step:,}"
        return f"not finished: {done}{where}"

    @property
    def train_s(self) -> float:
        """Seconds of training in all recorded sweeps, without evaluation."""
        return float(sum(timing(sweep).get("train_s", 0.0) for sweep in self.sweeps))

    @property
    def events_per_s(self) -> float | None:
        """Events trained per second, mean over sweeps; None if not recorded."""
        speeds = [timing(sweep)["events_per_s"] for sweep in self.sweeps if "events_per_s" in timing(sweep)]
        return fmean(speeds) if speeds else None

    @property
    def peak_mib(self) -> float | None:
        """Peak memory of the rank that used most, MiB; None if not recorded."""
        peaks = [
            peak
            for sweep in self.sweeps
            for role in ("trainers", "daemons")
            for peak in timing(sweep).get(role, {}).get("peak_mib", [])
        ]
        return max(peaks, default=None)

    def curve(self, metric: Metric, axis: str) -> tuple[list[float], list[float]]:
        """(x, y) of a curve. metric: "loss", "events_per_s" or (part, name) of validation. axis: a key of AXES."""
        if metric == "loss":
            return self._loss(axis)
        xs, ys = self._ends(axis), [_value(sweep, metric) for sweep in self.sweeps]
        kept = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None]
        return [x for x, _ in kept], [y for _, y in kept]

    def _ends(self, axis: str) -> list[float]:
        """The end of each sweep on an axis."""
        if axis == "steps":
            return [float(sweep.get("step", number)) for number, sweep in enumerate(self.sweeps, 1)]
        amounts = [
            _events(sweep) if axis == "events" else timing(sweep).get("train_s", 0.0) for sweep in self.sweeps
        ]
        return list(accumulate(amounts))

    def _loss(self, axis: str) -> tuple[list[float], list[float]]:
        """The recorded points within each sweep; the mean at its end if it has none."""
        xs: list[float] = []
        ys: list[float] = []
        ends, steps = [0.0, *self._ends(axis)], [0.0, *self._ends("steps")]
        for number, sweep in enumerate(self.sweeps):
            course, begin, end = timing(sweep).get("course") or {}, ends[number], ends[number + 1]
            losses = course.get("loss") or [sweep.get("loss", math.nan)]
            length = steps[number + 1] - steps[number] or 1.0
            shares = [(step - steps[number]) / length for step in course.get("step") or [steps[number + 1]]]
            if axis == "time" and course.get("elapsed_s"):
                xs += [begin + elapsed_s for elapsed_s in course["elapsed_s"]]
            else:
                xs += [begin + share * (end - begin) for share in shares]
            ys += losses
        kept = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
        return [x for x, _ in kept], [y for _, y in kept]


def timing(record: Record) -> Record:
    """Timing of a record; empty if not recorded."""
    found = record.get("timing")
    return found if isinstance(found, dict) else {}


def _value(sweep: Record, metric: Metric) -> float | None:
    if isinstance(metric, str):
        return timing(sweep).get(metric)
    part, name = metric
    return parts_of(sweep.get("validation") or {}).get(part, {}).get(name)


def _events(sweep: Record) -> float:
    """Events trained in a sweep; older records have only events per second."""
    return float(
        sweep.get("events", timing(sweep).get("events_per_s", 0.0) * timing(sweep).get("train_s", 0.0))
    )


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed, in the given order. color: number of its series."""

    name: str
    runs: Sequence[RunFacts]
    color: int

    def lines(self, metric: Metric, axis: str) -> list[Line]:
        """The mean curve over runs, up to the end of the shortest, in a band from minimum to maximum.

        Runs that were not recorded at the same steps, as after an interruption, have a line each.
        """
        steps = [run.curve(metric, "steps")[0] for run in self.runs]
        begun = [number for number, found in enumerate(steps) if found]
        curves = [self.runs[number].curve(metric, axis) for number in begun]
        length = min((len(steps[number]) for number in begun), default=0)
        at_same_steps = len({tuple(steps[number][:length]) for number in begun}) <= 1
        if len(begun) == 1 or not at_same_steps:
            return [
                Line(self.runs[number].name if len(begun) > 1 else self.name, x, y, self.color)
                for number, (x, y) in zip(begun, curves, strict=True)
            ]
        xs = [fmean(values) for values in zip(*(x for x, _ in curves), strict=False)]
        columns = list(zip(*(y for _, y in curves), strict=False))
        ys, low, high = ([of(column) for column in columns] for of in (fmean, min, max))
        return [Line(self.name, xs, ys, self.color, low, high)] if xs else []


def group_runs(runs: Sequence[RunFacts]) -> list[Group]:
    """Groups of runs with the same events and settings, except the seed and settings without effect on results."""
    groups: dict[str, list[RunFacts]] = {}
    for run in runs:
        deciding = {k: v for k, v in run.settings.items() if k not in _WITHOUT_EFFECT and k != "seed"}
        groups.setdefault(repr((run.config.get("checksum"), sorted(deciding.items()))), []).append(run)
    return [Group(_group_name(members), members, number) for number, members in enumerate(groups.values())]


def _group_name(runs: Sequence[RunFacts]) -> str:
    if len(runs) == 1:
        return runs[0].name
    letters = takewhile(lambda column: len(set(column)) == 1, zip(*(run.name for run in runs), strict=False))
    shared = "".join(column[0] for column in letters).rstrip("-_. /") or runs[0].name
    seeds = {run.settings.get("seed") for run in runs}
    return f"{shared} ({len(runs)} {'seeds' if len(seeds) == len(runs) else 'runs'})"


def differences(runs: Sequence[RunFacts]) -> dict[str, list[Any]]:
    """Settings, and the stream, in which runs differ: a value for each run, None if it has none.

    Settings without effect on results come last.
    """
    tables = [{"stream": run.stream} | run.settings for run in runs]
    names = sorted(
        dict.fromkeys(name for table in tables for name in table), key=_WITHOUT_EFFECT.__contains__
    )
    found = {name: [table.get(name) for table in tables] for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}
