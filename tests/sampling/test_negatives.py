from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_streams import make_stream, streams

from disttgl_hpc.draws import Purpose, bounded, event_words
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import Split
from disttgl_hpc.sampling.negatives import (
    NegativeSampler,
    Strategy,
    evaluation_candidates,
    training_candidates,
)


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


def sampler(stream, seed=0, purpose=Purpose.EVALUATION_NEGATIVES, strategy=Strategy.RANDOM):
    return NegativeSampler(stream, evaluation_candidates(stream), seed, purpose, strategy)


STRATEGIES = st.sampled_from(Strategy)
PURPOSES = st.sampled_from([Purpose.TRAINING_NEGATIVES, Purpose.EVALUATION_NEGATIVES])


def distinct_times(num_events=400, num_src=50, num_dst=500):
    """A bipartite stream without equal times, so that hardly a draw collides."""
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, num_src, num_events), num_src + rng.integers(0, num_dst, num_events)
    return make_stream(src, dst, np.arange(num_events), num_src + num_dst, num_src=num_src)


@given(streams() | streams(float_times=True), st.integers(0, 2**64 - 1), PURPOSES, STRATEGIES)
@settings(max_examples=50, deadline=None)
def test_pitfall_17_no_negative_is_a_true_destination(stream, seed, purpose, strategy):
    candidates = evaluation_candidates(stream)
    if not roomy(stream, candidates):
        with pytest.raises(ConfigError, match="true destinations"):
            sampler(stream, seed).draw(0, stream.num_events, 7)
        return
    negatives = sampler(stream, seed, purpose, strategy).draw(0, stream.num_events, 7)
    assert negatives.shape == (stream.num_events, 7)
    assert negatives.dtype == np.int64
    for event in range(stream.num_events):
        assert set(negatives[event].tolist()) <= set(candidates.tolist()) - met_at_that_time(stream, event)


@given(streams(), st.integers(1, 5), PURPOSES, STRATEGIES, st.data())
@settings(max_examples=50, deadline=None)
def test_negatives_depend_neither_on_the_range_nor_on_what_was_asked_before(
    stream, count, purpose, strategy, data
):
    if not roomy(stream, evaluation_candidates(stream)):
        return
    first = data.draw(st.integers(0, stream.num_events))
    last = data.draw(st.integers(first, stream.num_events))
    drawing = sampler(stream, 0, purpose, strategy)
    whole = drawing.draw(0, stream.num_events, count, negative_set=3)
    assert np.array_equal(whole[first:last], drawing.draw(first, last, count, negative_set=3))


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
        ({}, {"negative_set": 1}),
    ],
)
def test_each_part_of_the_key_gives_other_negatives(settings_of_sampler, keys):
    stream = distinct_times()
    base = sampler(stream).draw(0, 400, 2)
    other = sampler(stream, **settings_of_sampler).draw(0, 400, 2, **keys)
    assert (base == other).mean() < 0.05


def test_a_draw_takes_the_first_of_its_four_words_that_is_permitted():
    stream = distinct_times()
    words = event_words(9, Purpose.EVALUATION_NEGATIVES, (2, 0, 0), 100, 200, words_per_event=12)
    pointed = np.array([50 + bounded(word, 500) for word in words.reshape(-1)]).reshape(200, 3, 4)
    negatives = sampler(stream, seed=9).draw(100, 300, 3, negative_set=2)
    expected = np.where(pointed[..., 0] == stream.dst[100:300, None], pointed[..., 1], pointed[..., 0])
    assert (expected != pointed[..., 0]).any()
    assert np.array_equal(negatives, expected)


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


def met_in(stream, source, events):
    """Oracle: every node that meets the source in one of ``events``."""
    met = set()
    for event in events:
        ends = int(stream.src[event]), int(stream.dst[event])
        if source in ends:
            met.add(ends[1] if ends[0] == source else ends[0])
    return met


