"""Tables of results: each model beside its heuristics and baselines, as text and as rows for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from disttgl_hpc.log import aligned
from disttgl_hpc.report.run_facts import METRICS, MODELS, PARTS, Group, Record, RunFacts, parts_of

_LINK_COLUMNS = ("mrr", "hits_at_10", "average_precision", "roc_auc")
_CLASS_COLUMNS = ("f1_micro", "f1_macro", "accuracy", "roc_auc", "average_precision")
_HEAD_COLUMNS = ("roc_auc", "average_precision")
MODEL = "TGN"
"""The name of the model in tables."""


def results_table(record: dict[str, Any]) -> str:
    """Tables of a test record: the model beside heuristics and baselines on the same events and candidates.

    One of links, one of links with nodes that training has not seen, one of classes; those that the task has.
    """
    parts = {"TGN (validation)": record["validation"], "TGN (test)": record["test"]}
    tables = []
    if "heuristics" in record:
        tables += _link_tables(record, parts | record["heuristics"])
    if "baselines" in record:
        classes = {name: metrics["classes"] for name, metrics in parts.items()} | record["baselines"]
        tables.append(
            [
                *_metrics_table(classes, _CLASS_COLUMNS),
                f"{record['test']['classes']['num_events']:,} test events.",
            ]
        )
    tables[-1][-1] += f" Weights of sweep {record['best_sweep']}, the best on validation."
    return "\n\n".join("\n".join(table) for table in tables)


def _link_tables(record: dict[str, Any], rows: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Lines of a table of all test events, and of one of those with new nodes if there are any."""
    test = record["test"]
    text = (
        f"{test['num_events']:,} test events, each ranked among {record['evaluation_negatives']} "
        f"{record['evaluation_strategy']} negatives, ties at mid-rank; heuristics on test."
    )
    tables = [[*_metrics_table(rows, _LINK_COLUMNS), text]]
    if "inductive" in test:
        new = test["inductive"]
        own = {name: metrics["inductive"] for name, metrics in rows.items() if "inductive" in metrics}
        text = (
            f"The {new['num_events']:,} test events with a node that training has not seen: {new['new_sources']:,} "
            f"new sources, {new['new_destinations']:,} new destinations."
        )
        tables.append([*_metrics_table(own, _LINK_COLUMNS), text])
    return tables


def heads_table(record: dict[str, Any]) -> str:
    """Table of ``disttgl classify``: mean and spread over heads, and baselines on test."""
    rows = {
        f"TGN ({part})": {
            column: [head[part][column] for head in record["heads"] if column in head[part]]
            for column in _HEAD_COLUMNS
        }
        for part in ("validation", "test")
    }
    rows |= {
        MODELS.get(name, name): {column: [metrics[column]] for column in _HEAD_COLUMNS if column in metrics}
        for name, metrics in record["baselines"].items()
    }
    lines = aligned(
        [["", *(METRICS[column] for column in _HEAD_COLUMNS)]]
        + [
            [name, *(_mean_and_spread(found.get(column, [])) for column in _HEAD_COLUMNS)]
            for name, found in rows.items()
        ]
    )
    counts = ", ".join(f"{count} in {name}" for name, count in record["positives"].items())
    return "\n".join([*lines, f"{len(record['heads'])} heads; positive events: {counts}."])


def _mean_and_spread(values: Sequence[float]) -> str:
    """Mean, and the standard deviation if there are several values."""
    if not values:
        return "–"
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _metrics_table(rows: dict[str, dict[str, Any]], columns: Sequence[str]) -> list[str]:
    """A line for each row, below the titles of the columns that some row has."""
    shown = [column for column in columns if any(column in row for row in rows.values())]
    names = {name: MODELS.get(name, name) for name in rows}
    width = max(map(len, names.values()))
    lines = [" " * width + "".join(f"{METRICS[column]:>10}" for column in shown)]
    for name, metrics in rows.items():
        values = (f"{metrics[column]:10.4f}" if column in metrics else f"{'–':>10}" for column in shown)
        lines.append(f"{names[name]:<{width}}" + "".join(values))
    return lines


@dataclass(frozen=True)
class Cell:
    """A metric as text. is_best: the best of its column on test."""

    text: str
    is_best: bool = False


@dataclass(frozen=True)
class ResultsTable:
    """columns: titles of metrics. rows: (name, kind, cells); kind is validation, test or heuristic."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[Cell]]]


_Row = tuple[str, str, dict[str, list[float]]]


def results_tables(groups: Sequence[Group]) -> list[ResultsTable]:
    """A table for each part of the metrics (see PARTS) that some finished run has."""
    tested = [(group, [run for run in group.runs if run.test]) for group in groups]
    tested = [(group, runs) for group, runs in tested if runs]
    parts = dict.fromkeys(part for _, runs in tested for run in runs for part in parts_of(_test(run)["test"]))
    return [_table(part, tested) for part in parts]


def _test(run: RunFacts) -> Record:
    return {"test": {}, "validation": {}} | (run.test or {})


def _table(part: str, tested: Sequence[tuple[Group, Sequence[RunFacts]]]) -> ResultsTable:
    rows: list[_Row] = []
    heuristics: dict[str, _Row] = {}
    for group, runs in tested:
        for kind in ("validation", "test"):
            values = [parts_of(_test(run)[kind]).get(part, {}) for run in runs]
            name = MODEL if len(tested) == 1 else group.name
            rows.append(
                (name, kind, {metric: [one[metric] for one in values if metric in one] for metric in METRICS})
            )
        for run in runs:
            for name, metrics in _heuristics(_test(run), part).items():
                title = MODELS.get(name, name)
                streams = {other.stream for _, others in tested for other in others}
                title += f", {run.stream}" if len(streams) > 1 else ""
                heuristics.setdefault(title, (title, "heuristic", {m: [v] for m, v in metrics.items()}))
    rows += heuristics.values()
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


def _heuristics(test: Record, part: str) -> dict[str, dict[str, Any]]:
    """Metrics of the heuristics of links, or of the baselines of classes."""
    if part == "classes":
        return {name: parts_of(found).get("", {}) for name, found in test.get("baselines", {}).items()}
    found = {name: parts_of(values).get(part, {}) for name, values in test.get("heuristics", {}).items()}
    return {name: metrics for name, metrics in found.items() if metrics}


def _cell(values: Sequence[float], kind: str, best: float | None) -> Cell:
    is_best = bool(values) and kind != "validation" and fmean(values) == best
    return Cell(_mean_and_spread(values), is_best)
