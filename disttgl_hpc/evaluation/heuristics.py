"""Baselines that any model must beat: EdgeBank, PopTrack and pair recency for links, and three for classes.

They use the same events as the model: those strictly before the query's time. Link heuristics rank the model's
candidates and return scores (n, 1 + m), the true destination in column 0; metrics give ties mid-ranks. A pair is
unordered: in a stream with one node set a reply counts as a meeting too. Class baselines (majority, last label,
share so far) yield the scores of a few events at a time, (rows, C). The peak memory is 60 bytes per event and, for
links, 80 bytes per candidate of the ranked events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.evaluation.metrics import ClassCounts, ClassMetrics, mid_ranks
from disttgl_hpc.events.stream import EventStream, Targets
from disttgl_hpc.events.tcsr import Ints
from disttgl_hpc.sampling.neighbors import event_bounds

HALF_LIVES = (10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0, np.inf)
_CHUNK = 1 << 20  # candidates or class scores at a time; limits the size of temporary arrays


@dataclass(frozen=True)
class History:
    """The events of each key: ``positions`` ascend by (key, event id), so that one search finds the last before.

    keys: (K,) distinct keys, ascending. positions: (E,) int64, index of the key · num_events + event id.
    """

    num_events: int
    keys: NDArray[np.int64]
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, keys: NDArray[np.int64]) -> History:
        """History of a stream whose event e has key ``keys[e]``; keys: (E,) int64, E² < 2⁶³."""
        distinct, index = np.unique(keys, return_inverse=True)
        index *= len(keys)
        index += np.arange(len(keys))
        index.sort()
        return cls(len(keys), distinct, index)

    def last_before(self, keys: Ints, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row in ``positions`` of each key's last event before its bound, or −1; inputs are broadcast."""
        index = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        rows = np.searchsorted(self.positions, index * self.num_events + bounds) - 1
        found = (self.keys[index] == keys) & (self.positions[rows] // self.num_events == index)
        return np.where(found, rows, -1)

    def events(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Event ids of rows of ``positions``."""
        return self.positions[rows] % self.num_events


def last_meetings(
    stream: EventStream, first_event: int, last_event: int, candidates: Ints
) -> NDArray[np.int64]:
    """Last event between the query's source and a candidate before the query's time, or −1.

    candidates: (n, 1 + m), one row for each event of [first, last) → (n, 1 + m) int64.
    """
    num_nodes = stream.num_nodes
    history = History.of(_pair_keys(stream.src[:last_event], stream.dst[:last_event], num_nodes))
    sources, bounds = stream.src[first_event:last_event], event_bounds(stream.time, first_event, last_event)
    meetings = np.empty(candidates.shape, np.int64)
    for part in _parts(*candidates.shape):
        keys = _pair_keys(sources[part, None], candidates[part], num_nodes)
        rows = history.last_before(keys, bounds[part, None])
        meetings[part] = np.where(rows < 0, -1, history.events(rows))
    return meetings


def edgebank_scores(meetings: NDArray[np.int64]) -> NDArray[np.float64]:
    """EdgeBank with unlimited memory (Poursafaei et al., NeurIPS'22): 1 if the pair ever met, else 0."""
    scores: NDArray[np.float64] = (meetings >= 0).astype(np.float64)
    return scores


def windowed_edgebank_scores(
    stream: EventStream, first_event: int, meetings: NDArray[np.int64]
) -> NDArray[np.float64]:
    """EdgeBank with a time window: 1 if the pair met no longer ago than the test split lasts, else 0."""
    window = stream.time[-1] - stream.time[min(stream.split.validation_end, stream.num_events - 1)]
    oldest = stream.time[first_event : first_event + len(meetings)] - window
    is_recent: NDArray[np.bool_] = stream.time[meetings] >= oldest[:, None]
    return edgebank_scores(np.where(is_recent, meetings, -1))


def recency_scores(stream: EventStream, meetings: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pair recency: candidates ranked by the time of the last meeting; pairs that never met tie at −∞."""
    # A time is represented by its first event, which is exact where int64 times do not fit a float64.
    moments = np.searchsorted(stream.time, stream.time[meetings], "left").astype(np.float64)
    moments[meetings < 0] = -np.inf
    return moments


@dataclass(frozen=True)
class PopTrack:
    """Exponentially decayed popularity of destinations (Daniluk & Dąbrowski, 2023).

    The score of destination d for a query that sees the events before B is log₂ Σ 2^((e − B) / half-life),
    over the events e < B of destination d; in logarithms, long past events do not underflow. history: by
    destination. ages: (n, 1 + m), events since each candidate's last occurrence. rows: (n, 1 + m), its row in
    the history, −1 if it never occurred.
    """

    history: History
    ages: NDArray[np.int64]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, stream: EventStream, first_event: int, last_event: int, candidates: Ints) -> PopTrack:
        """Look up the candidates (n, 1 + m) of events [first, last) once for all half-lives."""
        history = History.of(stream.dst[:last_event].astype(np.int64))
        bounds = event_bounds(stream.time, first_event, last_event)[:, None]
        rows = np.empty(candidates.shape, np.int64)
        for part in _parts(*candidates.shape):
            rows[part] = history.last_before(candidates[part], bounds[part])
        return cls(history, bounds - history.events(rows), rows)

    def scores(self, half_life: float) -> NDArray[np.float64]:
        """Scores (n, 1 + m) for a half-life in events; −∞ for a destination that never occurred."""
        strength = np.log2(self._strengths(half_life))
        return np.where(self.rows < 0, -np.inf, strength[self.rows] - self.ages / half_life)

    def _strengths(self, half_life: float) -> NDArray[np.float64]:
        """Popularity of a destination at each row of its history, including that row's event.

        The recurrence s_r = 1 + s_{r−1} · 2^(−gap / half-life), computed by a scan that doubles its reach
        each round; only rows with that many predecessors take part. All terms are positive, no factor exceeds
        1.
        """
        positions, num_events = self.history.positions, self.history.num_events
        depth = np.arange(len(positions))
        depth -= np.searchsorted(positions, positions // num_events * num_events)
        strength = np.ones(len(positions))
        decay = np.exp2(-np.diff(positions, prepend=positions[0]) / half_life)
        reach, rows = 1, np.flatnonzero(depth >= 1)
        while len(rows):
            strength[rows] += decay[rows] * strength[rows - reach]
            decay[rows] *= decay[rows - reach]
            reach *= 2
            rows = rows[depth[rows] >= reach]
        return strength


def best_half_life(
    stream: EventStream,
    first_event: int,
    last_event: int,
    candidates: Ints,
    *,
    counted: NDArray[np.bool_] | None = None,
) -> float:
    """The half-life in events, of ``HALF_LIVES``, with PopTrack's best MRR on validation events [first, last).

    candidates: (n, 1 + m), the true destinations in column 0. counted: (n, m), mask of the negatives that
    exist; None: all.
    """
    tracker = PopTrack.of(stream, first_event, last_event, candidates)

    def mrr(half_life: float) -> float:
        scores = tracker.scores(half_life)
        return float((1.0 / mid_ranks(scores[:, 0], scores[:, 1:], counted)).mean())

    return max(HALF_LIVES, key=mrr)


def heuristic_scores(
    stream: EventStream, first_event: int, last_event: int, candidates: Ints, half_life: float
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Name and scores (n, 1 + m) of every link heuristic on events [first, last).

    candidates: (n, 1 + m), the true destinations in column 0, the model's own negatives after it. half_life:
    PopTrack's, in events, from ``best_half_life``.
    """
    meetings = last_meetings(stream, first_event, last_event, candidates)
    yield "edgebank_unlimited", edgebank_scores(meetings)
    yield "edgebank_windowed", windowed_edgebank_scores(stream, first_event, meetings)
    yield "poptrack", PopTrack.of(stream, first_event, last_event, candidates).scores(half_life)
    yield "pair_recency", recency_scores(stream, meetings)


def class_baselines(
    stream: EventStream, targets: Targets, first_event: int, last_event: int
) -> dict[str, ClassMetrics]:
    """Metrics of every class baseline on events [first, last), by name."""
    rules = {"majority": majority_scores, "last_label": last_label_scores}
    if not targets.of_pair:
        rules["share_so_far"] = share_scores
    found = {}
    for name, rule in rules.items():
        counts, first = ClassCounts(targets.num_classes), first_event
        for scores in rule(stream, targets, first_event, last_event):
            counts.add(targets.values[first : first + len(scores)], scores)
            first += len(scores)
        found[name] = counts.metrics()
    return found


def majority_scores(
    stream: EventStream, targets: Targets, first_event: int, last_event: int
) -> Iterator[NDArray[np.float64]]:
    """Every class's share of the training events, for every event: (n, C) in pieces."""
    shares = _training_shares(stream, targets)
    for part in _parts(last_event - first_event, targets.num_classes):
        yield np.broadcast_to(shares, (part.stop - part.start, len(shares)))


def last_label_scores(
    stream: EventStream, targets: Targets, first_event: int, last_event: int
) -> Iterator[NDArray[np.float64]]:
    """The class of the most recent labelled event of the same source and destination: (n, C) in pieces.

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
    majority = _training_shares(stream, targets)
    for part in _parts(len(last), targets.num_classes):
        votes = _as_votes(targets, last[part])
        votes[last[part] < 0] = majority
        yield votes


def share_scores(
    stream: EventStream, targets: Targets, first_event: int, last_event: int
) -> Iterator[NDArray[np.float64]]:
    """Every class's share of the source's past events, or of the training events if it has none: (n, C) in pieces.

    Keeps running counts of every class at every event, 16 bytes an event for the two classes of sources.
    """
    src = stream.src[:last_event].astype(np.int64)
    history = History.of(np.where(targets.is_labelled[:last_event], src, -1))
    order = history.events(np.arange(len(src)))
    sums = np.concatenate([np.zeros((1, targets.num_classes)), _as_votes(targets, order).cumsum(axis=0)])
    rows = history.last_before(src[first_event:], event_bounds(stream.time, first_event, last_event))
    begins = np.searchsorted(history.positions, history.positions[rows] // len(src) * len(src))
    majority = _training_shares(stream, targets)
    for part in _parts(len(rows), targets.num_classes):
        own, begin = rows[part], begins[part]
        shares = (sums[own + 1] - sums[begin]) / np.maximum(1, own + 1 - begin)[:, None]
        shares[own < 0] = majority
        yield shares


def _training_shares(stream: EventStream, targets: Targets) -> NDArray[np.float64]:
    """Share of the labelled training events that have each class, (C,); less ½ for several classes per event."""
    values = targets.values[: stream.split.train_end]
    if targets.is_multi_label:
        shares: NDArray[np.float64] = values.sum(axis=0, dtype=np.int64) / len(values) - 0.5
        return shares
    values = values[values >= 0]
    return np.bincount(values, minlength=targets.num_classes) / len(values)


def _as_votes(targets: Targets, events: NDArray[np.int64]) -> NDArray[np.float64]:
    """Classes of events as scores (n, C): 1 and 0; for several classes per event ½ and −½."""
    values = targets.values[events]
    if targets.is_multi_label:
        return values.astype(np.float64) - 0.5
    votes, known = np.zeros((len(events), targets.num_classes)), np.flatnonzero(values >= 0)
    votes[known, values[known]] = 1
    return votes


def _pair_keys(one: Ints, other: Ints, num_nodes: int) -> NDArray[np.int64]:
    """One int64 key per unordered pair of nodes; inputs are broadcast."""
    low, high = np.minimum(one, other), np.maximum(one, other)
    return low.astype(np.int64) * num_nodes + high


def _parts(num_rows: int, width: int) -> list[slice]:
    """Slices of the rows of an array (num_rows, width), with at most ``_CHUNK`` values each."""
    size = max(1, _CHUNK // width)
    return [slice(begin, min(begin + size, num_rows)) for begin in range(0, num_rows, size)]
