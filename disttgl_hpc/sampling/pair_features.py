"""Features of a pair of nodes: whether, how often and how long ago they met, and their common neighbours.

A temporal graph network embeds source and destination separately, so it cannot see whether a candidate is
among the source's neighbours. These features encode it (as in NAT, Luo and Li 2022; DyGFormer, Yu et al.
2023; TNCN, Zhang et al. 2024). The activity of both nodes also encodes a candidate's popularity, as in
PopTrack. All features are a pure function of the T-CSR and depend only on events strictly before the query's
time, as neighbours do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.events.tcsr import Ints, TCsr, position_before

MEETINGS_WINDOW = 256
"""Meetings are searched among this many last events of the node of the two that has fewer events."""
COMMON_WINDOW = 16
"""Common neighbours are searched among this many last events of each node."""

_MEETINGS = (
    "have met",
    "events of the stream since their last meeting",
    "events of the source since their last meeting",
    "events of the candidate since their last meeting",
    "meetings",
)
_COMMON = (
    "recent events of the candidate with recent neighbours of the source",
    "recent events of the source with recent neighbours of the candidate",
)
_NODE = (
    "events",
    "events of the stream since its last event",
    "events of the stream since its 4th last event",
    "events of the stream since its 16th last event",
    "events of the stream since its 64th last event",
)
_NUM_AGES = len(_NODE) - 1
PAIR_FEATURES = (
    *_MEETINGS,
    *_COMMON,
    *(f"candidate: {name}" for name in _NODE),
    *(f"source: {name}" for name in _NODE),
)
"""Names of the features. "have met" is 0 or 1, all others are log(1 + n) / 8 of a number n of events.

Ages are counted in events, which needs no unit of time and is independent of daily rhythms.
"""
DIM_PAIR = len(PAIR_FEATURES)

_Arrays = tuple[NDArray[np.int64], Ints, Ints]  # of a T-CSR, without the times
_LOG_SCALE = np.float32(1 / 8)  # scales the logarithms to about the size of the flag


def pair_features(tcsr: TCsr, sources: Ints, candidates: Ints, bounds: Ints) -> NDArray[np.float32]:
    """Features of each source with each of its candidates → (n, c, DIM_PAIR) float32, see ``PAIR_FEATURES``.

    sources, bounds: (n,); candidates: (n, c). Only events with an id below the bound count (see
    ``neighbors.event_bounds``). Features of meetings are 0 for a pair that has not met; if a node has no 64th
    last event, the events since the beginning of the stream are counted. Pairs are unordered. "Recent" refers
    to a node's last ``COMMON_WINDOW`` events; meetings beyond ``MEETINGS_WINDOW`` are ignored.
    """
    out = np.zeros((*candidates.shape, DIM_PAIR), np.float32)
    # One memory layout, so that training and evaluation share one compiled version of the loop.
    queries = [np.ascontiguousarray(ids, np.int64) for ids in (sources, candidates, bounds)]
    _describe_all(tcsr.arrays[:3], queries[0], queries[1], queries[2], out)
    return out


@compiled
def _log(count: int) -> float:
    logarithm: float = np.log1p(np.float32(count)) * _LOG_SCALE
    return logarithm


@compiled
def _describe_all(
    tcsr: _Arrays,
    sources: NDArray[np.int64],
    candidates: NDArray[np.int64],
    bounds: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Fill all rows of ``out``; ``ours`` and ``theirs`` are the T-CSR entries of source and candidate."""
    indptr, neighbors, event_ids = tcsr
    common = len(_MEETINGS)
    candidate_node = common + len(_COMMON)
    source_node = candidate_node + len(_NODE)
    for row in range(len(sources)):
        bound = bounds[row]
        ours = _past(indptr, event_ids, sources[row], bound)
        for column in range(candidates.shape[1]):
            features = out[row, column]
            theirs = _past(indptr, event_ids, candidates[row, column], bound)
            _describe_meetings(tcsr, sources[row], candidates[row, column], ours, theirs, bound, features)
            features[common] = _log(_shared(neighbors, theirs, ours))
            features[common + 1] = _log(_shared(neighbors, ours, theirs))
            _describe_node(event_ids, theirs, bound, features[candidate_node:])
            if column == 0:
                _describe_node(event_ids, ours, bound, features[source_node:])
            else:
                features[source_node:] = out[row, 0, source_node:]


@compiled
def _past(indptr: NDArray[np.int64], event_ids: Ints, node: int, bound: int) -> tuple[int, int]:
    """Entries [begin, end) of a node before the bound."""
    return indptr[node], position_before(event_ids, indptr[node], indptr[node + 1], bound)


@compiled
def _describe_meetings(  # noqa: PLR0917
    tcsr: _Arrays,
    source: int,
    candidate: int,
    ours: tuple[int, int],
    theirs: tuple[int, int],
    bound: int,
    features: NDArray[np.float32],
) -> None:
    """The features of meetings. Both pasts include them; the shorter one is searched."""
    _, neighbors, event_ids = tcsr
    if ours[1] - ours[0] <= theirs[1] - theirs[0]:
        last, count = _meetings(neighbors, ours, candidate)
    else:
        last, count = _meetings(neighbors, theirs, source)
    if count:
        event = event_ids[last]
        features[0] = 1
        features[1] = _log(bound - event)
        features[2] = _log(ours[1] - position_before(event_ids, ours[0], ours[1], event))
        features[3] = _log(theirs[1] - position_before(event_ids, theirs[0], theirs[1], event))
        features[4] = _log(count)


@compiled
def _meetings(neighbors: Ints, past: tuple[int, int], other: int) -> tuple[int, int]:
    """The last entry with ``other`` in a past, within the window, and the number of such entries."""
    last, count = -1, 0
    for entry in range(max(past[0], past[1] - MEETINGS_WINDOW), past[1]):
        is_met = neighbors[entry] == other
        count += is_met
        last = entry if is_met else last
    return last, count


@compiled
def _shared(neighbors: Ints, past: tuple[int, int], others: tuple[int, int]) -> int:
    """Number of recent entries of a past whose neighbour is a recent neighbour of the other node."""
    recent = neighbors[max(others[0], others[1] - COMMON_WINDOW) : others[1]]
    shared = 0
    for node in neighbors[max(past[0], past[1] - COMMON_WINDOW) : past[1]]:
        times = 0  # no early exit, so that the loop can be vectorised
        for other in recent:
            times += other == node
        shared += times > 0
    return shared


@compiled
def _describe_node(event_ids: Ints, past: tuple[int, int], bound: int, features: NDArray[np.float32]) -> None:
    """Features of one node; the ages of its last events encode its rate of activity on several scales."""
    begin, end = past
    features[0] = _log(end - begin)
    for scale in range(_NUM_AGES):
        entry = end - 4**scale
        features[1 + scale] = _log(bound - event_ids[entry] if entry >= begin else bound)
