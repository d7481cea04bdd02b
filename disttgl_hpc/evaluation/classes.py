"""Metrics of classification over a whole split, and the baselines that any classifier must beat.

The baselines (majority, last label, share so far) use the classes of events strictly before each query's
time, as a model with class history does. Each returns scores (n, C) for :func:`class_metrics`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.evaluation.heuristics import History
from disttgl_hpc.evaluation.ranking import Scores, average_precision, roc_auc
from disttgl_hpc.events.stream import EventStream, Targets
from disttgl_hpc.sampling.class_features import encode_classes
from disttgl_hpc.sampling.neighbors import event_bounds

Classes = NDArray[np.int64] | NDArray[np.uint8]
ClassScores = NDArray[np.float64]


@dataclass(frozen=True)
class ClassMetrics:
    """Classification of ``num_events`` events; every metric lies in [0, 1], higher is better.

    accuracy: share of events with all classes right. f1_micro: over all decisions; with one class per event
    it equals accuracy. f1_macro: mean F1 of the classes that occur or are predicted. roc_auc,
    average_precision: of class 1 against class 0 if there are just these two and both occur, otherwise None.
    """

    accuracy: float
    f1_micro: float
    f1_macro: float
    num_events: int
    roc_auc: float | None = None
    average_precision: float | None = None

    @property
    def score(self) -> float:
        """The metric that selects the best epoch: ROC-AUC if defined, otherwise F1-micro."""
        return self.f1_micro if self.roc_auc is None else self.roc_auc

    def as_dict(self) -> dict[str, float | int]:
        """The fields that are not None by name, for a record of metrics.jsonl."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def class_metrics(truth: Classes, scores: Scores) -> ClassMetrics:
    """All metrics of a split from scores (n, C), n > 0.

    truth: (n,) for one class per event, where the class with the largest score (the first of equal ones) is
    predicted and events of class −1 are ignored; without other events all metrics are 0. Or (n, C) of 0 and
    1, where every class with a score above 0 is predicted. Raises ValueError on NaN.
    """
    if np.isnan(scores).any():
        raise ValueError(
            "scores must be finite, some are NaN: the model has diverged, lower the learning rate"
        )
    if truth.ndim > 1:
        is_true, is_predicted = truth != 0, scores > 0
        hits = (is_true & is_predicted).sum(axis=0)
        return _from_counts(
            (is_true == is_predicted).all(axis=1), hits, is_true.sum(axis=0), is_predicted.sum(axis=0)
        )
    truth, scores = truth[truth >= 0], scores[truth >= 0]
    predicted, num_classes = scores.argmax(axis=1), scores.shape[1]
    is_right = predicted == truth
    hits, support, counts = (
        np.bincount(which, minlength=num_classes) for which in (truth[is_right], truth, predicted)
    )
    ranking: tuple[float, ...] = ()
    if num_classes == 2 and 0 < truth.sum() < len(truth):
        margin = scores[:, 1] - scores[:, 0]
        of_each = margin[truth == 1], margin[truth == 0]
        ranking = roc_auc(*of_each), average_precision(*of_each)
    return _from_counts(is_right, hits, support, counts, *ranking)


def _from_counts(
    is_right: NDArray[np.bool_],
    hits: NDArray[np.int64],
    support: NDArray[np.int64],
    predicted: NDArray[np.int64],
    *ranking: float,
) -> ClassMetrics:
    """Metrics from hits, support and predictions per class, (C,) each; 0/0 counts as 0."""
    occurs = support + predicted > 0
    f1 = 2 * hits[occurs] / (support + predicted)[occurs]
    return ClassMetrics(
        float(is_right.sum() / max(1, len(is_right))),
        float(2 * hits.sum() / max(1, (support + predicted).sum())),
        float(f1.mean()) if len(f1) else 0.0,
        len(is_right),
        *ranking,
    )


def class_baselines(
    stream: EventStream, targets: Targets, first_event: int, last_event: int
) -> dict[str, ClassMetrics]:
    """Metrics of every baseline on events [first, last), by name."""
    bounds = first_event, last_event
    scores = {
        "majority": majority_scores(stream, targets, *bounds),
        "last_label": last_label_scores(stream, targets, *bounds),
    }
    if not targets.of_pair:
        scores["share_so_far"] = share_scores(stream, targets, *bounds)
    truth = targets.values[first_event:last_event]
    return {name: class_metrics(truth, of_one) for name, of_one in scores.items()}


def majority_scores(stream: EventStream, targets: Targets, first_event: int, last_event: int) -> ClassScores:
    """Every class's share of the training events, for every event: (n, C)."""
    events = np.flatnonzero(targets.is_labelled[: stream.split.train_end])
    shares = _as_votes(targets, events).mean(axis=0)
    return np.tile(shares, (last_event - first_event, 1))


def last_label_scores(
    stream: EventStream, targets: Targets, first_event: int, last_event: int
) -> ClassScores:
    """The class of the most recent labelled event of the same source and destination: (n, C).

    If there is none, that of the source's last event as a source, then of the destination's last event as a
    destination, then the majority. For classes of sources only the source is used.
    """
    src, dst = stream.src[:last_event].astype(np.int64), stream.dst[:last_event].astype(np.int64)
    keys = [src * stream.num_nodes + dst, src, dst] if targets.of_pair else [src]
    is_labelled = targets.is_labelled[:last_event]
    bounds = event_bounds(stream.time, first_event, last_event)
    last = np.full(last_event - first_event, -1)
    for key in keys:
        history = History.of(np.where(is_labelled, key, -1))  # −1 is never looked up
        rows = history.last_before(key[first_event:], bounds)
        last = np.where((last < 0) & (rows >= 0), history.events(rows), last)
    majority = majority_scores(stream, targets, first_event, last_event)
    return np.where((last < 0)[:, None], majority, _as_votes(targets, last))


def share_scores(stream: EventStream, targets: Targets, first_event: int, last_event: int) -> ClassScores:
    """Every class's share of the source's past events, or of the training events if it has none: (n, C)."""
    src = stream.src[:last_event].astype(np.int64)
    history = History.of(np.where(targets.is_labelled[:last_event], src, -1))
    order = history.events(np.arange(len(src)))
    sums = np.concatenate([np.zeros((1, targets.num_classes)), _as_votes(targets, order).cumsum(axis=0)])
    rows = history.last_before(src[first_event:], event_bounds(stream.time, first_event, last_event))
    begins = np.searchsorted(history.positions, history.positions[rows] // len(src) * len(src))
    shares = (sums[rows + 1] - sums[begins]) / np.maximum(1, rows + 1 - begins)[:, None]
    majority = majority_scores(stream, targets, first_event, last_event)
    scores: ClassScores = np.where((rows < 0)[:, None], majority, shares)
    return scores


def _as_votes(targets: Targets, events: NDArray[np.int64]) -> ClassScores:
    """Classes of events as scores (n, C): 1 and 0; for several classes per event ½ and −½."""
    if targets.is_multi_label:
        return targets.values[events].astype(np.float64) - 0.5
    return encode_classes(targets.values[events], np.eye(targets.num_classes, dtype=np.int8)).astype(
        np.float64
    )
