"""Metrics of classification over a whole split: accuracy and F1, and the ranking metrics of two classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.evaluation.ranking import Scores, average_precision, roc_auc

Classes = NDArray[np.int64] | NDArray[np.uint8]


@dataclass(frozen=True)
class ClassMetrics:
    """Classification of ``num_events`` events; every metric lies in [0, 1], higher is better.

    accuracy: share of events all of whose classes are right. f1_micro: of all decisions together; with one class an
    event it equals accuracy. f1_macro: mean F1 of the classes that occur or are told. roc_auc, average_precision:
    of class 1 against class 0 where an event has one of these two, and both have events; else None.
    """

    accuracy: float
    f1_micro: float
    f1_macro: float
    num_events: int
    roc_auc: float | None = None
    average_precision: float | None = None

    @property
    def score(self) -> float:
        """By what epochs are compared: ROC-AUC where it is defined, as one class may be rare; else F1-micro."""
        return self.f1_micro if self.roc_auc is None else self.roc_auc

    def as_dict(self) -> dict[str, float | int]:
        """The fields by name but for those that are None, ready for a record of metrics.jsonl."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def class_metrics(truth: Classes, scores: Scores) -> ClassMetrics:
    """All metrics of a split. scores: (n, C) with n > 0; who made which of them does not matter.

    truth (n,): one class an event, told to be the one with the largest score (of equal ones the first); events of
    class −1 do not count, and a split without others has 0 in all metrics. truth (n, C) of 0 and 1: every class
    whose score is above 0 is told. Raises ValueError on NaN.
    """
    if np.isnan(scores).any():
        raise ValueError(
            "scores must be numbers, some are NaN: the model has diverged, lower the learning rate"
        )
    if truth.ndim > 1:
        is_true, is_told = truth != 0, scores > 0
        hits = (is_true & is_told).sum(axis=0)
        return _from_counts((is_true == is_told).all(axis=1), hits, is_true.sum(axis=0), is_told.sum(axis=0))
    truth, scores = truth[truth >= 0], scores[truth >= 0]
    told, num_classes = scores.argmax(axis=1), scores.shape[1]
    is_right = told == truth
    hits, support, counts = (
        np.bincount(which, minlength=num_classes) for which in (truth[is_right], truth, told)
    )
    ranking: tuple[float, ...] = ()
    if num_classes == 2 and 0 < truth.sum() < len(truth):
        margin = scores[:, 1] - scores[:, 0]
        asked = margin[truth == 1], margin[truth == 0]
        ranking = roc_auc(*asked), average_precision(*asked)
    return _from_counts(is_right, hits, support, counts, *ranking)


def _from_counts(
    is_right: NDArray[np.bool_],
    hits: NDArray[np.int64],
    support: NDArray[np.int64],
    told: NDArray[np.int64],
    *ranking: float,
) -> ClassMetrics:
    """Metrics from each class's hits (C,), how often it is true and how often it is told; 0 of 0 counts as 0."""
    occurs = support + told > 0
    f1 = 2 * hits[occurs] / (support + told)[occurs]
    return ClassMetrics(
        float(is_right.sum() / max(1, len(is_right))),
        float(2 * hits.sum() / max(1, (support + told).sum())),
        float(f1.mean()) if len(f1) else 0.0,
        len(is_right),
        *ranking,
    )
