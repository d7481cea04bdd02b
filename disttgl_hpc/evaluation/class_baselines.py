"""Baselines that any classifier of events must beat: the majority, the last label, the share so far.

They see the classes of the events strictly before each query's time, as a model with a history of classes does.
Each gives scores (n, C) as :func:`~.class_metrics.class_metrics` takes them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.evaluation.classes import ClassMetrics, class_metrics
from disttgl_hpc.evaluation.heuristics import History
from disttgl_hpc.events.stream import EventStream, Targets
from disttgl_hpc.sampling.class_features import told_classes
from disttgl_hpc.sampling.neighbors import event_bounds

Scores = NDArray[np.float64]


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


def majority_scores(stream: EventStream, targets: Targets, first_event: int, last_event: int) -> Scores:
    """Every class's share of the training events, for every event: (n, C)."""
    events = np.flatnonzero(targets.is_labelled[: stream.split.train_end])
    shares = _as_votes(targets, events).mean(axis=0)
    return np.tile(shares, (last_event - first_event, 1))


def last_label_scores(stream: EventStream, targets: Targets, first_event: int, last_event: int) -> Scores:
    """The class of the most recent labelled event of the same source and destination: (n, C).

    Without one that of the source's last event as a source, then of the destination's as a destination, then the
    majority. Where the class is the source's, only the source counts.
    """
    src, dst = stream.src[:last_event].astype(np.int64), stream.dst[:last_event].astype(np.int64)
    keys = [src * stream.num_nodes + dst, src, dst] if targets.of_pair else [src]
    is_labelled = targets.is_labelled[:last_event]
    bounds = event_bounds(stream.time, first_event, last_event)
    last = np.full(last_event - first_event, -1)
    for key in keys:
        history = History.of(np.where(is_labelled, key, -1))  # nobody asks for −1
        rows = history.last_before(key[first_event:], bounds)
        last = np.where((last < 0) & (rows >= 0), history.events(rows), last)
    majority = majority_scores(stream, targets, first_event, last_event)
    return np.where((last < 0)[:, None], majority, _as_votes(targets, last))


def share_scores(stream: EventStream, targets: Targets, first_event: int, last_event: int) -> Scores:
    """Every class's share of the source's past events, of training's without any: (n, C)."""
    src = stream.src[:last_event].astype(np.int64)
    history = History.of(np.where(targets.is_labelled[:last_event], src, -1))
    order = history.events(np.arange(len(src)))
    sums = np.concatenate([np.zeros((1, targets.num_classes)), _as_votes(targets, order).cumsum(axis=0)])
    rows = history.last_before(src[first_event:], event_bounds(stream.time, first_event, last_event))
    begins = np.searchsorted(history.positions, history.positions[rows] // len(src) * len(src))
    shares = (sums[rows + 1] - sums[begins]) / np.maximum(1, rows + 1 - begins)[:, None]
    majority = majority_scores(stream, targets, first_event, last_event)
    scores: Scores = np.where((rows < 0)[:, None], majority, shares)
    return scores


def _as_votes(targets: Targets, events: NDArray[np.int64]) -> Scores:
    """Classes of events as scores (n, C): 1 and 0; where several may hold ½ and −½, on both sides of 0."""
    if targets.is_multi_label:
        return targets.values[events].astype(np.float64) - 0.5
    return told_classes(targets.values[events], np.eye(targets.num_classes, dtype=np.int8)).astype(np.float64)
