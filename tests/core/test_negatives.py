from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_streams import make_stream, streams

from disttgl_hpc.core.draws import Purpose, bounded, event_words
from disttgl_hpc.core.negatives import (
    NegativeSampler,
    evaluation_candidates,
    training_candidates,
    true_destinations,
)
from disttgl_hpc.core.stream import Split
from disttgl_hpc.errors import ConfigError


def met_at_that_time(stream, event):
    """Oracle: every node that meets the event's source at the event's time, walking all events."""
    source, moment = stream.src[event], stream.time[event]
    met = set()
    for src, dst, time in zip(stream.src, stream.dst, stream.time, strict=True):
        if time == moment and source in (src, dst):
            met.add(int(dst if src == source else src))
    return met


def roomy(stream, candidates):
    """Whether every event leaves at least one candidate."""
    return all(
        set(candidates.tolist()) - met_at_that_time(stream, event) for event in range(stream.num_events)
    )


def sampler(stream, seed=0, purpose=Purpose.EVALUATION_NEGATIVES):
    return NegativeSampler(stream, evaluation_candidates(stream), seed, purpose)


def distinct_times(num_events=400, num_src=50, num_dst=500):
    """A bipartite stream without equal times, so that hardly a draw collides."""
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, num_src, num_events), num_src + rng.integers(0, num_dst, num_events)
    return make_stream(src, dst, np.arange(num_events), num_src + num_dst, num_src=num_src)


@given(streams() | streams(float_times=True), st.data())
@settings(max_examples=50, deadline=None)
def test_true_destinations_are_all_meetings_at_that_time(stream, data):
    first = data.draw(st.integers(0, stream.num_events))
    last = data.draw(st.integers(first, stream.num_events))
    rows, nodes = true_destinations(stream, first, last)
    found = [set(nodes[rows == row].tolist()) for row in range(last - first)]
    assert found == [met_at_that_time(stream, event) for event in range(first, last)]


@given(streams(), st.integers(0, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_pitfall_17_no_negative_is_a_true_destination(stream, seed):
    candidates = evaluation_candidates(stream)
    if not roomy(stream, candidates):
        with pytest.raises(ConfigError, match="true destinations"):
            sampler(stream, seed).draw(0, stream.num_events, 7)
        return
    negatives = sampler(stream, seed).draw(0, stream.num_events, 7)
    assert negatives.shape == (stream.num_events, 7)
    assert negatives.dtype == np.int64
    for event in range(stream.num_events):
        assert set(negatives[event].tolist()) <= set(candidates.tolist()) - met_at_that_time(stream, event)


@given(streams(), st.integers(1, 5), st.data())
@settings(max_examples=50, deadline=None)
def test_negatives_do_not_depend_on_the_range(stream, count, data):
    if not roomy(stream, evaluation_candidates(stream)):
        return
    first = data.draw(st.integers(0, stream.num_events))
    last = data.draw(st.integers(first, stream.num_events))
    keys = {"sweep": 3, "pass_index": 1, "replica": 2}
    whole = sampler(stream).draw(0, stream.num_events, count, **keys)
    assert np.array_equal(whole[first:last], sampler(stream).draw(first, last, count, **keys))


def test_pitfall_17_training_candidates_are_known_in_training():
    split = Split(3, 4)
    bipartite = make_stream([0, 1, 0, 2, 2], [4, 5, 4, 6, 7], [1, 2, 3, 4, 5], 9, num_src=4, split=split)
    assert training_candidates(bipartite).tolist() == [4, 5]
    assert evaluation_candidates(bipartite).tolist() == [4, 5, 6, 7, 8]
    one_set = replace(bipartite, num_src=0)
    assert training_candidates(one_set).tolist() == [0, 1, 4, 5]
    assert evaluation_candidates(one_set).tolist() == list(range(9))


def test_pitfall_17_negatives_are_seeded():
    stream = distinct_times()
    first, again = (sampler(stream, seed=5).draw(0, 400, 2) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize(
    ("settings_of_sampler", "keys"),
    [
        ({"seed": 1}, {}),
        ({"purpose": Purpose.TRAINING_NEGATIVES}, {}),
        ({}, {"sweep": 1}),
        ({}, {"pass_index": 1}),
        ({}, {"replica": 1}),
    ],
)
def test_each_part_of_the_key_gives_other_negatives(settings_of_sampler, keys):
    stream = distinct_times()
    base = sampler(stream).draw(0, 400, 2)
    other = sampler(stream, **settings_of_sampler).draw(0, 400, 2, **keys)
    assert (base == other).mean() < 0.05


def test_a_first_draw_that_is_permitted_stays():
    stream = distinct_times()
    words = event_words(9, Purpose.EVALUATION_NEGATIVES, (2, 4 << 32 | 3, 0), 100, 200, words_per_event=3)
    first = 50 + bounded(words, 500)
    negatives = sampler(stream, seed=9).draw(100, 300, 3, sweep=2, pass_index=3, replica=4)
    permitted = first != stream.dst[100:300, None]
    assert not permitted.all()
    assert np.array_equal(negatives == first, permitted)


def test_negatives_are_uniform_over_what_is_permitted():
    stream = make_stream([0] * 8_000, [1] * 8_000, np.arange(8_000), 11, num_src=1)
    counts = np.bincount(sampler(stream).draw(0, 8_000, 9).reshape(-1), minlength=11)
    assert counts[:2].tolist() == [0, 0]
    assert np.abs(counts[2:] - 8_000).max() < 5 * np.sqrt(8_000)


def test_the_last_permitted_candidate_is_found_when_draws_hardly_hit_it():
    destinations = np.arange(1, 1_001)
    stream = make_stream(np.zeros(999), np.delete(destinations, 436), np.zeros(999), 1_001, num_src=1)
    negatives = sampler(stream).draw(0, 999, 2)
    assert (negatives == 437).all()


def test_a_source_is_a_candidate_unless_it_meets_itself():
    stream = make_stream([0, 0], [1, 0], [1, 2], 3)
    negatives = sampler(stream).draw(0, 2, 200)
    assert set(negatives[0].tolist()) == {0, 2}
    assert set(negatives[1].tolist()) == {1, 2}


def test_the_error_names_event_and_node():
    stream = make_stream([0, 1, 0], [2, 2, 3], [1, 7, 7], 4, num_src=2)
    only_one = NegativeSampler(stream, np.array([2]), 0, Purpose.TRAINING_NEGATIVES)
    assert only_one.draw(2, 3, 4).tolist() == [[2] * 4]
    with pytest.raises(ConfigError, match=r"all 1 candidates .* node 1 at time 7 \(event 1\)"):
        only_one.draw(1, 3, 4)
