import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_streams import make_stream, streams

from disttgl_hpc.evaluation import heuristics
from disttgl_hpc.evaluation.heuristics import (
    HALF_LIVES,
    PopTrack,
    best_half_life,
    edgebank_scores,
    heuristic_scores,
    last_meetings,
    recency_scores,
    windowed_edgebank_scores,
)
from disttgl_hpc.evaluation.metrics import link_metrics
from disttgl_hpc.events.stream import Split


@st.composite
def queries(draw):
    """Stream, first and last event, candidates (n, 4) with the true destinations in column 0."""
    stream = draw(streams() | streams(float_times=True))
    first = draw(st.integers(0, stream.num_events - 1))
    last = draw(st.integers(first + 1, stream.num_events))
    seed = draw(st.integers(0, 2**32))
    negatives = np.random.default_rng(seed).integers(stream.num_src, stream.num_nodes, (last - first, 3))
    return stream, first, last, np.column_stack([stream.dst[first:last], negatives])


def walk(stream, first, last):
    """For each query the events it may see: those of strictly earlier time, as (event, src, dst, time)."""
    events = list(enumerate(zip(stream.src.tolist(), stream.dst.tolist(), stream.time.tolist(), strict=True)))
    for query in range(first, last):
        yield query, [(event, *rest) for event, rest in events if rest[2] < stream.time[query]]


def meeting_times(stream, first, last, candidates):
    """Oracle by dictionary: time of the last meeting with each candidate, None without one."""
    table = []
    for query, seen in walk(stream, first, last):
        met = {frozenset((src, dst)): time for _, src, dst, time in seen}
        source = int(stream.src[query])
        table.append([met.get(frozenset((source, node))) for node in candidates[query - first].tolist()])
    return table


@given(queries())
@settings(max_examples=50, deadline=None)
def test_edgebanks_and_recency_follow_a_dictionary_of_pairs(problem):
    stream, first, last, candidates = problem
    times = meeting_times(stream, first, last, candidates)
    meetings = last_meetings(stream, first, last, candidates)
    assert edgebank_scores(meetings).tolist() == [[float(time is not None) for time in row] for row in times]

    window = stream.time[-1] - stream.time[stream.split.validation_end]
    expected = [
        [float(time is not None and time >= now - window) for time in row]
        for row, now in zip(times, stream.time[first:last], strict=True)
    ]
    assert windowed_edgebank_scores(stream, first, meetings).tolist() == expected

    recency = recency_scores(stream, meetings)
    for scores, row in zip(recency, times, strict=True):
        as_numbers = np.array([-np.inf if time is None else time for time in row])
        assert np.array_equal(scores[:, None] > scores, as_numbers[:, None] > as_numbers)


@given(queries(), st.sampled_from([0.5, 3.0, 100.0, np.inf]))
@settings(max_examples=50, deadline=None)
def test_poptrack_follows_a_decayed_counter(problem, half_life):
    stream, first, last, candidates = problem
    scores = PopTrack.of(stream, first, last, candidates).scores(half_life)
    for query, seen in walk(stream, first, last):
        bound = len(seen)
        for score, node in zip(scores[query - first], candidates[query - first], strict=True):
            count = sum(2.0 ** ((event - bound) / half_life) for event, _, dst, _ in seen if dst == node)
            assert score == pytest.approx(math.log2(count) if count else -np.inf)


def test_poptrack_ranks_what_a_linear_counter_would_forget():
    dst = np.full(5_000, 3)
    dst[0], dst[1:3] = 1, 2
    stream = make_stream(np.zeros(5_000), dst, np.arange(5_000), 5, num_src=1)
    candidates = np.array([[3, 2, 1, 4]])
    scores = PopTrack.of(stream, 4_999, 5_000, candidates).scores(1.0)[0]
    assert scores[0] > scores[1] > scores[2] > scores[3] == -np.inf
    assert scores[2] == -4_999
    assert scores[1] == pytest.approx(math.log2(1.5) - 4_997)


@given(queries())
@settings(max_examples=25, deadline=None)
def test_pitfall_24_heuristics_see_only_what_is_strictly_earlier(problem):
    stream, first, last, candidates = problem
    before = all_scores(stream, first, last, candidates)
    hidden = int(np.searchsorted(stream.time, stream.time[last - 1]))
    dst = stream.dst.copy()
    dst[hidden:] = stream.num_nodes - 1
    rewritten = make_stream(stream.src, dst, stream.time, stream.num_nodes, num_src=stream.num_src)
    after = all_scores(rewritten, first, last, candidates)
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one, other)


def all_scores(stream, first, last, candidates):
    """Scores of all heuristics, in one list."""
    return [scores for _, scores in heuristic_scores(stream, first, last, candidates, half_life=30.0)]


@given(queries())
@settings(max_examples=25, deadline=None)
def test_chunks_do_not_show(problem):
    stream, first, last, candidates = problem
    whole = all_scores(stream, first, last, candidates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heuristics, "_CHUNK", 9)
        parts = all_scores(stream, first, last, candidates)
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one, other)


def test_recency_orders_times_that_float64_cannot_tell_apart():
    start = 2**60
    stream = make_stream([0, 0, 0], [1, 2, 1], np.array([start, start + 1, start + 2]), 3, num_src=1)
    meetings = last_meetings(stream, 2, 3, np.array([[1, 2]]))
    scores = recency_scores(stream, meetings)[0]
    assert scores[1] > scores[0]


def test_a_reply_is_a_meeting_in_a_stream_of_one_node_set():
    stream = make_stream([0, 1], [1, 0], [1, 2], 3)
    assert last_meetings(stream, 1, 2, np.array([[0, 2]])).tolist() == [[0, -1]]


def test_pitfall_24_every_heuristic_is_reported_on_the_same_candidates():
    rng = np.random.default_rng(1)
    src, dst = rng.integers(0, 5, 300), 5 + rng.integers(0, 20, 300)
    stream = make_stream(src, dst, np.arange(300), 25, num_src=5, split=Split(200, 250))
    candidates = np.column_stack([dst[250:], rng.integers(5, 25, (50, 9))])
    scores = dict(heuristic_scores(stream, 250, 300, candidates, half_life=100.0))
    assert list(scores) == ["edgebank_unlimited", "edgebank_windowed", "poptrack", "pair_recency"]
    assert {of_one.shape for of_one in scores.values()} == {candidates.shape}
    assert len({link_metrics(of_one[:, 0], of_one[:, 1:]).mrr for of_one in scores.values()}) == 4


def test_the_best_half_life_is_short_where_popularity_is_short():
    bursts = np.repeat(np.arange(1, 41), 50)
    stream = make_stream(np.zeros(2_000), bursts, np.arange(2_000), 41, num_src=1, split=Split(1_000, 1_500))
    candidates = np.column_stack([bursts[1_000:1_500], np.tile(np.arange(1, 20), (500, 1))])
    assert best_half_life(stream, 1_000, 1_500, candidates) == HALF_LIVES[0]


def test_the_best_half_life_is_endless_where_popularity_does_not_change():
    shares = np.random.default_rng(2).zipf(1.5, 4_000) % 30 + 1
    stream = make_stream(np.zeros(4_000), shares, np.arange(4_000), 31, num_src=1, split=Split(2_000, 3_000))
    negatives = np.random.default_rng(3).integers(1, 31, (1_000, 9))
    assert best_half_life(stream, 2_000, 3_000, np.column_stack([shares[2_000:3_000], negatives])) >= 1_000
