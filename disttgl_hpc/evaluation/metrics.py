"""Metrics over a whole split: of links, of classes, and of both for a held-out part.

They are exact, give ties mid-ranks, and do not depend on which process computed which scores. Inductive links
are those with a node that has no training event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.events.stream import EventStream

Scores = NDArray[np.floating]
Classes = NDArray[np.int64] | NDArray[np.uint8]


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


class ClassCounts:
    """Counts over events from which class metrics follow, so that the scores of all events are never in memory.

    num_classes: C. With two classes and one per event, the margin of class 1 is kept for every event, to rank them.
    """

    def __init__(self, num_classes: int) -> None:
        self._hits, self._support, self._predicted = np.zeros((3, num_classes), np.int64)
        self._num_events = self._num_right = self._num_nan = 0
        self._margins: tuple[list[Scores], list[Scores]] = [], []  # of the events of class 0, and of class 1

    def add(self, truth: Classes, scores: Scores) -> None:
        """Count events with scores (n, C); truth as in :func:`class_metrics`."""
        self._num_nan += int(np.count_nonzero(np.isnan(scores)))
        if truth.ndim > 1:
            is_true, is_predicted = truth != 0, scores > 0
            is_right = (is_true == is_predicted).all(axis=1)
            self._hits += (is_true & is_predicted).sum(axis=0)
            self._support += is_true.sum(axis=0)
            self._predicted += is_predicted.sum(axis=0)
        else:
            truth, scores = truth[truth >= 0], scores[truth >= 0]
            predicted = scores.argmax(axis=1)
            is_right = predicted == truth
            np.add.at(self._hits, truth[is_right], 1)
            np.add.at(self._support, truth, 1)
            np.add.at(self._predicted, predicted, 1)
            if len(self._hits) == 2:
                margin = scores[:, 1] - scores[:, 0]
                for kind, margins in enumerate(self._margins):
                    margins.append(margin[truth == kind])
        self._num_events += len(is_right)
        self._num_right += int(np.count_nonzero(is_right))

    def join(self, other: ClassCounts) -> None:
        """Add the counts of other events."""
        self._hits += other._hits
        self._support += other._support
        self._predicted += other._predicted
        self._num_events += other._num_events
        self._num_right += other._num_right
        self._num_nan += other._num_nan
        for own, more in zip(self._margins, other._margins, strict=True):
            own.extend(more)

    def metrics(self) -> ClassMetrics:
        """Metrics of all counted events; 0/0 counts as 0. Raises ValueError if a score was NaN."""
        if self._num_nan:
            raise ValueError(
                f"scores must be finite, {self._num_nan} are NaN: the model has diverged, lower the learning rate"
            )
        decided = self._support + self._predicted
        f1 = 2 * self._hits[decided > 0] / decided[decided > 0]
        negative, positive = (np.concatenate([*margins, np.empty(0)]) for margins in self._margins)
        is_ranked = len(negative) > 0 and len(positive) > 0
        return ClassMetrics(
            self._num_right / max(1, self._num_events),
            float(2 * self._hits.sum() / max(1, decided.sum())),
            float(f1.mean()) if len(f1) else 0.0,
            self._num_events,
            roc_auc(positive, negative) if is_ranked else None,
            average_precision(positive, negative) if is_ranked else None,
        )


def class_metrics(truth: Classes, scores: Scores) -> ClassMetrics:
    """All metrics of a split from scores (n, C), n > 0.

    truth: (n,) for one class per event, where the class with the largest score (the first of equal ones) is
    predicted and events of class −1 are ignored; without other events all metrics are 0. Or (n, C) of 0 and
    1, where every class with a score above 0 is predicted. Raises ValueError on NaN.
    """
    counts = ClassCounts(scores.shape[1])
    counts.add(truth, scores)
    return counts.metrics()


@dataclass(frozen=True)
class NewNodes:
    """Whether the source and the destination of held-out events have no training event: (n,) each."""

    is_new_source: NDArray[np.bool_]
    is_new_destination: NDArray[np.bool_]

    @classmethod
    def of(cls, stream: EventStream, first: int, last: int) -> NewNodes:
        """New nodes of events [first, last)."""
        is_seen = np.zeros(stream.num_nodes, np.bool_)
        for ends in (stream.src, stream.dst):
            is_seen[ends[: stream.split.train_end]] = True
        return cls(~is_seen[stream.src[first:last]], ~is_seen[stream.dst[first:last]])

    @property
    def any(self) -> NDArray[np.bool_]:
        """Events with at least one new end: the inductive ones."""
        return self.is_new_source | self.is_new_destination


@dataclass(frozen=True)
class InductiveMetrics:
    """Link prediction over events with at least one new node, among the same candidates as all events."""

    links: LinkMetrics
    num_new_sources: int
    num_new_destinations: int

    def as_dict(self) -> dict[str, float | int]:
        """Metrics and counts by name."""
        counts = {"new_sources": self.num_new_sources, "new_destinations": self.num_new_destinations}
        return self.links.as_dict() | counts


@dataclass(frozen=True)
class PartMetrics:
    """Metrics of a model on a part; None for what its task does not include, and without inductive events."""

    links: LinkMetrics | None = None
    inductive: InductiveMetrics | None = None
    classes: ClassMetrics | None = None

    @property
    def score(self) -> float:
        """The metric that selects the best sweep, higher is better: MRR for links, else the score of classes."""
        if self.links is not None:
            return self.links.mrr
        return 0.0 if self.classes is None else self.classes.score

    @property
    def summary(self) -> str:
        """The main metrics as short text."""
        words = [] if self.links is None else [f"MRR {self.links.mrr:.4f}"]
        if self.classes is not None:
            words += [f"F1-micro {self.classes.f1_micro:.4f}, F1-macro {self.classes.f1_macro:.4f}"]
            words += [] if self.classes.roc_auc is None else [f"ROC-AUC {self.classes.roc_auc:.4f}"]
        return ", ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """Link metrics by name, and the other metrics under ``inductive`` and ``classes``."""
        record: dict[str, Any] = {} if self.links is None else asdict(self.links)
        others = {"inductive": self.inductive, "classes": self.classes}
        return record | {name: own.as_dict() for name, own in others.items() if own is not None}


def score_of(metrics: Mapping[str, Any]) -> float | None:
    """The metric that selects the best epoch, from a record of :meth:`PartMetrics.as_dict`; None without any."""
    classes = metrics.get("classes")
    if "mrr" in metrics or not isinstance(classes, dict):
        return metrics.get("mrr")
    score: float | None = classes.get("roc_auc", classes.get("f1_micro"))
    return score


def ranked(
    scores: NDArray[np.floating], new: NewNodes, counted: NDArray[np.bool_] | None = None
) -> PartMetrics:
    """Link metrics from the scores (n, 1 + m) of a part's events, over all and over inductive events.

    counted: (n, m), mask of the negatives that exist; None: all.
    """
    links, chosen = link_metrics(scores[:, 0], scores[:, 1:], counted), new.any
    if not chosen.any():
        return PartMetrics(links)
    some = scores[chosen]
    inductive = InductiveMetrics(
        link_metrics(some[:, 0], some[:, 1:], None if counted is None else counted[chosen]),
        int(new.is_new_source.sum()),
        int(new.is_new_destination.sum()),
    )
    return PartMetrics(links, inductive)


def _refuse_nan(*scores: Scores) -> None:
    """Raise ValueError if any score is NaN."""
    for array in scores:
        num_nan = np.count_nonzero(np.isnan(array))
        if num_nan:
            raise ValueError(
                f"scores must be finite, {num_nan} of {array.size} are NaN: the model has diverged, lower "
                "the learning rate"
            )
