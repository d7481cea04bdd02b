"""Negative destinations: drawn per event, seeded, never a true destination of the source at that time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.core.draws import Purpose, bounded, event_words
from disttgl_hpc.core.stream import EventStream
from disttgl_hpc.errors import ConfigError

_NUM_ATTEMPTS = 8  # a draw that still collides then moves on to the next permitted candidate


def training_candidates(stream: EventStream) -> NDArray[np.int64]:
    """Nodes that training negatives come from, ascending, int64.

    The destinations of the training split if the stream is bipartite, else the nodes that occur in it in
    either role: one that only the future knows would give itself away by its empty past.
    """
    end = stream.split.train_end
    occurs = np.zeros(stream.num_nodes, np.bool_)
    occurs[stream.dst[:end]] = True
    if not stream.num_src:
        occurs[stream.src[:end]] = True
    return np.flatnonzero(occurs)


def evaluation_candidates(stream: EventStream) -> NDArray[np.int64]:
    """Nodes that evaluation negatives come from: every destination if bipartite, else every node; int64."""
    return np.arange(stream.num_src, stream.num_nodes, dtype=np.int64)


def true_destinations(
    stream: EventStream, first_event: int, last_event: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All nodes that meet the source of an event of [first, last) at that event's very time.

    → rows (p,), counted from first_event, and nodes (p,), both int64. Meetings count in either direction; the
    event's own destination is always among them, and its source only if the source meets itself.
    """
    times = stream.time[first_event:last_event]
    begin, end = np.searchsorted(stream.time, times, "left"), np.searchsorted(stream.time, times, "right")
    is_shared = end - begin > 1
    alone, shared = np.flatnonzero(~is_shared), np.flatnonzero(is_shared)
    sources = stream.src[first_event:last_event][shared]
    bounds = np.concatenate([begin[shared], end[shared]])
    low, high = stream.tcsr.positions_before(np.tile(sources, 2), bounds).reshape(2, len(shared))
    num_met = high - low  # at least 1: the event is itself an entry of its source
    first_of_row = np.cumsum(num_met) - num_met
    entries = np.arange(num_met.sum()) + np.repeat(low - first_of_row, num_met)
    rows = np.concatenate([alone, np.repeat(shared, num_met)])
    nodes = np.concatenate([stream.dst[first_event:last_event][alone], stream.tcsr.neighbors[entries]])
    return rows, nodes.astype(np.int64)


@dataclass(frozen=True)
class NegativeSampler:
    """Negatives of events: a pure function of (seed, purpose, sweep, replica, pass, event).

    stream: where events and true destinations are looked up. candidates: (c,) ascending int64, 1 ≤ c < 2³²,
    from ``training_candidates`` or ``evaluation_candidates``. Evaluation leaves sweep, pass and replica at 0,
    so that its negatives are fixed once and for all.
    """

    stream: EventStream
    candidates: NDArray[np.int64]
    seed: int
    purpose: Purpose

    def draw(
        self,
        first_event: int,
        last_event: int,
        count: int,
        *,
        sweep: int = 0,
        pass_index: int = 0,
        replica: int = 0,
    ) -> NDArray[np.int64]:
        """``count`` negatives for each event of [first, last) → (last − first, count) int64.

        Uniform, with replacement, over the candidates that are no true destination; an event's negatives do
        not depend on the range in which it is asked for. Counter words: the event's block, sweep,
        replica · 2³² + pass, attempt. Raises ConfigError if an event leaves no candidate.
        """
        num_nodes, num_candidates = self.stream.num_nodes, len(self.candidates)
        rows, nodes = true_destinations(self.stream, first_event, last_event)
        forbidden = np.sort(rows * num_nodes + nodes)
        row_keys = np.repeat(np.arange(last_event - first_event) * num_nodes, count)
        picks = np.empty(len(row_keys), np.int64)
        colliding = np.arange(len(row_keys))
        for attempt in range(_NUM_ATTEMPTS + num_candidates):
            if attempt < _NUM_ATTEMPTS:
                # A range is drawn anew as a whole and only collisions change: no event depends on another.
                words = self._words(
                    first_event, last_event, count, (sweep, replica << 32 | pass_index, attempt)
                )
                picks[colliding] = bounded(words[colliding], num_candidates)
            else:
                picks[colliding] = (picks[colliding] + 1) % num_candidates
            keys = row_keys[colliding] + self.candidates[picks[colliding]]
            colliding = colliding[_are_in(forbidden, keys)]
            if not len(colliding):
                return self.candidates[picks].reshape(last_event - first_event, count)
        raise self._no_candidate(first_event + int(colliding[0]) // count)

    def _words(
        self, first_event: int, last_event: int, count: int, key: tuple[int, int, int]
    ) -> NDArray[np.uint64]:
        """``count`` words for each event of the range, flat: ((last − first) · count,) uint64."""
        num_events = last_event - first_event
        words = event_words(self.seed, self.purpose, key, first_event, num_events, words_per_event=count)
        return words.reshape(-1)

    def _no_candidate(self, event: int) -> ConfigError:
        """The error for an event whose source meets every candidate at once."""
        return ConfigError(
            f"a negative must differ from the true destinations, but all {len(self.candidates)} candidates "
            f"are true destinations of node {self.stream.src[event]} at time {self.stream.time[event]} "
            f"(event {event}): give a stream with more destinations, finer times or a longer training split"
        )


def _are_in(ascending: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each key occurs in a sorted array that is not empty."""
    nearest = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    found: NDArray[np.bool_] = ascending[nearest] == keys
    return found
