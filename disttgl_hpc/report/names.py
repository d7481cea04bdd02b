"""Metrics and models by the names that people read, and records of metrics as flat tables."""

from __future__ import annotations

from typing import Any

METRICS = {
    "mrr": "MRR",
    "hits_at_10": "Hits@10",
    "f1_micro": "F1-micro",
    "f1_macro": "F1-macro",
    "accuracy": "accuracy",
    "average_precision": "AP",
    "roc_auc": "ROC-AUC",
}
MODELS = {
    "edgebank_unlimited": "EdgeBank, unlimited",
    "edgebank_windowed": "EdgeBank, windowed",
    "poptrack": "PopTrack",
    "pair_recency": "pair recency",
    "last_label": "last label",
    "share_so_far": "share so far",
}
PARTS = {"": "links", "inductive": "links with nodes that training has not seen", "classes": "classes"}
"""What metrics are of: those that stand by themselves in a record, and those below a name."""


def parts_of(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By name in PARTS the metrics of a record of validation, of test, or of a heuristic, that are numbers."""
    below = {name: values for name, values in record.items() if isinstance(values, dict)}
    found = {"": record} | below
    parts = {
        part: {name: float(values[name]) for name in METRICS if _is_number(values.get(name))}
        for part, values in found.items()
    }
    return {part: metrics for part, metrics in parts.items() if metrics}


def metric_title(part: str, metric: str) -> str:
    """A metric of a part, as the title of a chart."""
    of = {"": "", "inductive": ", new nodes"}.get(part, f", {part}")
    return f"{METRICS[metric]}{of}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124 - no NaN
