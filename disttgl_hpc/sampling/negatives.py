"""Negative destinations: drawn per event, seeded, never a true destination of the source at that time.

Historical and inductive negatives are drawn from the first meetings of all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.draws import Purpose, bounded, event_words
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.events.tcsr import Ints, TCsr, TCsrArrays, position_before, positions_before
from disttgl_hpc.sampling.neighbors import same_time


@dataclass(frozen=True)
class FirstMeetings:
    """The partners of every node, each once, in the order in which they first met.

    indptr: (N + 1,) int64; partners ``indptr[u]:indptr[u + 1]`` are those of node u. partners: (P,) node ids,
    event_ids: (P,) ascending within a node, the event of the first meeting; dtypes as in the T-CSR.
    A pair is unordered: a reply counts as a meeting too.
    """

    indptr: NDArray[np.int64]
    partners: Ints
    event_ids: Ints

    @classmethod
    def of(cls, tcsr: TCsr) -> FirstMeetings:
        """First meetings of a T-CSR, in one pass over its entries."""
        is_first = np.empty(len(tcsr.neighbors), np.bool_)
        indptr = _mark_first(tcsr.indptr, tcsr.neighbors, is_first)
        return cls(indptr, tcsr.neighbors[is_first], tcsr.event_ids[is_first])

    def between(
        self, nodes: Ints, first_event: int, bounds: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ranges of ``partners`` that each node first met in events [first_event, bound): two arrays (n,) int64."""
        low = positions_before(self.indptr, self.event_ids, nodes, np.full(len(nodes), first_event))
        return low, positions_before(self.indptr, self.event_ids, nodes, bounds)


