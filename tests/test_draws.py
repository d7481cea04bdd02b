import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.draws import Purpose, bounded, event_words, keep_mask, node_mask, philox_words

MASK = 2**64 - 1
WORD = st.integers(0, MASK)


def philox_block(counter, key):
    """Philox4x64-10 written out from its paper, in Python's integers."""
    for round_number in range(10):
        high = [(multiplier * counter[at]) >> 64 for multiplier, at in zip(MULTIPLIERS, (0, 2), strict=True)]
        low = [(multiplier * counter[at]) & MASK for multiplier, at in zip(MULTIPLIERS, (0, 2), strict=True)]
        keys = [(word + round_number * weyl) & MASK for word, weyl in zip(key, WEYL, strict=True)]
        counter = [high[1] ^ counter[1] ^ keys[0], low[1], high[0] ^ counter[3] ^ keys[1], low[0]]
    return counter


MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


@given(
    WORD, st.sampled_from(Purpose), st.tuples(WORD, WORD, WORD), st.integers(0, MASK - 3), st.integers(0, 3)
)
@settings(max_examples=50, deadline=None)
def test_blocks_are_philox_of_their_own_counter(seed, purpose, stream, first_block, num_blocks):
    words = philox_words(seed, purpose, stream, first_block, num_blocks)
    expected = [
        philox_block([block, *stream], [seed, purpose])
        for block in range(first_block, first_block + num_blocks)
    ]
    assert words.shape == (num_blocks, 4)
    assert words.tolist() == expected


def test_the_first_block_of_all_borrows_across_every_word():
    words = philox_words(0, Purpose.TRAINING_NEGATIVES, (0, 0, 0), 0, 2)
    assert words.tolist() == [philox_block([0, 0, 0, 0], [0, 0]), philox_block([1, 0, 0, 0], [0, 0])]


@given(st.integers(0, 10**9), st.integers(1, 9), st.integers(0, 12), st.integers(0, 12))
@settings(max_examples=50, deadline=None)
def test_an_events_words_do_not_depend_on_the_slice(first_event, words_per_event, begin, length):
    def words(first, count):
        return event_words(7, Purpose.DROPOUT, (1, 2, 3), first, count, words_per_event=words_per_event)

    whole = words(first_event, 24)
    assert whole.shape == (24, words_per_event)
    assert np.array_equal(whole[begin : begin + length], words(first_event + begin, length))


def test_events_seeds_purposes_and_streams_share_no_words():
    drawn = [
        event_words(seed, purpose, stream, first, 10, words_per_event=6)
        for seed in (0, 1, MASK)
        for purpose in Purpose
        for stream in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
        for first in (0, 10)
    ]
    words = np.concatenate([block.reshape(-1) for block in drawn])
    assert len(np.unique(words)) == len(words)


@given(WORD, st.integers(1, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_bounded_scales_the_high_half_exactly(word, bound):
    assert bounded(np.uint64(word), bound) == (word >> 32) * bound >> 32 < bound


def test_bounded_is_uniform():
    words = philox_words(3, Purpose.WEIGHTS, (0, 0, 0), 0, 25_000)
    counts = np.bincount([bounded(word, 10) for word in words.reshape(-1)], minlength=10)
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(10_000 * 0.9)


@given(st.integers(0, 10**9), st.integers(1, 30), st.integers(0, 10), st.integers(0, 10))
@settings(max_examples=50, deadline=None)
def test_dropout_does_not_depend_on_the_slice(first_event, draws_per_event, begin, length):
    def mask(first, count):
        return keep_mask(7, 1, first, count, draws_per_event=draws_per_event, rate=0.3)

    whole = mask(first_event, 20)
    assert whole.shape == (20, draws_per_event)
    assert whole.dtype == np.bool_
    assert np.array_equal(whole[begin : begin + length], mask(first_event + begin, length))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_the_share_it_should(rate):
    mask = keep_mask(7, 0, 0, 1_000, draws_per_event=101, rate=rate)
    assert abs(mask.mean() - (1 - rate)) <= 5 * np.sqrt(rate * (1 - rate) / mask.size)


def test_dropout_takes_four_draws_from_a_word_low_bits_first():
    words = event_words(7, Purpose.DROPOUT, (5, 0, 0), 11, 1, words_per_event=2)[0]
    draws = [int(word) >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
    mask = keep_mask(7, 5, 11, 1, draws_per_event=7, rate=0.25)
    assert mask[0].tolist() == [draw >= 0x4000 for draw in draws[:7]]


@pytest.mark.parametrize("other", [{"pass_number": 1}, {"seed": 1}])
def test_dropout_differs_between_passes_and_seeds(other):
    base = {"seed": 0, "pass_number": 0}
    shape = {"first_event": 0, "num_events": 50, "draws_per_event": 20, "rate": 0.5}
    assert not np.array_equal(keep_mask(**base, **shape), keep_mask(**base | other, **shape))


def test_a_nodes_mask_depends_on_seed_pass_and_batch_and_not_on_who_asks():
    nodes = np.arange(40_000)
    kept = node_mask(3, 1, 2, nodes, rate=0.3)
    assert abs(kept.mean() - 0.7) < 0.01
    assert np.array_equal(node_mask(3, 1, 2, nodes[::-7], rate=0.3), kept[::-7])
    for other in ((4, 1, 2), (3, 2, 2), (3, 1, 3)):
        differing = node_mask(*other, nodes, rate=0.3) != kept
        assert abs(differing.mean() - 2 * 0.3 * 0.7) < 0.02, "independent draws"
    neighbors = kept[1:] != kept[:-1]
    assert abs(neighbors.mean() - 2 * 0.3 * 0.7) < 0.02, "nor do numbers next to each other share a draw"
    assert node_mask(3, 1, 2, nodes, rate=0.0).all()
