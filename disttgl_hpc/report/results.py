"""Results as rows: each model, as mean and spread over seeds, beside what it must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from disttgl_hpc.report.names import METRICS, MODELS, PARTS, parts_of
from disttgl_hpc.report.run_facts import Group, Record, RunFacts

MODEL = "TGN"


@dataclass(frozen=True)
class Cell:
    """A metric as text, and whether it is the best of its column on test."""

    text: str
    is_best: bool = False


@dataclass(frozen=True)
class ResultsTable:
    """title: of what. columns: of metrics. rows: (name, kind, cells), kind one of validation, test, heuristic."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[Cell]]]


_Row = tuple[str, str, dict[str, list[float]]]


def results_tables(groups: Sequence[Group]) -> list[ResultsTable]:
    """A table for each part of PARTS, and others, that some finished run has."""
    tested = [(group, [run for run in group.runs if run.test]) for group in groups]
    tested = [(group, runs) for group, runs in tested if runs]
    parts = dict.fromkeys(part for _, runs in tested for run in runs for part in parts_of(_test(run)["test"]))
    return [_table(part, tested) for part in parts]


def _test(run: RunFacts) -> Record:
    return {"test": {}, "validation": {}} | (run.test or {})


def _table(part: str, tested: Sequence[tuple[Group, Sequence[RunFacts]]]) -> ResultsTable:
    rows: list[_Row] = []
    besides: dict[str, _Row] = {}
    for group, runs in tested:
        for kind in ("validation", "test"):
            values = [parts_of(_test(run)[kind]).get(part, {}) for run in runs]
            name = MODEL if len(tested) == 1 else group.name
            rows.append(
                (name, kind, {metric: [one[metric] for one in values if metric in one] for metric in METRICS})
            )
        for run in runs:
            for name, metrics in _besides(_test(run), part).items():
                title = MODELS.get(name, name)
                streams = {other.stream for _, others in tested for other in others}
                title += f", {run.stream}" if len(streams) > 1 else ""
                besides.setdefault(title, (title, "heuristic", {m: [v] for m, v in metrics.items()}))
    rows += besides.values()
    columns = [metric for metric in METRICS if any(values.get(metric) for _, _, values in rows)]
    best = {
        column: max(
            (fmean(v[column]) for _, kind, v in rows if kind != "validation" and v.get(column)), default=None
        )
        for column in columns
    }
    return ResultsTable(
        PARTS.get(part, part),
        [METRICS[column] for column in columns],
        [
            (name, kind, [_cell(values.get(column, []), kind, best[column]) for column in columns])
            for name, kind, values in rows
        ],
    )


def _besides(test: Record, part: str) -> dict[str, dict[str, Any]]:
    """Metrics of what stands beside the model: heuristics of links, or baselines of classes."""
    if part == "classes":
        return {name: parts_of(found).get("", {}) for name, found in test.get("baselines", {}).items()}
    found = {name: parts_of(values).get(part, {}) for name, values in test.get("heuristics", {}).items()}
    return {name: metrics for name, metrics in found.items() if metrics}


def _cell(values: Sequence[float], kind: str, best: float | None) -> Cell:
    if not values:
        return Cell("–")
    spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return Cell(f"{fmean(values):.4f}{spread}", kind != "validation" and fmean(values) == best)