@compiled
def _mark_first(indptr: NDArray[np.int64], neighbors: Ints, is_first: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Mark the first entry of each pair; → indptr of the marked entries."""
    met_by = np.full(len(indptr) - 1, -1)  # the last node found to meet each node
    marked = np.zeros_like(indptr)
    for node in range(len(indptr) - 1):
        num_partners = 0
        for entry in range(indptr[node], indptr[node + 1]):
            is_first[entry] = met_by[neighbors[entry]] != node
            num_partners += is_first[entry]
            met_by[neighbors[entry]] = node
        marked[node + 1] = marked[node] + num_partners
    return marked


_NUM_ATTEMPTS = 4  # words per draw; if all collide, a rank among the permitted nodes is drawn


class Strategy(StrEnum):
    """Strategy for negatives (Poursafaei et al., NeurIPS'22); if it has too few nodes, others are drawn at random.

    RANDOM: any candidate. HISTORICAL: a destination that the source has met before the event's time.
    INDUCTIVE: in evaluation, a destination that the source first met after the training split and before the
    event's time; in training, where none exists, a candidate that it has not met before.
    """

    RANDOM = "random"
    HISTORICAL = "historical"
    INDUCTIVE = "inductive"


class _Wanted(IntEnum):
    """The nodes that a compiled draw tries first."""

    ANY = 0
    PARTNER = 1  # one of the given partners, each once
    STRANGER = 2  # any candidate except the given partners


def training_candidates(stream: EventStream) -> NDArray[np.int64]:
    """Candidates of training negatives, ascending, int64.

    The destinations of the training split if the stream is bipartite, otherwise all nodes of the training
    split. A node that only occurs later could be recognised by its empty past.
    """
    end = stream.split.train_end
    occurs = np.zeros(stream.num_nodes, np.bool_)
    occurs[stream.dst[:end]] = True
    if not stream.num_src:
        occurs[stream.src[:end]] = True
    return np.flatnonzero(occurs)


def evaluation_candidates(stream: EventStream) -> NDArray[np.int64]:
    """Candidates of evaluation negatives, int64: every destination if bipartite, otherwise every node."""
    return np.arange(stream.num_src, stream.num_nodes, dtype=np.int64)


class NegativeSampler:
    """Negatives of events: a pure function of (seed, purpose, negative set, event) and of the strategy.

    stream: events and true destinations. candidates: (c,) ascending int64, 1 ≤ c < 2³², from
    ``training_candidates`` or ``evaluation_candidates``. Has a buffer of N bytes and must not be used by two
    threads at a time; strategies other than random also store the first meetings of all pairs.
    """

    def __init__(
        self,
        stream: EventStream,
        candidates: NDArray[np.int64],
        seed: int,
        purpose: Purpose,
        strategy: Strategy = Strategy.RANDOM,
    ) -> None:
        self.stream, self.candidates = stream, candidates
        self.seed, self.purpose, self.strategy = seed, purpose, strategy
        self._blocked = np.zeros(stream.num_nodes, np.bool_)
        self._meetings = None if strategy is Strategy.RANDOM else FirstMeetings.of(stream.tcsr)

    def draw(
        self, first_event: int, last_event: int, count: int, *, negative_set: int = 0
    ) -> NDArray[np.int64]:
        """``count`` negatives for each event of [first, last) → (last − first, count) int64.

        No negative is a true destination, that is, a node that meets the source at the event's time in either
        direction; the source itself counts only if it meets itself. Otherwise negatives are uniform over the
        nodes of the strategy, past partners without and all others with replacement. An event's negatives do
        not depend on the requested range. Evaluation uses negative set 0 only. Raises ConfigError if an event
        has no candidate.
        """
        stream, events = self.stream, slice(first_event, last_event)
        begin, end = same_time(stream.time, first_event, last_event)
        src, dst = (np.asarray(ends[events], np.int64) for ends in (stream.src, stream.dst))
        words = event_words(
            self.seed,
            self.purpose,
            (negative_set, 0, 0),
            first_event,
            len(src),
            words_per_event=count * _NUM_ATTEMPTS,
        )
        events_of_rows = words, src, dst, begin, end
        negatives, num_filled = _draw(
            events_of_rows, self.candidates, stream.tcsr.arrays, self._partners(src, begin), self._blocked
        )
        if num_filled < len(src):
            raise self._no_candidate(first_event + num_filled)
        return negatives

    def _partners(
        self, src: NDArray[np.int64], bounds: NDArray[np.int64]
    ) -> tuple[int, Ints, NDArray[np.int64], NDArray[np.int64]]:
        """The wanted kind of nodes, and the partners of each source: an array and ranges of it."""
        if self._meetings is None:
            return int(_Wanted.ANY), self.stream.tcsr.neighbors, bounds, bounds
        wanted, since = _Wanted.PARTNER, 0
        if self.strategy is Strategy.INDUCTIVE:
            if self.purpose is Purpose.TRAINING_NEGATIVES:
                wanted = _Wanted.STRANGER
            else:
                since = self.stream.split.train_end
        return int(wanted), self._meetings.partners, *self._meetings.between(src, since, bounds)

    def _no_candidate(self, event: int) -> ConfigError:
        """The error for an event whose source meets every candidate at the same time."""
        return ConfigError(
            f"a negative must differ from the true destinations, but all {len(self.candidates)} candidates "
            f"are true destinations of node {self.stream.src[event]} at time {self.stream.time[event]} "
            f"(event {event}): use a stream with more destinations, finer times or a longer training split"
        )


@compiled
def _draw(
    events_of_rows: tuple[
        NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
    ],
    candidates: NDArray[np.int64],
    tcsr: TCsrArrays,
    met_before: tuple[int, Ints, NDArray[np.int64], NDArray[np.int64]],
    blocked: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], int]:
    """Negatives (n, count) row by row, and how many rows were filled before one left no candidate.

    events_of_rows: words, sources, destinations, and the events [begin, end) that share the time of each event.
    met_before: the wanted kind of nodes, and an array of partners with a range per row. blocked: marks nodes
    that must not be drawn; all False between rows.
    """
    words, src, dst, begin, end = events_of_rows
    indptr, neighbors, event_ids, _ = tcsr
    wanted, partners, low, high = met_before
    negatives = np.empty((len(dst), words.shape[1] // _NUM_ATTEMPTS), np.int64)
    for row in range(len(dst)):
        drawn, own_words, filled = negatives[row], words[row], 0
        past, met_from, met_to = partners[low[row] : high[row]], 0, 0
        if end[row] - begin[row] > 1:  # otherwise the source meets only the destination now
            entries = indptr[src[row]], indptr[src[row] + 1]
            met_from = position_before(event_ids, entries[0], entries[1], begin[row])
            met_to = position_before(event_ids, met_from, entries[1], end[row])
        forbidden = neighbors[met_from:met_to]
        if wanted == _Wanted.STRANGER:
            _mark(blocked, past, True)
            _mark(blocked, forbidden, True)
            blocked[dst[row]] = True
            filled = _fill(drawn, candidates, own_words, blocked, False)
            _mark(blocked, past, False)
        _mark(blocked, forbidden, True)
        blocked[dst[row]] = True
        if wanted == _Wanted.PARTNER:
            filled = _fill(drawn, past, own_words, blocked, True)
            _mark(blocked, drawn[:filled], False)
        filled += _fill(drawn[filled:], candidates, own_words[filled * _NUM_ATTEMPTS :], blocked, False)
        _mark(blocked, forbidden, False)
        blocked[dst[row]] = False
        if filled < len(drawn):
            return negatives, row
    return negatives, len(dst)


@compiled
def _mark(blocked: NDArray[np.bool_], nodes: Ints, value: bool) -> None:
    for node in nodes:
        blocked[node] = value


@compiled
def _fill(
    drawn: NDArray[np.int64],
    pool: Ints,
    words: NDArray[np.uint64],
    blocked: NDArray[np.bool_],
    once: bool,
) -> int:
    """Fill ``drawn`` with permitted nodes of the pool; → number of filled slots, fewer if the pool is exhausted.

    once: drawn nodes become blocked.
    """
    for slot in range(len(drawn)):
        place = _first_hit(pool, words[slot * _NUM_ATTEMPTS : (slot + 1) * _NUM_ATTEMPTS], blocked)
        if place < 0:
            return slot + _fill_by_rank(drawn[slot:], pool, words[slot * _NUM_ATTEMPTS :], blocked, once)
        drawn[slot] = pool[place]
        if once:
            blocked[pool[place]] = True
    return len(drawn)


@compiled
def _first_hit(pool: Ints, words: NDArray[np.uint64], blocked: NDArray[np.bool_]) -> int:
    """Position in the pool of the first permitted node that a word points to; −1 if none does."""
    if len(pool) > 0:
        for word in words:
            place = bounded(word, len(pool))
            if not blocked[pool[place]]:
                return place
    return -1


@compiled
def _fill_by_rank(
    drawn: NDArray[np.int64],
    pool: Ints,
    words: NDArray[np.uint64],
    blocked: NDArray[np.bool_],
    once: bool,
) -> int:
    """As ``_fill``, by a rank among the permitted nodes, which takes one pass over the pool."""
    permitted, size = np.empty(len(pool), np.int64), 0
    for node in pool:
        if not blocked[node]:
            permitted[size] = node
            size += 1
    for slot in range(len(drawn)):
        if size == 0:
            return slot
        # The high half of the word has pointed to a blocked node; the low half is independent of it.
        rank = bounded(words[slot * _NUM_ATTEMPTS] << np.uint64(32), size)
        drawn[slot] = permitted[rank]
        if once:
            blocked[permitted[rank]] = True
            size -= 1
            permitted[rank] = permitted[size]
    return len(drawn)