@given(streams() | streams(float_times=True), PURPOSES, STRATEGIES, st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_a_strategy_gives_what_it_wants_and_the_rest_at_random(stream, purpose, strategy, count):
    candidates = set(evaluation_candidates(stream).tolist())
    if not roomy(stream, evaluation_candidates(stream)):
        return
    negatives = sampler(stream, 1, purpose, strategy).draw(0, stream.num_events, count)
    train_end = stream.split.train_end
    for event, drawn in enumerate(negatives.tolist()):
        source, permitted = stream.src[event], candidates - met_at_that_time(stream, event)
        past = [other for other in range(event) if stream.time[other] < stream.time[event]]
        partners = met_in(stream, source, past)
        if strategy is Strategy.INDUCTIVE and purpose is Purpose.TRAINING_NEGATIVES:
            assert set(drawn) <= (permitted - partners or permitted)
            continue
        if strategy is Strategy.INDUCTIVE:
            partners -= met_in(stream, source, range(train_end))
        wanted = set() if strategy is Strategy.RANDOM else partners - met_at_that_time(stream, event)
        leading = drawn[: len(wanted)]
        assert set(leading) <= wanted
        assert len(set(leading)) == len(leading)
        assert set(drawn) <= permitted | wanted


def test_past_partners_are_drawn_uniformly_however_often_they_met():
    """Source 0 met node 1 a thousand times and nodes 2 to 5 once; now it meets 6 at many moments."""
    past = [1] * 1_000 + [2, 3, 4, 5]
    stream = make_stream([0] * 5_004, past + [6] * 4_000, np.arange(5_004), 8, num_src=1)
    negatives = sampler(stream, strategy=Strategy.HISTORICAL).draw(1_004, 5_004, 1)
    counts = np.bincount(negatives.reshape(-1), minlength=8)
    assert counts[[0, 6, 7]].sum() == 0
    assert np.abs(counts[1:6] - 800).max() < 5 * np.sqrt(800)


def chi_square(counts, expected):
    """Pearson's statistic in standard deviations above its mean, counts (k,)."""
    freedom = len(counts) - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("permitted", "num_candidates"),
    [([1, 2, 10, 20], 20), ([3], 9), (list(range(40, 90)), 1_000), ([*range(1, 4), *range(300, 400)], 399)],
    ids=["4 of 20", "1 of 9", "50 of 1,000 in a row", "103 of 399"],
)
@pytest.mark.parametrize("strategy", [Strategy.RANDOM, Strategy.INDUCTIVE])
def test_negatives_are_uniform_where_most_candidates_are_blocked(permitted, num_candidates, strategy):
    """Source 0 meets all others, at the same time (random) or before it (inductive)."""
    blocked = np.setdiff1d(np.arange(1, num_candidates + 1), permitted)
    moments = 20_000 // len(blocked) + 1 if strategy is Strategy.RANDOM else 2
    dst = np.tile(blocked, moments)
    time = np.repeat(np.arange(moments), len(blocked))
    if strategy is Strategy.INDUCTIVE:  # all are met before, and one of them again and again
        dst, time = np.append(blocked, np.full(20_000, blocked[0])), np.arange(len(blocked) + 20_000)
    stream = make_stream(np.zeros(len(dst)), dst, time, num_candidates + 1, num_src=1)
    draws = sampler(stream, 3, Purpose.TRAINING_NEGATIVES, strategy)
    drawn = draws.draw(len(dst) - 20_000, len(dst), 2)
    for slot in drawn.T:
        counts = np.bincount(slot, minlength=num_candidates + 1)[permitted]
        assert counts.sum() == 20_000
        assert len(permitted) == 1 or chi_square(counts, 20_000 / len(permitted)) < 4


def test_the_slots_of_an_event_are_independent_where_most_candidates_are_blocked():
    stream = make_stream(
        np.zeros(20_000), np.tile(np.arange(1, 17), 1_250), np.arange(20_000) // 16, 21, num_src=1
    )
    drawn = sampler(stream).draw(0, 20_000, 2) - 17
    assert chi_square(np.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16), 20_000 / 16) < 4


@pytest.mark.parametrize("count", [2, 5, 8])
def test_past_partners_are_drawn_in_every_order_alike(count):
    """Of eight partners, two to eight are drawn without replacement: pairs of first and last are uniform."""
    stream = make_stream([0] * 20_008, [*range(1, 9), *[9] * 20_000], np.arange(20_008), 10, num_src=1)
    drawn = sampler(stream, strategy=Strategy.HISTORICAL).draw(8, 20_008, count)[1:] - 1
    ordered = np.bincount(drawn[:, 0] * 8 + drawn[:, -1], minlength=64).reshape(8, 8)
    assert ordered.trace() == 0
    assert chi_square(ordered[~np.eye(8, dtype=bool)], len(drawn) / 56) < 4
