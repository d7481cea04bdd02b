"""Ranking metrics over a whole split: exact, with ties treated alike for every candidate."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]


def mid_ranks(
    positive: Scores, negatives: Scores, counted: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Rank of each true destination among its candidates, 1 the best: 1 + #greater + #equal / 2.

    positive: (n,). negatives: (n, m). → (n,) float64. A constant score has rank 1 + m/2.
    counted: (n, m), mask of the negatives that exist, the others are padding; None: all exist.
    Raises ValueError on NaN, which is neither greater nor equal and would rank first.
    """
    _refuse_nan(positive, negatives)
    own = positive[:, None]
    is_greater, is_equal = negatives > own, negatives == own
    if counted is not None:
        is_greater, is_equal = is_greater & counted, is_equal & counted
    greater, equal = np.count_nonzero(is_greater, axis=1), np.count_nonzero(is_equal, axis=1)
    ranks: NDArray[np.float64] = 1.0 + greater + equal / 2.0
    return ranks


def roc_auc(positive: Scores, negative: Scores) -> float:
    """Probability that a positive scores above a negative; ties count 1/2.

    positive: (p,), negative: (q,), both not empty. Computed in integers, independent of the order of events.
    """
    _refuse_nan(positive, negative)
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left").sum()
    not_above = np.searchsorted(ordered, positive, "right").sum()
    return int(below + not_above) / (2 * len(positive) * len(negative))


def average_precision(positive: Scores, negative: Scores) -> float:
    """Area under the precision-recall steps, Σ (recall_t − recall_{t−1}) · precision_t, t descending.

    positive: (p,), negative: (q,), p > 0. Equal scores share a threshold t, so the order of ties does not
    matter.
    """
    _refuse_nan(positive, negative)
    thresholds, at_threshold = np.unique(positive, return_counts=True)
    true_positives = np.cumsum(at_threshold[::-1])[::-1]
    false_positives = len(negative) - np.searchsorted(np.sort(negative), thresholds, "left")
    precision = true_positives / (true_positives + false_positives)
    return float((at_threshold * precision).sum() / len(positive))


@dataclass(frozen=True)
class LinkMetrics:
    """Link prediction over ``num_events`` events; every metric lies in [0, 1], higher is better."""

    mrr: float
    hits_at_10: float
    average_precision: float
    roc_auc: float
    num_events: int

    def as_dict(self) -> dict[str, float | int]:
        """The fields by name, for a record of metrics.jsonl."""
        return asdict(self)


def link_metrics(
    positive: Scores, negatives: Scores, counted: NDArray[np.bool_] | None = None
) -> LinkMetrics:
    """All metrics of a split from its scores, in event order.

    positive: (n,) true destinations, negatives: (n, m); n, m > 0. counted: (n, m), mask of the negatives that
    exist; None: all. MRR and Hits@10 use mid-ranks for ties, AP and ROC-AUC pool all scores. Raises
    ValueError on NaN.
    """
    ranks = mid_ranks(positive, negatives, counted)
    pooled = negatives.reshape(-1) if counted is None else negatives[counted]
    return LinkMetrics(
        mrr=float((1.0 / ranks).mean()),
        hits_at_10=float((ranks <= 10.0).mean()),
        average_precision=average_precision(positive, pooled),
        roc_auc=roc_auc(positive, pooled),
        num_events=len(positive),
    )


def _refuse_nan(*scores: Scores) -> None:
    """Raise ValueError if any score is NaN."""
    for array in scores:
        num_nan = np.count_nonzero(np.isnan(array))
        if num_nan:
            raise ValueError(
                f"scores must be finite, {num_nan} of {array.size} are NaN: the model has diverged, lower "
                "the learning rate"
            )
